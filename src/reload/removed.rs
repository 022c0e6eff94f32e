//! Which routes a swap has removed. What streams by them ends when the drain's time is over.
//!
//! Metrics know a route by its name, and names are often made from a route's position or its upstream: another route
//! above it, or another upstream, gives it a new one. So a route is gone only where its listener has none any more that
//! matches the same; or, where a person named it, none of its name.

use std::collections::{HashMap, HashSet};

use crate::config::model::Config;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::RouteId;

/// A listener's name, and what of its requests a route takes.
type Place<'a> = (&'a str, String);

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// Nobody has their names. One that comes back in time is not removed after all.
    pub(super) gone: Vec<RouteId>,
    /// Others, which were there before, have their names now.
    pub(super) replaced: Vec<RouteId>,
}

impl Removed {
    /// By the swap from `before`, compiled as `old`, to `config`, compiled as `new`.
    pub(super) fn between(old: &Snapshot, before: &Config, new: &Snapshot, config: &Config) -> Self {
        let (old, new) = (places(old, before), places(new, config));
        let there: HashSet<&Place<'_>> = new.iter().map(|(_, place)| place).collect();
        let names: HashMap<RouteId, &Place<'_>> = new.iter().map(|(route, place)| (*route, place)).collect();
        let were: HashSet<&Place<'_>> = old.iter().map(|(_, place)| place).collect();
        let mut removed = Removed::default();
        for (route, _) in old.iter().filter(|(_, place)| !there.contains(place)) {
            match names.get(route) {
                None => removed.gone.push(*route),
                Some(place) if were.contains(place) => removed.replaced.push(*route),
                // What it takes was changed.
                Some(_) => {}
            }
        }
        removed
    }
}

fn places<'a>(snapshot: &Snapshot, config: &'a Config) -> Vec<(RouteId, Place<'a>)> {
    let listeners = snapshot.listeners.iter().zip(&config.listeners);
    let routes = listeners.flat_map(|(compiled, listener)| {
        let routes = compiled.routes.iter().zip(&listener.routes);
        routes.map(|(compiled, route)| (compiled.id, (listener.name.as_str(), format!("{:?}", route.matcher))))
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

    /// How many a swap between listeners with these routes removes: by name, and by another's taking it.
    fn removed(before: &str, after: &str) -> (usize, usize) {
        let (registry, names) = (Arc::new(Registry::new(mpsc::unbounded_channel().0)), Names::new());
        let [before, after] = [before, after].map(|routes| {
            let text = format!(
                "listeners: {{ in: {{ address: \"127.0.0.1:1\", routes: [{routes}] }} }}\n\
                 upstreams: {{ a: \"127.0.0.1:2\", b: \"127.0.0.1:3\" }}\n"
            );
            let document = Document { name: "test", bytes: text.as_bytes() };
            load(document, &|_: &str| None, &LoadOptions::default()).unwrap().config
        });
        let [old, new] = [&before, &after]
            .map(|config| Snapshot::compile(config, 1, &registry, &identity::Store::default(), &names).unwrap());
        let removed = Removed::between(&old, &before, &new, &after);
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
}
