//! What is written about requests and about the proxy itself.
//!
//! A request meets them in this order: its [`clock`] reading, its [`trace_context`] and [`request_id`] as it comes in,
//! the [`metrics`] cells of its worker as it goes, and its [`traces`] spans and its line in the [`access_log`] as it ends. [`log`] is for what
//! happens to the proxy, and stays off the request's path.

pub mod access_log;
pub mod clock;
pub mod doctor;
mod hex;
pub mod ids;
pub mod log;
pub mod metrics;
pub(crate) mod otlp;
pub mod request_id;
pub mod tap;
pub mod trace_context;
pub mod traces;

use std::sync::Arc;

/// A worker's end of what the whole process writes.
#[derive(Debug)]
pub struct WorkerEnds {
    /// Lines.
    pub access_log: access_log::WorkerLog,
    /// Spans.
    pub tracer: traces::WorkerTracer,
    /// Whatever those who listen want to see.
    pub tap: tap::WorkerTap,
    /// Whether the app passes its callers' trace on.
    pub doctor: Arc<doctor::Doctor>,
}
