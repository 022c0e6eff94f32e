//! `telemetry:`

use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;

use super::route::OneOrMany;
use super::traces::Traces;
use crate::config::given::Given;
use crate::config::model::AccessLogField;
use crate::config::scalar::{Invalid, Scalar, VARIABLE_PATTERN, scalar};
use crate::config::text::{did_you_mean, quote};
use crate::config::units::{Flag, Ratio, Text};

/// What is written about requests and about the proxy itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Telemetry {
    /// The proxy's own log, on stderr.
    pub(crate) log: Given<Log>,
    /// A line a request.
    pub(crate) access_log: Given<AccessLog>,
    /// Spans of requests and attempts, for an OpenTelemetry collector. Off unless written, here or as
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) traces: Given<Traces>,
}

/// The proxy's own log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// The least severe level that is written. Default `info`.
    pub(crate) level: Given<LogLevel>,
    /// Default `json`.
    pub(crate) format: Given<LogFormat>,
}

/// A level of the proxy's own log.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    Json,
    Text,
}

/// A line a request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccessLog {
    /// `stdout` (the default), `stderr`, `none` or the path of a file.
    pub(crate) path: Given<Text>,
    /// Default `json`.
    pub(crate) format: Given<AccessLogFormat>,
    /// Which requests get a line. Default `errors`: a reason, a status of 500 or more, a failing gRPC status.
    pub(crate) only: Given<AccessLogFilter>,
    /// This share of the lines that are no errors is written: one for all, or by the class of the status. Default 1.
    pub(crate) sample: Given<SampleForm>,
    /// What a line says, in this order. Default: everything.
    pub(crate) fields: Given<OneOrMany<AccessLogField>>,
    /// Request headers that a line shows besides, as the client sent them; at most 16, and none that holds credentials.
    /// Default none.
    pub(crate) headers: Given<OneOrMany<Text>>,
    /// Whether paths are written with their query, which may hold personal data. Default false.
    pub(crate) queries: Given<Flag>,
}

/// A share of all, or shares by the class of the status.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "SampleForm", untagged)]
pub(crate) enum SampleForm {
    /// The same of all.
    #[serde(rename = "scalar")]
    All(Ratio),
    /// Of those that are not written: 1.
    #[serde(rename = "mapping")]
    ByClass(Samples),
}

/// Shares by the class of the status.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Samples {
    /// Switching protocols.
    #[serde(rename = "1xx")]
    pub(crate) informational: Given<Ratio>,
    /// Success.
    #[serde(rename = "2xx")]
    pub(crate) success: Given<Ratio>,
    /// Redirection.
    #[serde(rename = "3xx")]
    pub(crate) redirection: Given<Ratio>,
    /// The client's mistakes.
    #[serde(rename = "4xx")]
    pub(crate) client_error: Given<Ratio>,
}

/// How lines of the access log look.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccessLogFormat {
    Json,
    /// `key=value` pairs.
    Text,
}

/// Which requests get a line.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccessLogFilter {
    All,
    Errors,
}

impl Scalar for AccessLogField {
    const EXPECTED: &'static str = "a field of the access log such as `path`";
    const SCHEMA_NAME: &'static str = "AccessLogField";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let known = Self::ALL.into_iter().find(|field| field.as_str() == text);
        known.ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str);
            let invalid = Invalid::new(format!("there is no field {} in the access log", quote(text)));
            match did_you_mean(text, &words) {
                Some(hint) => invalid.hint(hint),
                None => invalid.hint(format!("there are {}", words.join(", "))),
            }
        })
    }

    fn schema() -> Schema {
        let words = Self::ALL.map(Self::as_str).join("|");
        json_schema!({ "type": "string", "pattern": format!("^({words})$|{VARIABLE_PATTERN}") })
    }
}
scalar!(AccessLogField);
