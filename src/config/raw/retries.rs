//! `retries:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::route::OneOrMany;
use crate::config::given::{Given, Spanned};
use crate::config::scalar::OrNone;
use crate::config::units::{Flag, Number, Period, Ratio, Size};

/// What is sent again, how often and when.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retries {
    /// Attempts after the first. Default 1; 0 where the only endpoint is a loopback address or Unix socket, unless the
    /// upstream or route writes it.
    pub(crate) max: Given<Number<0, 10>>,
    /// What a request is sent again for. Default `[connect_failure, refused_stream]`.
    pub(crate) when: Given<Vec<Given<Condition>>>,
    /// True where every request may be repeated, whatever its method. Default false: what may have been processed is
    /// only sent again with an idempotent method or an `Idempotency-Key`.
    pub(crate) idempotent: Given<Flag>,
    /// True where a request is sent again that somebody before or behind this proxy already repeats. Default false.
    pub(crate) nested: Given<Flag>,
    /// The pause before a retry.
    pub(crate) backoff: Given<Backoff>,
    /// Bytes of a request's body that are kept to be sent again; a longer body is sent once. Default 64KiB.
    pub(crate) body_bytes: Given<Size>,
    /// A second attempt while the first is still out: after a time, or when most answers would have come. Only for
    /// requests that may be processed twice. Default none.
    pub(crate) hedge: Given<HedgeForm>,
    /// How many retries there may be, all routes and workers together. Of upstreams and `defaults` only.
    pub(crate) budget: Given<Budget>,
}

/// What a request is sent again for: a word, a status, or gRPC statuses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "RetryCondition", untagged)]
pub(crate) enum Condition {
    /// A word or an HTTP status.
    #[serde(rename = "scalar")]
    Word(Spanned<ConditionWord>),
    /// gRPC statuses.
    #[serde(rename = "mapping")]
    Grpc(GrpcCondition),
}

/// When a second attempt begins: a duration, `none`, or a mapping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "Hedge", untagged)]
pub(crate) enum HedgeForm {
    /// So long after the first.
    #[serde(rename = "scalar")]
    After(Spanned<OrNone<Period>>),
    /// The long form.
    #[serde(rename = "mapping")]
    Long(Hedge),
}

/// When a second attempt begins: one of both.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "HedgeLong", extend("minProperties" = 1))]
pub(crate) struct Hedge {
    /// So long after the first.
    pub(crate) after: Given<Period>,
    /// When this share of the upstream's answers would have come.
    pub(crate) percentile: Given<Ratio>,
}

/// gRPC statuses.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["grpc"]))]
pub(crate) struct GrpcCondition {
    /// Any of these: `unavailable`, `resource_exhausted` and so on.
    pub(crate) grpc: Given<OneOrMany<GrpcStatus>>,
}

/// A word of `when`, or an HTTP status from 400 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConditionWord {
    ConnectFailure,
    RefusedStream,
    UpstreamReset,
    PerTryTimeout,
    ResponseTimeout,
    GatewayError,
    ServerError,
    Status(u16),
}

/// The number of a gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GrpcStatus(pub(crate) u8);

pub(crate) use words::grpc_word;

/// The pause before a retry doubles with each, and varies by a fifth.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Backoff {
    /// Before the first retry. Default 25ms.
    pub(crate) base: Given<Period>,
    /// At most. Default 1s.
    pub(crate) max: Given<Period>,
}

/// A share of the requests, and a few retries besides.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Budget {
    /// Retries per request. Default 0.2.
    pub(crate) ratio: Given<Ratio>,
    /// Retries a second besides. Default 1.
    pub(crate) min_per_second: Given<Number<0, 100_000>>,
    /// Over which both are counted: 1s to 10m. Default 10s.
    pub(crate) window: Given<Period>,
}

mod words {
    //! Scalars of this file.

    use schemars::{Schema, json_schema};

    use super::{ConditionWord, GrpcStatus};
    use crate::config::scalar::{Invalid, Scalar, VARIABLE_PATTERN, scalar};
    use crate::config::text::{listed, nearest, quote};

    const WORDS: [(&str, ConditionWord); 7] = [
        ("connect_failure", ConditionWord::ConnectFailure),
        ("refused_stream", ConditionWord::RefusedStream),
        ("upstream_reset", ConditionWord::UpstreamReset),
        ("per_try_timeout", ConditionWord::PerTryTimeout),
        ("response_timeout", ConditionWord::ResponseTimeout),
        ("gateway_error", ConditionWord::GatewayError),
        ("5xx", ConditionWord::ServerError),
    ];

    /// In the order of their numbers.
    const GRPC: [&str; 17] = [
        "ok",
        "cancelled",
        "unknown",
        "invalid_argument",
        "deadline_exceeded",
        "not_found",
        "already_exists",
        "permission_denied",
        "resource_exhausted",
        "failed_precondition",
        "aborted",
        "out_of_range",
        "unimplemented",
        "internal",
        "unavailable",
        "data_loss",
        "unauthenticated",
    ];

    /// A gRPC status as it is written.
    pub(crate) fn grpc_word(status: u8) -> Option<&'static str> {
        GRPC.get(usize::from(status)).copied()
    }

    impl Scalar for ConditionWord {
        const EXPECTED: &'static str = "a reason to send a request again";
        const SCHEMA_NAME: &'static str = "RetryWord";

        fn parse(text: &str) -> Result<Self, Invalid> {
            if let Some((_, word)) = WORDS.iter().find(|(known, _)| *known == text) {
                return Ok(*word);
            }
            let words = || WORDS.iter().map(|(word, _)| *word);
            if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()) {
                return match text.parse::<u16>() {
                    Ok(status @ 400..=599) => Ok(ConditionWord::Status(status)),
                    _ => Err(Invalid::new(format!("{} is not the status of an error", quote(text)))
                        .hint("it can be 400 to 599")),
                };
            }
            let hint = match nearest(text, words()) {
                Some(near) => format!("did you mean {}?", quote(near)),
                None => format!("it can be {}, a status such as `503`, or {{ grpc: […] }}", listed(words(), "or")),
            };
            Err(Invalid::new(format!("{} is no reason to send a request again", quote(text))).hint(hint))
        }

        fn schema() -> Schema {
            let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
            json_schema!({
                "description": "A word, or an HTTP status from 400 to 599.",
                "type": ["string", "integer"],
                "pattern": format!("^({}|[45][0-9][0-9])$|{VARIABLE_PATTERN}", words.join("|")),
                "minimum": 400,
                "maximum": 599
            })
        }
    }
    scalar!(ConditionWord);

    impl Scalar for GrpcStatus {
        const EXPECTED: &'static str = "a gRPC status such as `unavailable`";
        const SCHEMA_NAME: &'static str = "GrpcStatus";

        fn parse(text: &str) -> Result<Self, Invalid> {
            match GRPC.iter().position(|known| *known == text) {
                Some(0) => Err(Invalid::new("`ok` is not the status of an error")),
                Some(number) => Ok(GrpcStatus(number as u8)),
                None => {
                    let hint = match nearest(&text.to_ascii_lowercase(), GRPC) {
                        Some(near) => format!("did you mean {}?", quote(near)),
                        None => "write it as in `unavailable` or `resource_exhausted`".to_owned(),
                    };
                    Err(Invalid::new(format!("{} is not a gRPC status", quote(text))).hint(hint))
                }
            }
        }

        fn schema() -> Schema {
            json_schema!({ "description": "A gRPC status.", "enum": &GRPC[1..] })
        }
    }
    scalar!(GrpcStatus);

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn words_are_read() {
            assert_eq!(ConditionWord::parse("5xx"), Ok(ConditionWord::ServerError));
            assert_eq!(ConditionWord::parse("429"), Ok(ConditionWord::Status(429)));
            for wrong in ["200", "600", "", "retriable", "4xx"] {
                assert!(ConditionWord::parse(wrong).is_err(), "{wrong}");
            }
            assert!(ConditionWord::parse("gateway-error").unwrap_err().hint.unwrap().contains("gateway_error"));
            assert_eq!(GrpcStatus::parse("unavailable"), Ok(GrpcStatus(14)));
            assert_eq!(GrpcStatus::parse("unauthenticated"), Ok(GrpcStatus(16)));
            assert!(GrpcStatus::parse("UNAVAILABLE").unwrap_err().hint.unwrap().contains("`unavailable`"));
            assert!(GrpcStatus::parse("ok").is_err());
        }
    }
}
