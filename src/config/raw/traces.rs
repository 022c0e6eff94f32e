//! `telemetry.traces:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::otlp::OtlpProtocol;
use super::route::OneOrMany;
use super::tls::UpstreamTls;
use crate::config::given::{Given, Pairs};
use crate::config::model::OtlpUrl;
use crate::config::units::{Ratio, Text};

/// Spans of requests and attempts, for an OpenTelemetry collector.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Traces {
    /// The collector's URL, such as `http://127.0.0.1:4317` or `https://collector.example:4317`. Default: what
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` says.
    pub(crate) otlp: Given<OtlpUrl>,
    /// TLS with a collector at `https://…`. Default: what `OTEL_EXPORTER_OTLP_CERTIFICATE`, `…_CLIENT_CERTIFICATE` and
    /// `…_CLIENT_KEY` name, else the platform's authorities and no certificate of our own.
    pub(crate) tls: Given<UpstreamTls>,
    /// Default: what `OTEL_EXPORTER_OTLP_PROTOCOL` says, else `http` where the port is 4318, else `grpc`.
    pub(crate) protocol: Given<OtlpProtocol>,
    /// This share of the traces that begin here is recorded. Default: what `OTEL_TRACES_SAMPLER` says, else 0.1.
    pub(crate) sample: Given<Ratio>,
    /// Headers that carry a request's place in its trace: read from the first that is there, written to all. Default:
    /// what `OTEL_PROPAGATORS` says, else `w3c`.
    pub(crate) propagation: Given<OneOrMany<Propagation>>,
    /// Sent with every export, such as an API key.
    pub(crate) headers: Given<Pairs<Text>>,
    /// Attributes of this process, over those of `OTEL_RESOURCE_ATTRIBUTES`.
    pub(crate) resource: Given<Pairs<Text>>,
}

/// A format of trace context.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Propagation {
    /// `traceparent` and `tracestate`.
    W3c,
    /// The `b3` header.
    B3,
    /// The `x-b3-…` headers.
    B3multi,
}
