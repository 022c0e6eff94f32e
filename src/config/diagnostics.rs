//! Mistakes as users see them: each with its place, key path, line, reason and hint.

pub use super::findings::Severity;
use super::findings::{At, Finding, Findings};
use super::source::{Place, Source};
use super::text::is_invisible;
use super::tree::{Paths, Tree};

/// Longest part of a line that is shown, in characters.
const WINDOW: usize = 120;

/// One mistake in a file. Holds what is written there, never what a variable holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A short and stable name, such as `unknown-key`.
    pub code: &'static str,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Column after the last character that is meant.
    pub end_column: usize,
    /// The keys to it, such as `listeners.inbound.routes[2].timeouts.response`; empty where there is none.
    pub path: String,
    /// What is wrong, without a full stop.
    pub reason: String,
    /// What to do.
    pub hint: Option<String>,
    /// Another place that explains this one.
    pub related: Option<Related>,
    /// The line's text, where it is long only the part around the column.
    pub snippet: Snippet,
}

/// Another place that explains a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is there.
    pub what: &'static str,
}

/// A part of a line, safe to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The text; control characters are replaced.
    pub text: String,
    /// Where the mark begins in `text`, in characters from 0.
    pub mark: usize,
    /// How many characters are marked, at least one.
    pub length: usize,
}

/// All mistakes of one file in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// The file's name, as it was asked for.
    pub file: String,
    /// The mistakes.
    pub list: Vec<Diagnostic>,
    /// How many more there are.
    pub omitted: usize,
}

impl Diagnostics {
    /// True where the same text may do another time: all that is wrong is what surrounds it.
    pub(crate) fn may_pass(&self) -> bool {
        let mut errors = self.list.iter().filter(|found| found.severity == Severity::Error);
        self.omitted == 0 && errors.all(|error| error.code == "missing-file")
    }

    pub(crate) fn new(file: &str, findings: Findings, source: &Source<'_>, tree: Option<&Tree>) -> Self {
        let (findings, omitted) = findings.into_parts();
        let paths = tree.filter(|_| !findings.is_empty()).map(Paths::of);
        let mut list: Vec<Diagnostic> =
            findings.into_iter().map(|finding| place(finding, source, paths.as_ref())).collect();
        list.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        Diagnostics { file: file.to_owned(), list, omitted }
    }

    /// True where nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many errors were found.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error) + self.omitted
    }

    /// How many warnings were found.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    /// The same with every warning made an error.
    #[must_use]
    pub fn strict(mut self) -> Self {
        for diagnostic in &mut self.list {
            diagnostic.severity = Severity::Error;
        }
        self
    }

    fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }
}

fn place(finding: Finding, source: &Source<'_>, paths: Option<&Paths<'_>>) -> Diagnostic {
    let nowhere = Place { line: 1, column: 1, end: 2 };
    let (place, path) = match (finding.at, paths) {
        (At::Place(place), _) => (place, finding.path.unwrap_or_default()),
        (At::Node(node), Some(paths)) => (paths.place(node), paths.path(node)),
        (At::Node(_), None) => (nowhere, String::new()),
    };
    let related = finding.related.zip(paths).map(|((node, what), paths)| {
        let place = paths.place(node);
        Related { line: place.line, column: place.column, what }
    });
    Diagnostic {
        severity: finding.severity,
        code: finding.code,
        line: place.line,
        column: place.column,
        end_column: place.end,
        path,
        reason: finding.reason,
        hint: finding.hint,
        related,
        snippet: snippet(source.line(place.line), place),
    }
}

fn snippet(line: &str, place: Place) -> Snippet {
    let before = place.column - 1;
    // A third of the window stands before the mark.
    let skipped = if before > WINDOW * 2 / 3 { before - WINDOW / 3 } else { 0 };
    let mut rest = line.chars().skip(skipped);
    let mut text = String::new();
    let mut mark = before - skipped;
    if skipped > 0 {
        text.push('…');
        mark += 1;
    }
    text.extend(rest.by_ref().take(WINDOW).map(|character| match character {
        '\t' => ' ',
        character if character.is_control() || is_invisible(character) => '\u{fffd}',
        character => character,
    }));
    let shown = text.chars().count();
    if rest.next().is_some() {
        text.push('…');
    }
    let text = text.trim_end().to_owned();
    let length = (place.end - place.column).min(shown.saturating_sub(mark)).max(1);
    Snippet { text, mark, length }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let line = format!("{}here{}", "a".repeat(1000), "b".repeat(1000));
        let snippet = snippet(&line, Place { line: 1, column: 1001, end: 1005 });
        let marked: String = snippet.text.chars().skip(snippet.mark).take(snippet.length).collect();
        assert_eq!(marked, "here");
        assert!(snippet.text.chars().count() <= WINDOW + 2);
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        let snippet = snippet("a\u{1b}[2J\tb", Place { line: 1, column: 1, end: 2 });
        assert_eq!(snippet.text, "a\u{fffd}[2J b");
    }
}
