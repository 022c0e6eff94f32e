//! Why a route does not match, in words: what the request is, and what it would have to be.

use std::borrow::Cow;

use http::header::HOST;
use http::{HeaderMap, Method};
use regex::Regex;

use crate::config::model::{HostMatch, HostName, Match, PathMatch, ValueMatch, ValueTest};
use crate::route::Target;
use crate::route::condition::{Mismatch, query_values};
use crate::route::normal::normalise;

/// Of a list, no more than these are named.
const NAMED: usize = 4;

pub(super) fn words(unmet: &Mismatch<'_>, wanted: &Match, target: &Target<'_>, headers: &HeaderMap) -> String {
    match unmet {
        Mismatch::Host => {
            let host = if target.host.is_empty() { "missing" } else { target.host };
            format!("host is {host}, not {}", any_of(wanted.hosts.iter().map(host_match)))
        }
        Mismatch::Path => {
            format!("path is {}, {}", shown_path(target.path), path(&wanted.path, wanted.written_path.as_deref()))
        }
        Mismatch::Port(ports) => {
            let wanted = any_of(ports.iter().map(u16::to_string));
            match target.port {
                Some(port) => format!("it was going to port {port}, not {wanted}"),
                None => format!("only connections that were going to port {wanted} match, and none is captured here"),
            }
        }
        Mismatch::Method(methods) => {
            format!("method is {}, not {}", target.method, any_of(methods.iter().map(Method::to_string)))
        }
        Mismatch::Header(name, wanted) => {
            let values = headers.get_all(*name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
            let what = if *name == HOST { "header host".to_owned() } else { format!("header {name}") };
            value(&what, values.collect(), wanted)
        }
        Mismatch::Query(name, wanted) => {
            value(&format!("query {name}"), query_values(target.query, name).collect(), wanted)
        }
    }
}

/// The path as it was written, and as it was compared where that differs.
fn shown_path(path: &str) -> String {
    match normalise(path) {
        same if same == path => path.to_owned(),
        normal => format!("{path} (the same as {normal})"),
    }
}

fn path(wanted: &PathMatch, written: Option<&str>) -> String {
    match wanted {
        PathMatch::Any => "not what it should be".to_owned(),
        PathMatch::Exact(path) => format!("not exactly {}", written.unwrap_or(path)),
        PathMatch::Prefix(prefix) => format!("not {} or below", written.unwrap_or(prefix)),
        PathMatch::Regex(regex) => format!("which does not match {}", written.unwrap_or(unanchored(regex.as_str()))),
    }
}

fn value(what: &str, given: Vec<Cow<'_, str>>, wanted: &ValueMatch) -> String {
    let is = match &*given {
        [] => "is missing".to_owned(),
        [only] => format!("is {only:?}"),
        several => format!("is {}", several.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(" and ")),
    };
    let written = wanted.written.as_deref();
    let pattern = |regex: &Regex| written.unwrap_or(unanchored(regex.as_str())).to_owned();
    match (&wanted.test, wanted.invert) {
        (ValueTest::Present, false) => format!("{what} is missing"),
        (ValueTest::Present, true) => format!("{what} {is}, and must not be there"),
        (ValueTest::Exact(exact), false) => format!("{what} {is}, not {:?}", written.unwrap_or(exact)),
        (ValueTest::Exact(_), true) => format!("{what} {is}, and must not be"),
        (ValueTest::Regex(regex), false) => format!("{what} {is}, and should match {}", pattern(regex)),
        (ValueTest::Regex(regex), true) => format!("{what} {is}, and must not match {}", pattern(regex)),
    }
}

/// As it was written: the configuration anchors what it reads.
fn unanchored(pattern: &str) -> &str {
    pattern.strip_prefix(r"\A(?:").and_then(|rest| rest.strip_suffix(r")\z")).unwrap_or(pattern)
}

fn host_match(host: &HostMatch) -> String {
    if let Some(written) = &host.written {
        return written.clone();
    }
    let name = match &host.name {
        HostName::Exact(name) => name.clone(),
        HostName::Suffix(suffix) => format!("*{suffix}"),
    };
    host.port.map_or(name.clone(), |port| format!("{name}:{port}"))
}

fn any_of(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(NAMED);
    let mut named: Vec<String> = all.take(NAMED).collect();
    if more > 0 {
        named.push(format!("{more} others"));
    }
    match named.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => named.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_short() {
        let numbers = |count: u32| any_of((1..=count).map(|number| number.to_string()).collect::<Vec<_>>().into_iter());
        assert_eq!(numbers(1), "1");
        assert_eq!(numbers(2), "1 or 2");
        assert_eq!(numbers(9), "1, 2, 3, 4 or 5 others");
    }

    #[test]
    fn a_value_is_told_with_what_it_should_be() {
        let regex = ValueTest::Regex(regex::Regex::new(r"\A(?:a+)\z").unwrap());
        for (test, invert, given, expected) in [
            (ValueTest::Present, false, vec![], "x is missing"),
            (ValueTest::Exact("a".into()), false, vec!["b".into()], "x is \"b\", not \"a\""),
            (ValueTest::Exact("a".into()), false, vec![], "x is missing, not \"a\""),
            (ValueTest::Exact("a".into()), true, vec!["a".into()], "x is \"a\", and must not be"),
            (regex, false, vec!["b".into(), "c".into()], "x is \"b\" and \"c\", and should match a+"),
        ] {
            assert_eq!(value("x", given, &ValueMatch { test, invert, written: None }), expected);
        }
    }
}
