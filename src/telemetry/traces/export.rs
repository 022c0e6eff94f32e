//! The control side's end: spans from the workers, to the collector.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::{Client, Failure, Secure};
use super::settings::Settings;
use super::{RequestSpan, Shared, convert};

/// Tries of one export. The waits between them are 1, 2 and 4 s, each up to half as long again.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// A collector may ask for more patience than that, up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A collector that stays away is mentioned this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Takes spans until every worker is gone, then sends what is left.
#[derive(Debug)]
pub struct Exporter {
    incoming: mpsc::UnboundedReceiver<Vec<RequestSpan>>,
    shared: Arc<Shared>,
    client: Client,
    resource: ResourceAttributesWithSchema,
    scope: InstrumentationScope,
    batch: usize,
    delay: Duration,
    complained: Option<Instant>,
}

impl Exporter {
    pub(super) fn new(
        settings: Settings,
        incoming: mpsc::UnboundedReceiver<Vec<RequestSpan>>,
        shared: Arc<Shared>,
        secure: Secure,
    ) -> Self {
        let Settings { target, resource, batch, delay, .. } = settings;
        let scope =
            InstrumentationScope::builder(env!("CARGO_PKG_NAME")).with_version(env!("CARGO_PKG_VERSION")).build();
        let resource = ResourceAttributesWithSchema::from(&resource);
        Exporter {
            incoming,
            shared,
            client: Client::new(target, secure),
            resource,
            scope,
            batch,
            delay,
            complained: None,
        }
    }

    /// On the control thread.
    pub async fn run(mut self) {
        let mut spans = Vec::new();
        let mut due = Instant::now();
        loop {
            let more = tokio::select! {
                more = self.incoming.recv() => more,
                () = tokio::time::sleep_until(due), if !spans.is_empty() => Some(Vec::new()),
            };
            let Some(more) = more else { break };
            if spans.is_empty() {
                due = Instant::now() + self.delay;
            }
            let before = spans.len();
            for request in &more {
                convert::spans(request, &self.scope, &mut spans);
            }
            self.shared.waiting.fetch_sub(spans.len() - before, Ordering::Relaxed);
            while spans.len() >= self.batch || (!spans.is_empty() && Instant::now() >= due) {
                let rest = spans.split_off(spans.len().min(self.batch));
                self.export(std::mem::replace(&mut spans, rest)).await;
            }
        }
        while !spans.is_empty() {
            let rest = spans.split_off(spans.len().min(self.batch));
            self.export(std::mem::replace(&mut spans, rest)).await;
        }
    }

    async fn export(&mut self, spans: Vec<SpanData>) {
        let count = spans.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        match self.deliver(body).await {
            Ok(refused) => {
                let refused = refused.min(count);
                self.shared.exported.fetch_add(count - refused, Ordering::Relaxed);
                self.shared.export_failed.fetch_add(refused, Ordering::Relaxed);
                if refused > 0 {
                    self.complain(&format!("it refused {refused} of {count}"));
                }
            }
            Err(failure) => {
                self.shared.export_failed.fetch_add(count, Ordering::Relaxed);
                self.complain(&failure.detail);
            }
        }
    }

    /// How many spans the collector did not take.
    async fn deliver(&mut self, body: Bytes) -> Result<u64, Failure> {
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            match self.client.send(body.clone()).await {
                Err(failure) if failure.retryable => {
                    let asked = failure.retry_after.unwrap_or_default().min(LONGEST_WAIT);
                    tokio::time::sleep(wait.mul_f64(1.0 + fastrand::f64() / 2.0).max(asked)).await;
                    wait *= 2;
                }
                outcome => return outcome,
            }
        }
        self.client.send(body).await
    }

    fn complain(&mut self, detail: &str) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            tracing::warn!(collector = self.client.name(), detail, "spans cannot be exported and are dropped");
        }
    }
}
