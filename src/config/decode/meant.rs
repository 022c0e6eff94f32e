//! What was probably meant where a value has another form than its key: hints that show the right one.

use crate::config::text::quote;
use crate::config::tree::{Kind, NodeId, Tree};

/// A hint where a mapping (or a certain word) is due at `key`, and this scalar is there.
pub(super) fn mapping(key: &str, written: &str) -> Option<String> {
    match (inner(key, written), key) {
        (Some(inner), _) => Some(format!("did you mean {}?", quote(&format!("{{ {inner}: {} }}", flow(written))))),
        (None, "health") if matches!(written, "true" | "tcp") => Some("did you mean `{ tcp: true }`?".to_owned()),
        (None, "tls") if matches!(written, "true" | "yes" | "on") => {
            Some("write those that are wanted; an upstream needs none, and has TLS by `tls: {}`".to_owned())
        }
        (None, "circuit_breaker" | "ejection" | "probation") if !matches!(written, "false" | "no" | "off") => {
            Some(format!("write {} to have one, or `none`", quote(&format!("{key}: {{}}"))))
        }
        _ => None,
    }
}

/// The key of the mapping at `key` that takes such a value.
fn inner(key: &str, written: &str) -> Option<&'static str> {
    let is_number = is_number(written);
    let is_path = written.starts_with('/');
    let is_time = written.starts_with(|character: char| character.is_ascii_digit());
    let is_flag = matches!(written, "true" | "false" | "yes" | "no" | "on" | "off");
    Some(match key {
        "retries" | "concurrency" if is_number => "max",
        "rate_limit" if is_number => "per_second",
        "trust" if is_number => "hops",
        "respond" if is_number => "status",
        "fault" if is_number => "abort",
        "drain" if is_time => "timeout",
        "timeouts" if is_time => "response",
        "probation" if is_time => "for",
        "health" if is_path => "http",
        "match" | "redirect" if is_path => "path",
        "rewrite" if is_path => "path_prefix",
        "log" if matches!(written, "json" | "text") => "format",
        _ if is_flag => return None,
        "log" => "level",
        "access_log" if matches!(written, "all" | "errors") => "only",
        "access_log" => "path",
        "traces" => "otlp",
        "admin" | "consul" => "address",
        "register" => "name",
        "match" => "host",
        "mirror" => "upstream",
        "ring_hash" | "maglev" => "header",
        _ => return None,
    })
}

/// A hint where a list is due, and this is there.
pub(super) fn list(tree: &Tree, node: NodeId) -> Option<String> {
    match &tree.node(node).kind {
        Kind::Scalar(scalar) => Some(format!("did you mean {}?", quote(&format!("[{}]", flow(&scalar.written))))),
        Kind::Mapping(_) => Some("put it into a list: `- ` before its first key, or `[` and `]` around it".to_owned()),
        Kind::Sequence(_) => None,
    }
}

/// A hint where names are keys, and this list is there.
pub(super) fn named(key: &str) -> Option<String> {
    matches!(key, "listeners" | "upstreams").then(|| "names are keys here: write `NAME:` in place of `- `".to_owned())
}

/// As people call it.
pub(super) fn form(kind: &Kind) -> &'static str {
    match kind {
        Kind::Scalar(scalar) if is_number(&scalar.written) => "a number",
        Kind::Scalar(_) => "a text",
        Kind::Sequence(_) => "a list",
        Kind::Mapping(_) => "a mapping",
    }
}

fn is_number(written: &str) -> bool {
    written.starts_with(|character: char| character.is_ascii_digit() || character == '-')
        && written.parse::<f64>().is_ok()
}

/// As it has to be written between brackets.
fn flow(written: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '/');
    if !written.is_empty() && written.chars().all(|character| is_plain(character) || character == '-') {
        written.to_owned()
    } else {
        format!("\"{}\"", written.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_that_are_not_there_have_long_ones() {
        for (key, written, hint) in [
            ("retries", "3", "`{ max: 3 }`"),
            ("rate_limit", "100", "`{ per_second: 100 }`"),
            ("access_log", "all", "`{ only: all }`"),
            ("access_log", "/var/log/a", "`{ path: /var/log/a }`"),
            ("log", "debug", "`{ level: debug }`"),
            ("traces", "http://a:4317", "`{ otlp: \"http://a:4317\" }`"),
            ("admin", "0.0.0.0:9901", "`{ address: \"0.0.0.0:9901\" }`"),
            ("drain", "5", "`{ timeout: 5 }`"),
            ("circuit_breaker", "true", "`circuit_breaker: {}`"),
            ("probation", "30s", "`{ for: 30s }`"),
            ("health", "/healthz", "`{ http: /healthz }`"),
            ("health", "true", "`{ tcp: true }`"),
            ("ring_hash", "x-user", "`{ header: x-user }`"),
        ] {
            let found = mapping(key, written).unwrap_or_default();
            assert!(found.contains(hint), "{key}: {written}: {found}");
        }
        for (key, written) in [("retries", "true"), ("retries", "some"), ("limits", "5"), ("log", "true")] {
            assert_eq!(mapping(key, written), None, "{key}: {written}");
        }
    }
}
