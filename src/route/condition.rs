//! What a route asks for besides host and path: tests that are made one candidate at a time.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method};
use percent_encoding::percent_decode;

use super::Target;
use crate::config::model::{Match, ValueMatch, ValueTest};

/// Methods, headers and query of one route. All must hold.
#[derive(Debug)]
pub(super) struct Conditions {
    ports: Box<[u16]>,
    methods: Box<[Method]>,
    headers: Box<[(HeaderName, ValueMatch)]>,
    query: Box<[(String, ValueMatch)]>,
}

/// What a route asks for, and a request is not.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mismatch<'c> {
    /// Of a route that names hosts, none is the request's.
    Host,
    Path,
    /// Any of these.
    Port(&'c [u16]),
    /// Any of these.
    Method(&'c [Method]),
    Header(&'c HeaderName, &'c ValueMatch),
    Query(&'c str, &'c ValueMatch),
}

impl Conditions {
    /// `None` where the route asks for nothing more.
    pub(super) fn compile(matcher: &Match) -> Option<Self> {
        let Match { hosts: _, path: _, written_path: _, ports, methods, headers, query } = matcher;
        let nothing = ports.is_empty() && methods.is_empty() && headers.is_empty() && query.is_empty();
        (!nothing).then(|| Conditions {
            ports: ports.as_slice().into(),
            methods: methods.as_slice().into(),
            headers: headers.as_slice().into(),
            query: query.as_slice().into(),
        })
    }

    pub(super) fn hold(&self, target: &Target<'_>, headers: &HeaderMap) -> bool {
        self.unmet(target, headers).next().is_none()
    }

    /// Those that do not hold, each looked at only when it is asked for.
    pub(super) fn unmet<'c>(
        &'c self,
        target: &'c Target<'_>,
        headers: &'c HeaderMap,
    ) -> impl Iterator<Item = Mismatch<'c>> {
        let port = self.ports.is_empty() || target.port.is_some_and(|port| self.ports.contains(&port));
        let method = self.methods.is_empty() || self.methods.contains(target.method);
        let headers = self.headers.iter().filter(|(name, wanted)| !header_matches(headers, name, wanted));
        let query = self.query.iter().filter(|(name, wanted)| !query_matches(target.query, name, wanted));
        let plain = (!port).then_some(Mismatch::Port(&self.ports)).into_iter();
        plain
            .chain((!method).then_some(Mismatch::Method(&self.methods)))
            .chain(headers.map(|(name, wanted)| Mismatch::Header(name, wanted)))
            .chain(query.map(|(name, wanted)| Mismatch::Query(name, wanted)))
    }
}

/// A repeated header matches where any of its values does. An inverted match holds where none does, so also where the
/// header is missing.
pub(crate) fn header_matches(headers: &HeaderMap, name: &HeaderName, wanted: &ValueMatch) -> bool {
    let mut values = headers.get_all(name).iter();
    let found = match &wanted.test {
        ValueTest::Present => values.next().is_some(),
        ValueTest::Exact(expected) => values.any(|value| value.as_bytes() == expected.as_bytes()),
        ValueTest::Regex(regex) => values.any(|value| regex.is_match(&String::from_utf8_lossy(value.as_bytes()))),
    };
    found != wanted.invert
}

/// As [`header_matches`], over the parameters of the query.
fn query_matches(query: Option<&str>, name: &str, wanted: &ValueMatch) -> bool {
    let mut values = query_values(query, name);
    let found = match &wanted.test {
        ValueTest::Present => values.next().is_some(),
        ValueTest::Exact(expected) => values.any(|value| value == expected.as_str()),
        ValueTest::Regex(regex) => values.any(|value| regex.is_match(&value)),
    };
    found != wanted.invert
}

/// The values of a parameter, decoded.
pub(crate) fn query_values<'q>(query: Option<&'q str>, name: &str) -> impl Iterator<Item = Cow<'q, str>> {
    let all = parameters(query.unwrap_or_default());
    all.filter(move |(key, _)| decode(key) == name).map(|(_, value)| decode(value))
}

/// Raw names and values, split as WHATWG's form encoding says (URL Standard §5.1): by `&`, and at the first `=`.
fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Form decoding (URL Standard §5.1): `+` is a space, `%XX` a byte, what is not UTF-8 becomes U+FFFD. Every server
/// framework reads queries so; RFC 3986 alone would keep the `+`.
fn decode(raw: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'%', b'+', raw.as_bytes()).is_none() {
        return Cow::Borrowed(raw);
    }
    let spaced = raw.replace('+', " ");
    Cow::Owned(percent_decode(spaced.as_bytes()).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use regex::Regex;

    use super::*;

    fn exact(value: &str) -> ValueMatch {
        ValueMatch { test: ValueTest::Exact(value.into()), invert: false, written: None }
    }

    fn regex(pattern: &str) -> ValueMatch {
        ValueMatch { test: ValueTest::Regex(Regex::new(pattern).unwrap()), invert: false, written: None }
    }

    fn inverted(wanted: ValueMatch) -> ValueMatch {
        ValueMatch { invert: true, ..wanted }
    }

    const PRESENT: ValueMatch = ValueMatch { test: ValueTest::Present, invert: false, written: None };

    #[test]
    fn any_value_of_a_repeated_header_matches() {
        let name = HeaderName::from_static("x-a");
        let mut headers = HeaderMap::new();
        headers.append(&name, HeaderValue::from_static("one"));
        headers.append(&name, HeaderValue::from_bytes(b"tw\xf6").unwrap());
        for (wanted, expected) in [
            (PRESENT, true),
            (inverted(PRESENT), false),
            (exact("one"), true),
            (exact("On"), false),
            (exact("one, two"), false),
            (inverted(exact("one")), false),
            (inverted(exact("other")), true),
            (regex("^(?:o.e)$"), true),
            (regex("^(?:tw.)$"), true),
            (regex("^(?:n)$"), false),
        ] {
            assert_eq!(header_matches(&headers, &name, &wanted), expected, "{wanted:?}");
        }
        let missing = HeaderName::from_static("x-b");
        assert!(!header_matches(&headers, &missing, &PRESENT));
        assert!(!header_matches(&headers, &missing, &exact("")));
        assert!(header_matches(&headers, &missing, &inverted(PRESENT)));
        assert!(header_matches(&headers, &missing, &inverted(exact("one"))));
    }

    #[test]
    fn queries_are_compared_decoded() {
        let query = Some("a=1&&b+c=%78+y&d&a=2&e==&%66=%ff");
        for (name, wanted, expected) in [
            ("a", exact("1"), true),
            ("a", exact("2"), true),
            ("a", exact("3"), false),
            ("b c", exact("x y"), true),
            ("b+c", PRESENT, false),
            ("d", PRESENT, true),
            ("d", exact(""), true),
            ("e", exact("="), true),
            ("f", exact("\u{fffd}"), true),
            ("", PRESENT, false),
            ("a", regex("^(?:[2-9])$"), true),
            ("a", inverted(exact("1")), false),
            ("z", inverted(exact("1")), true),
            ("z", PRESENT, false),
        ] {
            assert_eq!(query_matches(query, name, &wanted), expected, "{name} {wanted:?}");
        }
        assert!(!query_matches(None, "a", &PRESENT));
    }
}
