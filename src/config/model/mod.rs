//! What a valid configuration means. Made only by `validate`; whoever holds a [`Config`] need not check again.
//!
//! Names are resolved to positions (`UpstreamIndex`), short forms are written out, defaults are filled in,
//! durations are `Option` where the file may say `none`.

mod consul;
mod dns;
mod endpoints;
mod matching;
mod metrics;
mod on_demand;
mod otlp;
mod telemetry;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use regex::Regex;

pub use self::endpoints::{Balancing, CircuitBreaker, Ejection, Fallback, HashKey, HealthCheck, LoadBalancer, Probe};
use super::template::Template;
pub use consul::{
    AgentAddress, Consul, ConsulConsistency, ConsulSource, ConsulTarget, OnEmpty, Passing, Register, RegisterCheck,
};
pub use dns::{Dns, DnsSource, DnsTarget};
pub use matching::{HostMatch, HostName, Match, PathMatch, ValueMatch, ValueTest};
pub use metrics::{Buckets, Metrics, ProbeQuestion, ProbeTarget};
pub use on_demand::{DiscoverFrom, NamePattern, OnDemand};
pub use otlp::{Collector, MetricsExport, OtlpProtocol, OtlpUrl};
pub use telemetry::{
    AccessLog, AccessLogField, AccessLogFilter, AccessLogFormat, Log, LogFormat, LogLevel, LogTarget, Propagation,
    Samples, Telemetry, Traces,
};

mod overload;
mod retries;
mod tls;

pub use overload::{Concurrency, Fault, Mirror, RateLimit, RateLimitKey};
pub use retries::{Backoff, Hedge, Retries, RetryBudget, RetryConditions, RetryOverrides};
pub use tls::{CertificateFiles, ClientCertificates, IdentityPattern, ListenerTls, TlsName, TlsVersion, UpstreamTls};

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this service is, in traces and registries.
    pub service: Option<String>,
    /// How many threads carry requests.
    pub workers: Workers,
    /// Where everything about the proxy can be seen and changed.
    pub admin: Admin,
    /// For scrapes and probes.
    pub metrics: Metrics,
    /// How Consul's agents are reached.
    pub consul: Consul,
    /// This proxy as a service in Consul; `None` unless written.
    pub register: Option<Register>,
    /// How names are looked up.
    pub dns: Dns,
    /// Readiness waits this long for the first answer of each registry that endpoints come from. Default 5 s.
    pub wait_for_discovery: Duration,
    /// How the proxy ends.
    pub drain: Drain,
    /// A swap to this configuration is watched, and gone back from where too much fails; `None` unless written.
    pub probation: Option<Probation>,
    /// What is written about requests and about the proxy itself.
    pub telemetry: Telemetry,
    /// Timeouts of an upstream that says nothing of them.
    pub timeouts: Timeouts,
    /// Bound addresses, in written order. Names are unique.
    pub listeners: Vec<Listener>,
    /// Groups of endpoints, in written order; short-form addresses of routes follow. Names are unique.
    pub upstreams: Vec<Upstream>,
}

/// How many workers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for each CPU that the cgroup allows.
    Auto,
    /// This many.
    Count(NonZeroUsize),
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// `":15006"`: IPv4 and IPv6, all interfaces.
    AllInterfaces(u16),
    /// `127.0.0.1:15001`, `[::1]:80`.
    Tcp(SocketAddr),
    /// `unix:/run/app.sock`.
    Unix(PathBuf),
}

impl BindAddress {
    /// True where only this machine can call.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            BindAddress::AllInterfaces(_) => false,
            BindAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
            BindAddress::Unix(_) => true,
        }
    }
}

/// An address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl EndpointAddress {
    /// True where it is on this machine, or in this pod.
    pub(crate) fn is_beside_us(&self) -> bool {
        match self {
            EndpointAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
            EndpointAddress::Unix(_) => true,
        }
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindAddress::AllInterfaces(port) => write!(f, ":{port}"),
            BindAddress::Tcp(address) => address.fmt(f),
            BindAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointAddress::Tcp(address) => address.fmt(f),
            EndpointAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The `admin:` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `None` where the file says `none`. Default `127.0.0.1:9901`.
    pub address: Option<SocketAddr>,
    /// A file with the bearer token; needed when the address is not loopback.
    pub token_file: Option<PathBuf>,
    /// A Unix socket, mode 0600, that needs no token.
    pub socket: Option<PathBuf>,
}

/// The `drain:` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Unready, but still accepting. Default 5 s.
    pub delay: Duration,
    /// Then at most this long for requests in flight. Default 20 s.
    pub timeout: Duration,
}

/// The `probation:` section.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probation {
    /// After the swap. Default 30 s.
    pub lasts: Duration,
    /// More than this share of failing requests is too much. Default 0.05.
    pub max_error_ratio: f64,
    /// Fewer requests tell nothing. Default 50.
    pub min_requests: u32,
}

/// A bound address and its routes.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Unique.
    pub name: String,
    /// Where.
    pub address: BindAddress,
    /// What it speaks.
    pub mode: Mode,
    /// Which way its traffic goes: decides what a drain does with it.
    pub direction: Direction,
    /// What no route takes goes where it was going to; the last route does that for requests.
    pub passthrough: bool,
    /// Strangers call here: their trace and request ids, forwarded headers and `x-outrigger-*` are dropped, reasons are not shown.
    pub edge: bool,
    /// Which proxies before us are believed about the client's address.
    pub trust: Trust,
    /// Without it, clients speak in the clear.
    pub tls: Option<ListenerTls>,
    /// Who may call; empty: everybody.
    pub allow: Vec<IdentityPattern>,
    /// Bounds.
    pub limits: ListenerLimits,
    /// How often its clients may come.
    pub rate_limit: Option<RateLimit>,
    /// How many requests may be in flight.
    pub concurrency: Option<Concurrency>,
    /// First match in written order.
    pub routes: Vec<Route>,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// HTTP, in all its versions.
    Http,
    /// Anything; bytes are passed on as they are.
    Tcp,
    /// HTTP that was going elsewhere, and was redirected here by the kernel.
    Transparent,
}

/// Which way a listener's traffic goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the app. Drained early.
    Inbound,
    /// From the app (the default of a listener whose name is or begins with `outbound`). Works to the end.
    Outbound,
}

/// Who is believed about the client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// This many proxies before us. Default 0.
    Hops(u8),
    /// Proxies in these networks.
    Networks(Vec<Network>),
}

/// A CIDR block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The network's address, host bits zero.
    pub address: std::net::IpAddr,
    /// Bits of the prefix.
    pub prefix: u8,
}

/// `listeners.*.limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Open connections. Default 10,000.
    pub connections: u32,
    /// Bytes of a request's head. Default 64 KiB.
    pub header_bytes: usize,
    /// From a request's first byte (or the connection's start) to the end of its headers. Default 10 s.
    pub header_timeout: Duration,
    /// A connection between two requests. Default 75 s.
    pub idle: Duration,
    /// Concurrent streams of an HTTP/2 connection. Default 256.
    pub streams: u32,
    /// Bytes of a request's body. Default none.
    pub body_bytes: Option<u64>,
    /// For a captured connection to show that it speaks HTTP. Default 200 ms.
    pub detect: Duration,
}

/// A match and what to do.
#[derive(Debug, Clone)]
pub struct Route {
    /// Unique in its listener: written, or the upstream's name, or the action and the position (`redirect-3`).
    pub name: String,
    /// Everything must hold.
    pub matcher: Match,
    /// Who may come this way; empty: everybody whom the listener lets in.
    pub allow: Vec<IdentityPattern>,
    /// What to do.
    pub action: Action,
    /// What to change in the target before sending.
    pub rewrite: Rewrite,
    /// Changes of request headers.
    pub request_headers: HeaderRules,
    /// Changes of response headers.
    pub response_headers: HeaderRules,
    /// What this route says of timeouts; `None`: as the upstream says.
    pub timeouts: TimeoutOverrides,
    /// What this route says of [`Upstream::deadline_header`].
    pub deadline_header: Option<Option<HeaderName>>,
    /// What this route says of retries.
    pub retries: RetryOverrides,
    /// How often its clients may come; beside what the listener says.
    pub rate_limit: Option<RateLimit>,
    /// How many requests may be in flight; beside what the listener says.
    pub concurrency: Option<Concurrency>,
    /// Who gets copies.
    pub mirror: Option<Mirror>,
    /// Trouble on purpose.
    pub fault: Option<Fault>,
}

/// What a route does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send to an upstream.
    Upstream(UpstreamIndex),
    /// Send to one of several, by weight. At least one weight is not zero.
    Split(Vec<(UpstreamIndex, u32)>),
    /// Send the client elsewhere.
    Redirect(Redirect),
    /// Answer at once.
    Respond(Respond),
}

/// Position in [`Config::upstreams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamIndex(pub usize);

/// `redirect:` What is `None` stays as it was asked for; the query stays.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host, with or without port.
    pub host: Option<String>,
    /// The new path.
    pub path: Option<String>,
    /// 301, 302, 303, 307 or 308. Default 308.
    pub status: StatusCode,
    /// Host and path with their `${…}`, where they had any: the only form that may be shown.
    pub written: Option<String>,
}

/// `respond:`
#[derive(Debug, Clone)]
pub struct Respond {
    /// Default 200.
    pub status: StatusCode,
    /// Default empty.
    pub body: String,
    /// Default `text/plain; charset=utf-8` where there is a body.
    pub content_type: HeaderValue,
    /// The body with its `${…}`, where it had any: the only form that may be shown.
    pub written: Option<String>,
}

/// `rewrite:`
#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    /// The path.
    pub path: PathRewrite,
    /// The Host (and `:authority`) that the upstream sees; `None`: the client's.
    pub host: Option<HeaderValue>,
    /// The host with its `${…}`, where it had any: the only form that may be shown.
    pub written_host: Option<String>,
    /// The path's prefix or replacement, likewise.
    pub written_path: Option<String>,
}

/// How a path changes.
#[derive(Debug, Clone, Default)]
pub enum PathRewrite {
    /// Not.
    #[default]
    Keep,
    /// The matched prefix becomes this (where the path match is a prefix; else the whole path).
    Prefix(String),
    /// Each match becomes the replacement (`$1`, `${name}` stand for groups).
    Regex {
        /// What to look for.
        pattern: Regex,
        /// What to put there.
        replacement: String,
    },
}

/// `request_headers`, `response_headers`: removed first, then set, then added.
#[derive(Debug, Clone, Default)]
pub struct HeaderRules {
    /// Names.
    pub remove: Vec<HeaderName>,
    /// Replaces all values.
    pub set: Vec<(HeaderName, Template)>,
    /// One more value.
    pub add: Vec<(HeaderName, Template)>,
}

/// What a route says of timeouts. Outer `None`: not said; inner `None`: the file says `none`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TimeoutOverrides {
    pub connect: Option<Option<Duration>>,
    pub response: Option<Option<Duration>>,
    pub per_try: Option<Option<Duration>>,
    pub idle: Option<Option<Duration>>,
    pub request: Option<Option<Duration>>,
    pub tunnel_idle: Option<Option<Duration>>,
}

/// Timeouts in force, route over upstream over defaults over built-in. `None` is no timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To a usable connection. Default 1 s.
    pub connect: Option<Duration>,
    /// From the request's last byte to the response's headers. Default 15 s.
    pub response: Option<Duration>,
    /// True where `response` was written: only then does it hold for gRPC, whose servers may hold their headers back
    /// until their first message.
    pub response_written: bool,
    /// From an attempt's start to its response's headers. Default none.
    pub per_try: Option<Duration>,
    /// Silence in both directions. Default 60 s.
    pub idle: Option<Duration>,
    /// True where `idle` was written: then it also holds for gRPC and event streams, whose default is 5 m.
    pub idle_written: bool,
    /// The whole request from its first byte. Default none.
    pub request: Option<Duration>,
    /// Silence in a tunnel (Upgrade, CONNECT). Default 1 h.
    pub tunnel_idle: Option<Duration>,
}

/// A named group of equivalent endpoints.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Unique. That of a short-form address is the address as written.
    pub name: String,
    /// Where its endpoints come from.
    pub source: EndpointSource,
    /// What becomes of them when it says that there are none.
    pub on_empty: OnEmpty,
    /// What is spoken to it.
    pub protocol: UpstreamProtocol,
    /// Without it, its endpoints are spoken to in the clear.
    pub tls: Option<UpstreamTls>,
    /// Its timeouts, with the defaults merged in.
    pub timeouts: Timeouts,
    /// The header in which HTTP requests say how many milliseconds are left.
    pub deadline_header: Option<HeaderName>,
    /// Its limits.
    pub limits: UpstreamLimits,
    /// How its endpoints are chosen.
    pub balancing: Balancing,
    /// Its retries, with the defaults merged in.
    pub retries: Retries,
    /// How many of them there may be.
    pub retry_budget: RetryBudget,
    /// When one of them is left out for a while.
    pub ejection: Option<Ejection>,
    /// When it gets no requests for a while.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How its endpoints are asked how they are.
    pub health: Option<HealthCheck>,
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointSource {
    /// Written in the file, not empty. Addresses are unique.
    Static(Vec<Endpoint>),
    /// Instances of a service in Consul.
    Consul(Box<ConsulSource>),
    /// A name in DNS.
    Dns(Box<DnsSource>),
    /// Whatever services are called for: each is an upstream of its own, made from this one.
    OnDemand(Box<OnDemand>),
    /// Wherever a captured connection was going to: one endpoint a connection.
    Original,
}

impl EndpointSource {
    /// True where there is one endpoint, and that is in this pod or on this machine.
    pub fn is_alone_beside_us(&self) -> bool {
        let EndpointSource::Static(endpoints) = self else { return false };
        matches!(&**endpoints, [only] if only.address.is_beside_us())
    }
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where.
    pub address: EndpointAddress,
    /// Share of the requests; 0: none. At most 65,535. Default 1.
    pub weight: u16,
    /// Where it stands, as the proxy's own `zone` is named.
    pub zone: Option<String>,
}

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// In the clear: gRPC goes as HTTP/2, all else as HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
}

/// `upstreams.*.limits`: all workers of the proxy together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Open connections. Default 1,024.
    pub connections: u32,
    /// Requests in flight. Default 1,024.
    pub requests: u32,
    /// Requests that wait for a connection. Default 1,024.
    pub waiting: u32,
    /// Requests in flight that have been sent again. Default 64.
    pub retries: u32,
}
