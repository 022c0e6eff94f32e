//! What one worker owns. Everything here is touched by one thread only, and the types say so.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::via::Pseudonym;
use crate::config::model::UpstreamIndex;
use crate::runtime::drain::LocalDrain;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::WorkerLog;
use crate::telemetry::clock::Clock;
use crate::telemetry::ids::Ids;
use crate::telemetry::metrics::Shard;
use crate::transport::Pools;
use crate::upstream::RoundRobin;

/// A worker's state.
#[derive(Debug)]
pub(crate) struct Worker {
    published: Arc<ArcSwap<Snapshot>>,
    current: RefCell<Rc<Generation>>,
    pub(crate) pools: Rc<Pools>,
    pub(crate) metrics: Rc<Shard>,
    pub(crate) access_log: WorkerLog,
    pub(crate) ids: RefCell<Ids>,
    pub(crate) clock: Clock,
    pub(crate) drain: Rc<LocalDrain>,
    pub(crate) via: Pseudonym,
    in_flight: Cell<usize>,
}

/// A snapshot with what this worker remembers for it: where its balancers stand.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) snapshot: Arc<Snapshot>,
    balancers: Vec<RefCell<RoundRobin>>,
    splits: Vec<RefCell<RoundRobin>>,
}

impl Generation {
    fn new(snapshot: Arc<Snapshot>) -> Rc<Self> {
        let balancer = |weights: Vec<u32>| RefCell::new(RoundRobin::new(weights, fastrand::u64(..)));
        let balancers = snapshot.upstreams.iter().map(|upstream| balancer(upstream.weights.clone())).collect();
        let splits = snapshot.splits().map(|weights| balancer(weights.collect())).collect();
        Rc::new(Generation { snapshot, balancers, splits })
    }

    /// The position of the upstream's next endpoint.
    pub(crate) fn pick_endpoint(&self, upstream: UpstreamIndex) -> Option<usize> {
        self.balancers[upstream.0].borrow_mut().pick(|_| true)
    }

    /// The position of the split's next target.
    pub(crate) fn pick_split(&self, split: usize) -> Option<usize> {
        self.splits[split].borrow_mut().pick(|_| true)
    }
}

impl Worker {
    pub(crate) fn new(
        published: Arc<ArcSwap<Snapshot>>,
        pools: Rc<Pools>,
        metrics: Rc<Shard>,
        access_log: WorkerLog,
        via: Pseudonym,
    ) -> Rc<Self> {
        let current = RefCell::new(Generation::new(published.load_full()));
        Rc::new(Worker {
            published,
            current,
            pools,
            metrics,
            access_log,
            ids: RefCell::new(Ids::new()),
            clock: Clock::new(),
            drain: Rc::default(),
            via,
            in_flight: Cell::new(0),
        })
    }

    /// The generation in force. A request asks once and keeps it.
    pub(crate) fn generation(&self) -> Rc<Generation> {
        let published = self.published.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(&published, &current.snapshot) {
            *current = Generation::new(Arc::clone(&published));
        }
        current.clone()
    }

    /// Requests that have begun and not ended.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Counts a request for as long as the guard lives.
    pub(crate) fn begin_request(self: &Rc<Self>) -> RequestInFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        RequestInFlight(self.clone())
    }
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct RequestInFlight(Rc<Worker>);

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}
