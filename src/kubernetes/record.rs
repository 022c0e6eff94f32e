//! What was done to a pod, kept in one of its annotations, so that it can be undone by any later version.
//!
//! Paths go through the pod as it is afterwards. Items of lists are known by their `name`, since others may put theirs
//! before ours.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::{Change, Path, Step};
use super::value::Value;
use super::yaml::Node;

/// The annotation's value, as JSON.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What was not there before.
    pub(super) added: Vec<String>,
    /// What stands in another's place, with the other as it was written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) replaced: BTreeMap<String, String>,
    /// Keys that had another name, with that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) renamed: BTreeMap<String, String>,
}

impl Record {
    /// The record of changes of a template. `written` gives a node's text.
    pub(super) fn of(changes: &[Change], template: &Node, written: impl Fn(&Node) -> String) -> Self {
        let renames: Vec<(&Path, &str)> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Rename { path, key } => Some((path, *key)),
                _ => None,
            })
            .collect();
        let mut record = Record::default();
        for change in changes {
            match change {
                Change::Add { path, value } => record.added.push(spell(path, template, value, &renames)),
                Change::Replace { path, value } => {
                    let old = find(template, path).map(&written).unwrap_or_default();
                    record.replaced.insert(spell(path, template, value, &renames), old);
                }
                Change::Rename { path, .. } => {
                    let old = match path.last() {
                        Some(Step::Key(key)) => key.clone(),
                        _ => continue,
                    };
                    record.renamed.insert(spell(path, template, &Value::Flag(true), &renames), old);
                }
            }
        }
        record
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The node at a path.
pub(super) fn find<'n>(template: &'n Node, path: &[Step]) -> Option<&'n Node> {
    path.iter().try_fold(template, |node, step| match step {
        Step::Key(key) => node.get(key),
        Step::Item(index) => node.items().get(*index),
    })
}

/// A path as text: `spec/containers/app/lifecycle`; `~1` is a slash and `~0` a tilde, as in a JSON pointer.
fn spell(path: &[Step], template: &Node, value: &Value, renames: &[(&Path, &str)]) -> String {
    let mut steps = Vec::with_capacity(path.len());
    for (index, step) in path.iter().enumerate() {
        let renamed = renames.iter().find(|(known, _)| ***known == path[..=index]);
        let name = match step {
            Step::Key(key) => renamed.map_or(key.as_str(), |(_, new)| new).to_owned(),
            // The last step to an item is to a new one.
            Step::Item(_) if index + 1 == path.len() => match value {
                Value::Map(entries) => entries
                    .iter()
                    .find_map(|(key, value)| match value {
                        Value::Text(name) if key == "name" => Some(name.clone()),
                        _ => None,
                    })
                    .unwrap_or_default(),
                _ => String::new(),
            },
            Step::Item(_) => {
                find(template, &path[..=index]).and_then(|item| item.text_at("name")).unwrap_or_default().to_owned()
            }
        };
        steps.push(name.replace('~', "~0").replace('/', "~1"));
    }
    steps.join("/")
}

/// The steps of a path as text.
pub(super) fn steps(spelled: &str) -> impl Iterator<Item = String> {
    spelled.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"))
}
