//! What a route takes.

use std::hash::{Hash, Hasher};

use http::{HeaderName, Method};
use regex::Regex;

/// What a request must look like. Empty lists match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// Any of these.
    pub hosts: Vec<HostMatch>,
    /// The path, without the query.
    pub path: PathMatch,
    /// The path with its `${…}`, where it had any: the only form that may be shown.
    pub written_path: Option<String>,
    /// Any of these.
    pub methods: Vec<Method>,
    /// All of these.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// All of these. Names and values are compared percent-decoded.
    pub query: Vec<(String, ValueMatch)>,
    /// Any of these ports that a captured connection was going to; empty: any.
    pub ports: Vec<u16>,
}

/// A host to match: lower case, no final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostMatch {
    /// Which names.
    pub name: HostName,
    /// Only with this port, where it was written; a Host without a port has the scheme's.
    pub port: Option<u16>,
    /// The host with its `${…}`, where it had any: the only form that may be shown.
    pub written: Option<String>,
}

/// Names of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostName {
    /// `payments`
    Exact(String),
    /// `*.example.org` as `.example.org`: one or more labels before it.
    Suffix(String),
}

/// Paths to match.
#[derive(Debug, Clone, Default)]
pub enum PathMatch {
    /// Every path.
    #[default]
    Any,
    /// This path only.
    Exact(String),
    /// This path and what is below it, on a segment boundary. No final slash (`/` is `Any`).
    Prefix(String),
    /// The whole path must match.
    Regex(Regex),
}

/// Values of headers and query parameters to match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ValueMatch {
    /// The test.
    pub test: ValueTest,
    /// Match when the test fails.
    pub invert: bool,
    /// The text with its `${…}`, where it had any: the only form that may be shown.
    pub written: Option<String>,
}

/// A test of a value.
#[derive(Debug, Clone)]
pub enum ValueTest {
    /// It is there.
    Present,
    /// It equals this.
    Exact(String),
    /// The whole value matches.
    Regex(Regex),
}

/// Two are equal that are written alike, which is as much as can be said of regular expressions.
impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        self.written() == other.written()
    }
}

impl Eq for PathMatch {}

impl Hash for PathMatch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.written().hash(state);
    }
}

impl PathMatch {
    /// Its kind, and its text.
    fn written(&self) -> (u8, &str) {
        match self {
            PathMatch::Any => (0, ""),
            PathMatch::Exact(path) => (1, path),
            PathMatch::Prefix(path) => (2, path),
            PathMatch::Regex(regex) => (3, regex.as_str()),
        }
    }
}

/// As with paths.
impl PartialEq for ValueTest {
    fn eq(&self, other: &Self) -> bool {
        self.written() == other.written()
    }
}

impl Eq for ValueTest {}

impl Hash for ValueTest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.written().hash(state);
    }
}

impl ValueTest {
    fn written(&self) -> (u8, &str) {
        match self {
            ValueTest::Present => (0, ""),
            ValueTest::Exact(value) => (1, value),
            ValueTest::Regex(regex) => (2, regex.as_str()),
        }
    }
}
