//! Connections out: made, kept and reused by the worker that made them.

mod connect;
mod http1;
mod http2;
mod pool;
mod queue;
mod tls;

pub(crate) use connect::{OwnAddresses, connect};
pub(crate) use http1::{Answer, Attempt, Failure, Switched};
pub(crate) use http2::join_cookies;
pub(crate) use pool::{Checkout, Negotiated, PoolCounts, Pools, Wanted};
pub(crate) use tls::secure;

use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tokio::time::Instant;

use crate::body::Patience;
use crate::error::Reason;
use crate::runtime::timer::earlier;

/// When an attempt has to have got where. `None` is no bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// To a usable connection, from the attempt's start.
    pub(crate) connect: Option<Duration>,
    /// From the request's last byte to the response's headers.
    pub(crate) response: Option<Duration>,
    /// The attempt, up to the response's headers; a point in time.
    pub(crate) per_try: Option<Instant>,
    /// Silence in both directions.
    pub(crate) idle: Option<Duration>,
    /// The same for a response that is an event stream.
    pub(crate) stream_idle: Option<Duration>,
    /// The whole request; a point in time.
    pub(crate) request: Option<Instant>,
    /// What its passing means.
    pub(crate) request_reason: Reason,
    /// Silence after an Upgrade or CONNECT.
    pub(crate) tunnel_idle: Option<Duration>,
}

impl Deadlines {
    /// When the response's headers have to be there, whatever else holds.
    pub(crate) fn head(&self) -> Option<Instant> {
        earlier(self.request, self.per_try)
    }

    /// Why time is up: the whole request's deadline, or the attempt's, explains a timeout once it has passed.
    pub(crate) fn reason(&self, otherwise: Reason) -> Reason {
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if passed(self.request) {
            self.request_reason
        } else if passed(self.per_try) {
            Reason::PerTryTimeout
        } else {
            otherwise
        }
    }

    /// What is left of it for a response that has begun, after its kind: for the endpoint to go on, and for the client
    /// to take it.
    fn patience(&self, headers: &HeaderMap) -> Patience {
        let kind = headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
        let idle = if kind.starts_with(b"text/event-stream") { self.stream_idle } else { self.idle };
        Patience { idle, request: self.request.map(|deadline| (deadline, self.request_reason)) }
    }
}
