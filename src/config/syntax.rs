//! What the YAML parser says, for a person.

use saphyr_parser::ScanError;

use super::findings::Finding;
use super::source::{Place, Source};
use super::tree::MAX_DEPTH;

/// What the parser says inside brackets that are not closed where they should be.
const NOT_CLOSED: [&str; 2] = ["invalid indentation", "expected ',' or"];

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
    let about_brackets = NOT_CLOSED.iter().any(|part| message.contains(part));
    let opened = about_brackets.then(|| open_bracket(source, line, column)).flatten();
    if let Some((bracket, at)) = opened {
        let closing = if bracket == '{' { '}' } else { ']' };
        let variable = source.line(at.line).chars().nth(at.column.wrapping_sub(2)) == Some('$');
        let hint = match variable {
            true => "put `${…}` into quotes: within `{ }` and `[ ]`, its braces are taken for a mapping".to_owned(),
            false => format!("close it with `{closing}`, or check the commas since"),
        };
        let reason = format!("the `{bracket}` at line {}, column {} is still open here", at.line, at.column);
        return Finding::error("syntax", place, reason).hint(hint);
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
        _ if message.contains("expected ',' or") => {
            ("a `{…}` or `[…]` is not closed, or a comma is missing", Some("check the brackets and commas"))
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

/// The innermost bracket that is open at a place, and where it stands. Brackets count where a value can begin, or within
/// other brackets; neither in quotes nor in comments.
fn open_bracket(source: &Source<'_>, line: usize, column: usize) -> Option<(char, Place)> {
    let mut open: Vec<(char, Place)> = Vec::new();
    let (mut quote, mut before) = (None, ' ');
    for number in 1..=line {
        let until = if number == line { column - 1 } else { usize::MAX };
        let mut characters = source.line(number).chars().enumerate().take(until).peekable();
        let mut value_can_begin = true;
        while let Some((index, character)) = characters.next() {
            match (quote, character) {
                (Some('"'), '\\') => {
                    characters.next();
                }
                (Some(mark), _) if mark == character => quote = None,
                (Some(_), _) => {}
                (None, '#') if index == 0 || before.is_whitespace() => break,
                (None, '"' | '\'') if value_can_begin => quote = Some(character),
                (None, '{' | '[') if value_can_begin || !open.is_empty() => {
                    let place = Place { line: number, column: index + 1, end: index + 2 };
                    open.push((character, place));
                }
                (None, '}' | ']') => {
                    open.pop();
                }
                _ => {}
            }
            before = character;
            value_can_begin = match character {
                _ if character.is_whitespace() => value_can_begin,
                ':' => characters.peek().is_none_or(|(_, next)| next.is_whitespace()),
                '-' => value_can_begin && characters.peek().is_some_and(|(_, next)| next.is_whitespace()),
                ',' | '{' | '[' => !open.is_empty(),
                _ => false,
            };
        }
        before = ' ';
    }
    open.pop()
}

/// The column of a tab within the indentation.
fn leading_tab(line: &str) -> Option<usize> {
    line.chars()
        .take_while(|character| matches!(character, ' ' | '\t'))
        .position(|character| character == '\t')
        .map(|index| index + 1)
}
