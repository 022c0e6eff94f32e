//! What the workers counted, as one set of Prometheus' metric families.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily};

use super::cells::{ListenerCells, ListenerCounter, ListenerGauge, Row, UpstreamCells, UpstreamCounter};
use super::family::{self, Family};
use super::histogram::{Bounds, Histogram};
use super::key::{DurationKey, PackedKey};
use super::names::{ListenerId, Names, RouteId, Tables, UpstreamId};
use super::open_metrics::ExemplarsBySeries;
use super::shard::{DurationCells, ShardSnapshot};

/// The sum of all workers.
pub(super) fn merge<'a>(
    shards: impl IntoIterator<Item = &'a ShardSnapshot>,
    names: &Names,
    bounds: &Bounds,
) -> Vec<MetricFamily> {
    let mut sums = Sums::default();
    for shard in shards {
        sums.add(shard);
    }
    let names = names.tables();
    let mut families = Families { by_name: BTreeMap::new(), bounds };
    sums.requests(&names, &mut families);
    sums.durations(&names, &mut families);
    sums.listeners(&names, &mut families);
    sums.upstreams(&names, &mut families);
    families.by_name.into_values().map(|(family, metrics)| family.of(metrics)).collect()
}

/// Exemplars of requests' durations, by the label values of their series.
pub(super) fn exemplars<'a>(shards: impl IntoIterator<Item = &'a ShardSnapshot>, names: &Names) -> ExemplarsBySeries {
    let mut by_series = ExemplarsBySeries::new();
    let names = names.tables();
    for (key, cells) in shards.into_iter().flat_map(|shard| &shard.durations) {
        let (listener, route) = names.route(key.route());
        let upstream = key.upstream().map_or("", |id| names.upstream(id));
        let labels = [listener, route, upstream, key.class()].map(str::to_owned).to_vec();
        by_series.entry(labels).or_default().add(&cells.exemplars);
    }
    by_series
}

/// All workers together.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) requests: BTreeMap<PackedKey, u64>,
    pub(super) durations: BTreeMap<DurationKey, DurationCells>,
    pub(super) listeners: BTreeMap<ListenerId, ListenerCells>,
    pub(super) upstreams: BTreeMap<UpstreamId, UpstreamCells>,
}

/// Series by their family's name.
struct Families<'b> {
    by_name: BTreeMap<&'static str, (&'static Family, Vec<Metric>)>,
    bounds: &'b Bounds,
}

impl Families<'_> {
    fn push(&mut self, family: &'static Family, metric: Metric) {
        self.by_name.entry(family.name).or_insert_with(|| (family, Vec::new())).1.push(metric);
    }

    fn sample(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        self.push(family, family.sample(labels, value));
    }

    fn histogram(&mut self, family: &'static Family, labels: &[&str], histogram: &Histogram) {
        let mut metric = family.labelled(labels);
        metric.set_histogram(histogram.to_proto(self.bounds));
        self.push(family, metric);
    }

    /// A cell of a listener or upstream; `owner` is its name.
    fn cell(&mut self, (family, label): Row, owner: &str, value: f64) {
        match label {
            Some(label) => self.sample(family, &[owner, label], value),
            None => self.sample(family, &[owner], value),
        }
    }
}

impl Sums {
    pub(super) fn add(&mut self, shard: &ShardSnapshot) {
        for (key, count) in &shard.requests {
            *self.requests.entry(*key).or_default() += count;
        }
        for (key, cells) in &shard.durations {
            let sum = self.durations.entry(*key).or_default();
            sum.histogram.add(&cells.histogram);
            sum.exemplars.add(&cells.exemplars);
            sum.bytes_in += cells.bytes_in;
            sum.bytes_out += cells.bytes_out;
        }
        for (id, cells) in &shard.listeners {
            self.listeners.entry(*id).or_default().add(cells);
        }
        for (id, cells) in &shard.upstreams {
            self.upstreams.entry(*id).or_default().add(cells);
        }
    }

    fn requests(&self, names: &Tables, families: &mut Families<'_>) {
        for (key, count) in &self.requests {
            let (listener, route) = names.route(key.route());
            let upstream = key.upstream().map_or("", |id| names.upstream(id));
            let [method, code, grpc_code, reason] = key.labels();
            let labels = [listener, route, upstream, &method, &code, &grpc_code, &reason];
            families.sample(&family::REQUESTS, &labels, *count as f64);
        }
    }

    fn durations(&self, names: &Tables, families: &mut Families<'_>) {
        let mut bytes: BTreeMap<(RouteId, Option<UpstreamId>), (u64, u64)> = BTreeMap::new();
        for (key, cells) in &self.durations {
            let (listener, route) = names.route(key.route());
            let upstream = key.upstream().map_or("", |id| names.upstream(id));
            let labels = [listener, route, upstream, key.class()];
            families.histogram(&family::REQUEST_DURATION, &labels, &cells.histogram);
            let (bytes_in, bytes_out) = bytes.entry((key.route(), key.upstream())).or_default();
            *bytes_in += cells.bytes_in;
            *bytes_out += cells.bytes_out;
        }
        for ((route, upstream), (bytes_in, bytes_out)) in bytes {
            let (listener, route) = names.route(route);
            let labels = [listener, route, upstream.map_or("", |id| names.upstream(id))];
            families.sample(&family::REQUEST_BODY_BYTES, &labels, bytes_in as f64);
            families.sample(&family::RESPONSE_BODY_BYTES, &labels, bytes_out as f64);
        }
    }

    fn listeners(&self, names: &Tables, families: &mut Families<'_>) {
        for (id, cells) in &self.listeners {
            let name = names.listener(*id);
            for gauge in ListenerGauge::ALL {
                families.cell(gauge.row(), name, cells.gauges[gauge as usize] as f64);
            }
            let speaks_tls =
                ListenerCounter::ALL.iter().any(|counter| counter.is_of_tls() && cells.counters[*counter as usize] > 0);
            for counter in ListenerCounter::ALL.into_iter().filter(|counter| speaks_tls || !counter.is_of_tls()) {
                families.cell(counter.row(), name, cells.counters[counter as usize] as f64);
            }
        }
    }

    fn upstreams(&self, names: &Tables, families: &mut Families<'_>) {
        for (id, cells) in &self.upstreams {
            let name = names.upstream(*id);
            for counter in UpstreamCounter::ALL {
                families.cell(counter.row(), name, cells.counters[counter as usize] as f64);
            }
            for (outcome, histogram) in &cells.attempts {
                families.histogram(&family::ATTEMPT_DURATION, &[name, outcome], histogram);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::key::{MethodLabel, RequestKey};
    use super::super::shard::Shard;
    use super::*;
    use crate::outcome::Outcome;

    fn text(shards: &[ShardSnapshot], names: &Names) -> String {
        prometheus::TextEncoder::new().encode_to_string(&merge(shards, names, &Bounds::default())).unwrap()
    }

    #[test]
    fn workers_are_summed_and_names_written() {
        let names = Names::new();
        let listener = names.listener("outbound");
        let key = RequestKey {
            route: names.route(listener, "payments"),
            upstream: Some(names.upstream("payments-v1")),
            method: (&http::Method::GET).into(),
            code: 200,
            grpc: Some(0),
            reason: None,
        };
        let shards = [0, 1].map(|worker| {
            let shard = Shard::new(worker, Bounds::default());
            shard.request(&key, Duration::from_millis(750), (3, 4), None);
            shard.count_listener(listener, ListenerCounter::Http2Connections);
            shard.attempt(names.upstream("payments-v1"), Outcome::answered(200), Duration::from_millis(700));
            shard.count_upstream(names.upstream("payments-v1"), UpstreamCounter::SentBytes, 21);
            shard.snapshot()
        });
        let text = text(&shards, &names);
        for line in [
            r#"outrigger_requests_total{listener="outbound",route="payments",upstream="payments-v1",method="GET",code="200",grpc_code="0",reason=""} 2"#,
            r#"outrigger_request_duration_seconds_bucket{listener="outbound",route="payments",upstream="payments-v1",code_class="2xx",le="1"} 2"#,
            r#"outrigger_request_duration_seconds_sum{listener="outbound",route="payments",upstream="payments-v1",code_class="2xx"} 1.5"#,
            r#"outrigger_request_body_bytes_total{listener="outbound",route="payments",upstream="payments-v1"} 6"#,
            r#"outrigger_response_body_bytes_total{listener="outbound",route="payments",upstream="payments-v1"} 8"#,
            r#"outrigger_downstream_connections_total{listener="outbound",protocol="h2"} 2"#,
            r#"outrigger_downstream_connections_total{listener="outbound",protocol="h1"} 0"#,
            r#"outrigger_attempt_duration_seconds_count{upstream="payments-v1",outcome="success"} 2"#,
            r#"outrigger_upstream_sent_bytes_total{upstream="payments-v1"} 42"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn what_was_never_met_makes_no_series() {
        let names = Names::new();
        names.upstream("a");
        let upstream = names.upstream("b");
        let shard = Shard::new(0, Bounds::default());
        shard.count_upstream(upstream, UpstreamCounter::Connected, 1);
        let text = text(&[shard.snapshot()], &names);
        assert!(text.contains(r#"upstream="b""#) && !text.contains(r#"upstream="a""#), "{text}");
    }

    /// The registry of this crate's version would take both for one, were they labels of its own vectors.
    #[test]
    fn labels_that_read_alike_when_joined_stay_apart() {
        let names = Names::new();
        let shard = Shard::new(0, Bounds::default());
        for (listener, route) in [("ab", "c"), ("a", "bc")] {
            let route = names.route(names.listener(listener), route);
            let method = MethodLabel::UNKNOWN;
            let key = RequestKey { route, upstream: None, method, code: 200, grpc: None, reason: None };
            shard.request(&key, Duration::ZERO, (0, 0), None);
        }
        let families = merge(&[shard.snapshot()], &names, &Bounds::default());
        let requests = families.iter().find(|family| family.name() == family::REQUESTS.name).unwrap();
        assert_eq!(requests.get_metric().len(), 2);
    }
}
