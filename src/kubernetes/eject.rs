//! The sidecar out of manifests: byte for byte what they were, as long as nobody has changed them since.

use super::edit::Edits;
use super::options::INJECTED;
use super::plan::DEFAULT_CONTAINER;
use super::record::{Record, steps};
use super::sidecar::{NAME, REDIRECT_NAME, VOLUME};
use super::yaml::{self, Document, Kind, Node, SyntaxError};
use super::{Note, Outcome};

/// Lists and mappings that inject makes where a pod has none. Others may have added to them since.
const MADE: [&str; 5] = ["metadata", "annotations", "lifecycle", "volumes", "initContainers"];
/// What inject puts into them.
const OURS: [&str; 9] = [
    INJECTED,
    "prometheus.io/scrape",
    "prometheus.io/port",
    "prometheus.io/path",
    DEFAULT_CONTAINER,
    "preStop",
    VOLUME,
    NAME,
    REDIRECT_NAME,
];

/// Takes the sidecar out of every workload of a stream of manifests.
///
/// # Errors
/// Where the text is no YAML.
pub fn eject(text: &str) -> Result<Outcome, SyntaxError> {
    let mut outcome = Outcome { text: String::new(), changed: 0, notes: Vec::new() };
    let mut edits = Edits::new(text);
    for document in yaml::parse(text)? {
        if document.root.text_at("kind") == Some("ConfigMap") {
            config_map(&mut edits, text, &document);
        } else {
            walk(&mut edits, text, &document.root, &mut outcome);
        }
    }
    outcome.text = edits.apply();
    Ok(outcome)
}

/// A ConfigMap that came along goes as a whole.
fn config_map(edits: &mut Edits<'_>, text: &str, document: &Document) {
    let Some(record) = document.root.at(&["metadata", "annotations"]).and_then(|known| known.text_at(INJECTED)) else {
        return;
    };
    let added_newline = record.contains("newline");
    let before = &text[..document.start];
    let start = match before.strip_suffix("\r\n").or_else(|| before.strip_suffix('\n')) {
        Some(before) if added_newline => before.len(),
        _ => document.start,
    };
    edits.replace(start, document.end, "");
}

/// Finds every object that carries a record.
fn walk(edits: &mut Edits<'_>, text: &str, node: &Node, outcome: &mut Outcome) {
    if let Some(record) = node.at(&["metadata", "annotations"]).and_then(|annotations| annotations.text_at(INJECTED)) {
        match serde_json::from_str::<Record>(record) {
            Ok(record) => {
                undo(edits, text, node, &record);
                outcome.changed += 1;
            }
            Err(error) => outcome.notes.push(Note::wrong(format!("the annotation {INJECTED} cannot be read: {error}"))),
        }
        return;
    }
    node.entries().iter().for_each(|(_, value)| walk(edits, text, value, outcome));
    node.items().iter().for_each(|item| walk(edits, text, item, outcome));
}

fn undo(edits: &mut Edits<'_>, text: &str, template: &Node, record: &Record) {
    for path in &record.added {
        match locate(template, path) {
            Some(Located::Entry(mapping, key, value)) if is_ours(key, value) || !is_made(key) => {
                edits.remove_entry(mapping, key, value);
            }
            Some(Located::Entry(_, _, value)) => take_ours(edits, value),
            Some(Located::Item(list, item)) => edits.remove_item(list, item),
            None => {} // Somebody was faster.
        }
    }
    for (path, old) in &record.replaced {
        match locate(template, path) {
            Some(Located::Entry(_, key, value)) if is_made(key) && !is_ours(key, value) => take_ours(edits, value),
            Some(Located::Entry(mapping, key, value)) => edits.put_back(key, value, &fitting(old, mapping)),
            _ => {}
        }
    }
    for (path, old) in &record.renamed {
        if let Some(Located::Entry(_, key, value)) = locate(template, path) {
            // The API server has written out what it takes an `httpGet` without one to mean.
            if old == "tcpSocket"
                && let Some((key, scheme)) = value.entries().iter().find(|(key, _)| key.text() == Some("scheme"))
            {
                edits.remove_entry(value, key, scheme);
            }
            let quoted = text[key.start..].starts_with(['"', '\'']);
            edits.replace(key.start, key.end, if quoted { format!("\"{old}\"") } else { old.clone() });
        }
    }
}

fn is_made(key: &Node) -> bool {
    key.text().is_some_and(|key| MADE.contains(&key))
}

/// Whether all that stands at a key is what inject has put there.
fn is_ours(key: &Node, value: &Node) -> bool {
    if is_made(key) {
        value.entries().iter().all(|(key, value)| is_ours(key, value)) && value.items().iter().all(is_our_item)
    } else {
        key.text().is_some_and(|key| OURS.contains(&key))
    }
}

fn is_our_item(item: &Node) -> bool {
    item.text_at("name").is_some_and(|name| OURS.contains(&name))
}

/// Takes what is ours out of what inject has made, and leaves what others have added.
fn take_ours(edits: &mut Edits<'_>, made: &Node) {
    for (key, value) in made.entries() {
        if is_ours(key, value) {
            edits.remove_entry(made, key, value);
        } else if is_made(key) {
            take_ours(edits, value);
        }
    }
    made.items().iter().filter(|item| is_our_item(item)).for_each(|item| edits.remove_item(made, item));
}

/// What was written before, as the mapping can hold it: it may have become JSON meanwhile.
fn fitting(old: &str, mapping: &Node) -> String {
    let quoted =
        mapping.entries().first().is_some_and(|(key, _)| matches!(key.kind, Kind::Scalar { plain: false, .. }));
    let json = serde_json::from_str::<serde_json::Value>(old).is_ok();
    match yaml::parse(old) {
        Ok(documents) if quoted && !json => {
            // Nothing at all is no document.
            serde_json::Value::from(documents.first().and_then(|document| document.root.text())).to_string()
        }
        _ => old.to_owned(),
    }
}

enum Located<'n> {
    Entry(&'n Node, &'n Node, &'n Node),
    Item(&'n Node, &'n Node),
}

fn locate<'n>(template: &'n Node, path: &str) -> Option<Located<'n>> {
    let mut node = template;
    let mut located = None;
    for step in steps(path) {
        located = if let Kind::Sequence { items, .. } = &node.kind {
            let item = items.iter().find(|item| item.text_at("name") == Some(step.as_str()))?;
            Some(Located::Item(std::mem::replace(&mut node, item), item))
        } else {
            let (key, value) = node.entries().iter().find(|(key, _)| key.text() == Some(step.as_str()))?;
            Some(Located::Entry(std::mem::replace(&mut node, value), key, value))
        };
    }
    located
}
