//! For people.

use std::fmt::Write;

use crate::config::diagnostics::{Diagnostic, Diagnostics, Severity};

pub(super) fn render(diagnostics: &Diagnostics, colours: bool) -> String {
    let paint = Paint { colours };
    let mut out = String::new();
    for diagnostic in &diagnostics.list {
        // Writing to a string cannot fail.
        let _ = one(&mut out, &diagnostics.file, diagnostic, paint);
    }
    let _ = summary(&mut out, diagnostics, paint);
    out
}

fn one(out: &mut String, file: &str, diagnostic: &Diagnostic, paint: Paint) -> std::fmt::Result {
    let (word, colour) = match diagnostic.severity {
        Severity::Error => ("error", Colour::Red),
        Severity::Warning => ("warning", Colour::Yellow),
    };
    let number = diagnostic.line.to_string();
    let margin = " ".repeat(number.len());
    let bar = paint.with("|", Colour::Blue);
    writeln!(
        out,
        "{}: {}",
        paint.with(&format!("{word}[{}]", diagnostic.code), colour),
        paint.with(&diagnostic.reason, Colour::Bold)
    )?;
    writeln!(out, "{margin}{} {file}:{}:{}", paint.with("-->", Colour::Blue), diagnostic.line, diagnostic.column)?;
    let snippet = &diagnostic.snippet;
    if !snippet.text.is_empty() {
        writeln!(out, "{margin} {bar}")?;
        writeln!(out, "{} {bar} {}", paint.with(&number, Colour::Blue), snippet.text)?;
        let mark = format!("{}{}", " ".repeat(snippet.mark), paint.with(&"^".repeat(snippet.length), colour));
        writeln!(out, "{margin} {bar} {mark}")?;
    }
    let mut note = |name: &str, text: &str| {
        writeln!(
            out,
            "{margin} {} {} {text}",
            paint.with("=", Colour::Blue),
            paint.with(&format!("{name}:"), Colour::Bold)
        )
    };
    if !diagnostic.path.is_empty() {
        note("key", &diagnostic.path)?;
    }
    if let Some(related) = &diagnostic.related {
        note("note", &format!("{} is at {file}:{}:{}", related.what, related.line, related.column))?;
    }
    if let Some(hint) = &diagnostic.hint {
        note("hint", hint)?;
    }
    writeln!(out)
}

fn summary(out: &mut String, diagnostics: &Diagnostics, paint: Paint) -> std::fmt::Result {
    let (errors, warnings) = (diagnostics.errors(), diagnostics.warnings());
    if errors + warnings == 0 {
        return Ok(());
    }
    let counted = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    let mut parts = Vec::new();
    if errors > 0 {
        parts.push(paint.with(&counted(errors, "error"), Colour::Red));
    }
    if warnings > 0 {
        parts.push(paint.with(&counted(warnings, "warning"), Colour::Yellow));
    }
    let hidden =
        if diagnostics.omitted > 0 { format!(" ({} more not shown)", diagnostics.omitted) } else { String::new() };
    writeln!(out, "{}: {}{hidden}", diagnostics.file, parts.join(", "))
}

#[derive(Clone, Copy)]
struct Paint {
    colours: bool,
}

#[derive(Clone, Copy)]
enum Colour {
    Red,
    Yellow,
    Blue,
    Bold,
}

impl Paint {
    fn with(self, text: &str, colour: Colour) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Red => "1;31",
            Colour::Yellow => "1;33",
            Colour::Blue => "1;34",
            Colour::Bold => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
