//! `discover:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::route::OneOrMany;
use crate::config::given::{Given, Spanned};
use crate::config::name_pattern::NamePattern;
use crate::config::units::{Number, Period};

/// Send to whatever service the host names, found when first called: `consul`, `dns`, or a mapping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "Discover", untagged)]
pub(crate) enum Discover {
    /// Short for `{ from: … }`.
    #[serde(rename = "scalar")]
    From(Spanned<From>),
    /// The long form.
    #[serde(rename = "mapping")]
    Long(DiscoverLong),
}

/// Who knows the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "DiscoverFrom")]
pub(crate) enum From {
    /// Hosts as Consul's DNS has them: `orders`, `orders.service.consul`, `v1.orders.service.dc2.consul`.
    Consul,
    /// Every address of the host's name.
    Dns,
}

/// Send to whatever service the host names, found when first called.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["from"]))]
pub(crate) struct DiscoverLong {
    /// `consul` or `dns`.
    pub(crate) from: Given<From>,
    /// Only services of these names; `*` is any part of a label, a leading `*.` one or more labels. Needed beyond loopback.
    pub(crate) allow: Given<OneOrMany<NamePattern>>,
    /// And none of these.
    pub(crate) deny: Given<OneOrMany<NamePattern>>,
    /// With `dns`: the only port that is called. Default: that of the host, or 80.
    pub(crate) port: Given<Number<1, 65_535>>,
    /// Services that are known at a time. Default 100.
    pub(crate) max: Given<Number<1, 1_000>>,
    /// One that nobody has called for so long is forgotten. Default 5m.
    pub(crate) idle: Given<Period>,
}
