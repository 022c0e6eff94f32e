//! Names of services, with stars.

use schemars::{Schema, json_schema};

use super::scalar::{Invalid, Scalar, scalar};
use super::text::quote;

/// A service's name, in which `*` is any part of a label, and a leading `*.` one or more labels. A star never crosses a
/// dot, so that `orders-*` does not let `orders-x.example.org` in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

/// Of a name in DNS.
const LONGEST: usize = 253;

impl NamePattern {
    /// True where the pattern speaks of this name: lower case, no final dot.
    pub fn matches(&self, name: &str) -> bool {
        let Some(parent) = self.0.strip_prefix("*.") else { return matches_labels(&self.0, name) };
        let labels = parent.split('.').count();
        // The dot before as many labels as the parent has.
        let dot = name.rmatch_indices('.').nth(labels - 1).map(|(at, _)| at);
        dot.is_some_and(|dot| dot > 0 && matches_labels(parent, &name[dot + 1..]))
    }
}

fn matches_labels(pattern: &str, name: &str) -> bool {
    let (mut patterns, mut labels) = (pattern.split('.'), name.split('.'));
    loop {
        match (patterns.next(), labels.next()) {
            (None, None) => return true,
            (Some(pattern), Some(label)) if matches_label(pattern, label) => {}
            _ => return false,
        }
    }
}

/// Each piece between stars is taken where it is found first: later would leave less for the rest.
fn matches_label(pattern: &str, label: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == label };
    let Some(mut label) = label.strip_prefix(first) else { return false };
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return label.ends_with(piece);
        }
        let Some(at) = label.find(piece) else { return false };
        label = &label[at + piece.len()..];
    }
    true
}

impl Scalar for NamePattern {
    const EXPECTED: &'static str = "the name of a service such as `orders` or `orders-*`";
    const SCHEMA_NAME: &'static str = "NamePattern";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*');
        let label = |label: &str| !label.is_empty() && label.bytes().all(fits);
        if bare.len() > LONGEST || !bare.split('.').all(label) {
            return Err(Invalid::new(format!("{} is not the name of a service", quote(text)))
                .hint("write it as in `orders`, `orders-*` or `*.default.svc.cluster.local`, without a port"));
        }
        Ok(NamePattern(bare.to_ascii_lowercase()))
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "The name of a service; `*` is any part of a label, a leading `*.` one or more labels.",
            "type": ["string", "number"]
        })
    }
}
scalar!(NamePattern);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_do_not_cross_dots() {
        for (pattern, name, expected) in [
            ("orders", "orders", true),
            ("Orders.", "orders", true),
            ("orders", "orders-api", false),
            ("orders-*", "orders-api", true),
            ("orders-*", "orders-", true),
            ("orders-*", "orders", false),
            ("orders-*", "orders-x.example.org", false),
            ("*-api", "orders-api", true),
            ("*-api", "a.orders-api", false),
            ("a*b*c", "axbxbc", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
            ("*", "orders", true),
            ("*", "orders.default", false),
            ("*.*", "orders.default", true),
            ("*.*", "orders", false),
            ("*.svc", "orders.svc", true),
            ("*.svc", "orders.default.svc", true),
            ("*.svc", "svc", false),
            ("*.svc", "xsvc", false),
            ("*.sv*", "a.b.svc2", true),
            ("orders.*.svc", "orders.default.svc", true),
            ("orders.*.svc", "orders.a.b.svc", false),
        ] {
            assert_eq!(NamePattern::parse(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", ".", "a..b", "orders:80", "a b", "https://a", "a/b"] {
            assert!(NamePattern::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        /// Stars that are filled with anything but dots match what they were filled with.
        #[test]
        fn a_star_is_any_part_of_a_label(parts in prop::collection::vec("[a-c]{0,3}", 2..4), fill in "[a-c-]{0,4}") {
            let pattern = format!("x{}", parts.join("*"));
            let name = format!("x{}", parts.join(&fill));
            prop_assert!(NamePattern::parse(&pattern).unwrap().matches(&name));
            let parent = format!("*.{pattern}");
            let below = format!("a.b.{name}");
            prop_assert!(NamePattern::parse(&parent).unwrap().matches(&below));
            prop_assert!(!NamePattern::parse(&pattern).unwrap().matches(&below));
        }
    }
}
