//! Where requests go: upstreams, their endpoints, and what the proxy remembers of both.
//!
//! A balancer is one file here and one arm of [`balancer::Balancer`]; `turns` asks it. Circuit breakers will write into
//! `state`.

pub(crate) mod balancer;
pub(crate) mod budget;
pub(crate) mod endpoints;
pub(crate) mod hashing;
pub(crate) mod latency;
pub(crate) mod limit;
pub(crate) mod moment;
pub(crate) mod quantile;
pub(crate) mod registry;
pub mod round_robin;
pub(crate) mod standing;
pub(crate) mod state;
pub(crate) mod turns;
pub(crate) mod two_choices;

pub use round_robin::RoundRobin;
