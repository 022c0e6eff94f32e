//! How endpoints are chosen, judged by what they answer, and asked how they are.

use std::time::Duration;

use http::HeaderName;
use http::uri::PathAndQuery;

use super::{Respond, UpstreamIndex};

/// `load_balancer:`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LoadBalancer {
    /// Weighted and smooth.
    #[default]
    RoundRobin,
    /// Of two drawn by weight, the one with fewer requests in flight for its weight.
    LeastRequests,
    /// Of two drawn by weight, the one that should answer sooner.
    PeakEwma,
    /// The same key goes to the same endpoint; few keys move where endpoints come and go.
    RingHash(HashKey),
    /// The same, with evener shares.
    Maglev(HashKey),
}

/// What of a request decides where it goes. A request that has none goes anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The first value of a header.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(String),
    /// The client's IP address, as far as `trust` reaches.
    ClientAddress,
}

/// Which endpoints a request can go to, and which of them it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Balancing {
    /// How endpoints take turns.
    pub load_balancer: LoadBalancer,
    /// Endpoints of this zone come first; that of the proxy, where the upstream prefers its own.
    pub zone: Option<String>,
    /// Over how long a new endpoint's share grows to what is due. `None`: it has it at once. Default none.
    pub slow_start: Option<Duration>,
    /// The same for one that was ejected. Default 10 s, unless `slow_start` is written.
    pub slow_return: Option<Duration>,
    /// With less than this share of the endpoints left, ejections are disregarded. That of `ejection`.
    pub panic_ratio: f64,
}

/// `ejection:`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ejection {
    /// After so many failures in a row: no connection, a reset, no answer in time, 502, 503, 504. Default 5.
    pub consecutive: Option<u32>,
    /// At this share of failures of any kind, 500 too. Default none.
    pub failure_ratio: Option<f64>,
    /// So many standard deviations below the mean success rate of all. Default none.
    pub deviations: Option<f64>,
    /// Attempts within `window` below which neither ratio nor rate means anything. Default 20.
    pub min_requests: u32,
    /// What ratios and rates are taken over. Default 10 s.
    pub window: Duration,
    /// The first ejection's time; each further one is longer by as much. Default 30 s.
    pub base: Duration,
    /// The longest. Default 5 m.
    pub longest: Duration,
    /// At most this share of the endpoints is out at a time; one always stays. Default 0.5.
    pub max_ratio: f64,
    /// With less than this share of the endpoints left, ejections are disregarded. Default 0.5.
    pub panic_ratio: f64,
    /// Count, and leave nobody out.
    pub shadow: bool,
}

/// `circuit_breaker:`
#[derive(Debug, Clone)]
pub struct CircuitBreaker {
    /// Opens at this share of failures. Default 0.5.
    pub failure_ratio: f64,
    /// A request that takes longer is slow. Default none.
    pub slow: Option<Duration>,
    /// Opens at this share of slow requests. Default 0.8.
    pub slow_ratio: f64,
    /// Requests within `window` below which ratios mean nothing. Default 20.
    pub min_requests: u32,
    /// What ratios are taken over. Default 10 s.
    pub window: Duration,
    /// How long it is open at first; each time that a probe fails, twice as long. Default 5 s.
    pub open_for: Duration,
    /// The longest. Default 60 s.
    pub longest: Duration,
    /// Requests let through to see whether the upstream is well again; it is when all of them are. Default 3.
    pub probes: u8,
    /// What becomes of a request that is refused.
    pub fallback: Fallback,
    /// Count, and refuse nothing.
    pub shadow: bool,
}

/// What becomes of a request that an open breaker refuses.
#[derive(Debug, Clone)]
pub enum Fallback {
    /// 503 `breaker_open`.
    Refuse,
    /// It goes to another upstream, whose own breaker holds, but not its fallback.
    Upstream(UpstreamIndex),
    /// A fixed answer.
    Respond(Box<Respond>),
}

/// `health:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// The port that is asked, where it is not the endpoint's.
    pub port: Option<u16>,
    /// From one check's beginning to the next one's. Default 5 s.
    pub every: Duration,
    /// After this a check has failed. Default 1 s.
    pub timeout: Duration,
    /// Checks passed in a row, for one that was down to be up. Default 2.
    pub up: u32,
    /// Checks failed in a row, for one that was up to be down. Default 3.
    pub down: u32,
    /// What an endpoint is until its first check has ended. Default up.
    pub initially_up: bool,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `GET` of this path; 2xx passes.
    Http(PathAndQuery),
    /// A connection comes about.
    Tcp,
    /// `grpc.health.v1.Health/Check` of this service, over HTTP/2; `SERVING` passes.
    Grpc(String),
}
