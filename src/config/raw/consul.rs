//! `consul:`, and upstreams that it finds.

use schemars::JsonSchema;
use serde::Deserialize;

use super::route::OneOrMany;
use super::tls::UpstreamTls;
use crate::config::given::{Given, Pairs, Spanned};
use crate::config::model::AgentAddress;
use crate::config::scalar::OrNone;
use crate::config::short_form::ShortConsul;
use crate::config::units::{Flag, Number, Period, Text};

/// How Consul's agents are reached.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Consul {
    /// An agent, or several that are tried in turn. Default: `CONSUL_HTTP_ADDR`, else `http://127.0.0.1:8500`.
    pub(crate) address: Given<OneOrMany<AgentAddress>>,
    /// A file that holds the token. Default: `CONSUL_HTTP_TOKEN`, or the file that `CONSUL_HTTP_TOKEN_FILE` names.
    pub(crate) token_file: Given<Text>,
    /// Where queries go that name no datacenter. Default: the agent's.
    pub(crate) datacenter: Given<Text>,
    /// Default: `CONSUL_NAMESPACE`, else the token's.
    pub(crate) namespace: Given<Text>,
    /// Default: `CONSUL_PARTITION`, else the agent's.
    pub(crate) partition: Given<Text>,
    /// TLS to agents at `https://…`. Default: `CONSUL_CACERT`, `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY` and
    /// `CONSUL_TLS_SERVER_NAME`, else as for any public service.
    pub(crate) tls: Given<UpstreamTls>,
}

/// A service in Consul: its name, `consul://NAME?tag=…`, or all of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "ConsulUpstreamForm", untagged)]
pub(crate) enum ConsulForm {
    /// Short for `{ service: NAME }`.
    #[serde(rename = "scalar")]
    Short(Spanned<ShortConsul>),
    /// The long form.
    #[serde(rename = "mapping")]
    Long(Box<ConsulUpstream>),
}

/// A service in Consul: `service` or `prepared_query`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["service"] }, { "required": ["prepared_query"] }]))]
pub(crate) struct ConsulUpstream {
    /// The service's name. It is watched.
    pub(crate) service: Given<Text>,
    /// A prepared query's name or id. Asked every 5 s, for Consul has no way to watch it.
    pub(crate) prepared_query: Given<Text>,
    /// Only instances that have all of these.
    pub(crate) tags: Given<OneOrMany<Text>>,
    /// Datacenters in the order in which they are turned to: the first that has a usable instance is used.
    pub(crate) datacenters: Given<OneOrMany<Text>>,
    /// A node's name, or `_agent`: Consul sorts by the distance from it.
    pub(crate) near: Given<Text>,
    /// An expression of Consul's that instances have to match.
    pub(crate) filter: Given<Text>,
    /// Default: that of the `consul` section.
    pub(crate) namespace: Given<Text>,
    /// Default: that of the `consul` section.
    pub(crate) partition: Given<Text>,
    /// Which checks make an instance usable. Default `only`.
    pub(crate) passing: Given<Passing>,
    /// How fresh answers have to be. Default `default`.
    pub(crate) consistency: Given<Consistency>,
    /// Only `false` yet.
    pub(crate) connect: Given<Flag>,
}

/// Which checks make an instance usable.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Passing {
    /// All of its checks and its node's pass.
    Only,
    /// None of them is critical; one that warns has its weight for warnings.
    Warning,
}

/// How fresh Consul's answers have to be.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Consistency {
    /// The leader's word.
    Default,
    /// Any server's.
    Stale,
    /// The leader's, after it has asked the others whether it still is.
    Consistent,
    /// That of the agent's cache.
    Cached,
}

/// What becomes of the endpoints when their source says that there are none: `drop`, or `{ keep: 30s }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "OnEmptyForm", untagged)]
pub(crate) enum OnEmptyForm {
    /// They go at once.
    #[serde(rename = "scalar")]
    Word(Spanned<OnEmptyWord>),
    /// They stay for a while.
    #[serde(rename = "mapping")]
    Long(OnEmpty),
}

/// `drop`
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnEmptyWord {
    Drop,
}

/// They stay for a while.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OnEmpty {
    /// For this long. Default 30s.
    pub(crate) keep: Given<Period>,
}

/// This proxy as a service in Consul.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Register {
    /// The service's name. Default: `service`.
    pub(crate) name: Given<Text>,
    /// Unique at its agent. Default: name, address and port.
    pub(crate) id: Given<Text>,
    /// Where others reach it: an IP address. Default: the agent's.
    pub(crate) address: Given<Text>,
    /// Default: that of the first inbound listener.
    pub(crate) port: Given<Number<1, 65_535>>,
    /// Its tags.
    pub(crate) tags: Given<OneOrMany<Text>>,
    /// Its metadata.
    pub(crate) meta: Given<Pairs<Text>>,
    /// How Consul knows that it is well: `ttl`, `http` or `tcp`. Default `{ ttl: 10s }`.
    pub(crate) check: Given<RegisterCheck>,
    /// Consul forgets it after its check has failed for this long, at least 1m. Default 1m; `none`: never.
    pub(crate) deregister_after: Given<OrNone<Period>>,
}

/// How Consul knows that a service is well: one of `ttl`, `http` and `tcp`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RegisterCheck {
    /// The proxy says so three times within this time.
    pub(crate) ttl: Given<Period>,
    /// The agent asks this URL.
    pub(crate) http: Given<Text>,
    /// The agent connects to this host and port.
    pub(crate) tcp: Given<Text>,
    /// Between two checks by the agent. Default 10s.
    pub(crate) every: Given<Period>,
    /// Of one check by the agent. Default 2s.
    pub(crate) timeout: Given<Period>,
}
