//! Names of routes.

use std::collections::{HashMap, HashSet};

use crate::config::given::Given;
use crate::config::raw::discover::Discover;
use crate::config::raw::route::Route;
use crate::config::tree::Tree;

/// A name for each route of a listener: what is written, or the upstream's, or the action and the position, as in
/// `redirect-3`. Names that would be there twice get a number.
pub(crate) fn route_names(routes: &[Given<Route>], tree: &Tree) -> Vec<String> {
    let written = |route: &Given<Route>| route.get().and_then(|route| route.name.get()).map(|name| name.0.clone());
    let mut taken: HashSet<String> = routes.iter().filter_map(written).collect();
    let mut counts: HashMap<String, usize> = HashMap::new();
    routes
        .iter()
        .enumerate()
        .map(|(index, route)| {
            if let Some(name) = written(route) {
                return name;
            }
            let base = route.get().map_or_else(|| format!("route-{index}"), |route| derived(route, index, tree));
            let count = counts.entry(base.clone()).or_default();
            loop {
                *count += 1;
                let name = if *count == 1 { base.clone() } else { format!("{base}-{count}") };
                if taken.insert(name.clone()) {
                    return name;
                }
            }
        })
        .collect()
}

fn derived(route: &Route, index: usize, tree: &Tree) -> String {
    if let Some(node) = route.upstream.node() {
        return tree.written(node).to_owned();
    }
    if let Some(discover) = route.discover.get() {
        let from = match discover {
            Discover::From(from) => Some(from.node),
            Discover::Long(long) => long.from.node(),
        };
        return format!("discover-{}", from.map_or("services", |from| tree.written(from)));
    }
    let action = match route {
        Route { split: Given::Value(_), .. } => "split",
        Route { redirect: Given::Value(_), .. } => "redirect",
        Route { respond: Given::Value(_), .. } => "respond",
        _ => "route",
    };
    format!("{action}-{index}")
}
