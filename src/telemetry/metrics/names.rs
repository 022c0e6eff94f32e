//! Names of listeners, routes and upstreams as small numbers, so that a request carries no string to its metrics.
//!
//! Numbers are given out once and never again: a configuration that comes back finds its counters where it left them.
//! Each table is bounded; what comes after is counted under the name `other`.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What stands for everything beyond a table's bound.
pub(super) const OTHER: &str = "other";

/// At most this many names of each kind in a process' life. Names are at most a few hundred bytes.
const MAX_LISTENERS: usize = 1_000;
const MAX_ROUTES: usize = 20_000;
const MAX_UPSTREAMS: usize = 10_000;

/// A listener's number in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub(super) u16);

/// A route's number in metrics. It names the route's listener too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub(super) u16);

impl RouteId {
    /// True where it stands for every route beyond the table's bound.
    pub(crate) fn is_shared(self) -> bool {
        self.0 == 0
    }
}

/// An upstream's number in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub(super) u16);

/// The names behind the numbers. Asked when a configuration is compiled and at scrapes, never by a request.
#[derive(Debug)]
pub struct Names(Mutex<Tables>);

#[derive(Debug)]
pub(super) struct Tables {
    listeners: Table<String>,
    routes: Table<(ListenerId, String)>,
    upstreams: Table<String>,
}

impl Names {
    /// Empty tables.
    pub fn new() -> Self {
        let other = || OTHER.to_owned();
        Names(Mutex::new(Tables {
            listeners: Table::new(other(), MAX_LISTENERS),
            routes: Table::new((ListenerId(0), other()), MAX_ROUTES),
            upstreams: Table::new(other(), MAX_UPSTREAMS),
        }))
    }

    /// The number of the listener with this name.
    pub fn listener(&self, name: &str) -> ListenerId {
        ListenerId(self.tables().listeners.id(name.to_owned()))
    }

    /// The number of a listener's route with this name.
    pub fn route(&self, listener: ListenerId, name: &str) -> RouteId {
        RouteId(self.tables().routes.id((listener, name.to_owned())))
    }

    /// The number for requests to a listener that match no route, or end before they are matched. The label is empty.
    pub fn no_route(&self, listener: ListenerId) -> RouteId {
        self.route(listener, "")
    }

    /// The number of the upstream with this name.
    pub fn upstream(&self, name: &str) -> UpstreamId {
        UpstreamId(self.tables().upstreams.id(name.to_owned()))
    }

    /// The tables, for reading many names at a scrape.
    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

impl Tables {
    pub(super) fn listener(&self, id: ListenerId) -> &str {
        self.listeners.name(id.0).map_or(OTHER, String::as_str)
    }

    pub(super) fn route(&self, id: RouteId) -> (&str, &str) {
        self.routes.name(id.0).map_or((OTHER, OTHER), |(listener, name)| (self.listener(*listener), name))
    }

    pub(super) fn upstream(&self, id: UpstreamId) -> &str {
        self.upstreams.name(id.0).map_or(OTHER, String::as_str)
    }
}

/// Numbers for keys. Number 0 is the key that stands for all others; a key of that name shares it, so that no two
/// series ever have the same labels.
#[derive(Debug)]
struct Table<K> {
    numbers: HashMap<K, u16>,
    keys: Vec<K>,
    max: usize,
}

impl<K: Hash + Eq + Clone> Table<K> {
    fn new(other: K, max: usize) -> Self {
        Table { numbers: HashMap::from([(other.clone(), 0)]), keys: vec![other], max }
    }

    fn id(&mut self, key: K) -> u16 {
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let Some(number) = u16::try_from(self.keys.len()).ok().filter(|_| self.keys.len() < self.max) else { return 0 };
        self.keys.push(key.clone());
        self.numbers.insert(key, number);
        number
    }

    fn name(&self, number: u16) -> Option<&K> {
        self.keys.get(usize::from(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let names = Names::new();
        let (inbound, outbound) = (names.listener("inbound"), names.listener("outbound"));
        assert_ne!(inbound, outbound);
        assert_eq!(names.listener("inbound"), inbound);
        assert_ne!(names.route(inbound, "app"), names.route(outbound, "app"), "routes belong to their listener");
        assert_eq!(names.route(inbound, "app"), names.route(inbound, "app"));
        let unmatched = names.no_route(inbound);
        assert_eq!(names.tables().route(unmatched), ("inbound", ""));
    }

    #[test]
    fn a_full_table_answers_other() {
        let names = Names::new();
        let ids: Vec<UpstreamId> = (0..MAX_UPSTREAMS + 5).map(|index| names.upstream(&index.to_string())).collect();
        assert_eq!(names.tables().upstream(ids[MAX_UPSTREAMS + 4]), OTHER);
        assert_eq!(names.tables().upstream(ids[10]), "10");
        assert_eq!(names.upstream("10"), ids[10]);
    }

    #[test]
    fn a_thing_named_other_shares_the_number_of_all_others() {
        let names = Names::new();
        assert_eq!(names.upstream("other"), UpstreamId(0));
        assert_eq!(names.route(names.listener("other"), "other"), RouteId(0));
    }
}
