//! Outrigger: a service-mesh-lite sidecar proxy.

mod admin;
pub mod app;
pub mod body;
pub mod cli;
pub mod config;
mod control;
pub mod error;
mod http1;
mod listener;
pub mod proxy;
pub mod route;
mod runtime;
mod snapshot;
pub mod telemetry;
mod transport;
pub mod upstream;

pub use listener::Proxy;
pub use runtime::address::BoundAddress;

/// The README's programs, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
