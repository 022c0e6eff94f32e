//! What protects a service from its clients, and what its owners do to it on purpose.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::{UpstreamIndex, ValueMatch};

/// `rate_limit:` A token bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Tokens a second.
    pub per_second: u32,
    /// Tokens that a bucket holds. Default: those of a second.
    pub burst: u32,
    /// Each value of this has its own bucket; without it there is one.
    pub key: Option<RateLimitKey>,
    /// Buckets there can be. Default 10,000.
    pub keys: u32,
    /// Count only, refuse nothing.
    pub shadow: bool,
}

/// What tells clients apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateLimitKey {
    /// Their address, as far as `trust` reaches.
    Client,
    /// This header's first value. Requests without it share a bucket.
    Header(HeaderName),
}

/// `concurrency:` How many requests may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// As many as this, or as many as latency allows.
    pub max: Option<u32>,
    /// Count only, refuse nothing.
    pub shadow: bool,
}

/// `mirror:` Copies of requests go to another upstream, and nobody waits for their answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mirror {
    /// Where.
    pub upstream: UpstreamIndex,
    /// This share of the requests. Default 1.
    pub ratio: f64,
}

/// `fault:` Trouble on purpose.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The request waits so long.
    pub delay: Option<Duration>,
    /// Then it is answered with this.
    pub abort: Option<StatusCode>,
    /// This share of the requests. Default 1.
    pub ratio: f64,
    /// Only requests with all of these headers.
    pub headers: Vec<(HeaderName, ValueMatch)>,
}
