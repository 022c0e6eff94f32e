//! Outrigger: a service-mesh-lite sidecar proxy.

pub mod body;
pub mod config;
pub mod error;
mod http1;
pub mod route;
mod runtime;
pub mod telemetry;
mod transport;
pub mod upstream;
