//! `routes:`

use http::StatusCode;
use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;

use super::discover::Discover;
use super::overload::{Concurrency, Fault, Mirror, RateLimit};
use super::retries::Retries;
use super::upstream::Timeouts;
use crate::config::given::{Given, Named, Pairs, Spanned};
use crate::config::model::IdentityPattern;
use crate::config::scalar::{Invalid, Scalar, VARIABLE_PATTERN, scalar};
use crate::config::text::quote;
use crate::config::units::{Flag, Name, Number, Text};

/// A match and what to do: exactly one of `upstream`, `discover`, `split`, `redirect` and `respond`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Route {
    /// In metrics and logs. Default: the upstream's name, `discover-consul` or `discover-dns`, or the action and the
    /// position, such as `redirect-3`.
    pub(crate) name: Given<Name>,
    /// What a request must look like; everything written must hold. Without it the route matches all.
    #[serde(rename = "match")]
    pub(crate) matcher: Given<Match>,
    /// Send to this upstream: a name, or an address.
    pub(crate) upstream: Given<Text>,
    /// Send to whatever service the host names, found when first called.
    pub(crate) discover: Given<Discover>,
    /// Send to one of several upstreams, by weight (any sum).
    pub(crate) split: Given<Named<Number<0, 1_000_000>>>,
    /// Send the client elsewhere.
    pub(crate) redirect: Given<Redirect>,
    /// Answer at once.
    pub(crate) respond: Given<Respond>,
    /// SPIFFE IDs or hosts of the clients that may come this way; others get 403 `denied`.
    pub(crate) allow: Given<OneOrMany<IdentityPattern>>,
    /// What to change in the target before sending.
    pub(crate) rewrite: Given<Rewrite>,
    /// Changes of request headers: removed first, then set, then added.
    pub(crate) request_headers: Given<HeaderRules>,
    /// Changes of response headers: removed first, then set, then added.
    pub(crate) response_headers: Given<HeaderRules>,
    /// What this route says of timeouts, key by key over what its upstream says.
    pub(crate) timeouts: Given<Timeouts>,
    /// What this route says of retries, key by key over what its upstream says.
    pub(crate) retries: Given<Retries>,
    /// How often clients may come; beside what the listener says.
    pub(crate) rate_limit: Given<RateLimit>,
    /// How many requests may be in flight; beside what the listener says.
    pub(crate) concurrency: Given<Concurrency>,
    /// Copies of requests go to another upstream, too.
    pub(crate) mirror: Given<Mirror>,
    /// Trouble on purpose.
    pub(crate) fault: Given<Fault>,
}

/// What a request must look like; everything written must hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Match {
    /// Any of these hosts, without case, port and final dot unless written; `*.example.org` is one or more labels.
    pub(crate) host: Given<OneOrMany<Text>>,
    /// The path, without the query. A bare path is a prefix on a segment boundary.
    pub(crate) path: Given<PathForm>,
    /// Any of these methods.
    pub(crate) method: Given<OneOrMany<Text>>,
    /// All of these headers. A bare value must be equal.
    pub(crate) headers: Given<Pairs<ValueForm>>,
    /// Any of these ports that the connection was going to, where the listener's mode is `transparent`.
    pub(crate) port: Given<OneOrMany<Number<1, 65535>>>,
    /// All of these query parameters, compared percent-decoded. A bare value must be equal.
    pub(crate) query: Given<Pairs<ValueForm>>,
}

/// One value, or a list of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "OneOrMany{T}", untagged, inline)]
pub(crate) enum OneOrMany<T> {
    #[serde(rename = "scalar")]
    One(Spanned<T>),
    #[serde(rename = "sequence")]
    Many(Vec<Given<T>>),
}

impl<T> OneOrMany<T> {
    /// The values that could be read.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Spanned<T>> {
        let (one, many) = match self {
            OneOrMany::One(one) => (Some(one), &[][..]),
            OneOrMany::Many(many) => (None, many.as_slice()),
        };
        one.into_iter().chain(many.iter().filter_map(Given::spanned))
    }
}

/// A path: bare for a prefix, or a mapping of one key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "Path", untagged)]
pub(crate) enum PathForm {
    /// This path and what is below it, on a segment boundary.
    #[serde(rename = "scalar")]
    Prefix(Spanned<Text>),
    /// Another test.
    #[serde(rename = "mapping")]
    Test(PathTest),
}

/// A test of the path: one of these keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct PathTest {
    /// This path only.
    pub(crate) exact: Given<Text>,
    /// This path and what is below it, on a segment boundary.
    pub(crate) prefix: Given<Text>,
    /// The whole path must match this regular expression.
    pub(crate) regex: Given<Text>,
}

/// A value: bare where it must be equal, or a mapping of one key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "Value", untagged)]
pub(crate) enum ValueForm {
    /// It equals this.
    #[serde(rename = "scalar")]
    Exact(Spanned<Text>),
    /// Another test.
    #[serde(rename = "mapping")]
    Test(ValueTest),
}

/// A test of a value: one of these keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct ValueTest {
    /// It equals this.
    pub(crate) exact: Given<Text>,
    /// The whole value matches this regular expression.
    pub(crate) regex: Given<Text>,
    /// It is there (true), or it is not (false).
    pub(crate) present: Given<Flag>,
    /// The test below fails, also where there is no value: `{ not: "v1" }`, `{ not: { regex: … } }`.
    pub(crate) not: Given<Box<ValueForm>>,
}

/// Send the client elsewhere. What is not written stays as it was asked for; the query stays.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redirect {
    /// `http` or `https`.
    pub(crate) scheme: Given<Scheme>,
    /// Host, with or without port.
    pub(crate) host: Given<Text>,
    /// The new path.
    pub(crate) path: Given<Text>,
    /// 301, 302, 303, 307 or 308. Default 308.
    pub(crate) status: Given<RedirectStatus>,
}

/// A scheme of URLs.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// Answer at once.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Respond {
    /// 200 to 599. Default 200.
    pub(crate) status: Given<Number<200, 599>>,
    /// Default empty.
    pub(crate) body: Given<Text>,
    /// Default `text/plain; charset=utf-8`.
    pub(crate) content_type: Given<Text>,
}

/// What to change in the target before sending.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rewrite {
    /// The matched prefix of the path becomes this.
    pub(crate) path_prefix: Given<Text>,
    /// Each match of a regular expression in the path becomes something else.
    pub(crate) path_regex: Given<PathRegex>,
    /// The Host (and `:authority`) that the upstream sees. Default: the client's.
    pub(crate) host: Given<Text>,
}

/// Each match of a regular expression becomes something else.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pattern", "replacement"]))]
pub(crate) struct PathRegex {
    /// What to look for.
    pub(crate) pattern: Given<Text>,
    /// What to put there. `$1` and `$${name}` stand for groups.
    pub(crate) replacement: Given<Text>,
}

/// Changes of headers: removed first, then set, then added. Values may hold `%{client.address}`, `%{request.id}`,
/// `%{route}` and the like; `%%` is a percent sign.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HeaderRules {
    /// Replaces all values.
    pub(crate) set: Given<Pairs<Text>>,
    /// One more value, or several.
    pub(crate) add: Given<Pairs<OneOrMany<Text>>>,
    /// Names.
    pub(crate) remove: Given<OneOrMany<Text>>,
}

/// What a redirect answers: one that clients follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RedirectStatus(pub(crate) StatusCode);

impl Scalar for RedirectStatus {
    const EXPECTED: &'static str = "a status that redirects, such as 308";
    const SCHEMA_NAME: &'static str = "RedirectStatus";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let known = FOLLOWED.into_iter().find(|status| status.as_str() == text);
        known.map(RedirectStatus).ok_or_else(|| {
            Invalid::new(format!("{} is not a redirect that can be followed", quote(text)))
                .hint("it can be 301, 302, 303, 307 or 308")
        })
    }

    fn schema() -> Schema {
        let pattern = format!("^30[12378]$|{VARIABLE_PATTERN}");
        let numbers = FOLLOWED.map(|status| status.as_u16());
        json_schema!({ "anyOf": [{ "enum": numbers }, { "type": "string", "pattern": pattern }] })
    }
}
scalar!(RedirectStatus);

const FOLLOWED: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];
