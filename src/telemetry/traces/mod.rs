//! Spans, and their way to a collector.
//!
//! A worker that has answered a request whose trace is recorded keeps one [`RequestSpan`] for it: plain fields, most of
//! them moved out of what the request held anyway. Four times a second, or when there are many, these go through a
//! bounded queue to the control thread, where `export` makes spans in OpenTelemetry's words of them and sends them. Nothing
//! there is waited for here: what does not fit is dropped and counted.

mod convert;
mod export;
mod settings;
mod span;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

pub use self::export::Exporter;
pub use self::settings::Settings;
pub use self::span::{AttemptSpan, RequestSpan};
use super::metrics::SpanCounts;
use super::otlp::Secure;
use super::trace_context::{Policy, Ratio};
use crate::config::model::Propagation;

/// A worker passes on when it holds this many requests: one message for all of them.
const FULL: usize = 64;

/// The process' spans: gives each worker its end.
#[derive(Debug)]
pub struct Tracer(Option<(Arc<Shared>, mpsc::UnboundedSender<Vec<RequestSpan>>)>);

/// A worker's end.
#[derive(Debug)]
pub struct WorkerTracer {
    to: Option<(Arc<Shared>, mpsc::UnboundedSender<Vec<RequestSpan>>)>,
    held: RefCell<Vec<RequestSpan>>,
}

/// What became of the spans so far.
#[derive(Debug, Clone, Default)]
pub struct TraceCounts(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    sampling: AtomicU64,
    propagation: Propagation,
    /// Spans in the queue; at most `most`, give or take what the workers pass on at the same moment.
    waiting: AtomicUsize,
    most: usize,
    exported: AtomicU64,
    queue_full: AtomicU64,
    export_failed: AtomicU64,
}

impl Tracer {
    /// With the control side's end, where spans are to be exported. `secure` is for a collector at `https://…`.
    pub(crate) fn start(settings: Option<Settings>, secure: Secure) -> (Self, Option<Exporter>) {
        let Some(settings) = settings else { return (Tracer(None), None) };
        let shared = Arc::new(Shared {
            sampling: AtomicU64::new(settings.policy.sampling.to_bits()),
            propagation: settings.policy.propagation,
            waiting: AtomicUsize::new(0),
            most: settings.queue,
            exported: AtomicU64::new(0),
            queue_full: AtomicU64::new(0),
            export_failed: AtomicU64::new(0),
        });
        let (sender, receiver) = mpsc::unbounded_channel();
        let exporter = Exporter::new(settings, receiver, shared.clone(), secure);
        (Tracer(Some((shared, sender))), Some(exporter))
    }

    /// A worker's end. The exporter ends when all of these, and the tracer, are gone.
    pub fn worker(&self) -> WorkerTracer {
        WorkerTracer { to: self.0.clone(), held: RefCell::default() }
    }

    /// For metrics.
    pub fn counts(&self) -> TraceCounts {
        TraceCounts(self.0.as_ref().map(|(shared, _)| shared.clone()))
    }
}

impl TraceCounts {
    /// As they stand.
    pub fn now(&self) -> SpanCounts {
        let Some(shared) = &self.0 else { return SpanCounts::default() };
        SpanCounts {
            exported: shared.exported.load(Ordering::Relaxed),
            queue_full: shared.queue_full.load(Ordering::Relaxed),
            export_failed: shared.export_failed.load(Ordering::Relaxed),
        }
    }
}

impl WorkerTracer {
    /// How requests are to be looked at; `None` where spans are not exported.
    pub fn policy(&self) -> Option<Policy> {
        let (shared, _) = self.to.as_ref()?;
        let sampling = Ratio::from_bits(shared.sampling.load(Ordering::Relaxed));
        Some(Policy { sampling, propagation: shared.propagation })
    }

    /// Keeps a request's spans for the collector.
    pub fn record(&self, span: RequestSpan) {
        let mut held = self.held.borrow_mut();
        held.push(span);
        if held.len() >= FULL {
            self.pass_on(std::mem::take(&mut held));
        }
    }

    /// Passes on what waits for company. To be called several times a second.
    pub fn flush(&self) {
        let held = std::mem::take(&mut *self.held.borrow_mut());
        if !held.is_empty() {
            self.pass_on(held);
        }
    }

    fn pass_on(&self, spans: Vec<RequestSpan>) {
        let Some((shared, sender)) = &self.to else { return };
        let count: usize = spans.iter().map(RequestSpan::count).sum();
        if shared.waiting.load(Ordering::Relaxed) + count > shared.most {
            shared.queue_full.fetch_add(count as u64, Ordering::Relaxed);
            return;
        }
        shared.waiting.fetch_add(count, Ordering::Relaxed);
        // Nobody takes them at the very end only, when their time is up.
        if sender.send(spans).is_err() {
            shared.export_failed.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

impl Drop for WorkerTracer {
    fn drop(&mut self) {
        self.flush();
    }
}
