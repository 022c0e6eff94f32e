//! SARIF 2.1.0 (OASIS), as code scanners take it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::config::diagnostics::{Diagnostic, Diagnostics, Severity};

pub(super) fn render(diagnostics: &Diagnostics) -> String {
    let codes: BTreeSet<&str> = diagnostics.list.iter().map(|diagnostic| diagnostic.code).collect();
    let rules: Vec<Value> = codes.iter().map(|code| json!({ "id": code })).collect();
    let results: Vec<Value> = diagnostics.list.iter().map(|diagnostic| result(&diagnostics.file, diagnostic)).collect();
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "outrigger", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            // Columns count characters, not units of UTF-16.
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{document:#}\n")
}

fn result(file: &str, diagnostic: &Diagnostic) -> Value {
    let location = |line: usize, column: usize, end: Option<usize>| {
        let mut region = json!({ "startLine": line, "startColumn": column });
        if let Some(end) = end {
            region["endColumn"] = end.into();
        }
        json!({ "artifactLocation": { "uri": uri(file) }, "region": region })
    };
    let text = match &diagnostic.hint {
        Some(hint) => format!("{}. Hint: {hint}", diagnostic.reason),
        None => diagnostic.reason.clone(),
    };
    let mut place =
        json!({ "physicalLocation": location(diagnostic.line, diagnostic.column, Some(diagnostic.end_column)) });
    if !diagnostic.path.is_empty() {
        place["logicalLocations"] = json!([{ "fullyQualifiedName": diagnostic.path }]);
    }
    let mut result = json!({
        "ruleId": diagnostic.code,
        "level": match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "message": { "text": text },
        "locations": [place],
    });
    if let Some(related) = &diagnostic.related {
        result["relatedLocations"] = json!([{
            "physicalLocation": location(related.line, related.column, None),
            "message": { "text": related.what },
        }]);
    }
    result
}

/// A path as a URI reference (RFC 3986).
fn uri(path: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(path, KEPT).to_string()
}
