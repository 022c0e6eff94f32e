//! `dns:`, and upstreams that it finds.

use schemars::JsonSchema;
use serde::Deserialize;

use super::route::OneOrMany;
use crate::config::dns_form::{HostName, HostPort, Nameserver};
use crate::config::given::{Given, Spanned};
use crate::config::units::{Number, Period};

/// How names are looked up in DNS.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Dns {
    /// Nameservers that are asked in turn. Default: the machine's, by `/etc/resolv.conf`, with its search list.
    pub(crate) servers: Given<OneOrMany<Nameserver>>,
    /// Answers hold at least this long, whatever they say. Default 1s.
    pub(crate) min_ttl: Given<Period>,
    /// And at most this long. Default 5m.
    pub(crate) max_ttl: Given<Period>,
    /// Where nobody answers any more, the last answer is used for this long after it has expired. Default 1h.
    pub(crate) stale: Given<Period>,
}

/// A name in DNS: `NAME:PORT`, `dns://NAME:PORT`, or all of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "DnsUpstreamForm", untagged)]
pub(crate) enum DnsForm {
    /// Short for `{ name: NAME, port: PORT }`.
    #[serde(rename = "scalar")]
    Short(Spanned<HostPort>),
    /// The long form.
    #[serde(rename = "mapping")]
    Long(DnsUpstream),
}

/// A name in DNS, each of whose addresses is an endpoint.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "port"]))]
pub(crate) struct DnsUpstream {
    /// The name. The machine's search list applies unless it ends with a dot.
    pub(crate) name: Given<HostName>,
    /// The port of every endpoint.
    pub(crate) port: Given<Number<1, 65_535>>,
}
