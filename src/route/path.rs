//! Routes of one host, by path: a trie of segments, so that a lookup costs what the path's known part is long.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::normal::normalise;
use crate::config::model::PathMatch;

/// Positions of routes, ascending.
pub(super) type Positions = Vec<u32>;

/// Routes by path.
#[derive(Debug, Default)]
pub(super) struct Paths {
    any: Positions,
    /// The first is the root, which stands for the slash that paths begin with.
    nodes: Vec<Node>,
    /// What no index helps with: each is asked in turn.
    scanned: Vec<(u32, PathMatch)>,
}

/// One segment of a path. foldhash is quick and can be attacked by whoever chooses what is *stored*; what is stored
/// comes from the operator's file, strangers only look up, and a lookup compares at most what is stored.
#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, u32, RandomState>,
    prefix: Positions,
    exact: Positions,
}

impl Paths {
    /// Adds a route. Positions must come in ascending order.
    pub(super) fn insert(&mut self, position: u32, path: &PathMatch) {
        match path {
            PathMatch::Any => self.any.push(position),
            PathMatch::Prefix(prefix) if prefix_segments(prefix).is_empty() => self.any.push(position),
            PathMatch::Prefix(prefix) if prefix.starts_with('/') => {
                let node = self.node(&prefix_segments(prefix));
                self.nodes[node].prefix.push(position);
            }
            PathMatch::Exact(exact) if exact.starts_with('/') => {
                let node = self.node(&normalise(exact));
                self.nodes[node].exact.push(position);
            }
            // No path begins so.
            PathMatch::Prefix(_) => {}
            // `*`, which `OPTIONS` asks for.
            PathMatch::Exact(_) | PathMatch::Regex(_) => self.scanned.push((position, path.clone())),
        }
    }

    /// All of its routes, in no order.
    pub(super) fn positions(&self) -> impl Iterator<Item = u32> {
        let indexed = self.nodes.iter().flat_map(|node| node.prefix.iter().chain(&node.exact));
        self.any.iter().chain(indexed).copied().chain(self.scanned.iter().map(|(position, _)| *position))
    }

    /// Offers every list of routes that match this path (in normal form); each list is in written order.
    pub(super) fn candidates(&self, path: &str, mut offer: impl FnMut(&Positions)) {
        offer(&self.any);
        let (Some(mut node), Some(segments)) = (self.nodes.first(), path.strip_prefix('/')) else { return };
        for segment in segments.split('/') {
            let Some(child) = node.children.get(segment) else { return };
            node = &self.nodes[*child as usize];
            offer(&node.prefix);
        }
        offer(&node.exact);
    }

    /// Routes before position `end` that match this path but stand in no index, in written order.
    pub(super) fn scan(&self, path: &str, end: u32) -> impl Iterator<Item = u32> {
        let before = self.scanned.iter().take_while(move |(position, _)| *position < end);
        let matching = before.filter(move |(_, wanted)| match wanted {
            PathMatch::Regex(regex) => regex.is_match(path),
            PathMatch::Exact(exact) => path == exact,
            PathMatch::Any | PathMatch::Prefix(_) => false,
        });
        matching.map(|(position, _)| *position)
    }

    fn node(&mut self, path: &str) -> usize {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut node = 0;
        for segment in path.split('/').skip(1) {
            let new = self.nodes.len();
            let child = *self.nodes[node].children.entry(segment.into()).or_insert(new as u32);
            node = child as usize;
            if node == new {
                self.nodes.push(Node::default());
            }
        }
        node
    }
}

/// A prefix in normal form and without the final slash: `/` matches everything and is empty.
pub(super) fn prefix_segments(prefix: &str) -> String {
    normalise(prefix).trim_end_matches('/').to_owned()
}
