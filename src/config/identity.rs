//! Names of who may call and be called: SPIFFE IDs and hosts, with stars.

use std::fmt;

use schemars::{Schema, json_schema};

use super::scalar::{Invalid, Scalar, scalar};
use super::text::quote;

/// A SPIFFE ID or a host, in which `*` is any segment or label, and a last segment `**` one or more segments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdentityPattern(String);

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID, section 2.3: at most so many bytes.
const LONGEST: usize = 2048;

impl IdentityPattern {
    /// True where the pattern speaks of this identity, which is a SPIFFE ID or a host.
    pub fn matches(&self, identity: &str) -> bool {
        match (self.0.strip_prefix(SCHEME), identity.strip_prefix(SCHEME)) {
            // SPIFFE-ID, section 2.2: what has empty or relative segments is no SPIFFE ID, whatever star would take it.
            (Some(pattern), Some(identity)) => {
                !identity.split('/').any(|segment| matches!(segment, "" | "." | ".."))
                    && matches_path(pattern, identity)
            }
            (None, None) => matches_host(&self.0, identity),
            _ => false,
        }
    }
}

fn matches_path(pattern: &str, identity: &str) -> bool {
    let (mut patterns, mut segments) = (pattern.split('/'), identity.split('/'));
    loop {
        match (patterns.next(), segments.next()) {
            (None, None) => return true,
            (Some("**"), Some(_)) => return true,
            (Some(pattern), Some(segment)) if pattern == "*" || pattern == segment => {}
            _ => return false,
        }
    }
}

fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(_, parent)| parent.eq_ignore_ascii_case(rest)),
        None => host.eq_ignore_ascii_case(pattern),
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Scalar for IdentityPattern {
    const EXPECTED: &'static str = "an identity such as `spiffe://mesh/ns/*/sa/web`";
    const SCHEMA_NAME: &'static str = "Identity";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = |hint: &str| Err(Invalid::new(format!("{} is not an identity", quote(text))).hint(hint));
        if text.len() > LONGEST {
            return wrong("a SPIFFE ID has at most 2048 bytes");
        }
        let Some(rest) = text.strip_prefix(SCHEME) else {
            let host = text.strip_prefix("*.").unwrap_or(text);
            let label = |label: &str| {
                !label.is_empty()
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            };
            if host.is_empty() || !host.split('.').all(label) {
                return wrong("write a SPIFFE ID as in `spiffe://mesh/ns/*/sa/web`, or a host as in `web.internal`");
            }
            return Ok(IdentityPattern(text.to_owned()));
        };
        let mut segments = rest.split('/').peekable();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let domain = segments.next().unwrap_or_default();
        if domain.is_empty() || !domain.bytes().all(|byte| allowed(byte) && !byte.is_ascii_uppercase()) {
            return wrong("a trust domain is lower case, as in `spiffe://mesh/…`, and has no star");
        }
        while let Some(segment) = segments.next() {
            match segment {
                "" | "." | ".." => return wrong("no segment of its path can be empty, `.` or `..`"),
                "**" if segments.peek().is_some() => return wrong("`**` can only be the last segment"),
                "*" | "**" => {}
                _ if segment.bytes().all(allowed) => {}
                _ => return wrong("a star stands for a whole segment; else there are letters, digits and `-_.`"),
            }
        }
        Ok(IdentityPattern(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "A SPIFFE ID or a host; `*` is any segment or the first label.",
            "type": "string"
        })
    }
}
scalar!(IdentityPattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_speak_of_whole_segments() {
        for (pattern, identity, expected) in [
            ("spiffe://mesh/ns/*/sa/web", "spiffe://mesh/ns/a/sa/web", true),
            ("spiffe://mesh/ns/*/sa/web", "spiffe://mesh/ns/a/b/sa/web", false),
            ("spiffe://mesh/ns/*/sa/web", "spiffe://mesh/ns/a/sa/web2", false),
            ("spiffe://mesh/ns/*/sa/web", "spiffe://other/ns/a/sa/web", false),
            ("spiffe://mesh/ns/a", "spiffe://mesh/ns/a/sa/web", false),
            ("spiffe://mesh/**", "spiffe://mesh/ns/a/sa/web", true),
            ("spiffe://mesh/**", "spiffe://mesh", false),
            ("spiffe://mesh/**", "spiffe://mesh.evil/ns/a", false),
            ("spiffe://mesh/ns/*/sa/web", "spiffe://mesh/ns//sa/web", false),
            ("spiffe://mesh/ns/**", "spiffe://mesh/ns/a/", false),
            ("spiffe://mesh/**", "spiffe://mesh/ns/../web", false),
            ("spiffe://mesh/ns/a", "spiffe://mesh/ns/A", false),
            ("web.internal", "WEB.internal", true),
            ("*.internal", "web.internal", true),
            ("*.internal", "a.web.internal", false),
            ("*.internal", "internal", false),
            ("*.internal", "spiffe://x.internal", false),
        ] {
            let parsed = IdentityPattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(identity), expected, "{pattern} {identity}");
        }
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for text in [
            "",
            "*",
            "spiffe://",
            "spiffe://*/x",
            "spiffe://Mesh/x",
            "spiffe://mesh/",
            "spiffe://mesh//x",
            "spiffe://mesh/../x",
            "spiffe://mesh/**/x",
            "spiffe://mesh/we*",
            "spiffe://mesh/a?b",
            "https://mesh/x",
            "a b",
            "a.*.b",
        ] {
            assert!(IdentityPattern::parse(text).is_err(), "{text}");
        }
    }
}
