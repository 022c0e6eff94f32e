//! The text of OpenMetrics 1.0 (<https://github.com/prometheus/OpenMetrics>), which can carry exemplars.

use std::collections::HashMap;
use std::fmt::Write as _;

use http::HeaderMap;
use http::header::ACCEPT;
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::exemplar::Exemplars;

/// The `Content-Type` of this text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Of the histogram whose series have these label values.
pub(super) type ExemplarsBySeries = HashMap<Vec<String>, Exemplars>;

/// Whether somebody would rather have this than the older text.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (mut ours, mut plain) = (0.0_f64, 0.0_f64);
    for range in accepted.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let mut quality = 1.0;
        let mut known = true;
        for part in parts {
            match part.split_once('=') {
                Some(("q", value)) => quality = value.trim().parse().unwrap_or(0.0),
                Some(("version", version)) => known &= matches!(version, "1.0.0" | "0.0.1" | "0.0.4"),
                _ => {}
            }
        }
        match media {
            "application/openmetrics-text" if known => ours = ours.max(quality),
            "text/plain" if known => plain = plain.max(quality),
            _ => {}
        }
    }
    ours > 0.0 && ours >= plain
}

/// Writes families, those of `exemplars_of` with exemplars.
pub(super) fn encode(families: &[MetricFamily], exemplars_of: &str, exemplars: &ExemplarsBySeries) -> String {
    let mut text = String::new();
    for family in families {
        let counter = family.get_field_type() == MetricType::COUNTER;
        let name = if counter { family.name().strip_suffix("_total").unwrap_or(family.name()) } else { family.name() };
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            MetricType::SUMMARY => "summary",
            MetricType::UNTYPED => "unknown",
        };
        let _ = write!(text, "# TYPE {name} {kind}\n# HELP {name} {}\n", escaped(family.help()));
        let with = (family.name() == exemplars_of).then_some(exemplars);
        for metric in family.get_metric() {
            write_metric(&mut text, name, family.get_field_type(), metric, with);
        }
    }
    text.push_str("# EOF\n");
    text
}

fn write_metric(
    text: &mut String,
    name: &str,
    kind: MetricType,
    metric: &Metric,
    exemplars: Option<&ExemplarsBySeries>,
) {
    let labels = metric.get_label();
    match kind {
        MetricType::COUNTER => sample(text, name, "_total", labels, None, metric.get_counter().get_value()),
        MetricType::GAUGE => sample(text, name, "", labels, None, metric.get_gauge().get_value()),
        MetricType::UNTYPED => {}
        MetricType::SUMMARY => {
            let summary = metric.get_summary();
            for quantile in summary.get_quantile() {
                let share = float(quantile.quantile());
                sample(text, name, "", labels, Some(("quantile", &share)), quantile.value());
            }
            sample(text, name, "_count", labels, None, summary.sample_count() as f64);
            sample(text, name, "_sum", labels, None, summary.sample_sum());
        }
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let exemplars = exemplars.and_then(|exemplars| {
                let values: Vec<String> = labels.iter().map(|label| label.value().to_owned()).collect();
                exemplars.get(&values)
            });
            let bounds =
                histogram.get_bucket().iter().map(|bucket| (float(bucket.upper_bound()), bucket.cumulative_count()));
            let all = bounds.chain([("+Inf".to_owned(), histogram.get_sample_count())]);
            for (index, (bound, count)) in all.enumerate() {
                sample(text, name, "_bucket", labels, Some(("le", &bound)), count as f64);
                if let Some(exemplar) = exemplars.and_then(|exemplars| exemplars.of(index)) {
                    text.pop();
                    exemplar.write(text);
                    text.push('\n');
                }
            }
            sample(text, name, "_count", labels, None, histogram.get_sample_count() as f64);
            sample(text, name, "_sum", labels, None, histogram.get_sample_sum());
        }
    }
}

fn sample(text: &mut String, name: &str, suffix: &str, labels: &[LabelPair], more: Option<(&str, &str)>, value: f64) {
    text.push_str(name);
    text.push_str(suffix);
    let pairs = labels.iter().map(|label| (label.name(), label.value())).chain(more);
    let mut separator = '{';
    for (key, value) in pairs {
        let _ = write!(text, "{separator}{key}=\"{}\"", escaped(value));
        separator = ',';
    }
    if separator == ',' {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

/// Bounds are always written as floats.
fn float(value: f64) -> String {
    let text = value.to_string();
    if text.contains('.') || !value.is_finite() { text } else { format!("{text}.0") }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn who_asks_for_it_gets_it() {
        for (accept, wanted) in [
            (None, false),
            (Some("*/*"), false),
            (Some("text/plain"), false),
            (Some("application/openmetrics-text"), true),
            (Some("application/openmetrics-text; version=9.9"), false),
            (Some("application/openmetrics-text;q=0"), false),
            (Some("text/plain, application/openmetrics-text;q=0.5"), false),
            // What Prometheus 2.42 sends.
            (
                Some(
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                true,
            ),
        ] {
            let headers = accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept))).into_iter().collect();
            assert_eq!(is_wanted(&headers), wanted, "{accept:?}");
        }
    }

    #[test]
    fn bounds_are_floats() {
        assert_eq!((float(1.0), float(0.0005), float(60.0)), ("1.0".into(), "0.0005".into(), "60.0".into()));
    }
}
