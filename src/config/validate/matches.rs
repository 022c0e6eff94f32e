//! `match:`

use http::{HeaderName, Method};

use super::Validator;
use crate::config::environment::is_hidden;
use crate::config::findings::Finding;
use crate::config::given::{Given, Pairs, Spanned};
use crate::config::model::{HostMatch, HostName, Match, PathMatch, ValueMatch, ValueTest};
use crate::config::raw::route as raw;
use crate::config::text::quote;
use crate::config::tree::NodeId;
use crate::config::units::Text;

/// Longest host name (RFC 1035, section 2.3.4).
const LONGEST_HOST: usize = 253;
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// A match, and whether all of it could be read: one that lost a condition must not be compared with others.
pub(super) struct Matched {
    pub(super) matcher: Match,
    pub(super) sound: bool,
}

impl Validator<'_> {
    pub(super) fn matcher(&mut self, given: &Given<raw::Match>) -> Matched {
        let mut matched = Matched { matcher: Match::default(), sound: !matches!(given, Given::Invalid(_)) };
        let Some(Spanned { node, value: raw }) = given.spanned() else { return matched };
        matched.sound &= !self.findings.is_incomplete(*node);
        matched.matcher.hosts = self.each(&raw.host, &mut matched.sound, Self::host);
        matched.matcher.methods = self.each(&raw.method, &mut matched.sound, Self::method);
        matched.matcher.path = match &raw.path {
            Given::Absent => PathMatch::Any,
            given => given.spanned().and_then(|path| self.path_match(path)).unwrap_or_else(|| {
                matched.sound = false;
                PathMatch::Any
            }),
        };
        matched.matcher.written_path = raw.path.get().and_then(|path| {
            let texts = match path {
                raw::PathForm::Prefix(text) => [Some(text.node), None, None],
                raw::PathForm::Test(test) => [test.exact.node(), test.prefix.node(), test.regex.node()],
            };
            self.hidden(texts)
        });
        matched.sound &= !matches!(raw.port, Given::Invalid(_));
        if let Some(ports) = raw.port.get() {
            matched.sound &=
                !matches!(ports, raw::OneOrMany::Many(many) if many.iter().any(|port| port.get().is_none()));
            matched.matcher.ports = ports.iter().filter_map(|port| u16::try_from(port.value.0).ok()).collect();
        }
        matched.matcher.headers = self.header_tests(&raw.headers, &mut matched.sound);
        for (name, value) in self.pairs(&raw.query, &mut matched.sound) {
            matched.matcher.query.push((name.value.clone(), value));
        }
        matched
    }

    /// Tests of headers.
    pub(super) fn header_tests(
        &mut self,
        given: &Given<Pairs<raw::ValueForm>>,
        sound: &mut bool,
    ) -> Vec<(HeaderName, ValueMatch)> {
        let mut tests = Vec::new();
        for (name, value) in self.pairs(given, sound) {
            match HeaderName::from_bytes(name.value.to_ascii_lowercase().as_bytes()) {
                Ok(header) => tests.push((header, value)),
                Err(_) => {
                    *sound = false;
                    self.error(
                        "invalid-name",
                        name.node,
                        format!("{} is not the name of a header", quote(&name.value)),
                        "",
                    );
                }
            }
        }
        tests
    }

    /// The values of a key that takes one or many.
    fn each<T>(
        &mut self,
        given: &Given<raw::OneOrMany<Text>>,
        sound: &mut bool,
        read: impl Fn(&mut Self, &Spanned<Text>) -> Option<T>,
    ) -> Vec<T> {
        let Some(spanned) = given.spanned() else {
            *sound &= given.is_absent();
            return Vec::new();
        };
        if let raw::OneOrMany::Many(many) = &spanned.value {
            if many.is_empty() {
                *sound = false;
                self.error(
                    "missing-value",
                    spanned.node,
                    "this list is empty, so nothing could match",
                    "remove the key to match everything",
                );
            }
            *sound &= many.iter().all(|value| value.get().is_some());
        }
        let mut values = Vec::new();
        for text in spanned.value.iter() {
            match read(self, text) {
                Some(value) => values.push(value),
                None => *sound = false,
            }
        }
        values
    }

    fn pairs<'p>(
        &mut self,
        given: &'p Given<Pairs<raw::ValueForm>>,
        sound: &mut bool,
    ) -> Vec<(&'p Spanned<String>, ValueMatch)> {
        *sound &= !matches!(given, Given::Invalid(_));
        let mut pairs = Vec::new();
        for (name, value) in given.get().map_or(&[][..], |pairs| &pairs.0) {
            match value.spanned().and_then(|value| self.value(&value.value, value.node)) {
                Some(value) => pairs.push((name, value)),
                None => *sound = false,
            }
        }
        pairs
    }

    fn value(&mut self, form: &raw::ValueForm, node: NodeId) -> Option<ValueMatch> {
        let test = match form {
            raw::ValueForm::Exact(text) => return Some(self.exact(text)),
            raw::ValueForm::Test(test) => test,
        };
        let nodes = [test.exact.node(), test.regex.node(), test.present.node(), test.not.node()];
        self.exactly_one(node, &["exact", "regex", "present", "not"], &nodes)?;
        if let Some(text) = test.exact.spanned() {
            return Some(self.exact(text));
        }
        if let Some(text) = test.regex.spanned() {
            return Some(ValueMatch {
                test: ValueTest::Regex(self.whole(text)?),
                invert: false,
                written: self.hidden([Some(text.node)]),
            });
        }
        if let Some(present) = test.present.get() {
            return Some(ValueMatch { test: ValueTest::Present, invert: !present.0, written: None });
        }
        // As deep as the tree at most, and two are none.
        let not = test.not.spanned()?;
        let inner = self.value(&not.value, not.node)?;
        Some(ValueMatch { invert: !inner.invert, ..inner })
    }

    fn exact(&self, text: &Spanned<Text>) -> ValueMatch {
        let written = self.hidden([Some(text.node)]);
        ValueMatch { test: ValueTest::Exact(text.value.0.clone()), invert: false, written }
    }

    fn path_match(&mut self, spanned: &Spanned<raw::PathForm>) -> Option<PathMatch> {
        let test = match &spanned.value {
            raw::PathForm::Prefix(text) => return self.prefix(text),
            raw::PathForm::Test(test) => test,
        };
        let nodes = [test.exact.node(), test.prefix.node(), test.regex.node()];
        self.exactly_one(spanned.node, &["exact", "prefix", "regex"], &nodes)?;
        if let Some(text) = test.exact.spanned() {
            return self.path(text).then(|| PathMatch::Exact(text.value.0.clone()));
        }
        if let Some(text) = test.prefix.spanned() {
            return self.prefix(text);
        }
        self.whole(test.regex.spanned()?).map(PathMatch::Regex)
    }

    fn prefix(&mut self, text: &Spanned<Text>) -> Option<PathMatch> {
        if !self.path(text) {
            return None;
        }
        Some(match text.value.0.trim_end_matches('/') {
            "" => PathMatch::Any,
            prefix => PathMatch::Prefix(prefix.to_owned()),
        })
    }

    fn exactly_one(&mut self, node: NodeId, names: &[&str], nodes: &[Option<NodeId>]) -> Option<()> {
        let written = nodes.iter().flatten().count();
        if written == 1 {
            return Some(());
        }
        let listed = crate::config::text::listed(names.iter().copied(), "or");
        match nodes.iter().flatten().nth(1) {
            Some(second) => self.error(
                "conflict",
                *second,
                "this is a second test, and one is due",
                &format!("keep one of {listed}"),
            ),
            None => self.missing(node, "there is no test here", &format!("write one of {listed}")),
        }
        None
    }

    fn method(&mut self, text: &Spanned<Text>) -> Option<Method> {
        let method = &text.value.0;
        let upper = method.to_ascii_uppercase();
        if *method != upper && METHODS.contains(&upper.as_str()) && !is_hidden(self.tree.written(text.node)) {
            let reason = format!("methods have case, and {} is not one that clients send", quote(method));
            self.error("invalid-value", text.node, reason, &format!("did you mean {}?", quote(&upper)));
            return None;
        }
        match Method::from_bytes(method.as_bytes()) {
            Ok(method) => Some(method),
            Err(_) => {
                let reason = format!("{} is not an HTTP method", self.shown(text.node));
                self.error("invalid-value", text.node, reason, "write it as in `GET` or `[GET, POST]`");
                None
            }
        }
    }

    fn host(&mut self, text: &Spanned<Text>) -> Option<HostMatch> {
        match parse_host(&text.value.0) {
            Ok(host) => Some(HostMatch { written: self.hidden([Some(text.node)]), ..host }),
            Err(hint) => {
                let finding = Finding::error(
                    "invalid-value",
                    text.node,
                    format!("{} is not a host to match", self.shown(text.node)),
                );
                let hidden = is_hidden(self.tree.written(text.node));
                self.push(finding.maybe_hint((!hidden).then_some(hint)));
                None
            }
        }
    }
}

/// A host to match, or a hint.
fn parse_host(text: &str) -> Result<HostMatch, String> {
    if text.contains("://") {
        return Err("write the host alone, without scheme and path".to_owned());
    }
    if text == "*" {
        return Err("remove `host` to match every host".to_owned());
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse::<u16>().ok().filter(|port| digits && *port != 0);
            (name, Some(port.ok_or_else(|| "a port is 1 to 65535".to_owned())?))
        }
        _ => (text, None),
    };
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']').and_then(|address| address.parse::<std::net::Ipv6Addr>().ok());
        let address = address.ok_or_else(|| "an IPv6 address stands in brackets, as in `[::1]`".to_owned())?;
        return Ok(HostMatch { name: HostName::Exact(format!("[{address}]")), port, written: None });
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let (suffix, labels) = match name.strip_prefix("*.") {
        Some(labels) => (true, labels),
        None => (false, name.as_str()),
    };
    if labels.contains('*') {
        return Err("a `*` stands for whole labels, and first: `*.example.org`".to_owned());
    }
    if !labels.is_ascii() {
        return Err("clients send such names in their ASCII form (`xn--…`)".to_owned());
    }
    let valid = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if labels.len() > LONGEST_HOST || !labels.split('.').all(valid) {
        return Err("write it as in `payments`, `example.org`, `*.example.org` or `example.org:8080`".to_owned());
    }
    let name = if suffix { HostName::Suffix(format!(".{labels}")) } else { HostName::Exact(labels.to_owned()) };
    Ok(HostMatch { name, port, written: None })
}

/// Whether a text is a path; else what is wrong and a hint.
pub(super) fn check_path(path: &str) -> Result<(), (&'static str, Option<String>)> {
    if !path.starts_with('/') {
        let fits = !path.is_empty() && !path.contains(['*', ':']);
        return Err(("does not begin with `/`", fits.then(|| format!("did you mean {}?", quote(&format!("/{path}"))))));
    }
    if path.contains(['?', '#']) {
        return Err(("is more than a path", Some("a path ends before `?` and `#`".to_owned())));
    }
    if path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
        return Err(("holds characters that no path has", Some("write them as they are sent, as in `%20`".to_owned())));
    }
    if path.ends_with("/*") {
        let prefix = path.trim_end_matches('*').trim_end_matches('/');
        return Err((
            "ends with a `*`, which stands for itself",
            Some(format!("a bare path is a prefix: write {}", quote(if prefix.is_empty() { "/" } else { prefix }))),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read() {
        let exact = |name: &str, port| HostMatch { name: HostName::Exact(name.to_owned()), port, written: None };
        for (text, expected) in [
            ("payments", exact("payments", None)),
            ("Payments.Example.ORG.", exact("payments.example.org", None)),
            ("payments:8080", exact("payments", Some(8080))),
            ("127.0.0.1", exact("127.0.0.1", None)),
            ("[0:0::1]:80", exact("[::1]", Some(80))),
            ("[::1]", exact("[::1]", None)),
            (
                "*.example.org",
                HostMatch { name: HostName::Suffix(".example.org".to_owned()), port: None, written: None },
            ),
        ] {
            assert_eq!(parse_host(text), Ok(expected), "{text}");
        }
        for text in
            ["", "*", "a*.b", "*.", ".a", "a..b", "a b", "http://a", "a:0", "a:99999", "::1", "[::1", "ä", "a/b"]
        {
            assert!(parse_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_checked() {
        for path in ["/", "/a/b", "/a%20b", "/a*b"] {
            assert!(check_path(path).is_ok(), "{path}");
        }
        for path in ["", "a", "/a b", "/a?b", "/a#b", "/ä", "/a/*", "/\n"] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }
}
