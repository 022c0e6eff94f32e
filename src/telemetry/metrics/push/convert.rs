//! A scrape's families in OpenTelemetry's words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, exemplar, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use super::super::exemplar::Exemplars;
use super::super::exporter::Gathered;
use super::super::family;
use crate::telemetry::hex;

/// Since when has been counted, and until when: in nanoseconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Span {
    began: u64,
    now: u64,
}

/// One export.
pub(super) fn request(
    gathered: &Gathered,
    resource: &ResourceAttributesWithSchema,
    began: SystemTime,
    now: SystemTime,
) -> ExportMetricsServiceRequest {
    let span = Span { began: unix_nanos(began), now: unix_nanos(now) };
    let metrics = gathered.families.iter().filter_map(|family| metric(family, gathered, span)).collect();
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }];
    let attributes = resource.attributes.0.clone();
    let resource = Resource { attributes, ..Resource::default() };
    let resource_metrics =
        vec![ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }
}

/// How many data points it has.
pub(super) fn points(request: &ExportMetricsServiceRequest) -> u64 {
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let points = scopes.flat_map(|scope| &scope.metrics).map(|metric| match &metric.data {
        Some(metric::Data::Sum(sum)) => sum.data_points.len(),
        Some(metric::Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(metric::Data::Histogram(histogram)) => histogram.data_points.len(),
        _ => 0,
    });
    points.sum::<usize>() as u64
}

/// `None` where there is nothing to tell: no series, or a kind that only collectors of an embedding program have.
fn metric(family: &MetricFamily, gathered: &Gathered, span: Span) -> Option<Metric> {
    let series = family.get_metric();
    if series.is_empty() {
        return None;
    }
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match family.get_field_type() {
        MetricType::COUNTER => {
            let points = series.iter().map(|series| number(series, series.get_counter().get_value(), span));
            metric::Data::Sum(Sum {
                data_points: points.collect(),
                aggregation_temporality: cumulative,
                is_monotonic: true,
            })
        }
        MetricType::GAUGE => {
            let points = series.iter().map(|series| number(series, series.get_gauge().get_value(), span));
            metric::Data::Gauge(Gauge { data_points: points.collect() })
        }
        MetricType::HISTOGRAM => {
            let with_exemplars = family.name() == family::REQUEST_DURATION.name;
            let points = series.iter().map(|series| {
                let exemplars = with_exemplars.then(|| {
                    let values: Vec<String> = series.get_label().iter().map(|label| label.value().to_owned()).collect();
                    gathered.exemplars.get(&values)
                });
                histogram(series, exemplars.flatten(), span)
            });
            metric::Data::Histogram(Histogram { data_points: points.collect(), aggregation_temporality: cumulative })
        }
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    Some(Metric {
        name: family.name().to_owned(),
        description: family.help().to_owned(),
        unit: unit(family.name()).to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

/// In UCUM's words (<https://ucum.org>), as OpenTelemetry's metrics have theirs.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    if name.ends_with("_seconds") {
        "s"
    } else if name.ends_with("_bytes") {
        "By"
    } else {
        ""
    }
}

fn number(series: &proto::Metric, value: f64, span: Span) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(series.get_label()),
        start_time_unix_nano: span.began,
        time_unix_nano: span.now,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn histogram(series: &proto::Metric, exemplars: Option<&Exemplars>, span: Span) -> HistogramDataPoint {
    let histogram = series.get_histogram();
    let (count, buckets) = (histogram.get_sample_count(), histogram.get_bucket());
    // Theirs do not contain the buckets before them.
    let mut below = 0;
    let ends = buckets.iter().map(|bucket| bucket.cumulative_count()).chain([count]);
    let own = |end: u64| {
        let own = end.saturating_sub(below);
        below = below.max(end);
        own
    };
    let bucket_counts: Vec<u64> = ends.map(own).collect();
    let exemplars = exemplars.map(|exemplars| {
        (0..bucket_counts.len()).filter_map(|bucket| exemplars.of(bucket)).map(exemplar).collect::<Vec<_>>()
    });
    HistogramDataPoint {
        attributes: attributes(series.get_label()),
        start_time_unix_nano: span.began,
        time_unix_nano: span.now,
        count,
        sum: Some(histogram.get_sample_sum()),
        explicit_bounds: buckets.iter().map(|bucket| bucket.upper_bound()).collect(),
        bucket_counts,
        exemplars: exemplars.unwrap_or_default(),
        ..HistogramDataPoint::default()
    }
}

fn exemplar(exemplar: &super::super::Exemplar) -> Exemplar {
    let halves = exemplar.trace_id.as_chunks::<16>().0;
    Exemplar {
        time_unix_nano: nanos(exemplar.at),
        trace_id: halves.iter().flat_map(|half| hex::decode(half).to_be_bytes()).collect(),
        value: Some(exemplar::Value::AsDouble(exemplar.took.as_secs_f64())),
        ..Exemplar::default()
    }
}

fn attributes(labels: &[LabelPair]) -> Vec<KeyValue> {
    let attribute = |label: &LabelPair| KeyValue {
        key: label.name().to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(label.value().to_owned())) }),
        ..KeyValue::default()
    };
    labels.iter().map(attribute).collect()
}

fn unix_nanos(time: SystemTime) -> u64 {
    nanos(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
