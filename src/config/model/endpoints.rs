//! How endpoints are chosen.

use std::time::Duration;

use http::HeaderName;

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balancing {
    /// How endpoints take turns.
    pub load_balancer: LoadBalancer,
    /// Endpoints of this zone come first; that of the proxy, where the upstream prefers its own.
    pub zone: Option<String>,
    /// Over how long a new endpoint's share grows to what is due. `None`: it has it at once. Default none.
    pub slow_start: Option<Duration>,
}
