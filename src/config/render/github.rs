//! Commands of GitHub's workflows.

use crate::config::diagnostics::{Diagnostics, Severity};

pub(super) fn render(diagnostics: &Diagnostics) -> String {
    let file = property(&diagnostics.file);
    let mut out = String::new();
    for diagnostic in &diagnostics.list {
        let command = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut message = diagnostic.reason.clone();
        if !diagnostic.path.is_empty() {
            message.push_str(&format!("\nkey: {}", diagnostic.path));
        }
        if let Some(hint) = &diagnostic.hint {
            message.push_str(&format!("\nhint: {hint}"));
        }
        out.push_str(&format!(
            "::{command} file={file},line={},col={},endColumn={},title={}::{}\n",
            diagnostic.line,
            diagnostic.column,
            diagnostic.end_column,
            diagnostic.code,
            data(&message)
        ));
    }
    if diagnostics.omitted > 0 {
        out.push_str(&format!("::error file={file}::{} more mistakes are not shown\n", diagnostics.omitted));
    }
    out
}

/// Escapes as GitHub's own toolkit does (`@actions/core`, command.ts).
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
