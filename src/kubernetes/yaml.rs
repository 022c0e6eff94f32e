//! Documents as nodes that know which bytes of the text they are.
//!
//! Manifests are edited in place: comments, order, quotes and anchors of what is not ours stay as somebody wrote them.
//! So a node says where it begins and ends, and whether it is written in block or flow style.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Deepest nesting. Kubernetes' own objects stay below 20.
const MAX_DEPTH: usize = 64;

/// Why a text is no YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct SyntaxError {
    /// Counted from 1.
    pub line: usize,
    /// What the parser said.
    pub message: String,
}

/// A piece of YAML. Offsets are bytes of the text.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// The first byte, of an anchor or tag where there is one.
    pub(super) start: usize,
    /// The byte after the last; white space and comments that follow do not belong to it.
    pub(super) end: usize,
    /// Characters before it on its line.
    pub(super) column: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Scalar {
        value: String,
        plain: bool,
    },
    Mapping {
        entries: Vec<(Node, Node)>,
        flow: bool,
    },
    Sequence {
        items: Vec<Node>,
        flow: bool,
    },
    /// Stands for something that is written elsewhere.
    Alias,
}

impl Node {
    pub(super) fn entries(&self) -> &[(Node, Node)] {
        match &self.kind {
            Kind::Mapping { entries, .. } => entries,
            _ => &[],
        }
    }

    pub(super) fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Sequence { items, .. } => items,
            _ => &[],
        }
    }

    /// The value of a key, where this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(known, _)| known.text() == Some(key)).map(|(_, value)| value)
    }

    /// The value at the end of several keys.
    pub(super) fn at(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// A scalar without its quotes.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The text at a key.
    pub(super) fn text_at(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Node::text)
    }

    /// A word that YAML 1.1 takes for true, as what reads manifests for a cluster does.
    pub(super) fn is_true(&self) -> bool {
        const WORDS: [&str; 11] = ["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"];
        matches!(&self.kind, Kind::Scalar { value, plain: true } if WORDS.contains(&value.as_str()))
    }

    /// Nothing, or a collection without anything in it.
    pub(super) fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Scalar { value, plain } => *plain && matches!(value.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            Kind::Mapping { entries, .. } => entries.is_empty(),
            Kind::Sequence { items, .. } => items.is_empty(),
            Kind::Alias => false,
        }
    }
}

/// A document of a stream.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) root: Node,
    /// The first byte: of `---` where it is written.
    pub(super) start: usize,
    /// Where the next document begins, or the text ends.
    pub(super) end: usize,
}

/// Reads a stream of documents. Empty ones are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let (readable, offsets) =
        if text.contains("\\u") { with_pairs_joined(text) } else { (Cow::Borrowed(text), Offsets::new(text)) };
    let mut reader = Reader { text, offsets, stack: Vec::new(), documents: Vec::new(), start: 0 };
    let mut parser = Parser::new_from_str(&readable);
    while let Some(event) = parser.next_event() {
        let (event, span) =
            event.map_err(|error| SyntaxError { line: error.marker().line(), message: error.info().to_owned() })?;
        reader.take(event, span)?;
    }
    let mut end = text.len();
    for document in reader.documents.iter_mut().rev() {
        document.end = end;
        end = document.start;
    }
    reader.documents.retain(|document| !document.root.is_empty());
    Ok(reader.documents)
}

/// What the parser can read: JSON writes what is beyond 16 bits as two escapes (RFC 8259, section 7), and YAML does not.
fn with_pairs_joined(text: &str) -> (Cow<'_, str>, Offsets) {
    let (mut readable, mut offsets, mut at) = (String::with_capacity(text.len()), Vec::new(), 0);
    while let Some(letter) = text[at..].chars().next() {
        let rest = &text[at..];
        let (letter, length) = pair(rest).map_or((letter, letter.len_utf8()), |letter| (letter, PAIR));
        readable.push(letter);
        offsets.push(at);
        at += length;
        // What an escaped backslash comes before is no escape.
        if rest.starts_with("\\\\") {
            readable.push('\\');
            offsets.push(at);
            at += 1;
        }
    }
    offsets.push(at);
    (Cow::Owned(readable), Offsets(Some(offsets)))
}

/// Bytes of two escapes, as in `\ud83e\udd80`.
const PAIR: usize = 12;

/// The character that two escapes stand for.
fn pair(text: &str) -> Option<char> {
    let unit = |at| u16::from_str_radix(text.get(at..at + PAIR / 2)?.strip_prefix("\\u")?, 16).ok();
    let letter = char::decode_utf16([unit(0)?, unit(PAIR / 2)?]).next()?.ok()?;
    (letter > '\u{ffff}').then_some(letter)
}

/// Characters to bytes: the parser counts the former.
struct Offsets(Option<Vec<usize>>);

impl Offsets {
    fn new(text: &str) -> Self {
        Offsets((!text.is_ascii()).then(|| text.char_indices().map(|(offset, _)| offset).chain([text.len()]).collect()))
    }

    fn byte(&self, character: usize) -> usize {
        match &self.0 {
            None => character,
            Some(offsets) => offsets.get(character).or(offsets.last()).copied().unwrap_or_default(),
        }
    }
}

struct Open {
    mapping: bool,
    start: usize,
    column: usize,
    nodes: Vec<Node>,
}

struct Reader<'t> {
    text: &'t str,
    offsets: Offsets,
    stack: Vec<Open>,
    documents: Vec<Document>,
    /// Of the document that is being read.
    start: usize,
}

impl Reader<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let (start, end) = (self.offsets.byte(span.start.index()), self.offsets.byte(span.end.index()));
        let column = span.start.col();
        match event {
            Event::DocumentStart(explicit) => {
                // What stands before the first document belongs to it.
                self.start = if self.documents.is_empty() && !explicit { 0 } else { start };
            }
            Event::Alias(_) => self.add(Node { kind: Kind::Alias, start, end, column }),
            Event::Scalar(value, style, _, _) => {
                // The span of all but plain ones reaches to whatever comes next.
                let end = match style {
                    ScalarStyle::SingleQuoted => self.after_quote(start, '\''),
                    ScalarStyle::DoubleQuoted => self.after_quote(start, '"'),
                    _ => start + self.text[start..end].trim_end().len(),
                };
                let kind = Kind::Scalar { value: value.into_owned(), plain: style == ScalarStyle::Plain };
                self.add(Node { kind, start, end, column });
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if self.stack.len() == MAX_DEPTH {
                    let message = format!("nested more than {MAX_DEPTH} levels deep");
                    return Err(SyntaxError { line: span.start.line(), message });
                }
                let mapping = matches!(event, Event::MappingStart(..));
                self.stack.push(Open { mapping, start, column, nodes: Vec::new() });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.stack.pop() else { return Ok(()) };
                // The end of a block collection is where something else begins, and is itself nothing.
                let flow = end > start;
                let last = open.nodes.iter().map(|node| node.end).max();
                let end = if flow { start + 1 } else { last.unwrap_or(open.start) };
                let kind = if open.mapping {
                    let mut entries = Vec::with_capacity(open.nodes.len() / 2);
                    let mut nodes = open.nodes.into_iter();
                    while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
                        entries.push((key, value));
                    }
                    Kind::Mapping { entries, flow }
                } else {
                    Kind::Sequence { items: open.nodes, flow }
                };
                self.add(Node { kind, start: open.start, end, column: open.column });
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    /// The place after the closing quote of a scalar that begins here, with its anchor and tag.
    fn after_quote(&self, start: usize, quote: char) -> usize {
        let mut letters =
            self.text[start..].char_indices().skip_while(|(_, letter)| *letter != quote).skip(1).peekable();
        while let Some((offset, letter)) = letters.next() {
            let next = letters.peek().map(|(_, next)| *next);
            if letter == '\\' && quote == '"' || letter == quote && quote == '\'' && next == Some(quote) {
                letters.next();
            } else if letter == quote {
                return start + offset + 1;
            }
        }
        self.text.len()
    }

    fn add(&mut self, node: Node) {
        match self.stack.last_mut() {
            Some(open) => open.nodes.push(node),
            None => self.documents.push(Document { start: self.start, end: 0, root: node }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_the_bytes_that_they_say() {
        let text = "# ä\na: { b: [1, \"ü\"] } # c\nq: 'it''s'   # c\nr: &r \"\\\"\" # c\nd:\n- |\n  x\n\n- e: f\ng:\n";
        let [document] = parse(text).unwrap().try_into().unwrap();
        let root = &document.root;
        let piece = |node: &Node| &text[node.start..node.end];
        assert_eq!(piece(root.get("a").unwrap()), "{ b: [1, \"ü\"] }");
        assert_eq!(piece(root.at(&["a", "b"]).unwrap()), "[1, \"ü\"]");
        assert_eq!(piece(&root.at(&["a", "b"]).unwrap().items()[1]), "\"ü\"");
        assert_eq!(piece(root.get("q").unwrap()), "'it''s'");
        assert_eq!(piece(root.get("r").unwrap()), "&r \"\\\"\"");
        assert_eq!(piece(&root.get("d").unwrap().items()[0]), "|\n  x".trim_start_matches("|\n  "));
        assert_eq!(piece(root.at(&["d"]).unwrap().items()[1].get("e").unwrap()), "f");
        assert!(root.get("g").unwrap().is_empty());
    }

    #[test]
    fn what_json_escapes_in_two_is_read() {
        let text = r#"{ "a": "\ud83e\udd80é \\ud83e\\udd80 \u00e9", "b": "c" }"#;
        let [document] = parse(text).unwrap().try_into().unwrap();
        assert_eq!(document.root.text_at("a"), Some("\u{1f980}é \\ud83e\\udd80 é"));
        let b = document.root.get("b").unwrap();
        assert_eq!(&text[b.start..b.end], "\"c\"");
        assert!(parse(r#"{ "a": "\ud83e" }"#).is_err());
    }

    #[test]
    fn documents_have_borders() {
        let text = "# first\na: 1\n---\n# nothing\n---\nb: 2\n...\n";
        let documents = parse(text).unwrap();
        let pieces: Vec<&str> = documents.iter().map(|document| &text[document.start..document.end]).collect();
        assert_eq!(pieces.len(), 2, "{pieces:?}");
        assert!(pieces[0].starts_with("# first\na: 1\n"), "{pieces:?}");
        assert_eq!(pieces[1], "---\nb: 2\n...\n");
    }

    #[test]
    fn what_is_no_yaml_has_a_line() {
        assert_eq!(parse("a: 1\nb: [\n").unwrap_err().line, 3);
    }
}
