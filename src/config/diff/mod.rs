//! What one configuration changes of another: listeners, routes and upstreams by name, field by field, and what becomes
//! of the state behind each.
//!
//! Long forms are compared, so that a default that is written out is no change, a new default of `defaults` shows at each
//! upstream that it reaches, and a key that is added to the product one day needs nothing here.

mod effect;
mod text;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

pub use effect::Effect;
use serde::Serialize;

use super::effective::written::{Form, NOTHING, Written};

/// Everything that changes, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Things that are added, removed or changed.
    pub changes: Vec<Change>,
    /// Listeners, routes and upstreams that stay as they are.
    pub unchanged: usize,
}

/// One thing that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is.
    pub part: Part,
    /// Its name; that of a route begins with its listener's. Empty for the process.
    pub name: String,
    /// What happens to it.
    pub kind: Kind,
    /// Field by field, where it is there before and after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
    /// The strongest of its fields' effects; of what is removed, that it drains.
    pub effect: Effect,
    /// Live: connections that would be seen off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
}

/// A field of something that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its keys, such as `timeouts.response`.
    pub key: String,
    /// As it was; `None` where it was not there.
    pub old: Option<String>,
    /// As it becomes; `None` where it goes.
    pub new: Option<String>,
    /// What that does.
    pub effect: Effect,
}

/// What a change is a change of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // They are the file's own words.
pub enum Part {
    Process,
    Listener,
    Route,
    Upstream,
}

/// How something changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Kind {
    Added,
    Removed,
    Changed,
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Part::Process => "process",
            Part::Listener => "listener",
            Part::Route => "route",
            Part::Upstream => "upstream",
        }
    }
}

/// Something of a long form, and its name.
type Entry<'t> = (Cow<'t, str>, Written<'t>);

/// Compares two long forms ([`super::Loaded::effective`]).
pub fn diff(old: &str, new: &str) -> Diff {
    let (old, new) = (Written::document(old), Written::document(new));
    let mut diff = Diff::default();
    diff.compare(Part::Process, "", of_process(old), of_process(new));
    let (old_listeners, new_listeners) = (section(old, "listeners"), section(new, "listeners"));
    for (name, before, after) in pairs(&old_listeners, &new_listeners) {
        let own = |(key, _): &Entry<'_>| key != "routes";
        diff.pair(Part::Listener, name, before, after, own);
        let (before, after) = (routes(before), routes(after));
        for (route, before, after) in pairs(&before, &after) {
            let full = || format!("{name}/{route}");
            if before == after {
                diff.unchanged += 1;
            } else {
                diff.pair(Part::Route, &full(), before, after, |_| true);
            }
            // Services that are found when first called have no other policies than these.
            let finds = |side: Option<Written<'_>>| side.is_some_and(|route| route.get("discover").is_some());
            if finds(before) && finds(after) {
                diff.compare(Part::Upstream, &full(), section(old, "defaults"), section(new, "defaults"));
            }
        }
        diff.order(name, &before, &after);
    }
    let (old_upstreams, new_upstreams) = (section(old, "upstreams"), section(new, "upstreams"));
    for (name, before, after) in pairs(&old_upstreams, &new_upstreams) {
        diff.pair(Part::Upstream, name, before, after, |_| true);
    }
    diff
}

/// Of a long form, what neither a listener nor an upstream has of its own: all that [`held`] asks for.
pub(crate) fn process_alone(effective: &str) -> String {
    let mut own = true;
    let lines = effective.lines().filter(|line| {
        if !line.starts_with([' ', '-']) {
            own = line.split(':').next().is_some_and(is_of_process);
        }
        own
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Keys that are written otherwise than they were when the process started, and hold only from its next start on.
pub(crate) fn held(started_with: &str, now: &str) -> Vec<String> {
    let process = |text| of_process(Written::document(text));
    let mut diff = Diff::default();
    diff.compare(Part::Process, "", process(started_with), process(now));
    diff.needs_restart()
}

impl Diff {
    /// True where nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Keys of the process that hold only from its next start on.
    pub fn needs_restart(&self) -> Vec<String> {
        let fields =
            self.changes.iter().filter(|change| change.part == Part::Process).flat_map(|change| &change.fields);
        fields.filter(|field| field.effect == Effect::Restart).map(|field| field.key.clone()).collect()
    }

    fn pair<'t>(
        &mut self,
        part: Part,
        name: &str,
        before: Option<Written<'t>>,
        after: Option<Written<'t>>,
        counts: fn(&Entry<'_>) -> bool,
    ) {
        let whole =
            |kind, effect| Change { part, name: name.to_owned(), kind, fields: Vec::new(), effect, connections: None };
        let entries = |side: Written<'t>| side.entries().filter(counts).collect();
        match (before, after) {
            (Some(before), Some(after)) => self.compare(part, name, entries(before), entries(after)),
            (None, Some(_)) => self.changes.push(whole(Kind::Added, Effect::InPlace)),
            (Some(_), None) => self.changes.push(whole(Kind::Removed, Effect::Drains)),
            (None, None) => {}
        }
    }

    fn compare(&mut self, part: Part, name: &str, before: Vec<Entry<'_>>, after: Vec<Entry<'_>>) {
        let mut fields = Vec::new();
        if before != after {
            for (name, before, after) in pairs(&before, &after) {
                walk(part, name, before, after, &mut fields);
            }
        }
        if fields.is_empty() {
            self.unchanged += usize::from(part != Part::Process);
            return;
        }
        self.push_changed(part, name, fields);
    }

    fn push_changed(&mut self, part: Part, name: &str, fields: Vec<Field>) {
        let effect = fields.iter().map(|field| field.effect).max_by_key(|effect| *effect as u8);
        let effect = effect.unwrap_or(Effect::InPlace);
        let name = name.to_owned();
        self.changes.push(Change { part, name, kind: Kind::Changed, fields, effect, connections: None });
    }

    /// The first match wins, so that an order is a change of its own.
    fn order(&mut self, listener: &str, before: &[Entry<'_>], after: &[Entry<'_>]) {
        fn names<'t>(entries: &'t [Entry<'_>]) -> impl Iterator<Item = &'t str> {
            entries.iter().map(|(name, _)| &**name)
        }
        fn common<'t>(these: &'t [Entry<'_>], others: &[Entry<'_>]) -> Vec<&'t str> {
            let others: HashSet<&str> = names(others).collect();
            names(these).filter(|name| others.contains(name)).collect()
        }
        if names(before).eq(names(after)) {
            return;
        }
        let (old, new) = (common(before, after), common(after, before));
        if old != new {
            let field = Field {
                key: "order".to_owned(),
                old: Some(old.join(", ")),
                new: Some(new.join(", ")),
                effect: Effect::InPlace,
            };
            self.push_changed(Part::Listener, listener, vec![field]);
        }
    }
}

/// What neither a listener nor an upstream has of its own.
fn of_process(document: Written<'_>) -> Vec<Entry<'_>> {
    document.entries().filter(|(key, _)| is_of_process(key)).collect()
}

fn is_of_process(key: &str) -> bool {
    !matches!(key, "version" | "defaults" | "listeners" | "upstreams")
}

fn section<'t>(document: Written<'t>, key: &str) -> Vec<Entry<'t>> {
    document.get(key).unwrap_or(NOTHING).entries().collect()
}

fn routes(listener: Option<Written<'_>>) -> Vec<Entry<'_>> {
    named(listener.and_then(|listener| listener.get("routes")).unwrap_or(NOTHING))
}

/// Everything of both sides by name: in the new order, then what is only in the old one.
fn pairs<'e, 't>(
    old: &'e [Entry<'t>],
    new: &'e [Entry<'t>],
) -> impl Iterator<Item = (&'e str, Option<Written<'t>>, Option<Written<'t>>)> {
    let index = |entries: &'e [Entry<'t>]| -> HashMap<&'e str, Written<'t>> {
        entries.iter().map(|(name, value)| (&**name, *value)).collect()
    };
    let (in_old, in_new) = (index(old), index(new));
    let present = new.iter().map(move |(name, value)| (&**name, in_old.get(&**name).copied(), Some(*value)));
    let gone = old.iter().filter(move |(name, _)| !in_new.contains_key(&**name));
    present.chain(gone.map(|(name, value)| (&**name, Some(*value), None)))
}

/// The items of a list by what tells them from each other: their name, their address, what they lead to, or else their
/// position.
fn named(list: Written<'_>) -> Vec<Entry<'_>> {
    let name = |position: usize, item: Written<'_>| {
        let known = ["name", "address", "upstream"].iter().find_map(|key| item.get(key));
        known.map_or_else(|| format!("#{}", position + 1), |known| known.to_string())
    };
    let items = list.items().into_iter().enumerate();
    items.map(|(position, item)| (Cow::Owned(name(position, item)), item)).collect()
}

/// True where the list's items can be told apart.
fn is_of_maps(list: Written<'_>) -> bool {
    let items = list.items();
    !items.is_empty() && items.iter().all(|item| item.form() == Form::Map)
}

fn walk(part: Part, key: &str, before: Option<Written<'_>>, after: Option<Written<'_>>, fields: &mut Vec<Field>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Some(old), Some(new)) if (old.form(), new.form()) == (Form::Map, Form::Map) => {
            let (old, new): (Vec<_>, Vec<_>) = (old.entries().collect(), new.entries().collect());
            for (name, before, after) in pairs(&old, &new) {
                walk(part, &format!("{key}.{name}"), before, after, fields);
            }
        }
        (Some(old), Some(new)) if is_of_maps(old) && is_of_maps(new) => {
            let (old, new) = (named(old), named(new));
            for (name, before, after) in pairs(&old, &new) {
                walk(part, &format!("{key}[{name}]"), before, after, fields);
            }
        }
        _ => fields.push(Field {
            key: key.to_owned(),
            old: before.map(|before| before.to_string()),
            new: after.map(|after| after.to_string()),
            // An endpoint that goes is seen off; one that comes is no change to the others.
            effect: match (after, key.ends_with(']')) {
                (None, true) => Effect::Drains,
                _ => effect::of(part, key),
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Document, LoadOptions, load};
    use super::*;

    fn effective(text: &str) -> String {
        load(Document { name: "test", bytes: text.as_bytes() }, &|_: &str| None, &LoadOptions::default())
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
            .effective
    }

    fn compare(old: &str, new: &str) -> Diff {
        diff(&effective(old), &effective(new))
    }

    const BASE: &str = "
listeners:
  outbound:
    address: 127.0.0.1:15001
    routes:
      - { match: { host: a }, upstream: a }
      - { match: { host: b }, upstream: b }
upstreams:
  a: [\"10.0.0.1:80\", \"10.0.0.2:80\"]
  b: \"10.0.0.3:80\"
";

    #[test]
    fn a_default_that_is_written_out_is_no_change() {
        let written = BASE.replace("b: \"10.0.0.3:80\"", "b: { static: [\"10.0.0.3:80\"], protocol: auto }");
        let diff = compare(BASE, &written);
        assert!(diff.is_empty(), "{diff:?}");
        assert_eq!(diff.unchanged, 5);
    }

    #[test]
    fn fields_are_compared_one_by_one() {
        let new = BASE.replace("[\"10.0.0.1:80\", \"10.0.0.2:80\"]", "[\"10.0.0.2:80\", \"10.0.0.9:80\"]").replace(
            "{ match: { host: b }, upstream: b }",
            "{ match: { host: b }, upstream: b, timeouts: { response: 2s } }",
        );
        let diff = compare(BASE, &format!("{new}workers: 3\n"));
        let fields: Vec<(String, &str, Effect)> = diff
            .changes
            .iter()
            .flat_map(|change| {
                change.fields.iter().map(|field| (change.name.clone(), field.key.as_str(), field.effect))
            })
            .collect();
        assert_eq!(
            fields,
            [
                (String::new(), "workers", Effect::Restart),
                ("outbound/b".to_owned(), "timeouts", Effect::InPlace),
                ("a".to_owned(), "static[10.0.0.9:80]", Effect::InPlace),
                ("a".to_owned(), "static[10.0.0.1:80]", Effect::Drains),
            ]
        );
        assert_eq!(diff.needs_restart(), ["workers"]);
        let process = process_alone(&effective(BASE));
        assert!(!process.contains("10.0.0.1") && process.contains("workers: auto"), "{process}");
        assert_eq!(held(&process, &effective(&format!("{new}workers: 3\n"))), ["workers"]);
        assert!(held(&process, &effective(&new)).is_empty());
    }

    #[test]
    fn what_comes_goes_or_changes_places_is_said_by_name() {
        let new = "
listeners:
  outbound:
    address: 127.0.0.1:15001
    routes:
      - { match: { host: b }, upstream: b }
      - { match: { host: a }, upstream: a }
  extra: { address: 127.0.0.1:15002, upstream: b }
upstreams:
  a: [\"10.0.0.1:80\", \"10.0.0.2:80\"]
  b: \"10.0.0.3:80\"
";
        let diff = compare(BASE, new);
        let seen: Vec<_> = diff.changes.iter().map(|change| (change.part, change.name.as_str(), change.kind)).collect();
        assert_eq!(
            seen,
            [
                (Part::Listener, "outbound", Kind::Changed),
                (Part::Listener, "extra", Kind::Added),
                (Part::Route, "extra/b", Kind::Added),
            ]
        );
        assert!(compare(new, BASE).changes.iter().any(|change| change.effect == Effect::Drains));
    }

    #[test]
    fn a_new_default_shows_where_it_reaches() {
        let diff = compare(BASE, &format!("{BASE}defaults: {{ timeouts: {{ connect: 2s }} }}\n"));
        let changed: Vec<_> =
            diff.changes.iter().map(|change| (change.name.as_str(), change.fields[0].key.as_str())).collect();
        assert_eq!(changed, [("a", "timeouts.connect"), ("b", "timeouts.connect")]);
    }

    #[test]
    fn each_key_of_the_process_says_what_becomes_of_it() {
        let looked_up = "
consul: { address: \"http://127.0.0.1:8500\" }
listeners: { inbound: { address: \":15006\", upstream: a } }
upstreams: { a: { consul: web }, b: { dns: { name: b.example, port: 80 } } }
";
        for (added, effect) in [
            ("service: orders", Effect::InPlace),
            ("zone: a", Effect::Resets),
            ("workers: 3", Effect::Restart),
            ("admin: { address: \"127.0.0.1:1\" }", Effect::Restart),
            ("metrics: { address: \":9902\" }", Effect::Restart),
            ("register: { name: orders, port: 15006 }", Effect::InPlace),
            ("wait_for_discovery: 7s", Effect::Restart),
            ("dns: { servers: [\"127.0.0.1:53\"] }", Effect::LooksUp),
            ("dns: { stale: 7s }", Effect::LooksUp),
            ("drain: { delay: 7s }", Effect::InPlace),
            ("telemetry: { log: { level: debug } }", Effect::InPlace),
            ("telemetry: { log: { format: text } }", Effect::Restart),
            ("telemetry: { access_log: { only: all } }", Effect::InPlace),
        ] {
            let diff = compare(looked_up, &format!("{looked_up}{added}\n"));
            let process = diff.changes.iter().find(|change| change.part == Part::Process).unwrap();
            assert_eq!(process.effect, effect, "{added}: {process:?}");
        }
        for (old, new, part) in [
            ("127.0.0.1:8500", "127.0.0.1:8501", Part::Process),
            ("consul: web", "consul: { service: web, tags: [v1] }", Part::Upstream),
            ("port: 80", "port: 81", Part::Upstream),
        ] {
            let diff = compare(looked_up, &looked_up.replace(old, new));
            let effects: Vec<_> = diff.changes.iter().map(|change| (change.part, change.effect)).collect();
            assert_eq!(effects, [(part, Effect::LooksUp)], "{new}");
        }
    }

    #[test]
    fn what_services_on_demand_are_made_from_is_compared_with_their_route() {
        let base = "listeners: { out: { address: 127.0.0.1:1, routes: [{ discover: consul }] } }\n";
        let long = base.replace("consul", "{ from: consul, max: 100, idle: 5m }");
        assert!(compare(base, &long).is_empty());
        let new = long.replace("max: 100", "max: 50") + "defaults: { timeouts: { connect: 2s } }\n";
        let diff = compare(base, &new);
        let changed: Vec<_> = diff
            .changes
            .iter()
            .flat_map(|change| {
                change.fields.iter().map(|field| (change.part, &*change.name, &*field.key, field.effect))
            })
            .collect();
        let name = "out/discover-consul";
        assert_eq!(
            changed,
            [
                (Part::Route, name, "discover.max", Effect::InPlace),
                (Part::Upstream, name, "timeouts.connect", Effect::InPlace)
            ]
        );
        let other = base.replace("discover: consul", "name: discover-consul, discover: dns");
        assert_eq!(compare(base, &other).changes[0].effect, Effect::Resets);
    }

    #[test]
    fn however_much_there_is_all_of_it_is_compared() {
        let long = |weight: u32| {
            let upstreams = (0..50_000).map(|number| {
                let weight = if number == 49_999 { weight } else { 1 };
                format!("\n  u{number}:\n    static:\n      - address: \"10.0.0.1:{number}\"\n        weight: {weight}")
            });
            format!("version: 1\nupstreams:{}\n", upstreams.collect::<String>())
        };
        let diff = diff(&long(1), &long(2));
        assert_eq!((diff.unchanged, diff.changes.len()), (49_999, 1));
        assert_eq!(diff.changes[0].fields[0].key, "static[10.0.0.1:49999].weight");
    }
}
