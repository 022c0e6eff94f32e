//! Outrigger: a service-mesh-lite sidecar proxy.

pub mod cli;
pub mod config;
pub mod error;
pub mod route;
pub mod telemetry;
pub mod upstream;
