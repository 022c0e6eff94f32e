//! Collectors of OpenTelemetry.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::UpstreamTls;

/// A collector. What is `None` is the environment's to say (`OTEL_*`), or has a default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collector {
    /// Where it takes exports.
    pub url: Option<OtlpUrl>,
    /// How they go there.
    pub protocol: Option<OtlpProtocol>,
    /// Whom a collector at `https://…` has to be, and what it is shown.
    pub tls: Option<UpstreamTls>,
    /// Sent with every export.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What exports say of this process besides what the environment says.
    pub resource: Vec<(String, String)>,
}

/// `metrics.otlp`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsExport {
    /// Where metrics go.
    pub collector: Collector,
    /// From one export to the next; `None` is the environment's to say, else a minute.
    pub interval: Option<Duration>,
}

/// Where exports go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpUrl {
    /// `https`.
    pub secure: bool,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// As written, or the scheme's.
    pub port: u16,
    /// As written; empty where there is none.
    pub path: String,
}

/// How exports go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OtlpProtocol {
    Grpc,
    /// `http/protobuf`.
    Http,
}
