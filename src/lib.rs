//! Outrigger: a service-mesh-lite sidecar proxy.

pub mod body;
pub mod config;
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
