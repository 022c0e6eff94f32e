//! What holds where the file says nothing: safe in production.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::StatusCode;

use super::model::{
    Backoff, CircuitBreaker, Dns, Drain, Ejection, Fallback, HealthCheck, ListenerLimits, Probation, Probe, Retries,
    RetryBudget, RetryConditions, Timeouts, UpstreamLimits,
};

/// Loopback: whoever can reach it is already in the pod.
pub(crate) const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// 5 s let endpoint lists all over the cluster forget a pod; with the rest it stays below Kubernetes' 30 s.
/// Where `probation` is written: half a minute shows what breaks at once; 50 requests of which 3 fail are no accident.
pub(crate) const PROBATION: Probation =
    Probation { lasts: Duration::from_secs(30), max_error_ratio: 0.05, min_requests: 50 };
pub(crate) const DRAIN: Drain = Drain { delay: Duration::from_secs(5), timeout: Duration::from_secs(20) };

pub(crate) const LISTENER_LIMITS: ListenerLimits = ListenerLimits {
    connections: 10_000,
    header_bytes: 64 << 10,
    header_timeout: Duration::from_secs(10),
    // Longer than the 60 s for which common clients and load balancers keep a connection, so that they close first.
    idle: Duration::from_secs(75),
    streams: 256,
    body_bytes: None,
    // An HTTP client that has connected sends its request within a round trip; a database client waits for a greeting.
    detect: Duration::from_millis(200),
};

pub(crate) const TIMEOUTS: Timeouts = Timeouts {
    connect: Some(Duration::from_secs(1)),
    response: Some(Duration::from_secs(15)),
    per_try: None,
    idle: Some(Duration::from_secs(60)),
    response_written: false,
    idle_written: false,
    request: None,
    tunnel_idle: Some(Duration::from_secs(3_600)),
};

pub(crate) const UPSTREAM_LIMITS: UpstreamLimits =
    UpstreamLimits { connections: 1_024, requests: 1_024, waiting: 1_024, retries: 64 };

/// Once more, and only what no application has seen: safe for every request.
pub(crate) fn retries() -> Retries {
    let when = RetryConditions { connect_failure: true, refused_stream: true, ..RetryConditions::default() };
    Retries {
        max: 1,
        when,
        idempotent: false,
        nested: false,
        // As Envoy's.
        backoff: Backoff { base: Duration::from_millis(25), max: Duration::from_secs(1) },
        body_bytes: 64 << 10,
        hedge: None,
    }
}

/// A fifth more load at most, as Finagle's and Linkerd's; and one retry a second for those who send little.
pub(crate) const RETRY_BUDGET: RetryBudget =
    RetryBudget { ratio: 0.2, min_per_second: 1, window: Duration::from_secs(10) };

/// A TTL of 0 is common, and says nothing of how often an upstream changes. Five minutes are what clouds' zones say at
/// most; an hour without any answer is beyond most outages of nameservers.
pub(crate) const DNS: Dns = Dns {
    servers: Vec::new(),
    min_ttl: Duration::from_secs(1),
    max_ttl: Duration::from_secs(5 * 60),
    stale: Duration::from_secs(60 * 60),
};
/// Nameservers are everybody's.
pub(crate) const LEAST_MIN_TTL: Duration = Duration::from_millis(100);

/// Registries say for a moment that there is nobody, where a deployment replaces everybody at once.
pub(crate) const KEEP_ON_EMPTY: Duration = Duration::from_secs(30);
/// A service that says nothing for so long is taken for ill.
pub(crate) const REGISTER_TTL: Duration = Duration::from_secs(10);
/// Checks that the agent makes: as often as the default of a TTL, and quick.
pub(crate) const REGISTER_EVERY: Duration = Duration::from_secs(10);
pub(crate) const REGISTER_TIMEOUT: Duration = Duration::from_secs(2);
/// The least that Consul takes.
pub(crate) const DEREGISTER_AFTER: Duration = Duration::from_secs(60);
/// Most registries answer within milliseconds; a pod whose registry is down becomes ready all the same.
pub(crate) const WAIT_FOR_DISCOVERY: Duration = Duration::from_secs(5);

/// Each is watched over a connection of its own, and an agent of Consul's takes 200 of one address by default.
pub(crate) const DISCOVER_MAX: usize = 100;
/// Envoy's `host_ttl` of its dynamic forward proxy.
pub(crate) const DISCOVER_IDLE: Duration = Duration::from_secs(5 * 60);

/// 16 bytes each.
pub(crate) const RATE_LIMIT_KEYS: u32 = 10_000;

/// What a returning endpoint's share grows over: a third of the shortest ejection.
pub(crate) const SLOW_RETURN: Duration = Duration::from_secs(10);

pub(crate) const EJECTION: Ejection = Ejection {
    // Envoy's `consecutive_5xx` and `consecutive_gateway_failure`.
    consecutive: Some(5),
    failure_ratio: None,
    deviations: None,
    // Below, one failure more or less moves a ratio by 5 % and more.
    min_requests: 20,
    // gRPC's proposal A50 and Envoy, as the next two.
    window: Duration::from_secs(10),
    base: Duration::from_secs(30),
    longest: Duration::from_secs(300),
    // Theirs is 0.1, which is none of the two or three endpoints that most upstreams have.
    max_ratio: 0.5,
    // Envoy's.
    panic_ratio: 0.5,
    shadow: false,
};

/// Hystrix' numbers: half of at least 20 requests within 10 s, and 5 s. The longest is the time of resilience4j, which
/// does not grow.
pub(crate) const fn circuit_breaker() -> CircuitBreaker {
    CircuitBreaker {
        failure_ratio: 0.5,
        slow: None,
        slow_ratio: 0.8,
        min_requests: 20,
        window: Duration::from_secs(10),
        open_for: Duration::from_secs(5),
        longest: Duration::from_secs(60),
        probes: 3,
        fallback: Fallback::Refuse,
        shadow: false,
    }
}

/// Twice as often as Kubernetes' probes, which have 10 s and 1 s; down after their three failures. Up after two, for one
/// that starts passes at times before it is ready.
pub(crate) const HEALTH: HealthCheck = HealthCheck {
    probe: Probe::Tcp,
    port: None,
    every: Duration::from_secs(5),
    timeout: Duration::from_secs(1),
    up: 2,
    down: 3,
    initially_up: true,
};

pub(crate) const REDIRECT_STATUS: StatusCode = StatusCode::PERMANENT_REDIRECT;
pub(crate) const RESPOND_STATUS: u16 = 200;
pub(crate) const RESPOND_CONTENT_TYPE: &str = "text/plain; charset=utf-8";
