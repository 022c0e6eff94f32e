//! Requests as they pass, for who listens. Where nobody does, a request pays one relaxed load.
//!
//! A worker hands what it knows of a request that has ended to a bounded queue. Who listens, and what to whom is shown,
//! is the control side's to say (`admin::tap`).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use tokio::sync::mpsc;

use super::request_id::RequestId;
use crate::error::Reason;

/// Requests that may wait for the control side.
const WAITING: usize = 1_024;

/// Everything about a request that has ended.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Each is what the access log calls so.
pub struct Tapped {
    /// Since the Unix epoch.
    pub time: Duration,
    pub listener: Arc<str>,
    pub route: Option<Arc<str>>,
    pub upstream: Option<Arc<str>>,
    pub endpoint: Option<Arc<str>>,
    pub client: Option<IpAddr>,
    pub method: Method,
    pub scheme: &'static str,
    pub uri: Uri,
    pub host: Option<HeaderValue>,
    pub version: Version,
    pub code: u16,
    pub grpc_code: Option<u8>,
    pub reason: Option<Reason>,
    pub attempts: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub queued: Option<Duration>,
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub total: Duration,
    pub trace_id: String,
    pub request_id: RequestId,
    pub generation: u64,
    /// As they came from the client.
    pub request_headers: HeaderMap,
    /// As they went to the client.
    pub response_headers: HeaderMap,
    /// The first bytes of the bodies, as many as anybody asked for.
    pub request_body: Bytes,
    pub response_body: Bytes,
}

#[derive(Debug)]
struct Shared {
    /// Somebody listens.
    on: AtomicBool,
    /// Of each body, so many bytes are kept.
    body_bytes: AtomicUsize,
    /// Requests that the control side was too slow for.
    missed: AtomicU64,
}

/// A worker's end.
#[derive(Debug, Clone)]
pub struct WorkerTap {
    shared: Arc<Shared>,
    to: mpsc::Sender<Box<Tapped>>,
}

/// The control side's end: what was seen.
#[derive(Debug)]
pub struct Tap(mpsc::Receiver<Box<Tapped>>);

/// The control side's end: whether anything is to be seen.
#[derive(Debug, Clone)]
pub struct TapSwitch(Arc<Shared>);

/// All ends.
pub fn tap() -> (WorkerTap, Tap, TapSwitch) {
    let shared =
        Arc::new(Shared { on: AtomicBool::new(false), body_bytes: AtomicUsize::new(0), missed: AtomicU64::new(0) });
    let (to, requests) = mpsc::channel(WAITING);
    (WorkerTap { shared: shared.clone(), to }, Tap(requests), TapSwitch(shared))
}

impl WorkerTap {
    /// Whether somebody listens.
    pub fn is_on(&self) -> bool {
        self.shared.on.load(Ordering::Relaxed)
    }

    /// How much of each body is to be kept.
    pub fn body_bytes(&self) -> usize {
        self.shared.body_bytes.load(Ordering::Relaxed)
    }

    /// Shows a request. Where the control side is too slow, it is missed.
    pub fn show(&self, request: Box<Tapped>) {
        if self.to.try_send(request).is_err() {
            self.shared.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Tap {
    /// The next request; `None` where there will be none.
    pub async fn next(&mut self) -> Option<Box<Tapped>> {
        self.0.recv().await
    }
}

impl TapSwitch {
    /// Says whether somebody listens, and how much of each body they want.
    pub fn turn(&self, on: bool, body_bytes: usize) {
        self.0.body_bytes.store(body_bytes, Ordering::Relaxed);
        self.0.on.store(on, Ordering::Relaxed);
    }

    /// Requests missed since the last time that this was asked.
    pub fn missed(&self) -> u64 {
        self.0.missed.swap(0, Ordering::Relaxed)
    }
}
