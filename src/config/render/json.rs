//! One JSON object.

use serde_json::json;

use crate::config::diagnostics::{Diagnostic, Diagnostics, Severity};

pub(super) fn render(diagnostics: &Diagnostics) -> String {
    let list: Vec<_> = diagnostics.list.iter().map(one).collect();
    let document = json!({
        "file": diagnostics.file,
        "ok": diagnostics.errors() == 0,
        "errors": diagnostics.errors(),
        "warnings": diagnostics.warnings(),
        "omitted": diagnostics.omitted,
        "diagnostics": list,
    });
    format!("{document:#}\n")
}

fn one(diagnostic: &Diagnostic) -> serde_json::Value {
    json!({
        "severity": match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "code": diagnostic.code,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "end_column": diagnostic.end_column,
        "key": diagnostic.path,
        "reason": diagnostic.reason,
        "hint": diagnostic.hint,
        "related": diagnostic.related.as_ref().map(|related| json!({ "line": related.line, "column": related.column, "what": related.what })),
        "source": diagnostic.snippet.text,
    })
}
