//! Where requests go: upstreams, their endpoints, and what the proxy remembers of both.
//!
//! A balancer is one file here and one arm of `balancer::Balancer`; `turns` asks it. What attempts and requests came to
//! goes to `judge`, which knows the ejection of endpoints and the circuit breaker; both are machines without a clock.

pub(crate) mod balancer;
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod counted;
pub(crate) mod ejection;
pub(crate) mod endpoints;
pub(crate) mod hashing;
pub(crate) mod health;
pub(crate) mod judge;
pub(crate) mod latency;
pub(crate) mod limit;
pub(crate) mod moment;
mod outlier;
pub(crate) mod quantile;
pub(crate) mod registry;
pub mod round_robin;
pub(crate) mod services;
pub(crate) mod standing;
pub(crate) mod state;
pub(crate) mod turns;
pub(crate) mod two_choices;
mod window;

pub use round_robin::RoundRobin;
