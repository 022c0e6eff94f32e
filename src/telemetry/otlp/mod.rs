//! Exports to an OpenTelemetry collector: where they go, who sends them, and how they are delivered.
//!
//! Traces and metrics differ in their messages ([`Signal`]) and share everything else.

mod client;
mod delivery;
mod resource;
mod target;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

pub(crate) use self::client::{Secure, Securing};
pub(super) use self::delivery::Delivery;
pub(super) use self::resource::resource;
pub(super) use self::target::{Environment, Target, ignored};

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    /// In names of variables: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.
    fn variable(self) -> &'static str {
        match self {
            Signal::Traces => "TRACES",
            Signal::Metrics => "METRICS",
        }
    }

    /// Behind the collector's URL over HTTP, where no path is written.
    fn path(self) -> &'static str {
        match self {
            Signal::Traces => "/v1/traces",
            Signal::Metrics => "/v1/metrics",
        }
    }

    /// gRPC's.
    fn method(self) -> &'static str {
        match self {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }

    /// In the plural, for people.
    fn items(self) -> &'static str {
        match self {
            Signal::Traces => "spans",
            Signal::Metrics => "metrics",
        }
    }

    /// How much of an export the collector did not take. An answer that cannot be read refuses nothing.
    fn refused(self, answer: &[u8]) -> u64 {
        let refused = match self {
            Signal::Traces => {
                let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
                answer.partial_success.map(|partial| partial.rejected_spans)
            }
            Signal::Metrics => {
                let answer = ExportMetricsServiceResponse::decode(answer).unwrap_or_default();
                answer.partial_success.map(|partial| partial.rejected_data_points)
            }
        };
        refused.map_or(0, |refused| u64::try_from(refused).unwrap_or(0))
    }
}
