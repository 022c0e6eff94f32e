//! What is wrong with a configuration from flags, in terms of the flags: nobody has written the text that they stand for.

use std::io::Write;

use crate::config::diagnostics::{Diagnostic, Diagnostics, Severity};

/// A line for each.
pub(super) fn tell(diagnostics: &Diagnostics, output: &mut dyn Write) {
    for diagnostic in &diagnostics.list {
        // There is nobody else to tell.
        let _ = writeln!(output, "{}", line(diagnostic));
    }
}

fn line(diagnostic: &Diagnostic) -> String {
    let word = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let flag = match diagnostic.path.rsplit('.').next() {
        Some("upstream") => "--upstream: ",
        Some("address") if diagnostic.path.starts_with("admin") => "--admin: ",
        Some("address") => "--listen: ",
        _ => "",
    };
    let hint = diagnostic.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{word}: {flag}{}{hint}", diagnostic.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Document, LoadOptions, flags, load};

    #[test]
    fn flags_are_named_and_not_what_stands_for_them() {
        let text = flags::text(&["9:x".to_owned()], "dns://localhost:1", Some("here"));
        let document = Document { name: "flags", bytes: text.as_bytes() };
        let wrong = load(document, &|_: &str| None, &LoadOptions::default()).unwrap_err();
        let mut told = Vec::new();
        tell(&wrong, &mut told);
        let told = String::from_utf8(told).unwrap();
        let flags: Vec<_> = told.lines().map(|line| line.split(": ").nth(1).unwrap()).collect();
        assert_eq!(flags, ["--admin", "--listen", "--upstream"], "{told}");
        assert!(!told.contains("flags:") && told.contains("localhost"), "{told}");
    }
}
