//! Routes that can never match, because an earlier one takes all that they would.
//!
//! Each route is compared with each earlier one whose host and path could cover its own. A route that only several earlier
//! ones together cover is not found.

use std::collections::HashMap;

use super::Validator;
use crate::config::findings::Finding;
use crate::config::model::{HostMatch, HostName, Match, PathMatch, Route, ValueMatch, ValueTest};
use crate::config::tree::NodeId;
use crate::runtime::pace::breathe;

/// Comparisons of conditions for one file. Hardly a file comes to so many, for hosts and paths are looked up; beyond, the
/// rest is not looked at: this is advice, and must not stall a start.
const MOST_COMPARISONS: usize = 8_000_000;

impl Validator<'_> {
    pub(super) fn unreachable(&mut self, routes: &[Route], places: &[(NodeId, bool)]) {
        let mut earlier = Earlier::default();
        for (route, (node, sound)) in routes.iter().zip(places) {
            breathe();
            if !sound {
                continue;
            }
            for (other, other_node) in earlier.candidates(&route.matcher) {
                self.comparisons += cost(other, &route.matcher);
                if self.comparisons > MOST_COMPARISONS {
                    return;
                }
                if covers(other, &route.matcher) {
                    let reason = "this route can never match: an earlier one takes all that it would";
                    let finding = Finding::error("unreachable-route", *node, reason);
                    self.push(finding.related(other_node, "the earlier route").hint("move it up, or remove it"));
                    break;
                }
            }
            earlier.add(&route.matcher, *node);
        }
    }
}

/// Earlier routes by what they ask for, so that one that asks for something else need not be looked at.
#[derive(Default)]
struct Earlier<'m> {
    all: Vec<(&'m Match, NodeId)>,
    /// By host, `None` where it is no single name; then by path, `None` where it is no text.
    places: HashMap<(Option<&'m str>, Option<&'m str>), Vec<usize>>,
}

impl<'m> Earlier<'m> {
    fn add(&mut self, route: &'m Match, node: NodeId) {
        let path = match &route.path {
            PathMatch::Exact(path) | PathMatch::Prefix(path) => Some(path.as_str()),
            PathMatch::Any | PathMatch::Regex(_) => None,
        };
        let position = self.all.len();
        self.all.push((route, node));
        let names = route.hosts.iter().map(exact_name);
        for host in names.chain(route.hosts.is_empty().then_some(None)) {
            self.places.entry((host, path)).or_default().push(position);
        }
    }

    /// Those that may cover this one, in written order. Whoever does covers its first host, and the path up to some slash.
    fn candidates(&self, later: &'m Match) -> Vec<(&'m Match, NodeId)> {
        let mut paths = vec![None];
        if let PathMatch::Exact(path) | PathMatch::Prefix(path) = &later.path {
            let slashes = path.match_indices('/').map(|(end, _)| &path[..end]);
            paths.extend(slashes.chain([path.as_str()]).map(Some));
        }
        let name = later.hosts.first().and_then(exact_name);
        let hosts = [None, name];
        let hosts = if name.is_some() { &hosts[..] } else { &hosts[..1] };
        let places = hosts.iter().flat_map(|host| paths.iter().map(|path| (*host, *path)));
        let mut positions: Vec<usize> = places.filter_map(|place| self.places.get(&place)).flatten().copied().collect();
        positions.sort_unstable();
        positions.dedup();
        positions.into_iter().map(|position| self.all[position]).collect()
    }
}

fn exact_name(host: &HostMatch) -> Option<&str> {
    match &host.name {
        HostName::Exact(name) => Some(name),
        HostName::Suffix(_) => None,
    }
}

/// Upper bound of the comparisons that [`covers`] makes.
fn cost(earlier: &Match, later: &Match) -> usize {
    2 + earlier.hosts.len() * later.hosts.len()
        + earlier.methods.len() * later.methods.len()
        + earlier.ports.len() * later.ports.len()
        + earlier.headers.len() * later.headers.len()
        + earlier.query.len() * later.query.len()
}

/// Whether each request that `later` matches is matched by `earlier`. False where that is not certain.
fn covers(earlier: &Match, later: &Match) -> bool {
    covers_path(&earlier.path, &later.path)
        && covers_hosts(&earlier.hosts, &later.hosts)
        && (earlier.ports.is_empty()
            || !later.ports.is_empty() && later.ports.iter().all(|port| earlier.ports.contains(port)))
        && (earlier.methods.is_empty()
            || !later.methods.is_empty() && later.methods.iter().all(|method| earlier.methods.contains(method)))
        && earlier
            .headers
            .iter()
            .all(|(name, test)| later.headers.iter().any(|(other, given)| name == other && implies(given, test)))
        && earlier
            .query
            .iter()
            .all(|(name, test)| later.query.iter().any(|(other, given)| name == other && implies(given, test)))
}

fn covers_hosts(earlier: &[HostMatch], later: &[HostMatch]) -> bool {
    earlier.is_empty()
        || !later.is_empty() && later.iter().all(|host| earlier.iter().any(|other| covers_host(other, host)))
}

fn covers_host(earlier: &HostMatch, later: &HostMatch) -> bool {
    let name = match (&earlier.name, &later.name) {
        (HostName::Exact(earlier), HostName::Exact(later)) | (HostName::Suffix(earlier), HostName::Suffix(later))
            if earlier == later =>
        {
            true
        }
        (HostName::Suffix(earlier), HostName::Exact(later) | HostName::Suffix(later)) => {
            later.len() > earlier.len() && later.ends_with(earlier.as_str())
        }
        _ => false,
    };
    name && (earlier.port.is_none() || earlier.port == later.port)
}

fn covers_path(earlier: &PathMatch, later: &PathMatch) -> bool {
    match (earlier, later) {
        (PathMatch::Any, _) => true,
        (PathMatch::Exact(earlier), PathMatch::Exact(later)) => earlier == later,
        (PathMatch::Prefix(earlier), PathMatch::Exact(later) | PathMatch::Prefix(later)) => {
            later.strip_prefix(earlier.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (PathMatch::Regex(earlier), PathMatch::Regex(later)) => earlier.as_str() == later.as_str(),
        (PathMatch::Regex(earlier), PathMatch::Exact(later)) => earlier.is_match(later),
        _ => false,
    }
}

/// Whether a value that passes `given` passes `test`.
fn implies(given: &ValueMatch, test: &ValueMatch) -> bool {
    match (&given.test, &test.test) {
        (_, ValueTest::Present) if !test.invert && !given.invert => true,
        (ValueTest::Present, ValueTest::Present) => given.invert == test.invert,
        (ValueTest::Exact(given_text), ValueTest::Exact(test_text)) if given_text == test_text => {
            given.invert == test.invert
        }
        (ValueTest::Regex(given_regex), ValueTest::Regex(test_regex))
            if given_regex.as_str() == test_regex.as_str() =>
        {
            given.invert == test.invert
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn host(name: &str) -> HostMatch {
        let name = match name.strip_prefix('*') {
            Some(suffix) => HostName::Suffix(suffix.to_owned()),
            None => HostName::Exact(name.to_owned()),
        };
        HostMatch { name, port: None, written: None }
    }

    #[test]
    fn hosts_cover() {
        for (earlier, later, expected) in [
            (vec![], vec!["a"], true),
            (vec!["a"], vec![], false),
            (vec!["a"], vec!["a"], true),
            (vec!["a", "b"], vec!["b"], true),
            (vec!["a"], vec!["a", "b"], false),
            (vec!["*.b"], vec!["a.b"], true),
            (vec!["*.b"], vec!["*.a.b"], true),
            (vec!["*.b"], vec!["*.b"], true),
            (vec!["*.b"], vec!["b"], false),
            (vec!["*.b"], vec!["ab"], false),
            (vec!["*.a.b"], vec!["*.b"], false),
            (vec!["a.b"], vec!["*.b"], false),
        ] {
            let hosts = |names: &[&str]| names.iter().map(|name| host(name)).collect::<Vec<_>>();
            assert_eq!(covers_hosts(&hosts(&earlier), &hosts(&later)), expected, "{earlier:?} {later:?}");
        }
        let with_port = HostMatch { port: Some(80), ..host("a") };
        assert!(covers_host(&host("a"), &with_port));
        assert!(!covers_host(&with_port, &host("a")));
    }

    #[test]
    fn paths_cover() {
        let prefix = |path: &str| PathMatch::Prefix(path.to_owned());
        let exact = |path: &str| PathMatch::Exact(path.to_owned());
        assert!(covers_path(&PathMatch::Any, &prefix("/a")));
        assert!(covers_path(&prefix("/a"), &prefix("/a/b")));
        assert!(covers_path(&prefix("/a"), &exact("/a")));
        assert!(!covers_path(&prefix("/a"), &prefix("/ab")));
        assert!(!covers_path(&exact("/a"), &prefix("/a")));
        assert!(!covers_path(&prefix("/a"), &PathMatch::Any));
    }

    #[test]
    fn conditions_imply() {
        let exact = |text: &str, invert| ValueMatch { test: ValueTest::Exact(text.to_owned()), invert, written: None };
        let present = |invert| ValueMatch { test: ValueTest::Present, invert, written: None };
        assert!(implies(&exact("a", false), &exact("a", false)));
        assert!(implies(&exact("a", false), &present(false)));
        assert!(!implies(&exact("a", true), &present(false)));
        assert!(!implies(&present(false), &exact("a", false)));
        assert!(!implies(&exact("a", false), &exact("a", true)));
    }

    fn matchers() -> impl Strategy<Value = Match> {
        let host = "(\\*\\.)?[ab](\\.[ab]){0,2}".prop_map(|name| host(&name));
        let path = prop_oneof![
            Just(PathMatch::Any),
            "(/[ab]){0,3}".prop_map(PathMatch::Prefix),
            "(/[ab]){1,3}".prop_map(PathMatch::Exact),
            "(/[ab]){1,2}".prop_map(|path| PathMatch::Regex(Regex::new(&format!(r"\A(?:{path})\z")).unwrap())),
        ];
        let hosts = prop::collection::vec(host, 0..3);
        (hosts, path).prop_map(|(hosts, path)| Match { hosts, path, ..Match::default() })
    }

    proptest! {
        #[test]
        fn whoever_covers_a_route_is_among_those_that_are_looked_at(
            routes in prop::collection::vec(matchers(), 0..20), later in matchers(),
        ) {
            let mut earlier = Earlier::default();
            routes.iter().for_each(|route| earlier.add(route, NodeId(0)));
            let covering = |other: &&Match| covers(other, &later);
            let looked_at: Vec<*const Match> =
                earlier.candidates(&later).into_iter().map(|(route, _)| route).filter(covering).map(std::ptr::from_ref).collect();
            let all: Vec<*const Match> = routes.iter().filter(covering).map(std::ptr::from_ref).collect();
            prop_assert_eq!(looked_at, all);
        }
    }
}
