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

use super::settings::Settings;
use super::{RequestSpan, Shared, convert};
use crate::telemetry::otlp::{Delivery, Secure, Signal};

/// Takes spans until every worker is gone, then sends what is left.
#[derive(Debug)]
pub struct Exporter {
    incoming: mpsc::UnboundedReceiver<Vec<RequestSpan>>,
    shared: Arc<Shared>,
    delivery: Delivery,
    resource: ResourceAttributesWithSchema,
    scope: InstrumentationScope,
    batch: usize,
    delay: Duration,
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
            delivery: Delivery::new(Signal::Traces, target, secure),
            resource,
            scope,
            batch,
            delay,
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
        let arrived = self.delivery.deliver(body, count).await;
        self.shared.exported.fetch_add(arrived, Ordering::Relaxed);
        self.shared.export_failed.fetch_add(count - arrived, Ordering::Relaxed);
    }
}
