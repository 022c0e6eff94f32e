//! Text to a tree of nodes that know where they stand.
//!
//! The work is bounded whatever the text holds: its bytes, the nesting, and the nodes that remain once aliases and
//! merges are written out. Aliases share their anchor's nodes, so a small file that expands to millions costs nothing
//! before it is refused.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::findings::{At, Finding, Findings};
use super::source::{Place, Source};
use super::text::quote;

/// Largest file: 1 MiB. A thousand routes take about 100 KiB.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting. The deepest key of the reference is 7 deep.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most nodes once aliases are written out. A file of [`MAX_BYTES`] without aliases rarely holds more.
pub(crate) const MAX_NODES: usize = 250_000;

/// Position of a node in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) u32);

/// A piece of YAML.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    place: Place,
    /// Nodes below and including this one, with aliases written out.
    size: usize,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar(Scalar),
    Sequence(Vec<NodeId>),
    /// Keys are scalars and unique.
    Mapping(Vec<(NodeId, NodeId)>),
}

#[derive(Debug)]
pub(crate) struct Scalar {
    /// As written, without quotes and escapes.
    pub(crate) written: String,
    /// Written without quotes: may be null.
    plain: bool,
}

impl Scalar {
    #[cfg(test)]
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    pub(crate) fn is_null(&self) -> bool {
        self.plain && matches!(self.written.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// A document.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    root: NodeId,
}

impl Tree {
    /// Reads a document; what is wrong goes to `findings`. `None` where nothing can be made of it.
    pub(crate) fn parse(source: &Source<'_>, text: &str, findings: &mut Findings) -> Option<Tree> {
        let mut builder =
            Builder { nodes: Vec::new(), anchors: HashMap::new(), stack: Vec::new(), root: None, findings };
        match builder.run(text) {
            Ok(()) => {}
            Err(Stop::Syntax(error)) => {
                let finding = super::syntax::explain(&error, source);
                builder.findings.push(finding);
                return None;
            }
            Err(Stop::Told) => return None,
        }
        let root = builder.root;
        let nodes = builder.nodes;
        match root {
            Some(root) => Some(Tree { nodes, root }),
            None => {
                let start = Place { line: 1, column: 1, end: 1 };
                findings.push(
                    Finding::error("empty", start, "the file holds no configuration")
                        .hint("a listener and an upstream are enough: `listeners: { inbound: { address: \":15006\", upstream: \"127.0.0.1:8080\" } }`"),
                );
                None
            }
        }
    }

    pub(crate) fn root(&self) -> NodeId {
        self.root
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn scalar(&self, id: NodeId) -> Option<&Scalar> {
        match &self.node(id).kind {
            Kind::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// A scalar as written, `${…}` included: the only form that may be shown.
    pub(crate) fn written(&self, id: NodeId) -> &str {
        self.scalar(id).map_or("", |scalar| &scalar.written)
    }

    /// Where a node stands. What has no text of its own (a mapping, a list, nothing) stands at its key.
    pub(crate) fn place(&self, id: NodeId) -> Place {
        let key = match self.scalar(id) {
            Some(scalar) if !scalar.is_null() => None,
            _ => self.steps(id).last().and_then(|step| step.key),
        };
        self.node(key.unwrap_or(id)).place
    }

    /// The keys to a node, such as `listeners.inbound.routes[2].timeouts`. Empty for the root.
    pub(crate) fn path(&self, id: NodeId) -> String {
        let mut path = String::new();
        for step in self.steps(id) {
            match step.key {
                Some(key) => push_key(&mut path, self.written(key)),
                None => path.push_str(&format!("[{}]", step.index)),
            }
        }
        path
    }

    /// The steps from the root to the first place where a node (or a key) is used.
    fn steps(&self, target: NodeId) -> Vec<Step> {
        let mut seen = HashSet::new();
        let mut steps = Vec::new();
        self.find(self.root, target, &mut steps, &mut seen);
        steps
    }

    /// Recursion is as deep as the tree: at most [`MAX_DEPTH`].
    fn find(&self, from: NodeId, target: NodeId, steps: &mut Vec<Step>, seen: &mut HashSet<NodeId>) -> bool {
        if from == target {
            return true;
        }
        match &self.node(from).kind {
            Kind::Scalar(_) => false,
            _ if !seen.insert(from) => false,
            Kind::Sequence(items) => items.iter().enumerate().any(|(index, item)| {
                steps.push(Step { key: None, index });
                self.find(*item, target, steps, seen) || {
                    steps.pop();
                    false
                }
            }),
            Kind::Mapping(entries) => entries.iter().enumerate().any(|(index, (key, value))| {
                steps.push(Step { key: Some(*key), index });
                *key == target || self.find(*value, target, steps, seen) || {
                    steps.pop();
                    false
                }
            }),
        }
    }
}

struct Step {
    key: Option<NodeId>,
    index: usize,
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
                Frame::Mapping(frame) => match frame.key.and_then(|key| self.nodes.get(key.0 as usize)) {
                    Some(Node { kind: Kind::Scalar(scalar), .. }) => push_key(&mut path, &scalar.written),
                    _ => {}
                },
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

fn push_key(path: &mut String, key: &str) {
    let bare = key.len() <= 64 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if !bare {
        return path.push_str(&format!("[{}]", quote(key)));
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

fn place(span: Span) -> Place {
    let column = span.start.col() + 1;
    let end = if span.end.line() == span.start.line() { span.end.col() + 1 } else { column + 1 };
    Place { line: span.start.line(), column, end: end.max(column) }
}
