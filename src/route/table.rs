//! A listener's routes, compiled.

use http::HeaderMap;

use super::Target;
use super::condition::{Conditions, Mismatch};
use super::host::Hosts;
use super::normal::normalise;
use crate::config::model;
use crate::runtime::pace::breathe;

/// Routes, indexed by host and path.
///
/// The rule is *first match in written order*, the promise is that a thousand routes cost what ten cost. So host and
/// path are looked up by hash, which gives a few short lists of routes that they match; of each list the first counts
/// whose other conditions hold, and of these the one written first wins. Only routes that differ in nothing but
/// methods, headers or query, or whose path is a regex, are asked one after the other.
///
/// # What is compared
/// - Hosts: without case and final dot; with the port only where the route has one. `*.x` is one or more labels.
/// - Paths: in the normal form of RFC 3986 §6.2.2, so that `/%61dmin` and `/x/../admin` are `/admin`; not beyond it:
///   `//admin` and `/a%2Fb` are other paths than `/admin` and `/a/b`. What is sent on is the path as received.
/// - Headers: any value of a repeated one. Queries: decoded as forms are, so `+` is a space.
/// - Regexes come anchored from the configuration: they match the whole.
#[derive(Debug)]
pub struct Table {
    /// The first route takes everything: nothing need be looked at.
    takes_all: bool,
    hosts: Hosts,
    /// By position; `None` where host and path are all.
    conditions: Vec<Option<Box<Conditions>>>,
}

impl Table {
    /// Compiles the routes of a listener.
    pub fn compile(routes: &[model::Route]) -> Self {
        let mut hosts = Hosts::default();
        for (position, route) in routes.iter().enumerate() {
            breathe();
            hosts.insert(position as u32, &route.matcher.hosts, &route.matcher.path);
        }
        let conditions =
            routes.iter().map(|route| Conditions::compile(&route.matcher).map(Box::new)).collect::<Vec<_>>();
        let takes_all = routes
            .first()
            .is_some_and(|route| route.matcher.hosts.is_empty() && matches!(route.matcher.path, model::PathMatch::Any))
            && matches!(conditions.first(), Some(None));
        Table { takes_all, hosts, conditions }
    }

    /// The position of the first route, in written order, that matches.
    pub fn find(&self, target: &Target<'_>, headers: &HeaderMap) -> Option<usize> {
        if self.takes_all {
            return Some(0);
        }
        let path = normalise(target.path);
        let holds = |position: u32| match &self.conditions[position as usize] {
            None => true,
            Some(conditions) => conditions.hold(target, headers),
        };
        let mut best = u32::MAX;
        self.hosts.matching(target.host, target.default_port, |paths| {
            paths.candidates(&path, |list| {
                let mut better = list.iter().copied().take_while(|position| *position < best);
                best = better.find(|position| holds(*position)).unwrap_or(best);
            });
            best = paths.scan(&path, best).find(|position| holds(*position)).unwrap_or(best);
        });
        (best != u32::MAX).then_some(best as usize)
    }

    /// For people who ask why: of each route up to the one that matches, what the request is not; of that one, nothing.
    /// Where the host is another, nothing else is looked at, and where the path is, no other condition.
    pub(crate) fn judge<'t>(&'t self, target: &'t Target<'_>, headers: &'t HeaderMap) -> Vec<Vec<Mismatch<'t>>> {
        let path = normalise(target.path);
        let (mut by_host, mut by_path) = (vec![false; self.conditions.len()], vec![false; self.conditions.len()]);
        let mark = |marks: &mut Vec<bool>, position: u32| marks[position as usize] = true;
        self.hosts.matching(target.host, target.default_port, |paths| {
            paths.positions().for_each(|position| mark(&mut by_host, position));
            paths.candidates(&path, |list| list.iter().for_each(|position| mark(&mut by_path, *position)));
            paths.scan(&path, u32::MAX).for_each(|position| mark(&mut by_path, position));
        });
        let end = self.find(target, headers).map_or(self.conditions.len(), |found| found + 1);
        let judged = (0..end).map(|position| match (by_host[position], by_path[position]) {
            (false, _) => vec![Mismatch::Host],
            (true, false) => vec![Mismatch::Path],
            (true, true) => self.conditions[position].iter().flat_map(|asked| asked.unmet(target, headers)).collect(),
        });
        judged.collect()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method};
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;
    use crate::config::model::{
        Action, HeaderRules, HostMatch, HostName, Match, PathMatch, RetryOverrides, Rewrite, Route, TimeoutOverrides,
        UpstreamIndex, ValueMatch, ValueTest,
    };

    fn route(matcher: Match) -> Route {
        Route {
            name: String::new(),
            matcher,
            allow: Vec::new(),
            action: Action::Upstream(UpstreamIndex(0)),
            rewrite: Rewrite::default(),
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
            timeouts: TimeoutOverrides::default(),
            deadline_header: None,
            retries: RetryOverrides::default(),
            rate_limit: None,
            concurrency: None,
            mirror: None,
            fault: None,
        }
    }

    fn table(matchers: impl IntoIterator<Item = Match>) -> Table {
        Table::compile(&matchers.into_iter().map(route).collect::<Vec<_>>())
    }

    /// `*.x`, `name`, either with `:port`.
    fn host(text: &str) -> HostMatch {
        let (name, port) =
            text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port.parse().unwrap())));
        let name = match name.strip_prefix('*') {
            Some(suffix) => HostName::Suffix(suffix.into()),
            None => HostName::Exact(name.into()),
        };
        HostMatch { name, port, written: None }
    }

    /// `=/exact`, `~regex`, `/prefix`, or nothing.
    fn path(text: &str) -> PathMatch {
        match text.split_at_checked(1) {
            None => PathMatch::Any,
            Some(("=", exact)) => PathMatch::Exact(exact.into()),
            Some(("~", regex)) => PathMatch::Regex(Regex::new(&format!("^(?:{regex})$")).unwrap()),
            Some(_) => PathMatch::Prefix(text.into()),
        }
    }

    fn find(table: &Table, host: &str, path: &str) -> Option<usize> {
        let target = Target { host, default_port: 80, path, query: None, port: None, method: &Method::GET };
        table.find(&target, &HeaderMap::new())
    }

    #[test]
    fn hosts_match_without_case_and_final_dot_and_with_a_port_where_written() {
        let hosts = ["a.example:8080", "a.example", "*.b.example", "*.example:80", "c"];
        let table = table(hosts.map(|text| Match { hosts: vec![host(text)], ..Match::default() }));
        for (asked, expected) in [
            ("a.example:8080", Some(0)),
            ("A.Example.:8080", Some(0)),
            ("a.example", Some(1)),
            ("a.example:81", Some(1)),
            ("x.b.example:81", Some(2)),
            ("X.Y.B.Example.", Some(2)),
            ("b.example", Some(3)),
            ("b.example:80", Some(3)),
            ("b.example:81", None),
            (".example", None),
            ("example", None),
            ("c:", Some(4)),
            ("c..", None),
            ("", None),
        ] {
            assert_eq!(find(&table, asked, "/"), expected, "{asked}");
        }
        let loopback = HostMatch { name: HostName::Exact("::1".into()), port: None, written: None };
        let table = super::tests::table([Match { hosts: vec![loopback], ..Match::default() }]);
        assert_eq!(find(&table, "[::1]:80", "/"), Some(0));
    }

    #[test]
    fn prefixes_end_on_a_segment_and_the_first_written_wins() {
        let paths = ["=/v1/exact", "/v1/a/b", "~/v1/[0-9]+", "/v1", "=/v1/a", "=*", "/%7Euser", ""];
        let table = table(paths.map(|text| Match { path: path(text), ..Match::default() }));
        for (asked, expected) in [
            ("/v1/exact", 0),
            ("/v1/exact/", 3),
            ("/v1/a/b", 1),
            ("/v1/a/b/c", 1),
            ("/v1/a/bc", 3),
            ("/v1/7", 2),
            ("/v1/7/", 3),
            ("/v1", 3),
            ("/v1/", 3),
            ("/v1//", 3),
            ("/v1/a", 3),
            ("/v1a", 7),
            ("/", 7),
            ("*", 5),
            ("/~user/x", 6),
            // One path, whatever its spelling; other paths, whatever they look like.
            ("/%76%31", 3),
            ("/x/../v1/./%61/b", 1),
            ("//v1", 7),
            ("/v1%2Fa", 7),
            ("/v1/../x", 7),
        ] {
            assert_eq!(find(&table, "any", asked), Some(expected), "{asked}");
        }
    }

    /// What the table must agree with: every route asked in turn, in the plainest words.
    fn first_match(routes: &[Route], target: &Target<'_>, headers: &HeaderMap) -> Option<usize> {
        let normal = normalise(target.path);
        let (name, port) = target.host.split_once(':').unwrap_or((target.host, "80"));
        let name = name.to_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        routes.iter().position(|route| {
            let host = route.matcher.hosts.is_empty()
                || route.matcher.hosts.iter().any(|host| {
                    host.port.is_none_or(|wanted| port == wanted.to_string())
                        && match &host.name {
                            HostName::Exact(wanted) => name == wanted,
                            HostName::Suffix(suffix) => name.ends_with(suffix.as_str()) && name.len() > suffix.len(),
                        }
                });
            let path = match &route.matcher.path {
                PathMatch::Any => true,
                PathMatch::Exact(wanted) => normalise(wanted) == normal,
                PathMatch::Prefix(prefix) => normal == prefix.as_str() || normal.starts_with(&format!("{prefix}/")),
                PathMatch::Regex(regex) => regex.is_match(&normal),
            };
            host && path
                && Conditions::compile(&route.matcher).is_none_or(|conditions| conditions.hold(target, headers))
        })
    }

    fn matchers() -> impl Strategy<Value = Match> {
        let value = prop_oneof![
            Just(ValueTest::Present),
            "[xy]".prop_map(ValueTest::Exact),
            Just(ValueTest::Regex(Regex::new("^(?:x|yy)$").unwrap())),
        ];
        let value =
            (value, any::<bool>()).prop_map(|(test, invert)| ValueMatch { test, invert, written: None }).boxed();
        let header = "x-[ab]".prop_map(|name| HeaderName::try_from(name).unwrap());
        (
            prop::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,2}(:8[01])?".prop_map(|text| host(&text)), 0..3),
            prop_oneof!["(=/|=/[ab]/|=)?(/[ab]){1,3}", "~(/[ab]*){1,2}", Just(String::new())]
                .prop_map(|text| path(&text)),
            prop::collection::vec(prop_oneof![Just(Method::GET), Just(Method::POST)], 0..2),
            prop::collection::vec((header, value.clone()), 0..2),
            prop::collection::vec(("[pq]", value), 0..2),
        )
            .prop_map(|(hosts, path, methods, headers, query)| {
                // Most routes ask for host and path alone; so shall these, or hardly any would match.
                let plain = hosts.len() + headers.len() + query.len() > 2;
                match plain {
                    true => Match { hosts, path, ..Match::default() },
                    false => Match { hosts, path, methods, headers, query, ..Match::default() },
                }
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn find_agrees_with_asking_every_route_in_turn(
            matchers in prop::collection::vec(matchers(), 0..40),
            requests in prop::collection::vec(
                (
                    "[abA](\\.[abB]){0,3}\\.?(:8[01])?",
                    "(/[ab]|/%61|/\\.\\.|/|/ab){0,4}",
                    "([pq]=(x|y|yy|%78)&?){0,2}",
                    prop::collection::vec(("x-[ab]", "(x|y|yy)"), 0..3),
                    any::<bool>(),
                ),
                1..20,
            ),
        ) {
            let routes: Vec<Route> = matchers.into_iter().map(route).collect();
            let table = Table::compile(&routes);
            for (host, path, query, fields, get) in requests {
                let path = if path.is_empty() { "/".to_owned() } else { path };
                let headers: HeaderMap = fields
                    .into_iter()
                    .map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap()))
                    .fold(HeaderMap::new(), |mut headers, (name, value)| {
                        headers.append(name, value);
                        headers
                    });
                let target = Target {
                    host: &host,
                    default_port: 80,
                    path: &path,
                    query: (!query.is_empty()).then_some(query.as_str()),
                    port: None,
                    method: if get { &Method::GET } else { &Method::POST },
                };
                let found = table.find(&target, &headers);
                prop_assert_eq!(found, first_match(&routes, &target, &headers), "{:?} {:?}", target, headers);
                let judged = table.judge(&target, &headers);
                prop_assert_eq!(judged.iter().position(Vec::is_empty), found);
                prop_assert_eq!(judged.len(), found.map_or(routes.len(), |found| found + 1));
            }
        }
    }
}
