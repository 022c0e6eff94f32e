//! Outrigger: a service-mesh-lite sidecar proxy.

pub mod config;
pub mod error;
pub mod proxy;
pub mod route;
pub mod telemetry;
pub mod upstream;
