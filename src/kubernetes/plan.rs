//! What is to be changed in a pod, whatever it is written in: text edits and JSON patches are made of the same plan.

use super::options::{Form, INJECTED, Mode, Options, PREFIX};
use super::probes;
use super::sidecar::{self, NAME, REDIRECT_NAME, VOLUME};
use super::value::{Value, map};
use super::yaml::{Kind, Node};

/// Kubernetes' default of terminationGracePeriodSeconds.
const GRACE: i64 = 30;
/// The annotation with the container that `kubectl logs` means.
pub(super) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// One step from a node to a node in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Item(usize),
}

pub(super) type Path = Vec<Step>;

/// A change of a pod template. Paths begin at the template, and count as before all changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A new entry of a mapping, or (its last step is item 0) a new first item of a list.
    Add { path: Path, value: Value },
    /// A scalar, or an empty collection, becomes this.
    Replace { path: Path, value: Value },
    /// A key gets another name.
    Rename { path: Path, key: &'static str },
}

/// What becomes of a pod template.
#[derive(Debug)]
pub(super) enum Plan {
    /// The annotation of this name will say how to undo the changes; it is one of them, with nothing in it yet.
    Change(Vec<Change>),
    /// It stays as it is, and why.
    Leave(String),
}

/// Plans for a pod template of a workload of this kind.
///
/// # Errors
/// Where annotations cannot be meant, or the template cannot carry a sidecar.
pub(super) fn plan(kind: &str, workload: &Node, template: &Node, options: &Options) -> Result<Plan, String> {
    let own = template.at(&["metadata", "annotations"]);
    let above = workload.at(&["metadata", "annotations"]);
    let annotations: Vec<&Node> = above.into_iter().chain(own).collect();
    let Some(options) = options.tuned(&annotations)? else {
        return Ok(Plan::Leave(format!("its annotation {PREFIX}inject says so")));
    };
    let spec = template.get("spec").ok_or("it has no pod spec")?;
    match spec.get("hostNetwork") {
        Some(node) if node.is_true() => {
            return Ok(Plan::Leave("it uses the network of its node (hostNetwork)".to_owned()));
        }
        Some(Node { kind: Kind::Alias, .. }) => {
            return Err("`hostNetwork` is not written here; write it out".to_owned());
        }
        None if spec.get("<<").is_some() => {
            return Err("`hostNetwork` may come by a merge (`<<`); write it out".to_owned());
        }
        _ => {}
    }
    let system = [&["os", "name"], &["nodeSelector", "kubernetes.io/os"]].map(|way| spec.at(way).and_then(Node::text));
    if system.contains(&Some("windows")) {
        return Ok(Plan::Leave("it runs on Windows, and the proxy on Linux".to_owned()));
    }
    let ends_by_itself = matches!(kind, "Job" | "CronJob")
        || kind == "Pod" && matches!(spec.text_at("restartPolicy"), Some("Never" | "OnFailure"));
    if ends_by_itself && options.form == Form::Container {
        return Ok(Plan::Leave("a sidecar that is no native one would keep its Job from ending".to_owned()));
    }
    if let Some(lacks) = options.lacks.as_ref().filter(|_| options.mode == Mode::Transparent) {
        return Err(format!("its connections would be redirected, and the configuration has {lacks}"));
    }
    check_room(spec, &options)?;
    let mut planner = Planner { changes: Vec::new() };
    planner.pod(template, spec, &options)?;
    Ok(Plan::Change(planner.changes))
}

/// Refuses pods that have what would be put in.
fn check_room(spec: &Node, options: &Options) -> Result<(), String> {
    let names: [(_, _, &[&str]); 3] = [
        ("containers", "container", &[NAME, REDIRECT_NAME]),
        ("initContainers", "container", &[NAME, REDIRECT_NAME]),
        ("volumes", "volume", &[VOLUME]),
    ];
    for (list, what, names) in names {
        let mut items = spec.get(list).map(Node::items).unwrap_or_default().iter();
        if let Some(name) = items.find_map(|item| item.text_at("name").filter(|name| names.contains(name))) {
            return Err(format!("it has a {what} `{name}` that inject did not put there"));
        }
    }
    let users = [spec].into_iter().chain(spec.get("containers").map(Node::items).unwrap_or_default());
    let mut users = users.filter_map(|node| node.at(&["securityContext", "runAsUser"])).filter_map(Node::text);
    let user = super::PROXY_USER.to_string();
    if options.mode == Mode::Transparent && users.any(|known| known == user) {
        return Err(format!("the app runs as user {user}, by which capture knows the proxy's own traffic"));
    }
    Ok(())
}

struct Planner {
    changes: Vec<Change>,
}

fn key(name: &str) -> Step {
    Step::Key(name.to_owned())
}

fn join(path: &[Step], more: &[&str]) -> Path {
    path.iter().cloned().chain(more.iter().map(|name| key(name))).collect()
}

impl Planner {
    fn pod(&mut self, template: &Node, spec: &Node, options: &Options) -> Result<(), String> {
        let at = [key("spec")];
        let containers = spec.get("containers").map(Node::items).unwrap_or_default();
        let Some(app) = containers.first().and_then(|container| container.text_at("name")) else {
            return Err("it has no containers with names".to_owned());
        };
        let mut asked = Vec::new();
        for (index, container) in containers.iter().enumerate() {
            let at = [at.as_slice(), &[key("containers"), Step::Item(index)]].concat();
            self.pre_stop(&at, spec, container, options)?;
            if options.rewrite_probes {
                asked.extend(probes::rewrite(&at, container, options.metrics_port, &mut self.changes)?);
            }
        }
        // Other native sidecars start after the proxy where it is one too; else before, and their start would wait for it.
        if options.rewrite_probes && options.form == Form::Native {
            let containers = spec.get("initContainers").map(Node::items).unwrap_or_default().iter().enumerate();
            for (index, container) in containers.filter(|(_, known)| known.text_at("restartPolicy") == Some("Always")) {
                let at = [at.as_slice(), &[key("initContainers"), Step::Item(index)]].concat();
                asked.extend(probes::rewrite(&at, container, options.metrics_port, &mut self.changes)?);
            }
        }
        let proxy = sidecar::proxy(options, &asked);
        match options.form {
            Form::Native => self.prepend(&at, spec, "initContainers", proxy)?,
            Form::Container => self.prepend(&at, spec, "containers", proxy)?,
        }
        if options.mode == Mode::Transparent {
            self.prepend(&at, spec, "initContainers", sidecar::redirect(options))?;
        }
        self.prepend(&at, spec, "volumes", sidecar::volume(options))?;
        self.annotations(template, app, options)
    }

    /// The app hears of its end when the proxy has let no more come in.
    fn pre_stop(&mut self, at: &[Step], spec: &Node, container: &Node, options: &Options) -> Result<(), String> {
        if options.pre_stop == 0 || container.at(&["lifecycle", "preStop"]).is_some() {
            return Ok(());
        }
        let grace = spec.text_at("terminationGracePeriodSeconds").and_then(|seconds| seconds.parse::<i64>().ok());
        let grace = grace.unwrap_or(GRACE);
        if i64::from(options.pre_stop) >= grace {
            return Err(format!(
                "its apps would sleep for {} s before they hear of their end, and are killed after {grace} s: raise \
                 terminationGracePeriodSeconds, or say less in the annotation {PREFIX}pre-stop",
                options.pre_stop
            ));
        }
        let wait = match options.form {
            Form::Native => map([("sleep", map([("seconds", options.pre_stop.into())]))]),
            // Before Kubernetes 1.30, only a program of the image can wait.
            Form::Container => {
                map([("exec", map([("command", vec!["sleep".to_owned(), options.pre_stop.to_string()].into())]))])
            }
        };
        match container.get("lifecycle") {
            None => self.add(at, container, "lifecycle", map([("preStop", wait)])),
            Some(lifecycle) => self.put(&join(at, &["lifecycle"]), lifecycle, "preStop", wait),
        }
    }

    fn annotations(&mut self, template: &Node, app: &str, options: &Options) -> Result<(), String> {
        let known = template.at(&["metadata", "annotations"]).map(Node::entries).unwrap_or_default();
        let has = |name: &str| known.iter().any(|(key, _)| key.text().is_some_and(|key| key.starts_with(name)));
        let mut wanted = vec![(INJECTED, String::new())];
        // An app that is scraped already keeps its own annotations: there is room for one address only.
        if !has("prometheus.io/") {
            wanted.push(("prometheus.io/scrape", "true".to_owned()));
            wanted.push(("prometheus.io/port", options.metrics_port.to_string()));
            wanted.push(("prometheus.io/path", "/metrics".to_owned()));
        }
        if options.form == Form::Container && !has(DEFAULT_CONTAINER) {
            wanted.push((DEFAULT_CONTAINER, app.to_owned()));
        }
        let wanted: Vec<(&str, Value)> = wanted.into_iter().map(|(name, value)| (name, value.into())).collect();
        let all = || Value::Map(wanted.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect());
        let Some(metadata) = template.get("metadata") else {
            return self.add(&[], template, "metadata", map([("annotations", all())]));
        };
        match metadata.get("annotations") {
            Some(annotations) if !annotations.is_empty() => {
                let at = join(&[], &["metadata", "annotations"]);
                wanted.into_iter().try_for_each(|(name, value)| self.put(&at, annotations, name, value))
            }
            Some(_) => self.replace(join(&[], &["metadata", "annotations"]), all()),
            None => self.put(&join(&[], &["metadata"]), metadata, "annotations", all()),
        }
    }

    /// A first item for a list that may not be there.
    fn prepend(&mut self, at: &[Step], spec: &Node, list: &'static str, item: Value) -> Result<(), String> {
        let path = join(at, &[list]);
        // Another new first item may have made the list.
        for change in &mut self.changes {
            if let Change::Add { path: known, value: Value::List(items) }
            | Change::Replace { path: known, value: Value::List(items) } = change
                && *known == path
            {
                items.insert(0, item);
                return Ok(());
            }
        }
        let value = |item| Value::List(vec![item]);
        match spec.get(list) {
            None => self.add(at, spec, list, value(item)),
            Some(node) if node.is_empty() => self.replace(path, value(item)),
            Some(Node { kind: Kind::Sequence { .. }, .. }) => {
                let path = [path, vec![Step::Item(0)]].concat();
                // Of several new first items, the last comes first.
                let other = self
                    .changes
                    .iter()
                    .position(|change| matches!(change, Change::Add { path: known, .. } if *known == path));
                let place = other.unwrap_or(self.changes.len());
                self.changes.insert(place, Change::Add { path, value: item });
                Ok(())
            }
            Some(_) => Err(format!("`{list}` is no list that is written here; write it out")),
        }
    }

    /// An entry for a mapping that may be empty.
    fn put(&mut self, at: &[Step], mapping: &Node, name: &str, value: Value) -> Result<(), String> {
        if mapping.is_empty() {
            return self.replace(at.to_vec(), Value::Map(vec![(name.to_owned(), value)]));
        }
        let Kind::Mapping { .. } = mapping.kind else {
            return Err(format!("`{name}` cannot be added to what is no mapping that is written here; write it out"));
        };
        self.changes.push(Change::Add { path: join(at, &[name]), value });
        Ok(())
    }

    /// An entry that the mapping does not have, nor gets by a merge.
    fn add(&mut self, at: &[Step], mapping: &Node, name: &str, value: Value) -> Result<(), String> {
        if mapping.get("<<").is_some() {
            return Err(format!("`{name}` may come by a merge (`<<`); write it out"));
        }
        self.put(at, mapping, name, value)
    }

    fn replace(&mut self, path: Path, value: Value) -> Result<(), String> {
        self.changes.push(Change::Replace { path, value });
        Ok(())
    }
}
