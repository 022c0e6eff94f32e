//! Which routes a swap has removed. What streams by them ends when the drain's time is over.
//!
//! Metrics know a route by its name, and names are often made from a route's position or its upstream: another route
//! above it, or another upstream, gives it a new one. So a route is gone only where its listener has none any more that
//! matches the same; or, where a person named it, none of its name.

use std::collections::{HashMap, HashSet};

use crate::config::model::{Config, Match};
use crate::runtime::pace::breathe;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::RouteId;

/// A listener's name, and what of its requests a route takes.
type Place<'c> = (&'c str, &'c Match);

/// Routes by the number that streams know them by, each with what it took. Those beyond the metrics' bound have one
/// number together, so that none of them can be told from the others: they are never among these.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// Nobody has their names. One whose name comes back in time is not removed after all.
    gone: Vec<Route>,
    /// Others, which were there before, have their names now.
    replaced: Vec<Route>,
}

/// One that was removed.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    id: RouteId,
    listener: String,
    matcher: Match,
}

impl Route {
    fn new(id: RouteId, (listener, matcher): Place<'_>) -> Self {
        Route { id, listener: listener.to_owned(), matcher: matcher.clone() }
    }

    fn place(&self) -> Place<'_> {
        (&self.listener, &self.matcher)
    }
}

#[expect(clippy::mutable_key_type, reason = "the bytes of a header's name are shared, and never change")]
impl Removed {
    /// By the swap from `before`, compiled as `old`, to `config`, compiled as `new`.
    pub(super) fn between(old: &Snapshot, before: &Config, new: &Snapshot, config: &Config) -> Self {
        let (old, new) = (places(old, before), places(new, config));
        let there: HashSet<Place<'_>> = new.iter().map(|(_, place)| *place).collect();
        let names: HashMap<RouteId, Place<'_>> = new.iter().copied().collect();
        let were: HashSet<Place<'_>> = old.iter().map(|(_, place)| *place).collect();
        let mut removed = Removed::default();
        for (route, place) in old.iter().filter(|(route, place)| !route.is_shared() && !there.contains(place)) {
            match names.get(route) {
                None => removed.gone.push(Route::new(*route, *place)),
                Some(other) if were.contains(other) => removed.replaced.push(Route::new(*route, *place)),
                // What it takes was changed.
                Some(_) => {}
            }
        }
        removed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.replaced.is_empty()
    }

    /// Those that are still removed where `config`, compiled as `snapshot`, is in force by now.
    pub(super) fn under(self, snapshot: &Snapshot, config: &Config) -> Vec<RouteId> {
        let now = places(snapshot, config);
        let there: HashSet<Place<'_>> = now.iter().map(|(_, place)| *place).collect();
        let names: HashSet<RouteId> = now.iter().map(|(route, _)| *route).collect();
        let gone = self.gone.into_iter().filter(|route| !names.contains(&route.id));
        gone.chain(self.replaced).filter(|route| !there.contains(&route.place())).map(|route| route.id).collect()
    }
}

fn places<'c>(snapshot: &Snapshot, config: &'c Config) -> Vec<(RouteId, Place<'c>)> {
    let listeners = snapshot.listeners.iter().zip(&config.listeners);
    let routes = listeners.flat_map(|(compiled, listener)| {
        let routes = compiled.routes.iter().zip(&listener.routes);
        let routes = routes.inspect(|_| breathe());
        routes.map(|(compiled, route)| (compiled.id, (listener.name.as_str(), &route.matcher)))
    });
    routes.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::config::{Document, LoadOptions, load};
    use crate::identity;
    use crate::telemetry::metrics::Names;
    use crate::upstream::registry::Registry;

    fn config(routes: &str) -> Config {
        let text = format!(
            "listeners: {{ in: {{ address: \"127.0.0.1:1\", routes: [{routes}] }} }}\n\
             upstreams: {{ a: \"127.0.0.1:2\", b: \"127.0.0.1:3\" }}\n"
        );
        let document = Document { name: "test", bytes: text.as_bytes() };
        load(document, &|_: &str| None, &LoadOptions::default()).unwrap().config
    }

    /// What the swap from the first to the second of these routes removes, and what of that is left under the third.
    fn after(names: &Names, routes: [&str; 3]) -> (Removed, Vec<RouteId>) {
        let registry = Arc::new(Registry::new(mpsc::unbounded_channel().0));
        let [(old, before), (new, config), (now, last)] = routes.map(|routes| {
            let config = config(routes);
            let compiled = Snapshot::compile(&config, 1, &registry, &identity::Store::default(), names);
            (compiled.unwrap(), config)
        });
        let removed = || Removed::between(&old, &before, &new, &config);
        (removed(), removed().under(&now, &last))
    }

    /// How many a swap between these routes removes: by name, and by another's taking it.
    fn removed(before: &str, config: &str) -> (usize, usize) {
        let (removed, left) = after(&Names::new(), [before, config, config]);
        assert_eq!(left.len(), removed.gone.len() + removed.replaced.len());
        (removed.gone.len(), removed.replaced.len())
    }

    #[test]
    fn a_route_that_is_left_out_is_removed() {
        assert_eq!(removed("{ match: { path: /x }, upstream: a }, { upstream: b }", "{ upstream: b }"), (1, 0));
    }

    #[test]
    fn one_that_goes_elsewhere_or_has_another_name_is_not() {
        assert_eq!(removed("{ upstream: a }", "{ upstream: b }"), (0, 0));
        let split = "{ match: { path: /x }, split: { a: 1, b: 1 } }, { upstream: b }";
        let above = format!("{{ match: {{ path: /w }}, split: {{ a: 1, b: 2 }} }}, {split}");
        assert_eq!(removed(split, &above), (0, 0));
        assert_eq!(removed("{ name: x, upstream: a }", "{ name: y, upstream: a }"), (0, 0));
    }

    #[test]
    fn one_whose_match_is_changed_is_not_where_it_keeps_its_name() {
        assert_eq!(removed("{ match: { path: /x }, upstream: a }", "{ match: { path: /y }, upstream: a }"), (0, 0));
    }

    #[test]
    fn the_first_of_two_that_are_called_alike_is_removed_and_not_the_second() {
        let both = "{ match: { path: /x }, upstream: a }, { match: { path: /y }, upstream: a }";
        assert_eq!(removed(both, "{ match: { path: /y }, upstream: a }"), (0, 1));
    }

    #[test]
    fn one_that_comes_back_in_time_is_not() {
        let both = "{ match: { path: /x }, upstream: a }, { match: { path: /y }, upstream: a }";
        let (removed, left) = after(&Names::new(), [both, "{ match: { path: /y }, upstream: a }", both]);
        assert_eq!((removed.replaced.len(), left.len()), (1, 0));
        // Also where it has another name than it had.
        let named = "{ name: x, match: { path: /x }, upstream: a }, { upstream: b }";
        let other = "{ name: y, match: { path: /x }, upstream: a }, { upstream: b }";
        assert!(after(&Names::new(), [named, "{ upstream: b }", other]).1.is_empty());
        // And where another has its name: what it takes was changed.
        let elsewhere = "{ name: x, match: { path: /z }, upstream: a }, { upstream: b }";
        assert!(after(&Names::new(), [named, "{ upstream: b }", elsewhere]).1.is_empty());
    }

    #[test]
    fn one_that_has_no_number_of_its_own_is_not() {
        let names = Names::new();
        let listener = names.listener("in");
        let all = (0..).take_while(|number| !names.route(listener, &format!("r{number}")).is_shared()).count();
        assert!(all > 1_000);
        let two = "{ name: x, match: { path: /x }, upstream: a }, { name: y, match: { path: /y }, upstream: a }";
        let one = "{ name: y, match: { path: /y }, upstream: a }";
        assert_eq!(after(&names, [two, one, one]), (Removed::default(), Vec::new()));
    }
}
