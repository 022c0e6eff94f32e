//! What the YAML parser says, for a person.

use saphyr_parser::ScanError;

use super::findings::Finding;
use super::source::{Place, Source};
use super::tree::MAX_DEPTH;

/// The finding for a text that is not YAML.
pub(crate) fn explain(error: &ScanError, source: &Source<'_>) -> Finding {
    let marker = error.marker();
    let line = marker.line().clamp(1, source.line_count());
    let text = source.line(line);
    let column = (marker.col() + 1).min(text.chars().count() + 1);
    let place = Place { line, column, end: column + 1 };
    let message = error.info();
    if let Some(tab) = leading_tab(text) {
        let place = Place { line, column: tab, end: tab + 1 };
        return Finding::error("syntax", place, "a tab cannot indent a line of YAML").hint("indent with spaces");
    }
    if message.contains("recursion limit") {
        return Finding::error("too-deep", place, format!("nested more than {MAX_DEPTH} levels deep"));
    }
    let (reason, hint) = match message {
        _ if message.contains("invalid indentation") => {
            ("this line is not indented far enough for what it continues", Some("a `{` or `[` above may not be closed"))
        }
        _ if message.contains("unknown anchor") => {
            ("this alias has no anchor", Some("define it first with `&name`; text that begins with `*` needs quotes"))
        }
        _ if message.contains("mapping values are not allowed") => (
            "a second `: ` in one line, or a line that is indented wrongly",
            Some("put text that holds `: ` into quotes, and align the keys of a mapping"),
        ),
        _ if message.contains("did not find expected ',' or '}'")
            || message.contains("did not find expected ',' or ']'") =>
        {
            (
                "a `{…}` or `[…]` is not closed, or a comma is missing",
                Some("check the brackets and commas from where it begins"),
            )
        }
        _ if message.contains("did not find expected <document start>")
            || message.contains("did not find expected key") =>
        {
            (
                "this line is not indented like the ones that it belongs to",
                Some("align the keys of a mapping in one column"),
            )
        }
        _ if message.contains("cannot start any token") => {
            ("this character cannot begin a value", Some("put the value into quotes"))
        }
        _ if message.contains("unexpected end of stream")
            || message.contains("unclosed")
            || message.contains("unexpected eof") =>
        {
            ("something that begins here is not closed", Some("check quotes and brackets"))
        }
        _ => return Finding::error("syntax", place, format!("this is not YAML: {message}")),
    };
    Finding::error("syntax", place, reason).maybe_hint(hint.map(str::to_owned))
}

/// The column of a tab within the indentation.
fn leading_tab(line: &str) -> Option<usize> {
    line.chars()
        .take_while(|character| matches!(character, ' ' | '\t'))
        .position(|character| character == '\t')
        .map(|index| index + 1)
}
