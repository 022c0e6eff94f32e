//! What happened between two looks: rates, outcomes and percentiles, for who watches instead of scraping.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::cells::ListenerGauge;
use super::histogram::{Bounds, Histogram};
use super::key::{DurationKey, PackedKey};
use super::merge::Sums;
use super::names::{Names, RouteId, UpstreamId};
use super::shard::ShardSnapshot;

/// Routes and upstreams that one look shows: those with most requests.
const MOST_ROWS: usize = 200;

/// Remembers the last look.
#[derive(Debug, Default)]
pub struct Live {
    /// Of each worker the latest: one that is late counts as standing still.
    shards: BTreeMap<usize, ShardSnapshot>,
    before: Sums,
}

/// An interval.
#[derive(Debug, Clone, Serialize)]
pub struct Interval {
    /// How long it was.
    pub seconds: f64,
    /// Of all listeners.
    pub total: Flow,
    /// By name.
    pub listeners: Vec<ListenerFlow>,
    /// By listener and name; of a route that goes to several upstreams, one row for each.
    pub routes: Vec<RouteFlow>,
    /// By name: attempts.
    pub upstreams: Vec<UpstreamFlow>,
}

/// Requests, or attempts, that ended in the interval.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Flow {
    /// How many.
    pub count: u64,
    /// A second.
    pub per_second: f64,
    /// Those with a reason, a status of 500 or more, or a failing gRPC status.
    pub errors: u64,
    /// By the class of the status.
    pub codes: BTreeMap<&'static str, u64>,
    /// By reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// How long they took; `None` where there were none.
    pub ms: Option<Percentiles>,
    /// Since the start.
    pub ever: u64,
}

/// Milliseconds that this share did not exceed, estimated within the buckets of the histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

/// A listener.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct ListenerFlow {
    pub name: String,
    /// Requests that have begun and not ended.
    pub in_flight: i64,
    /// Open connections.
    pub connections: i64,
    #[serde(flatten)]
    pub flow: Flow,
}

/// A route.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct RouteFlow {
    pub listener: String,
    /// Empty where no route matched.
    pub route: String,
    /// Empty where the proxy answered by itself.
    pub upstream: String,
    #[serde(flatten)]
    pub flow: Flow,
}

/// An upstream.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamFlow {
    /// Its name.
    pub name: String,
    /// Attempts that ended in the interval.
    pub attempts: u64,
    /// A second.
    pub per_second: f64,
    /// By outcome: those of `outrigger_attempt_duration_seconds`.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// How long they took.
    pub ms: Option<Percentiles>,
}

impl Live {
    /// What happened since the last look, `elapsed` ago; since the start at the first one.
    pub fn look(&mut self, shards: Vec<ShardSnapshot>, names: &Names, bounds: &Bounds, elapsed: Duration) -> Interval {
        for shard in shards {
            self.shards.insert(shard.worker, shard);
        }
        let mut now = Sums::default();
        for shard in self.shards.values() {
            now.add(shard);
        }
        let seconds = elapsed.as_secs_f64();
        let interval = Difference { before: &self.before, now: &now, bounds, seconds }.interval(names);
        self.before = now;
        interval
    }
}

struct Difference<'s> {
    before: &'s Sums,
    now: &'s Sums,
    bounds: &'s Bounds,
    seconds: f64,
}

/// A flow on its way.
#[derive(Default)]
struct Gathered {
    flow: Flow,
    durations: Histogram,
}

impl Gathered {
    fn requests(&mut self, key: PackedKey, count: u64, ever: u64) {
        self.flow.ever += ever;
        if count == 0 {
            return;
        }
        self.flow.count += count;
        if key.is_error() {
            self.flow.errors += count;
        }
        *self.flow.codes.entry(key.duration_key().class()).or_default() += count;
        if let Some(reason) = key.reason() {
            *self.flow.reasons.entry(reason.as_str()).or_default() += count;
        }
    }

    fn finish(mut self, Difference { bounds, seconds, .. }: &Difference<'_>) -> Flow {
        self.flow.per_second = rate(self.flow.count, *seconds);
        self.flow.ms = percentiles(&self.durations, bounds);
        self.flow
    }
}

impl Difference<'_> {
    fn interval(&self, names: &Names) -> Interval {
        let mut total = Gathered::default();
        let mut by_listener: BTreeMap<String, Gathered> = BTreeMap::new();
        let mut by_route: BTreeMap<(RouteId, Option<UpstreamId>), Gathered> = BTreeMap::new();
        let names = names.tables();
        for (key, ever) in &self.now.requests {
            let count = ever - self.before.requests.get(key).copied().unwrap_or_default();
            let listener = by_listener.entry(names.route(key.route()).0.to_owned()).or_default();
            let route = by_route.entry((key.route(), key.upstream())).or_default();
            for gathered in [&mut total, listener, route] {
                gathered.requests(*key, count, *ever);
            }
        }
        for key in self.now.durations.keys() {
            let durations = self.durations(*key);
            let listener = by_listener.entry(names.route(key.route()).0.to_owned()).or_default();
            let route = by_route.entry((key.route(), key.upstream())).or_default();
            for gathered in [&mut total, listener, route] {
                gathered.durations.add(&durations);
            }
        }
        let listeners = self.now.listeners.iter().map(|(id, cells)| {
            let name = names.listener(*id).to_owned();
            let gauge = |gauge: ListenerGauge| cells.gauges[gauge as usize];
            ListenerFlow {
                in_flight: gauge(ListenerGauge::RequestsInFlight),
                connections: gauge(ListenerGauge::Http1Connections) + gauge(ListenerGauge::Http2Connections),
                flow: by_listener.remove(&name).unwrap_or_default().finish(self),
                name,
            }
        });
        let routes = by_route.into_iter().map(|((route, upstream), gathered)| {
            let (listener, route) = names.route(route);
            RouteFlow {
                listener: listener.to_owned(),
                route: route.to_owned(),
                upstream: upstream.map_or("", |id| names.upstream(id)).to_owned(),
                flow: gathered.finish(self),
            }
        });
        let upstreams = self.now.upstreams.iter().map(|(id, cells)| {
            let mut all = Histogram::default();
            let mut outcomes = BTreeMap::new();
            for (outcome, now) in &cells.attempts {
                let before = self.before.upstreams.get(id).and_then(|cells| {
                    cells.attempts.iter().find(|(known, _)| known == outcome).map(|(_, histogram)| histogram)
                });
                let durations = since(now, before);
                if durations.count() > 0 {
                    outcomes.insert(*outcome, durations.count());
                    all.add(&durations);
                }
            }
            UpstreamFlow {
                name: names.upstream(*id).to_owned(),
                attempts: all.count(),
                per_second: rate(all.count(), self.seconds),
                outcomes,
                ms: percentiles(&all, self.bounds),
            }
        });
        Interval {
            seconds: self.seconds,
            listeners: listeners.collect(),
            routes: busiest(routes.collect(), |route| (route.flow.count, route.flow.ever)),
            upstreams: busiest(upstreams.collect(), |upstream| (upstream.attempts, 0)),
            total: total.finish(self),
        }
    }

    fn durations(&self, key: DurationKey) -> Histogram {
        let now = self.now.durations.get(&key).map(|cells| &cells.histogram);
        let before = self.before.durations.get(&key).map(|cells| &cells.histogram);
        now.map_or_else(Histogram::default, |now| since(now, before))
    }
}

fn since(now: &Histogram, before: Option<&Histogram>) -> Histogram {
    before.map_or_else(|| now.clone(), |before| now.since(before))
}

/// Keeps the order of those that stay.
fn busiest<T, K: Ord>(mut rows: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    if rows.len() > MOST_ROWS {
        rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
        rows.truncate(MOST_ROWS);
    }
    rows
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

fn percentiles(histogram: &Histogram, bounds: &Bounds) -> Option<Percentiles> {
    let at = |share| histogram.quantile(share, bounds).map(|time| (time.as_secs_f64() * 1e6).round() / 1e3);
    Some(Percentiles { p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)? })
}

#[cfg(test)]
mod tests {
    use super::super::Shard;
    use super::super::key::{MethodLabel, RequestKey};
    use super::*;
    use crate::error::Reason;
    use crate::outcome::Outcome;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_what_happened_since_is_shown() {
        let (names, bounds) = (Names::new(), Bounds::default());
        let (listener, upstream) = (names.listener("outbound"), names.upstream("payments"));
        let route = names.route(listener, "pay");
        let method = MethodLabel::from(&http::Method::GET);
        let key = |code, reason| RequestKey { route, upstream: Some(upstream), method, code, grpc: None, reason };
        let shard = Shard::new(0, bounds);
        let held = shard.hold_listener(listener, ListenerGauge::RequestsInFlight);
        let mut live = Live::default();
        shard.request(&key(200, None), Duration::from_millis(2), (0, 0), None);
        let first = live.look(vec![shard.snapshot()], &names, &bounds, SECOND);
        assert_eq!((first.total.count, first.total.ever), (1, 1));

        for _ in 0..3 {
            shard.request(&key(200, None), Duration::from_millis(20), (0, 0), None);
        }
        shard.request(&key(503, Some(Reason::ConnectFailure)), Duration::from_millis(20), (0, 0), None);
        shard.attempt(upstream, Outcome::Failed(Reason::ConnectFailure), Duration::from_millis(20));
        let second = live.look(vec![shard.snapshot()], &names, &bounds, 2 * SECOND);
        let [row] = &second.routes[..] else { panic!("{second:?}") };
        assert_eq!((row.listener.as_str(), row.route.as_str(), row.upstream.as_str()), ("outbound", "pay", "payments"));
        assert_eq!((row.flow.count, row.flow.per_second, row.flow.errors, row.flow.ever), (4, 2.0, 1, 5));
        assert_eq!(row.flow.codes, BTreeMap::from([("2xx", 3), ("5xx", 1)]));
        assert_eq!(row.flow.reasons, BTreeMap::from([("connect_failure", 1)]));
        let p50 = row.flow.ms.unwrap().p50;
        assert!((10.0..=25.0).contains(&p50), "the first request's 2 ms are over: {p50}");
        assert_eq!((second.listeners[0].in_flight, second.listeners[0].flow.count), (1, 4));
        assert_eq!(second.upstreams[0].outcomes, BTreeMap::from([("connect_failure", 1)]));
        drop(held);

        let third = live.look(Vec::new(), &names, &bounds, SECOND);
        assert_eq!((third.total.count, third.total.ever), (0, 5), "a silent worker stands still");
        assert_eq!(third.routes[0].flow.ms, None);
    }
}
