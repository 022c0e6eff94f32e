//! `upstreams:` and `defaults:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::balancing::LoadBalancer;
use super::consul::{ConsulForm, OnEmptyForm};
use super::dns::DnsForm;
use super::health::HealthForm;
use super::judging::{CircuitBreakerForm, EjectionForm};
use super::retries::Retries;
use super::tls::UpstreamTls;
use crate::config::dns_form::ServiceName;
use crate::config::given::{Given, Spanned};
use crate::config::model::EndpointAddress;
use crate::config::scalar::OrNone;
use crate::config::short_form::ShortUpstream;
use crate::config::units::{Flag, Number, Period, Text};

/// An upstream: an address, a service in a registry or a name in DNS, a list of addresses, or all of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "Upstream", untagged)]
pub(crate) enum Upstream {
    /// Short for `{ static: [ADDRESS] }`, `{ consul: "consul://NAME?…" }`, `{ dns: "dns://NAME:PORT" }`, `{ srv: "srv://NAME" }`.
    #[serde(rename = "scalar")]
    Short(Spanned<ShortUpstream>),
    /// Short for `{ static: […] }`.
    #[serde(rename = "sequence")]
    Endpoints(Vec<Given<Endpoint>>),
    /// The long form.
    #[serde(rename = "mapping")]
    Long(Box<UpstreamLong>),
}

/// A named group of equivalent endpoints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename = "Upstream")]
#[schemars(rename = "UpstreamLong", extend("oneOf" = [
    { "required": ["static"] }, { "required": ["consul"] }, { "required": ["dns"] }, { "required": ["srv"] },
]))]
pub(crate) struct UpstreamLong {
    /// Its endpoints: addresses, or mappings of an address and a weight.
    #[serde(rename = "static")]
    pub(crate) endpoints: Given<Vec<Given<Endpoint>>>,
    /// The service in Consul that its endpoints are the instances of.
    pub(crate) consul: Given<ConsulForm>,
    /// The name in DNS that its endpoints are the addresses of.
    pub(crate) dns: Given<DnsForm>,
    /// The name in DNS whose SRV records name its endpoints and their ports: `_http._tcp.orders.default.svc`.
    pub(crate) srv: Given<ServiceName>,
    /// What becomes of its endpoints when their source says that there are none. Default `{ keep: 30s }`.
    pub(crate) on_empty: Given<OnEmptyForm>,
    /// What is spoken to it. Default `auto`: gRPC goes as HTTP/2, all else as HTTP/1.1.
    pub(crate) protocol: Given<Protocol>,
    /// How endpoints take turns. Default `round_robin`, weighted and smooth.
    pub(crate) load_balancer: Given<LoadBalancer>,
    /// Over how long a new endpoint's share grows to what is due. Default `none`: it has it at once.
    pub(crate) slow_start: Given<OrNone<Period>>,
    /// Endpoints of the proxy's own `zone` come first. Default false.
    pub(crate) prefer_zone: Given<Flag>,
    /// TLS to its endpoints.
    pub(crate) tls: Given<UpstreamTls>,
    /// When an endpoint is left out for a while. Default: after five connect or gateway failures in a row.
    pub(crate) ejection: Given<EjectionForm>,
    /// When the upstream gets no requests for a while. Default `none`.
    pub(crate) circuit_breaker: Given<CircuitBreakerForm>,
    /// How endpoints are asked how they are. Default `none`: not at all.
    pub(crate) health: Given<HealthForm>,
    /// How long things may take.
    pub(crate) timeouts: Given<Timeouts>,
    /// How much there may be at once.
    pub(crate) limits: Given<UpstreamLimits>,
    /// What is sent again, how often and when.
    pub(crate) retries: Given<Retries>,
}

/// What every upstream starts from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Defaults {
    /// What is spoken to upstreams. Default `auto`.
    pub(crate) protocol: Given<Protocol>,
    /// What becomes of endpoints when their source says that there are none. Default `{ keep: 30s }`.
    pub(crate) on_empty: Given<OnEmptyForm>,
    /// How endpoints take turns. Default `round_robin`.
    pub(crate) load_balancer: Given<LoadBalancer>,
    /// Over how long a new endpoint's share grows to what is due. Default `none`.
    pub(crate) slow_start: Given<OrNone<Period>>,
    /// Endpoints of the proxy's own `zone` come first. Default false.
    pub(crate) prefer_zone: Given<Flag>,
    /// When an endpoint is left out for a while.
    pub(crate) ejection: Given<EjectionForm>,
    /// When an upstream gets no requests for a while. Default `none`.
    pub(crate) circuit_breaker: Given<CircuitBreakerForm>,
    /// How endpoints are asked how they are. Default `none`: not at all.
    pub(crate) health: Given<HealthForm>,
    /// How long things may take.
    pub(crate) timeouts: Given<Timeouts>,
    /// How much there may be at once.
    pub(crate) limits: Given<UpstreamLimits>,
    /// What is sent again, how often and when.
    pub(crate) retries: Given<Retries>,
}

/// An address, or an address and its weight.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "Endpoint", untagged)]
pub(crate) enum Endpoint {
    /// Of weight 1.
    #[serde(rename = "scalar")]
    Address(Spanned<EndpointAddress>),
    /// The long form.
    #[serde(rename = "mapping")]
    Long(EndpointLong),
}

/// An address and its weight.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(crate) struct EndpointLong {
    /// Where: `127.0.0.1:8080`, `unix:/run/app.sock`.
    pub(crate) address: Given<EndpointAddress>,
    /// Share of the requests; 0: none. Default 1.
    pub(crate) weight: Given<Number<0, 65_535>>,
    /// The zone that it stands in, for `prefer_zone`. Default none.
    pub(crate) zone: Given<Text>,
}

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protocol {
    /// gRPC goes as HTTP/2, all else as HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
}

/// How long things may take. Each can be `none`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// To a usable connection. Default 1s.
    pub(crate) connect: Given<OrNone<Period>>,
    /// From the request's last byte to the response's headers. Default 15s; none for gRPC.
    pub(crate) response: Given<OrNone<Period>>,
    /// From an attempt's start to its response's headers. Default none.
    pub(crate) per_try: Given<OrNone<Period>>,
    /// Silence in both directions. Default 60s; 5m for gRPC and event streams.
    pub(crate) idle: Given<OrNone<Period>>,
    /// The whole request. Default none.
    pub(crate) request: Given<OrNone<Period>>,
    /// Silence in a tunnel (Upgrade, CONNECT). Default 1h.
    pub(crate) tunnel_idle: Given<OrNone<Period>>,
    /// The header in which HTTP requests say how many milliseconds are left, read and sent on. Default none; gRPC has
    /// `grpc-timeout`.
    pub(crate) deadline_header: Given<OrNone<Text>>,
}

/// How much there may be at once, in all workers together. What is beyond is refused at once.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpstreamLimits {
    /// Open connections. Default 1024.
    pub(crate) connections: Given<Number<1, 1_000_000>>,
    /// Requests in flight. Default 1024.
    pub(crate) requests: Given<Number<1, 1_000_000>>,
    /// Requests that wait for a connection. Default 1024.
    pub(crate) waiting: Given<Number<0, 1_000_000>>,
    /// Requests in flight that have been sent again. Default 64.
    pub(crate) retries: Given<Number<0, 1_000_000>>,
}
