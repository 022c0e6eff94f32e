//! The `telemetry:` section: what is written about requests and about the proxy itself.

use std::path::PathBuf;

use http::HeaderName;

use super::Collector;

/// The `telemetry:` section.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// The proxy's own log.
    pub log: Log,
    /// A line a request.
    pub access_log: AccessLog,
    /// Spans. `None` where the file says nothing of them.
    pub traces: Option<Traces>,
}

/// `telemetry.traces`. What is `None` is the environment's to say (`OTEL_*`), or has a default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traces {
    /// Where spans go.
    pub collector: Collector,
    /// The share of the traces that begin here which is recorded.
    pub sample: Option<f64>,
    /// The headers that carry a request's place in its trace.
    pub propagation: Option<Propagation>,
}

/// Formats in which trace context is read and written. Read is the first of these that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// `traceparent` and `tracestate`.
    pub w3c: bool,
    /// The `b3` header.
    pub b3: bool,
    /// The `x-b3-…` headers.
    pub b3_multi: bool,
}

impl Propagation {
    /// W3C only.
    pub const W3C: Propagation = Propagation { w3c: true, b3: false, b3_multi: false };
}

/// `telemetry.log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is written. Default `info`.
    pub level: LogLevel,
    /// Default `json`.
    pub format: LogFormat,
}

/// Severity of the proxy's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// From the most severe on.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `telemetry.access_log`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Where lines go. Default stdout.
    pub target: LogTarget,
    /// Which requests get a line. Default: only errors.
    pub only: AccessLogFilter,
    /// Of those that `only` lets through and that are no errors, this share is written.
    pub sample: Samples,
    /// Default `json`.
    pub format: AccessLogFormat,
    /// What a line says, in this order. Default: everything.
    pub fields: Vec<AccessLogField>,
    /// Request headers whose values a line shows, as the client sent them. Default none.
    pub headers: Vec<HeaderName>,
    /// True where paths are written with their query, which may hold personal data. Default false.
    pub queries: bool,
}

/// Shares by the class of the status; the first is of 1xx.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Samples(pub [f64; 5]);

impl Samples {
    /// The same of all.
    pub const fn all(share: f64) -> Self {
        Samples([share; 5])
    }

    /// That of a status.
    pub fn of(&self, status: u16) -> f64 {
        let class = usize::from(status / 100).wrapping_sub(1);
        self.0.get(class).copied().unwrap_or(1.0)
    }
}

/// How lines of the access log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object a line.
    Json,
    /// `key=value` pairs, for people and grep.
    Text,
}

/// What a line of the access log can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // Each is its word.
pub enum AccessLogField {
    Time,
    Listener,
    Client,
    Route,
    Upstream,
    Endpoint,
    Method,
    Host,
    Path,
    Protocol,
    Code,
    GrpcCode,
    Reason,
    Attempts,
    BytesIn,
    BytesOut,
    Ms,
    Tls,
    Identity,
    TraceId,
    RequestId,
    Generation,
}

impl AccessLogField {
    /// All of them, in the order in which they are written where none was asked for.
    pub const ALL: [Self; 22] = [
        Self::Time,
        Self::Listener,
        Self::Client,
        Self::Route,
        Self::Upstream,
        Self::Endpoint,
        Self::Method,
        Self::Host,
        Self::Path,
        Self::Protocol,
        Self::Code,
        Self::GrpcCode,
        Self::Reason,
        Self::Attempts,
        Self::BytesIn,
        Self::BytesOut,
        Self::Ms,
        Self::Tls,
        Self::Identity,
        Self::TraceId,
        Self::RequestId,
        Self::Generation,
    ];

    /// As it is written in the file and in a line.
    #[inline]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Listener => "listener",
            Self::Client => "client",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Endpoint => "endpoint",
            Self::Method => "method",
            Self::Host => "host",
            Self::Path => "path",
            Self::Protocol => "protocol",
            Self::Code => "code",
            Self::GrpcCode => "grpc_code",
            Self::Reason => "reason",
            Self::Attempts => "attempts",
            Self::BytesIn => "bytes_in",
            Self::BytesOut => "bytes_out",
            Self::Ms => "ms",
            Self::Tls => "tls",
            Self::Identity => "identity",
            Self::TraceId => "trace_id",
            Self::RequestId => "request_id",
            Self::Generation => "generation",
        }
    }
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogTarget {
    Stdout,
    Stderr,
    File(PathBuf),
    None,
}

/// Which requests get an access log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogFilter {
    /// Each.
    All,
    /// Those with a reason, a status of 500 or more, or a failing gRPC status.
    Errors,
}
