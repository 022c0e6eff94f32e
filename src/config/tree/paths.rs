//! The way from a node back to the root, for messages.

use super::{Kind, NodeId, Tree, push_key};
use crate::config::source::Place;

/// For each node of a tree, the first place where it is used. Made once, where there is something to say.
pub(crate) struct Paths<'t> {
    tree: &'t Tree,
    /// The node above, and the step from there.
    above: Vec<Option<(NodeId, Step)>>,
}

#[derive(Clone, Copy)]
enum Step {
    Key(NodeId),
    Index(usize),
}

impl<'t> Paths<'t> {
    pub(crate) fn of(tree: &'t Tree) -> Self {
        let mut above = Vec::new();
        above.resize_with(tree.nodes.len(), || None);
        let mut seen = vec![false; tree.nodes.len()];
        // The last that is added is looked at next, so what a node holds is added in reverse.
        let mut waiting = vec![(tree.root, None)];
        while let Some((node, way)) = waiting.pop() {
            let index = node.0 as usize;
            if std::mem::replace(&mut seen[index], true) {
                continue;
            }
            above[index] = way;
            match &tree.node(node).kind {
                Kind::Scalar(_) => {}
                Kind::Sequence(items) => {
                    waiting.extend(
                        items.iter().enumerate().rev().map(|(index, item)| (*item, Some((node, Step::Index(index))))),
                    );
                }
                Kind::Mapping(entries) => {
                    waiting.extend(entries.iter().rev().flat_map(|(key, value)| {
                        let way = Some((node, Step::Key(*key)));
                        [(*value, way), (*key, way)]
                    }));
                }
            }
        }
        Paths { tree, above }
    }

    /// Where a node stands. What has no text of its own (a mapping, a list, nothing) stands at its key.
    pub(crate) fn place(&self, node: NodeId) -> Place {
        let has_text = self.tree.scalar(node).is_some_and(|scalar| !scalar.is_null());
        match self.above[node.0 as usize] {
            Some((_, Step::Key(key))) if !has_text => self.tree.node(key).place,
            _ => self.tree.node(node).place,
        }
    }

    /// The key whose value a node is; `None` in a list, and for the root.
    pub(crate) fn key(&self, node: NodeId) -> Option<&'t str> {
        match self.above[node.0 as usize] {
            Some((_, Step::Key(key))) => Some(self.tree.written(key)),
            Some((_, Step::Index(_))) | None => None,
        }
    }

    /// The keys to a node, such as `listeners.inbound.routes[2].timeouts`. Empty for the root.
    pub(crate) fn path(&self, node: NodeId) -> String {
        let mut steps = Vec::new();
        let mut node = node;
        while let Some((above, step)) = self.above[node.0 as usize] {
            steps.push(step);
            node = above;
        }
        let mut path = String::new();
        for step in steps.iter().rev() {
            match step {
                Step::Key(key) => push_key(&mut path, self.tree.written(*key)),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }
}
