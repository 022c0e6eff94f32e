//! A document as values to compare: what is written, without places.

use super::super::findings::Findings;
use super::super::source::Source;
use super::super::tree::{Kind, NodeId, Tree};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Reads a document that the long form's writer has made; empty where it is none.
    pub(super) fn parse(text: &str) -> Value {
        let source = Source::new(text);
        let tree = Tree::parse(&source, text, &mut Findings::default());
        tree.map_or(Value::Map(Vec::new()), |tree| of(&tree, tree.root()))
    }

    pub(super) fn entries(&self) -> &[(String, Value)] {
        match self {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.entries().iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// The items of a list by what tells them from each other: their name, their address, what they lead to, or else
    /// their position.
    pub(super) fn items(&self) -> Vec<(String, &Value)> {
        let Value::List(items) = self else { return Vec::new() };
        let name = |position: usize, item: &Value| {
            let known = ["name", "address", "upstream"].iter().find_map(|key| item.get(key));
            known.map_or_else(|| format!("#{}", position + 1), ToString::to_string)
        };
        items.iter().enumerate().map(|(position, item)| (name(position, item), item)).collect()
    }

    /// True where the list's items can be told apart.
    pub(super) fn is_of_maps(&self) -> bool {
        matches!(self, Value::List(items) if !items.is_empty() && items.iter().all(|item| matches!(item, Value::Map(_))))
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::List(items) => {
                f.write_str("[")?;
                for (position, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if position == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Value::Map(entries) => {
                f.write_str("{")?;
                for (position, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{} {key}: {value}", if position == 0 { "" } else { "," })?;
                }
                f.write_str(" }")
            }
        }
    }
}

fn of(tree: &Tree, node: NodeId) -> Value {
    match &tree.node(node).kind {
        Kind::Scalar(scalar) => Value::Text(scalar.written.clone()),
        Kind::Sequence(items) => Value::List(items.iter().map(|item| of(tree, *item)).collect()),
        Kind::Mapping(entries) => {
            Value::Map(entries.iter().map(|(key, value)| (tree.written(*key).to_owned(), of(tree, *value))).collect())
        }
    }
}
