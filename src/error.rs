//! Why a request failed: one word, the same in the response, the log line, the metric and the span.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

/// Why a request failed. The table of these words is part of the contract with users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // Each variant is its word; the table below says what it means to a client.
pub enum Reason {
    BadRequest,
    UriTooLong,
    HeaderTooLarge,
    BodyTooLarge,
    HeaderTimeout,
    BodyIncomplete,
    NoRoute,
    ConnectNotAllowed,
    LoopDetected,
    Denied,
    Overflow,
    ConnectFailure,
    ConnectTimeout,
    TlsError,
    RefusedStream,
    NoEndpoint,
    NoHealthyEndpoint,
    DiscoveryFailed,
    BreakerOpen,
    UpstreamReset,
    UpstreamClosedIdle,
    UpstreamProtocolError,
    ResponseTimeout,
    PerTryTimeout,
    IdleTimeout,
    RequestTimeout,
    DeadlineExceeded,
    ClientCancelled,
    RateLimited,
    ConcurrencyLimited,
    FaultInjected,
    Draining,
    Internal,
}

impl Reason {
    /// Every reason, in the order of the enum.
    pub const ALL: [Reason; 33] = [
        Reason::BadRequest,
        Reason::UriTooLong,
        Reason::HeaderTooLarge,
        Reason::BodyTooLarge,
        Reason::HeaderTimeout,
        Reason::BodyIncomplete,
        Reason::NoRoute,
        Reason::ConnectNotAllowed,
        Reason::LoopDetected,
        Reason::Denied,
        Reason::Overflow,
        Reason::ConnectFailure,
        Reason::ConnectTimeout,
        Reason::TlsError,
        Reason::RefusedStream,
        Reason::NoEndpoint,
        Reason::NoHealthyEndpoint,
        Reason::DiscoveryFailed,
        Reason::BreakerOpen,
        Reason::UpstreamReset,
        Reason::UpstreamClosedIdle,
        Reason::UpstreamProtocolError,
        Reason::ResponseTimeout,
        Reason::PerTryTimeout,
        Reason::IdleTimeout,
        Reason::RequestTimeout,
        Reason::DeadlineExceeded,
        Reason::ClientCancelled,
        Reason::RateLimited,
        Reason::ConcurrencyLimited,
        Reason::FaultInjected,
        Reason::Draining,
        Reason::Internal,
    ];

    /// True where neither a configuration nor an endpoint is to blame: the client did it, or it was meant to be.
    pub(crate) const fn is_no_ones_fault(self) -> bool {
        matches!(
            self,
            Reason::BadRequest
                | Reason::HeaderTimeout
                | Reason::BodyIncomplete
                | Reason::ClientCancelled
                | Reason::FaultInjected
                | Reason::Draining
        )
    }

    /// The word, the HTTP status, the gRPC status and the sentence for a person.
    const fn row(self) -> (&'static str, u16, u8, &'static str) {
        match self {
            Reason::BadRequest => ("bad_request", 400, 3, "the request is not valid HTTP"),
            Reason::UriTooLong => {
                ("uri_too_long", 414, 3, "the request target is longer than this listener's limits.header_bytes")
            }
            Reason::HeaderTooLarge => {
                ("header_too_large", 431, 3, "the request's headers exceed this listener's limits")
            }
            Reason::BodyTooLarge => {
                ("body_too_large", 413, 3, "the request body exceeds this listener's limits.body_bytes")
            }
            Reason::HeaderTimeout => {
                ("header_timeout", 408, 3, "the request's headers did not arrive within limits.header_timeout")
            }
            Reason::BodyIncomplete => ("body_incomplete", 400, 3, "the request body ended before its announced length"),
            Reason::NoRoute => ("no_route", 404, 12, "no route of this listener matches the request"),
            Reason::ConnectNotAllowed => (
                "connect_not_allowed",
                405,
                12,
                "CONNECT works only for the app beside this proxy (loopback or captured), to a host that a route names",
            ),
            Reason::LoopDetected => ("loop_detected", 508, 12, "the request would come back to this proxy"),
            Reason::Denied => ("denied", 403, 7, "the caller is not one of those that may come this way"),
            Reason::Overflow => ("overflow", 503, 14, "a limit of the upstream or listener was reached"),
            Reason::ConnectFailure => ("connect_failure", 503, 14, "no connection to the endpoint could be made"),
            Reason::ConnectTimeout => {
                ("connect_timeout", 504, 14, "connecting to the endpoint took longer than timeouts.connect")
            }
            Reason::TlsError => ("tls_error", 503, 14, "the endpoint is not who it should be, or does not speak TLS"),
            Reason::RefusedStream => {
                ("refused_stream", 503, 14, "the endpoint refused the request before processing it")
            }
            Reason::NoEndpoint => ("no_endpoint", 503, 14, "the upstream has no endpoint"),
            Reason::NoHealthyEndpoint => {
                ("no_healthy_endpoint", 503, 14, "every endpoint of the upstream fails its health check")
            }
            Reason::DiscoveryFailed => {
                ("discovery_failed", 503, 14, "the upstream's endpoints cannot be looked up; /upstreams says why")
            }
            Reason::BreakerOpen => {
                ("breaker_open", 503, 14, "the upstream's circuit breaker is open; Retry-After says for how long")
            }
            Reason::UpstreamReset => {
                ("upstream_reset", 502, 14, "the endpoint closed the connection before its answer was complete")
            }
            Reason::UpstreamClosedIdle => (
                "upstream_closed_idle",
                502,
                14,
                "the endpoint closed an idle connection as the request was sent on it",
            ),
            Reason::UpstreamProtocolError => {
                ("upstream_protocol_error", 502, 14, "the endpoint's answer is not valid HTTP")
            }
            Reason::ResponseTimeout => {
                ("response_timeout", 504, 4, "the endpoint did not answer within timeouts.response")
            }
            Reason::PerTryTimeout => ("per_try_timeout", 504, 4, "the endpoint did not answer within timeouts.per_try"),
            Reason::IdleTimeout => ("idle_timeout", 504, 4, "nothing moved in either direction for timeouts.idle"),
            Reason::RequestTimeout => {
                ("request_timeout", 504, 4, "the whole request took longer than timeouts.request")
            }
            Reason::DeadlineExceeded => ("deadline_exceeded", 504, 4, "the deadline that the client set has passed"),
            Reason::ClientCancelled => ("client_cancelled", 499, 1, "the client left before the answer was complete"),
            Reason::RateLimited => ("rate_limited", 429, 8, "there are more requests than rate_limit allows"),
            Reason::ConcurrencyLimited => {
                ("concurrency_limited", 503, 8, "there are more requests in flight than concurrency allows")
            }
            Reason::FaultInjected => ("fault_injected", 503, 14, "this route's fault has been injected"),
            Reason::Draining => ("draining", 503, 14, "this proxy is shutting down"),
            Reason::Internal => ("internal", 500, 13, "a bug in the proxy; please report it"),
        }
    }

    /// The word that users see, such as `connect_failure`.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that the client gets (499 is only logged).
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The gRPC status that a gRPC client gets.
    pub const fn grpc_status(self) -> u8 {
        self.row().2
    }

    /// One sentence for the response's body.
    pub const fn describe(self) -> &'static str {
        self.row().3
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client, or the network to it.
    Downstream,
    /// The endpoint, or the network to it.
    Upstream,
    /// This proxy: its limits, configuration or bugs.
    Local,
}

/// What ended something, and whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Why.
    pub reason: Reason,
    /// Whose fault.
    pub source: Source,
}

impl Cause {
    /// The client's fault.
    pub(crate) const fn downstream(reason: Reason) -> Self {
        Cause { reason, source: Source::Downstream }
    }

    /// The endpoint's fault.
    pub(crate) const fn upstream(reason: Reason) -> Self {
        Cause { reason, source: Source::Upstream }
    }

    /// What this proxy decided on.
    pub(crate) const fn local(reason: Reason) -> Self {
        Cause { reason, source: Source::Local }
    }
}

/// A failed request or attempt: the reason decides everything, `detail` is for people.
#[derive(Debug)]
pub struct Error {
    /// Why.
    pub reason: Reason,
    /// Whose fault.
    pub source: Source,
    /// True when no byte of the request reached the endpoint's application: safe to send again for any method.
    pub unsent: bool,
    /// Another status than the reason's, where the configuration says so.
    pub status: Option<StatusCode>,
    /// After how long the client may come again.
    pub retry_after: Option<Duration>,
    /// What was seen, for the log; never sent to a client.
    pub detail: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    // Cold: what leads to an error is laid out beside the way that most requests go, and not in it.

    /// An error caused by the client.
    #[cold]
    pub fn downstream(reason: Reason) -> Self {
        Error { reason, source: Source::Downstream, unsent: true, status: None, retry_after: None, detail: None }
    }

    /// An error caused by the endpoint, after the request may have reached it.
    #[cold]
    pub fn upstream(reason: Reason) -> Self {
        Error { reason, source: Source::Upstream, unsent: false, status: None, retry_after: None, detail: None }
    }

    /// An error that this proxy decided on.
    #[cold]
    pub fn local(reason: Reason) -> Self {
        Error { reason, source: Source::Local, unsent: true, status: None, retry_after: None, detail: None }
    }

    /// Why, and whose fault.
    pub(crate) fn cause(&self) -> Cause {
        Cause { reason: self.reason, source: self.source }
    }

    /// The same error, known not to have reached the endpoint's application.
    #[must_use]
    pub fn unsent(mut self) -> Self {
        self.unsent = true;
        self
    }

    /// The same error with another status than its reason's.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The same error with the time after which the client may come again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same error with what was seen.
    #[must_use]
    pub fn because(mut self, detail: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.reason),
            None => f.write_str(self.reason.as_str()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_the_order_of_the_enum_and_words_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(Reason::ALL.iter().filter(|other| other.as_str() == reason.as_str()).count(), 1);
        }
    }
}
