//! What is known of a request and its attempts when it ends, as it was: no text is made of it on a worker.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Uri, Version};

use crate::error::Reason;
use crate::outcome::Outcome;
use crate::telemetry::request_id::RequestId;
use crate::telemetry::trace_context::TraceContext;

/// A request from its first byte to its response's last: a span of kind SERVER.
#[derive(Debug, Clone)]
pub struct RequestSpan {
    /// The request's place in its trace.
    pub context: TraceContext,
    /// What came with it, for other vendors.
    pub tracestate: Option<HeaderValue>,
    /// 16 hexadecimal digits.
    pub id: [u8; 16],
    /// Since the Unix epoch.
    pub began: Duration,
    /// Since the Unix epoch.
    pub ended: Duration,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The route's name, where one matched.
    pub route: Option<Arc<str>>,
    /// The path that the route matches, where it names one.
    pub path_pattern: Option<Arc<str>>,
    /// The upstream's name, where it was sent to one.
    pub upstream: Option<Arc<str>>,
    /// As sent.
    pub method: Method,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// As sent.
    pub uri: Uri,
    /// As sent.
    pub host: Option<HeaderValue>,
    /// As sent.
    pub user_agent: Option<HeaderValue>,
    /// What the client spoke.
    pub version: Version,
    /// Who asked, as far as proxies before us are believed.
    pub client: Option<IpAddr>,
    /// The connection's other end.
    pub peer: Option<SocketAddr>,
    /// The request is gRPC.
    pub grpc: bool,
    /// The status that the client got, 499 where it had left.
    pub code: u16,
    /// The gRPC status, where one came.
    pub grpc_code: Option<u8>,
    /// Why it failed, where it did.
    pub reason: Option<Reason>,
    /// As sent on.
    pub request_id: RequestId,
    /// The configuration that it ran under.
    pub generation: u64,
    /// Each time that it was sent.
    pub attempts: Vec<AttemptSpan>,
}

/// One attempt at an endpoint: a span of kind CLIENT.
#[derive(Debug, Clone)]
pub struct AttemptSpan {
    /// 16 hexadecimal digits; what the endpoint got as its parent.
    pub id: [u8; 16],
    /// Counted from 0.
    pub number: u32,
    /// Since the Unix epoch.
    pub began: Duration,
    /// Since the Unix epoch.
    pub ended: Duration,
    /// The endpoint as logs show it.
    pub endpoint: Arc<str>,
    /// Its address, where it is no Unix socket.
    pub address: Option<SocketAddr>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// As the endpoint got it.
    pub uri: Uri,
    /// As the endpoint got it.
    pub host: Option<HeaderValue>,
    /// What was spoken to the endpoint, where it answered.
    pub version: Option<Version>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why its answer did not come to its end, where it did not.
    pub broke: Option<Reason>,
}

impl RequestSpan {
    /// Spans that this makes.
    pub(super) fn count(&self) -> usize {
        1 + self.attempts.len()
    }
}
