//! Text to a tree of nodes that know where they stand.
//!
//! The work is bounded whatever the text holds: its bytes, the nesting, and the nodes that remain once aliases and
//! merges are written out. Aliases share their anchor's nodes, so a small file that expands to millions costs nothing
//! before it is refused.

mod build;
mod paths;

pub(crate) use paths::Paths;

use super::findings::Findings;
use super::source::{Place, Source};
use super::text::quote;
use crate::runtime::pace::breathe;

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

/// Ten thousand routes have a hundred thousand nodes.
impl Drop for Tree {
    fn drop(&mut self) {
        self.nodes.drain(..).for_each(|_| breathe());
    }
}

impl Tree {
    /// Reads a document; what is wrong goes to `findings`. `None` where nothing can be made of it.
    pub(crate) fn parse(source: &Source<'_>, text: &str, findings: &mut Findings) -> Option<Tree> {
        build::build(source, text, findings)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Tree {
        let mut findings = Findings::default();
        let tree = Tree::parse(&Source::new(text), text, &mut findings).unwrap();
        assert!(!findings.has_errors());
        tree
    }

    /// The value at a path of keys.
    fn at(tree: &Tree, keys: &[&str]) -> NodeId {
        keys.iter().fold(tree.root(), |node, key| match &tree.node(node).kind {
            Kind::Mapping(entries) => entries.iter().find(|(known, _)| tree.written(*known) == *key).unwrap().1,
            Kind::Sequence(items) => items[key.parse::<usize>().unwrap()],
            Kind::Scalar(_) => panic!("{key}"),
        })
    }

    #[test]
    fn nodes_know_where_they_stand() {
        let tree = parse("a:\n  b c: [1, { d: x }]\n  e:\n");
        let leaf = at(&tree, &["a", "b c", "1", "d"]);
        assert_eq!(Paths::of(&tree).path(leaf), "a[`b c`][1].d");
        assert_eq!(Paths::of(&tree).place(leaf), Place { line: 2, column: 17, end: 18 });
        assert_eq!(Paths::of(&tree).path(tree.root()), "");
        // Nothing, and what is long, stand at their keys.
        assert_eq!(Paths::of(&tree).place(at(&tree, &["a", "e"])), Place { line: 3, column: 3, end: 4 });
        assert_eq!(Paths::of(&tree).place(at(&tree, &["a", "b c"])), Place { line: 2, column: 3, end: 6 });
    }

    #[test]
    fn what_is_written_wins_over_what_is_merged() {
        let tree = parse("x: &x { a: 1, b: 1 }\ny: &y { b: 2, c: 2 }\nz: { <<: [*x, *y], a: 0 }");
        let value = |key: &str| tree.written(at(&tree, &["z", key])).to_owned();
        assert_eq!([value("a"), value("b"), value("c")], ["0", "1", "2"]);
        // A mistake in what is merged stands where it is written.
        assert_eq!(Paths::of(&tree).path(at(&tree, &["z", "c"])), "y.c");
    }

    #[test]
    fn aliases_share_nodes() {
        let tree = parse("a: &a [1]\nb: *a");
        assert_eq!(at(&tree, &["a"]), at(&tree, &["b"]));
    }

    #[test]
    fn only_plain_words_are_null() {
        let tree = parse("[~, null, \"null\", '', !!str , x]");
        let null = |index: &str| tree.scalar(at(&tree, &[index])).unwrap().is_null();
        assert_eq!(["0", "1", "2", "3", "4", "5"].map(null), [true, true, false, false, false, false]);
    }
}
