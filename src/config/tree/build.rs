//! The parser's events to a tree, stopped as soon as it grows beyond its bounds.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{Kind, MAX_DEPTH, MAX_NODES, Node, NodeId, Scalar, Tree, push_key};
use crate::config::findings::{At, Finding, Findings};
use crate::config::source::{Place, Source};
use crate::config::syntax;
use crate::config::text::quote;
use crate::runtime::pace::breathe;

/// Reads a document; what is wrong goes to `findings`. `None` where nothing can be made of it.
pub(super) fn build(source: &Source<'_>, text: &str, findings: &mut Findings) -> Option<Tree> {
    let mut builder = Builder { nodes: Vec::new(), anchors: HashMap::new(), stack: Vec::new(), root: None, findings };
    match builder.run(text) {
        Ok(()) => {}
        Err(Stop::Syntax(error)) => {
            findings.push(syntax::explain(&error, source));
            return None;
        }
        Err(Stop::Told) => return None,
    }
    let (root, nodes) = (builder.root, builder.nodes);
    if root.is_none() {
        let start = Place { line: 1, column: 1, end: 2 };
        findings.push(Finding::error("empty", start, "the file holds no configuration").hint(
            "a listener is enough: `listeners: { inbound: { address: \":15006\", upstream: \"127.0.0.1:8080\" } }`",
        ));
    }
    root.map(|root| Tree { nodes, root })
}

enum Stop {
    Syntax(ScanError),
    /// The finding is already there.
    Told,
}

enum Frame {
    Sequence { place: Place, anchor: usize, items: Vec<NodeId>, size: usize },
    Mapping(MappingFrame),
}

struct MappingFrame {
    place: Place,
    anchor: usize,
    entries: Vec<(NodeId, NodeId)>,
    key: Option<NodeId>,
    seen: HashMap<String, NodeId>,
    merges: Vec<NodeId>,
    size: usize,
}

struct Builder<'f> {
    nodes: Vec<Node>,
    anchors: HashMap<usize, NodeId>,
    stack: Vec<Frame>,
    root: Option<NodeId>,
    findings: &'f mut Findings,
}

impl Builder<'_> {
    fn run(&mut self, text: &str) -> Result<(), Stop> {
        let mut parser = Parser::new_from_str(text);
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            breathe();
            let (event, span) = event.map_err(Stop::Syntax)?;
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        let reason = "a configuration is one document, and here a second one begins";
                        return self.stop(
                            Finding::error("multiple-documents", place(span), reason)
                                .hint("remove the line `---` or keep one document a file"),
                        );
                    }
                }
                Event::Alias(anchor) => {
                    let Some(node) = self.anchors.get(&anchor).copied() else {
                        let reason = "this alias stands inside its own anchor";
                        return self.stop(Finding::error("syntax", place(span), reason));
                    };
                    self.add(node, place(span))?;
                }
                Event::Scalar(value, style, anchor, tag) => {
                    let quoted = self.tag(tag.as_deref(), place(span))?;
                    let plain = style == ScalarStyle::Plain && !quoted;
                    let scalar = Scalar { written: value.into_owned(), plain };
                    self.complete(Kind::Scalar(scalar), place(span), anchor, 1)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    self.tag(tag.as_deref(), place(span))?;
                    self.push(Frame::Sequence { place: place(span), anchor, items: Vec::new(), size: 1 })?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.tag(tag.as_deref(), place(span))?;
                    self.push(Frame::Mapping(MappingFrame {
                        place: place(span),
                        anchor,
                        entries: Vec::new(),
                        key: None,
                        seen: HashMap::new(),
                        merges: Vec::new(),
                        size: 1,
                    }))?;
                }
                Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                    Some(Frame::Sequence { place, anchor, items, size }) => {
                        self.complete(Kind::Sequence(items), place, anchor, size)?;
                    }
                    Some(Frame::Mapping(frame)) => self.finish(frame)?,
                    None => {}
                },
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(())
    }

    fn stop<T>(&mut self, finding: Finding) -> Result<T, Stop> {
        self.findings.push(finding);
        Err(Stop::Told)
    }

    /// True where the tag says that the scalar is a text. Types come from the key, so the other tags of YAML's core say nothing.
    fn tag(&mut self, tag: Option<&Tag>, place: Place) -> Result<bool, Stop> {
        let Some(tag) = tag else { return Ok(false) };
        match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
            (true, "str") => Ok(true),
            (true, "int" | "float" | "bool" | "map" | "seq") => Ok(false),
            _ if tag.handle.is_empty() && tag.suffix == "!" => Ok(true),
            _ => {
                let reason = format!("the tag {} is not supported", quote(&tag.to_string()));
                self.stop(
                    Finding::error("syntax", place, reason).hint("remove it: each key knows the type of its value"),
                )
            }
        }
    }

    fn push(&mut self, frame: Frame) -> Result<(), Stop> {
        if self.stack.len() >= MAX_DEPTH {
            let at = match frame {
                Frame::Sequence { place, .. } | Frame::Mapping(MappingFrame { place, .. }) => place,
            };
            return self.stop(Finding::error("too-deep", at, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        self.stack.push(frame);
        Ok(())
    }

    /// Stores a node whose parts are all there, and gives it to the one that it belongs to.
    fn complete(&mut self, kind: Kind, place: Place, anchor: usize, size: usize) -> Result<(), Stop> {
        if self.nodes.len() >= MAX_NODES || size > MAX_NODES {
            return self.too_many(place);
        }
        // Below MAX_NODES, so it fits.
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Node { kind, place, size });
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        self.add(id, place)
    }

    fn too_many<T>(&mut self, place: Place) -> Result<T, Stop> {
        let reason = format!("more than {MAX_NODES} values once aliases are written out");
        self.stop(Finding::error("too-many-values", place, reason))
    }

    fn add(&mut self, id: NodeId, place: Place) -> Result<(), Stop> {
        let added = self.nodes[id.0 as usize].size;
        let size = match self.stack.last_mut() {
            None => {
                self.root = Some(id);
                return Ok(());
            }
            Some(Frame::Sequence { items, size, .. }) => {
                items.push(id);
                *size += added;
                *size
            }
            Some(Frame::Mapping(frame)) => {
                frame.size += added;
                let size = frame.size;
                match frame.key.take() {
                    None => frame.key = Some(id),
                    Some(key) => self.entry(key, id, place),
                }
                size
            }
        };
        if size > MAX_NODES { self.too_many(place) } else { Ok(()) }
    }

    /// A key and its value, in the mapping on top of the stack.
    fn entry(&mut self, key: NodeId, value: NodeId, at: Place) {
        let Some(Frame::Mapping(frame)) = self.stack.last_mut() else { return };
        let node = &self.nodes[key.0 as usize];
        let Kind::Scalar(scalar) = &node.kind else {
            let finding = Finding::error("invalid-key", node.place, "a key must be a word, not a list or a mapping");
            return self.findings.push(finding.hint("a value that begins with `{`, `[` or `*` needs quotes"));
        };
        if scalar.is_null() {
            return self.findings.push(Finding::error("invalid-key", At::Place(at), "this value has no key"));
        }
        if let Some(first) = frame.seen.get(&scalar.written).copied() {
            let reason = format!("the key {} is there twice", quote(&scalar.written));
            let mut path = self.path_to_top();
            push_key(&mut path, &scalar.written);
            let finding =
                Finding::error("duplicate-key", node.place, reason).path(path).related(first, "the first one");
            return self.findings.push(finding.hint("remove or rename one of them"));
        }
        frame.seen.insert(scalar.written.clone(), key);
        if scalar.plain && scalar.written == "<<" {
            frame.merges.push(value);
        } else {
            frame.entries.push((key, value));
        }
    }

    /// The keys to the mapping on top of the stack.
    fn path_to_top(&self) -> String {
        let mut path = String::new();
        let Some((_, below)) = self.stack.split_last() else { return path };
        for frame in below {
            match frame {
                Frame::Sequence { items, .. } => path.push_str(&format!("[{}]", items.len())),
                Frame::Mapping(frame) => {
                    let key = frame.key.map(|key| &self.nodes[key.0 as usize].kind);
                    if let Some(Kind::Scalar(scalar)) = key {
                        push_key(&mut path, &scalar.written);
                    }
                }
            }
        }
        path
    }

    /// Writes out the merge keys of a mapping: what is written wins, then the first that is merged.
    fn finish(&mut self, mut frame: MappingFrame) -> Result<(), Stop> {
        for merge in std::mem::take(&mut frame.merges) {
            let sources = match &self.nodes[merge.0 as usize].kind {
                Kind::Sequence(items) => items.clone(),
                _ => vec![merge],
            };
            for source in sources {
                let Kind::Mapping(entries) = &self.nodes[source.0 as usize].kind else {
                    let at = self.nodes[source.0 as usize].place;
                    let finding = Finding::error("invalid-merge", at, "`<<` takes a mapping or a list of mappings");
                    self.findings.push(finding.hint("give it an alias, as in `<<: *name`"));
                    continue;
                };
                for (key, value) in entries {
                    let Kind::Scalar(scalar) = &self.nodes[key.0 as usize].kind else { continue };
                    if !frame.seen.contains_key(&scalar.written) {
                        frame.seen.insert(scalar.written.clone(), *key);
                        frame.entries.push((*key, *value));
                        frame.size += 1 + self.nodes[value.0 as usize].size;
                    }
                    if frame.size > MAX_NODES {
                        return self.too_many(frame.place);
                    }
                }
            }
        }
        self.complete(Kind::Mapping(frame.entries), frame.place, frame.anchor, frame.size)
    }
}

fn place(span: Span) -> Place {
    let column = span.start.col() + 1;
    let end = if span.end.line() == span.start.line() { span.end.col() + 1 } else { column + 1 };
    Place { line: span.start.line(), column, end: end.max(column) }
}
