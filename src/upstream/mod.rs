//! Where requests go: upstreams, their endpoints, and what the proxy remembers of both.
//!
//! A balancer is one file here. Health, ejection and circuit breakers will write into `state`.

pub(crate) mod endpoints;
pub(crate) mod limit;
pub(crate) mod registry;
pub mod round_robin;
pub(crate) mod state;
pub(crate) mod turns;

pub use round_robin::RoundRobin;
