//! One worker's numbers: no lock, no atomic, no string.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::cells::{ListenerCells, ListenerCounter, ListenerGauge, UpstreamCells, UpstreamCounter};
use super::exemplar::{Exemplar, Exemplars};
use super::histogram::{Bounds, Histogram};
use super::key::{DurationKey, PackedKey, RequestKey};
use super::names::{ListenerId, UpstreamId};
use crate::outcome::Outcome;

/// Series of `outrigger_requests_total` in one worker; what comes after is counted as `other`.
const MAX_REQUEST_SERIES: usize = 10_000;

/// Histograms of requests in one worker.
const MAX_DURATION_SERIES: usize = 2_000;

/// The metrics that one worker keeps. Scrapes ask the worker for a [`ShardSnapshot`].
#[derive(Debug)]
pub struct Shard {
    worker: usize,
    bounds: Bounds,
    requests: RefCell<Requests>,
    listeners: RefCell<Vec<Option<ListenerCells>>>,
    upstreams: RefCell<Vec<Option<UpstreamCells>>>,
}

/// What a worker had counted at a moment.
#[derive(Debug, Clone)]
pub struct ShardSnapshot {
    pub(super) worker: usize,
    pub(super) requests: Vec<(PackedKey, u64)>,
    pub(super) durations: Vec<(DurationKey, DurationCells)>,
    pub(super) listeners: Vec<(ListenerId, ListenerCells)>,
    pub(super) upstreams: Vec<(UpstreamId, UpstreamCells)>,
}

/// Keeps a gauge one higher until it is dropped, so that cancellation and panics count right.
#[derive(Debug)]
#[must_use = "the gauge falls when this is dropped"]
pub struct Held {
    shard: Rc<Shard>,
    listener: ListenerId,
    gauge: ListenerGauge,
}

/// Requests of one route, upstream and class of codes.
#[derive(Debug, Clone, Default)]
pub(super) struct DurationCells {
    pub(super) histogram: Histogram,
    pub(super) exemplars: Exemplars,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl ShardSnapshot {
    /// Requests to a listener that have begun and not ended.
    pub fn requests_in_flight(&self, listener: ListenerId) -> u64 {
        let cells = self.listeners.iter().find(|(id, _)| *id == listener);
        let gauge = cells.map_or(0, |(_, cells)| cells.gauges[ListenerGauge::RequestsInFlight as usize]);
        u64::try_from(gauge).unwrap_or_default()
    }
}

impl Shard {
    /// Empty cells of the worker with this number, with histograms of these bounds.
    pub fn new(worker: usize, bounds: Bounds) -> Rc<Self> {
        Rc::new(Shard {
            worker,
            bounds,
            requests: RefCell::default(),
            listeners: RefCell::default(),
            upstreams: RefCell::default(),
        })
    }

    /// Counts a request that has ended. Bytes are those of the bodies, as received from and sent to the client. Where
    /// its trace was recorded, it is an exemplar for those like it.
    pub fn request(
        &self,
        key: &RequestKey,
        duration: Duration,
        (bytes_in, bytes_out): (u64, u64),
        exemplar: Option<Exemplar>,
    ) {
        let requests = &mut *self.requests.borrow_mut();
        let (bucket, cells) = requests.count(PackedKey::new(key), duration, (bytes_in, bytes_out), &self.bounds);
        if let Some(exemplar) = exemplar {
            cells.exemplars.keep(bucket, duration, exemplar);
        }
    }

    /// Counts an attempt that has ended.
    pub fn attempt(&self, upstream: UpstreamId, outcome: Outcome, duration: Duration) {
        self.with_upstream(upstream, |cells| {
            cells.attempts(outcome.label()).observe(duration, &self.bounds);
        });
    }

    /// Counts something at a listener.
    pub fn count_listener(&self, listener: ListenerId, counter: ListenerCounter) {
        self.with_listener(listener, |cells| cells.counters[counter as usize] += 1);
    }

    /// Counts something at an upstream, or bytes.
    pub fn count_upstream(&self, upstream: UpstreamId, counter: UpstreamCounter, amount: u64) {
        self.with_upstream(upstream, |cells| cells.counters[counter as usize] += amount);
    }

    /// Raises a listener's gauge for as long as the answer lives.
    pub fn hold_listener(self: &Rc<Self>, listener: ListenerId, gauge: ListenerGauge) -> Held {
        self.change(listener, gauge, 1);
        Held { shard: Rc::clone(self), listener, gauge }
    }

    /// Everything as it stands.
    pub fn snapshot(&self) -> ShardSnapshot {
        let requests = self.requests.borrow();
        ShardSnapshot {
            worker: self.worker,
            requests: requests.series.iter().map(|series| (series.key, series.count)).collect(),
            durations: requests.durations.clone(),
            listeners: used(&self.listeners.borrow()).map(|(id, cells)| (ListenerId(id), cells)).collect(),
            upstreams: used(&self.upstreams.borrow()).map(|(id, cells)| (UpstreamId(id), cells)).collect(),
        }
    }

    fn change(&self, listener: ListenerId, gauge: ListenerGauge, by: i64) {
        self.with_listener(listener, |cells| cells.gauges[gauge as usize] += by);
    }

    fn with_listener(&self, id: ListenerId, change: impl FnOnce(&mut ListenerCells)) {
        change(cells(&mut self.listeners.borrow_mut(), id.0));
    }

    fn with_upstream(&self, id: UpstreamId, change: impl FnOnce(&mut UpstreamCells)) {
        change(cells(&mut self.upstreams.borrow_mut(), id.0));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shard.change(self.listener, self.gauge, -1);
    }
}

/// Numbers are dense, so a table that grows is the fastest map.
#[inline]
fn cells<T: Default>(table: &mut Vec<Option<T>>, id: u16) -> &mut T {
    let index = usize::from(id);
    if index >= table.len() {
        table.resize_with(index + 1, || None);
    }
    table[index].get_or_insert_default()
}

/// What this worker has met: the rest makes no series.
fn used<T: Clone>(table: &[Option<T>]) -> impl Iterator<Item = (u16, T)> {
    (0..=u16::MAX).zip(table).filter_map(|(id, cells)| Some((id, cells.clone()?)))
}

#[derive(Debug, Default)]
struct Requests {
    index: HashMap<PackedKey, u32, RandomState>,
    series: Vec<RequestSeries>,
    duration_index: HashMap<DurationKey, u32, RandomState>,
    durations: Vec<(DurationKey, DurationCells)>,
}

#[derive(Debug)]
struct RequestSeries {
    key: PackedKey,
    count: u64,
    /// Position in [`Requests::durations`], so that a request costs one search. Not used by the series of all others,
    /// which has requests of many routes.
    duration: u32,
}

impl Requests {
    /// The bucket that the duration is in, and its neighbours.
    fn count(
        &mut self,
        key: PackedKey,
        duration: Duration,
        (bytes_in, bytes_out): (u64, u64),
        bounds: &Bounds,
    ) -> (usize, &mut DurationCells) {
        let position = match self.index.get(&key) {
            Some(position) => *position,
            None => self.series_for(key),
        };
        let series = &mut self.series[position as usize];
        series.count += 1;
        let position = if series.key == key { series.duration } else { self.duration_for(key.duration_key()) };
        let (_, cells) = &mut self.durations[position as usize];
        let bucket = cells.histogram.observe(duration, bounds);
        cells.bytes_in += bytes_in;
        cells.bytes_out += bytes_out;
        (bucket, cells)
    }

    #[cold]
    fn series_for(&mut self, key: PackedKey) -> u32 {
        let key = match key {
            key if self.series.len() < MAX_REQUEST_SERIES => key,
            key if key.is_error() => PackedKey::OTHER_ERRORS,
            _ => PackedKey::OTHER,
        };
        if let Some(position) = self.index.get(&key) {
            return *position;
        }
        if self.series.len() == MAX_REQUEST_SERIES {
            tracing::warn!(
                series = MAX_REQUEST_SERIES,
                "a worker counts every new kind of requests as `other` from now on"
            );
        }
        let duration = if key.is_other() { 0 } else { self.duration_for(key.duration_key()) };
        let position = self.series.len() as u32;
        self.series.push(RequestSeries { key, count: 0, duration });
        self.index.insert(key, position);
        position
    }

    #[cold]
    fn duration_for(&mut self, key: DurationKey) -> u32 {
        if let Some(position) = self.duration_index.get(&key) {
            return *position;
        }
        let key = if self.durations.len() < MAX_DURATION_SERIES { key } else { DurationKey::OTHER };
        *self.duration_index.entry(key).or_insert_with(|| {
            self.durations.push((key, DurationCells::default()));
            self.durations.len() as u32 - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::MethodLabel;
    use super::super::names::RouteId;
    use super::*;

    fn key(route: u16, code: u16) -> RequestKey {
        let method = MethodLabel::from(&http::Method::GET);
        RequestKey { route: RouteId(route), upstream: None, method, code, grpc: None, reason: None }
    }

    #[test]
    fn requests_are_counted_by_key_and_their_time_by_class() {
        let shard = Shard::new(0, Bounds::default());
        for code in [200, 200, 204, 503] {
            shard.request(&key(1, code), Duration::from_millis(1), (10, 100), None);
        }
        let snapshot = shard.snapshot();
        let counts: Vec<u64> = snapshot.requests.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 1]);
        let by_class: Vec<_> =
            snapshot.durations.iter().map(|(key, cells)| (key.class(), cells.bytes_in, cells.bytes_out)).collect();
        assert_eq!(by_class, [("2xx", 30, 300), ("5xx", 10, 100)]);
    }

    #[test]
    fn series_are_bounded_and_nothing_goes_uncounted() {
        let shard = Shard::new(0, Bounds::default());
        let requests = 12_000;
        for route in 0..requests {
            shard.request(&key(route, 200), Duration::ZERO, (1, 0), None);
        }
        let snapshot = shard.snapshot();
        assert_eq!(snapshot.requests.len(), MAX_REQUEST_SERIES + 1);
        assert_eq!(snapshot.requests.iter().map(|(_, count)| count).sum::<u64>(), u64::from(requests));
        assert_eq!(snapshot.requests.last(), Some(&(PackedKey::OTHER, u64::from(requests) - 10_000)));
        assert!(!PackedKey::OTHER.is_error() && PackedKey::OTHER_ERRORS.is_error());
        assert_eq!(snapshot.durations.len(), MAX_DURATION_SERIES + 1);
        assert_eq!(snapshot.durations.iter().map(|(_, cells)| cells.bytes_in).sum::<u64>(), u64::from(requests));
        shard.request(&key(5, 200), Duration::ZERO, (1, 0), None);
        assert_eq!(shard.snapshot().requests[5].1, 2, "known series go on");
        shard.request(&key(11_000, 503), Duration::ZERO, (1, 0), None);
        assert_eq!(shard.snapshot().requests.last(), Some(&(PackedKey::OTHER_ERRORS, 1)), "errors stay errors");
    }

    #[test]
    fn a_gauge_falls_when_its_holder_goes() {
        let shard = Shard::new(0, Bounds::default());
        let listener = ListenerId(3);
        let held = shard.hold_listener(listener, ListenerGauge::RequestsInFlight);
        assert_eq!(shard.snapshot().requests_in_flight(listener), 1);
        assert_eq!(shard.snapshot().requests_in_flight(ListenerId(4)), 0);
        drop(held);
        assert_eq!(shard.snapshot().listeners[0].1.gauges, [0, 0, 0, 0]);
    }
}
