//! `load_balancer:`

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::given::Given;
use crate::config::units::Text;

/// How endpoints take turns: a word, or a mapping of one word.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "LoadBalancer", untagged)]
pub(crate) enum LoadBalancer {
    /// With what is its default.
    #[serde(rename = "scalar")]
    Word(LoadBalancerWord),
    /// With what is to be kept together.
    #[serde(rename = "mapping")]
    Hash(HashBalancer),
}

/// How endpoints take turns.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename = "LoadBalancer", rename_all = "snake_case")]
#[schemars(rename = "LoadBalancerWord")]
pub(crate) enum LoadBalancerWord {
    /// Weighted and smooth.
    RoundRobin,
    /// Of two drawn by weight, the one with fewer requests in flight.
    LeastRequests,
    /// Of two drawn by weight, the one that should answer sooner.
    PeakEwma,
    /// The same client address goes to the same endpoint.
    RingHash,
    /// The same client address goes to the same endpoint, with evener shares.
    Maglev,
}

/// A balancer that sends like to like: one of these.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct HashBalancer {
    /// A ring of hashes: where an endpoint comes or goes, only its own share of keys moves.
    pub(crate) ring_hash: Given<HashKey>,
    /// A table of fixed size: evener shares, and a few keys more that move.
    pub(crate) maglev: Given<HashKey>,
}

/// What is to be kept together: `client_address`, or a mapping of one key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "HashKey", untagged)]
pub(crate) enum HashKey {
    /// What every request has.
    #[serde(rename = "scalar")]
    Word(HashKeyWord),
    /// What a request may have.
    #[serde(rename = "mapping")]
    Named(NamedHashKey),
}

/// What every request has.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HashKeyWord {
    /// The client's IP address, as far as the listener's `trust` reaches.
    ClientAddress,
}

/// What a request may have: one of these. Requests without it go anywhere.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct NamedHashKey {
    /// A header's value.
    pub(crate) header: Given<Text>,
    /// A cookie's value.
    pub(crate) cookie: Given<Text>,
}
