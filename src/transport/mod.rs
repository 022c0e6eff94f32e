//! Connections out: made, kept and reused by the worker that made them.

mod connect;
mod http1;
mod http2;
mod pool;
mod tls;

pub(crate) use connect::{OwnAddresses, connect};
pub(crate) use http1::{Answer, Attempt, Failure};
pub(crate) use http2::{LocalExec, join_cookies};
pub(crate) use pool::{Checkout, Negotiated, PoolCounts, Pools, Wanted};

use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tokio::time::Instant;

use crate::error::Reason;

/// When an attempt has to have got where. `None` is no bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// To a usable connection, from the attempt's start.
    pub(crate) connect: Option<Duration>,
    /// From the request's last byte to the response's headers.
    pub(crate) response: Option<Duration>,
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
    /// Why time is up: the whole request's deadline explains a timeout once it has passed.
    pub(crate) fn reason(&self, otherwise: Reason) -> Reason {
        match self.request {
            Some(deadline) if Instant::now() >= deadline => self.request_reason,
            _ => otherwise,
        }
    }

    /// The same, with the patience that the response's kind deserves.
    fn for_response(mut self, headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
        if kind.starts_with(b"text/event-stream") {
            self.idle = self.stream_idle;
        }
        self
    }
}
