//! The sidecar into manifests.

use std::collections::BTreeSet;

use super::edit::Edits;
use super::eject::eject;
use super::options::{INJECTED, Options};
use super::plan::{self, Change, Plan, Step};
use super::record::{Record, find};
use super::value::{Value, map};
use super::yaml::{self, Kind, Node, SyntaxError};
use super::{Note, Outcome, sidecar};

/// A workload and its pod template.
struct Template<'n> {
    kind: &'n str,
    workload: &'n Node,
    pod: &'n Node,
}

impl Template<'_> {
    /// `Deployment orders`, for people.
    fn name(&self) -> String {
        let metadata = self.workload.get("metadata");
        let name = metadata.and_then(|metadata| metadata.text_at("name").or_else(|| metadata.text_at("generateName")));
        format!("{} {}", self.kind, name.unwrap_or("without a name"))
    }

    /// Nothing where it is left to whoever applies it.
    fn namespace(&self) -> Option<&str> {
        self.workload.at(&["metadata", "namespace"]).and_then(Node::text).filter(|namespace| !namespace.is_empty())
    }
}

/// A configuration that comes along with workloads as a ConfigMap, in each of their namespaces once, over however many
/// streams.
#[derive(Debug, Clone)]
pub struct Companion {
    configuration: String,
    /// Namespaces that it has come to.
    given: BTreeSet<Option<String>>,
}

impl Companion {
    /// One that has come nowhere yet.
    pub fn new(configuration: impl Into<String>) -> Self {
        Companion { configuration: configuration.into(), given: BTreeSet::new() }
    }
}

/// Puts the sidecar into every workload of a stream of manifests. What has it already gets it anew.
///
/// # Errors
/// Where the text is no YAML.
pub fn inject(text: &str, options: &Options, companion: Option<&mut Companion>) -> Result<Outcome, SyntaxError> {
    let ejected = eject(text)?;
    let text = ejected.text.as_str();
    let mut outcome = Outcome { text: String::new(), changed: 0, notes: Vec::new() };
    let mut edits = Edits::new(text);
    let documents = yaml::parse(text)?;
    let mut templates = Vec::new();
    for document in &documents {
        collect(&document.root, &mut templates, &mut outcome.notes);
    }
    let mut namespaces = Vec::new();
    for template in &templates {
        let outcome_of =
            plan::plan(template.kind, template.workload, template.pod, options).and_then(|plan| match plan {
                Plan::Change(changes) => edit(&mut edits, text, template.pod, changes).map(|()| None),
                Plan::Leave(why) => Ok(Some(why)),
            });
        match outcome_of {
            Ok(None) => {
                outcome.changed += 1;
                namespaces.push(template.namespace().map(str::to_owned));
            }
            Ok(Some(why)) => outcome.notes.push(Note::left(format!("{} is left alone: {why}", template.name()))),
            Err(why) => outcome.notes.push(Note::wrong(format!("{} cannot be changed: {why}", template.name()))),
        }
    }
    let newline = edits.newline();
    outcome.text = edits.apply();
    // YAML can be written in more ways than edits know.
    if outcome.changed > 0
        && let Err(error) = yaml::parse(&outcome.text)
    {
        let why = "it is written in a way that cannot be edited, and would be no YAML any more";
        outcome.notes.push(Note::wrong(format!("{why}: {error}")));
    }
    let Some(companion) = companion.filter(|_| outcome.changed > 0) else { return Ok(outcome) };
    if text.trim_start().starts_with('{') {
        outcome.notes.push(Note::wrong("a ConfigMap cannot come along in JSON; make it by itself".to_owned()));
        return Ok(outcome);
    }
    for namespace in namespaces {
        if companion.given.insert(namespace.clone()) {
            let ends = outcome.text.ends_with('\n');
            outcome.text.push_str(if ends { "" } else { newline });
            let map = config_map(options, namespace, &companion.configuration, ends);
            outcome.text.push_str(&map.replace('\n', newline));
        }
    }
    Ok(outcome)
}

/// Every pod template of a document, and notes of what seems to have one and is of no kind that is known.
fn collect<'n>(object: &'n Node, templates: &mut Vec<Template<'n>>, notes: &mut Vec<Note>) {
    let Some(kind) = object.text_at("kind") else { return };
    let way: &[&str] = match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            &["spec", "template"]
        }
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        "Pod" => &[],
        "List" => {
            return object
                .get("items")
                .map(Node::items)
                .unwrap_or_default()
                .iter()
                .for_each(|item| collect(item, templates, notes));
        }
        _ => {
            let items = object.get("items").map(Node::items).unwrap_or_default();
            let left = if has_pod(object) {
                "inject does not know this kind; the webhook puts the sidecar into its pods"
            } else if items.iter().any(has_pod) {
                "its items do not say of which kind they are; `kubectl get -o yaml` gives a List, whose items do"
            } else {
                return;
            };
            let name = Template { kind, workload: object, pod: object }.name();
            return notes.push(Note::left(format!("{name} is left alone: {left}")));
        }
    };
    if let Some(pod) = object.at(way) {
        templates.push(Template { kind, workload: object, pod });
    }
}

/// Whether containers stand where most kinds have them.
fn has_pod(object: &Node) -> bool {
    let ways: [&[&str]; 3] =
        [&["spec", "containers"], &["spec", "template", "spec", "containers"], &["template", "spec", "containers"]];
    ways.iter().any(|way| object.at(way).is_some())
}

/// Makes the changes in the text.
fn edit(edits: &mut Edits<'_>, text: &str, template: &Node, mut changes: Vec<Change>) -> Result<(), String> {
    let record = Record::of(&changes, template, |node| text[node.start..node.end].to_owned()).to_json();
    write_record(&mut changes, &record);
    let lost = || "it is written in a way that cannot be edited".to_owned();
    for change in &changes {
        match change {
            Change::Add { path, value } => {
                let (last, parent) = path.split_last().ok_or_else(lost)?;
                let parent = find(template, parent).ok_or_else(lost)?;
                match last {
                    Step::Key(key) => edits.add_entry(parent, key, value),
                    Step::Item(_) => edits.add_item(parent, value).then_some(()).ok_or_else(lost)?,
                }
            }
            Change::Replace { path, value } => {
                let node = find(template, path).ok_or_else(lost)?;
                let bare = matches!(node.kind, Kind::Scalar { plain: true, .. });
                edits.put_in_place(node, &value.to_line(bare));
            }
            Change::Rename { path, key } => {
                let (Step::Key(old), parent) = path.split_last().ok_or_else(lost)? else { return Err(lost()) };
                let parent = find(template, parent).ok_or_else(lost)?;
                let (node, _) = parent.entries().iter().find(|(key, _)| key.text() == Some(old)).ok_or_else(lost)?;
                let quoted = text[node.start..].starts_with(['"', '\'']);
                edits.replace(node.start, node.end, if quoted { format!("\"{key}\"") } else { (*key).to_owned() });
            }
        }
    }
    Ok(())
}

/// Puts the record into the annotation that the plan has for it.
pub(super) fn write_record(changes: &mut [Change], record: &str) {
    fn fill(value: &mut Value, record: &str) {
        let Value::Map(entries) = value else { return };
        for (key, value) in entries {
            if key == INJECTED {
                *value = record.into();
            } else {
                fill(value, record);
            }
        }
    }
    for change in changes {
        match change {
            Change::Add { path, value } if path.last() == Some(&Step::Key(INJECTED.to_owned())) => {
                *value = record.into()
            }
            Change::Add { value, .. } | Change::Replace { value, .. } => fill(value, record),
            Change::Rename { .. } => {}
        }
    }
}

/// The configuration as a document of its own.
fn config_map(options: &Options, namespace: Option<String>, configuration: &str, after_newline: bool) -> String {
    let mut metadata = vec![("name".to_owned(), options.config_map.clone().into())];
    metadata.extend(namespace.map(|namespace| ("namespace".to_owned(), namespace.into())));
    let annotation = if after_newline { "{}" } else { r#"{"newline":"added"}"# };
    metadata.push(("annotations".to_owned(), map([(INJECTED, annotation.into())])));
    let metadata = Value::Map(metadata);
    let head = map([("apiVersion", "v1".into()), ("kind", "ConfigMap".into()), ("metadata", metadata)]);
    // Where the first line is indented, the block has to say by how much it is itself.
    let indicator = if configuration.trim_start_matches(['\n', '\r']).starts_with(' ') { "2" } else { "" };
    let mut document = format!("---\n{}\ndata:\n  {}: |{indicator}\n", head.to_block().join("\n"), sidecar::FILE);
    for line in configuration.lines() {
        document.push_str(if line.is_empty() { "" } else { "    " });
        document.push_str(line);
        document.push('\n');
    }
    document
}
