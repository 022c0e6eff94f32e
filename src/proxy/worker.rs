//! What one worker owns. Everything here is touched by one thread only, and the types say so.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::cut::Cuts;
use super::destination::{Destination, Found, Hosts};
use super::entry::Entry;
use super::via::Pseudonym;
use crate::error::Error;
use crate::snapshot::{self, OnDemand, Snapshot, Upstream};
use crate::telemetry::WorkerEnds;
use crate::telemetry::access_log::WorkerLog;
use crate::telemetry::clock::Clock;
use crate::telemetry::doctor::Doctor;
use crate::telemetry::ids::Ids;
use crate::telemetry::log::throttle::Throttle;
use crate::telemetry::metrics::{RouteId, Shard};
use crate::telemetry::tap::WorkerTap;
use crate::telemetry::traces::WorkerTracer;
use crate::transport::Pools;
use crate::upstream::RoundRobin;
use crate::upstream::state::EndpointState;
use crate::upstream::turns::{Nobody, Turns, Wish};

/// A worker's state.
#[derive(Debug)]
pub(crate) struct Worker {
    published: Arc<ArcSwap<Snapshot>>,
    current: RefCell<Rc<Generation>>,
    balancers: Rc<Balancers>,
    pub(crate) pools: Rc<Pools>,
    pub(crate) metrics: Rc<Shard>,
    pub(crate) access_log: RefCell<WorkerLog>,
    pub(crate) tracer: WorkerTracer,
    pub(crate) tap: WorkerTap,
    pub(crate) doctor: Arc<Doctor>,
    pub(crate) ids: RefCell<Ids>,
    pub(crate) clock: Clock,
    pub(super) cuts: Cuts,
    /// Where its connections came in, by number.
    entries: RefCell<HashMap<u64, Weak<Entry>>>,
    pub(crate) via: Pseudonym,
    in_flight: Cell<usize>,
    /// Turns of TLS handshakes with clients.
    pub(crate) handshakes: Semaphore,
    /// Connections of clients that come to nothing and are worth a line.
    pub(crate) client_log: Throttle,
    /// Held by each copy that is on its way to a mirror.
    pub(crate) mirrors: Rc<()>,
}

/// A handshake holds some 30 KiB and takes most of a millisecond of CPU: more at once would only make all of them late.
const HANDSHAKES: usize = 256;
/// Lines a second about clients.
const LINES: u32 = 10;

/// A snapshot with what this worker remembers for it: where its balancers stand.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) snapshot: Arc<Snapshot>,
    balancers: Rc<Balancers>,
    /// Of each upstream, from its first request on.
    turns: Vec<OnceCell<Rc<RefCell<Turns>>>>,
    splits: Vec<OnceCell<RefCell<RoundRobin>>>,
    /// What was found on demand, by its number.
    found: Vec<Hosts>,
}

impl Generation {
    fn new(snapshot: Arc<Snapshot>, balancers: Rc<Balancers>) -> Rc<Self> {
        let turns = snapshot.upstreams.iter().map(|_| OnceCell::new()).collect();
        let splits = (0..snapshot.splits).map(|_| OnceCell::new()).collect();
        let found = (0..snapshot.finders).map(|_| Hosts::default()).collect();
        Rc::new(Generation { snapshot, balancers, turns, splits, found })
    }

    /// The upstream that a request goes to.
    pub(super) fn upstream<'a>(&'a self, destination: &'a Destination) -> &'a Upstream {
        match destination {
            Destination::Written(index) => self.snapshot.upstream(*index),
            Destination::Found(found) => &found.upstream,
        }
    }

    /// The upstream's next endpoint.
    pub(super) fn pick_endpoint(
        &self,
        destination: &Destination,
        wish: Wish<'_>,
    ) -> Result<Arc<EndpointState>, Nobody> {
        let turns = match destination {
            Destination::Written(index) => {
                self.turns[index.0].get_or_init(|| self.balancers.of(self.snapshot.upstream(*index)))
            }
            Destination::Found(found) => &found.turns,
        };
        turns.borrow_mut().pick(wish)
    }

    /// The service that a host names, of those that `upstream` stands for.
    pub(super) fn find(
        &self,
        upstream: &Upstream,
        on_demand: &OnDemand,
        host: &str,
        now: Instant,
    ) -> Result<Rc<Found>, Error> {
        let hosts = &self.found[on_demand.number];
        match hosts.get(host, now) {
            Some(found) => Ok(found),
            None => hosts.find(upstream, on_demand, host, now, |upstream| self.balancers.of(upstream)),
        }
    }

    /// The position of the split's next target.
    pub(crate) fn pick_split(&self, split: usize, weights: impl Iterator<Item = u32>) -> Option<usize> {
        let turns = self.splits[split].get_or_init(|| RefCell::new(RoundRobin::new(weights, fastrand::u64(..))));
        turns.borrow_mut().pick(|_| true)
    }
}

/// One worker's balancers. They stay where they stand as long as some generation has the same endpoints.
#[derive(Debug, Default)]
struct Balancers(RefCell<HashMap<u64, Weak<RefCell<Turns>>>>);

impl Balancers {
    fn of(&self, upstream: &snapshot::Upstream) -> Rc<RefCell<Turns>> {
        let snapshot::Upstream { endpoints, balancing, .. } = upstream;
        let mut balancers = self.0.borrow_mut();
        if let Some(turns) = balancers.get(&endpoints.id).and_then(Weak::upgrade)
            && turns.borrow().is_for(balancing)
        {
            return turns;
        }
        let turns = Rc::new(RefCell::new(Turns::new(endpoints.clone(), balancing, fastrand::u64(..))));
        balancers.insert(endpoints.id, Rc::downgrade(&turns));
        turns
    }

    /// Lets go of sets that are not in force any more, also where no request comes.
    fn refresh(&self) {
        self.0.borrow_mut().retain(|_, turns| match turns.upgrade() {
            Some(turns) => {
                turns.borrow_mut().refresh();
                true
            }
            None => false,
        });
    }
}

impl Worker {
    pub(crate) fn new(
        published: Arc<ArcSwap<Snapshot>>,
        pools: Rc<Pools>,
        metrics: Rc<Shard>,
        telemetry: WorkerEnds,
        via: Pseudonym,
    ) -> Rc<Self> {
        let WorkerEnds { access_log, tracer, tap, doctor } = telemetry;
        let balancers = Rc::<Balancers>::default();
        let current = RefCell::new(Generation::new(published.load_full(), balancers.clone()));
        Rc::new(Worker {
            published,
            current,
            balancers,
            pools,
            metrics,
            access_log: RefCell::new(access_log),
            tracer,
            tap,
            doctor,
            ids: RefCell::new(Ids::new()),
            clock: Clock::new(),
            cuts: Cuts::default(),
            entries: RefCell::default(),
            via,
            in_flight: Cell::new(0),
            handshakes: Semaphore::new(HANDSHAKES),
            client_log: Throttle::new(LINES),
            mirrors: Rc::new(()),
        })
    }

    /// The generation in force. A request asks once and keeps it.
    pub(crate) fn generation(&self) -> Rc<Generation> {
        self.catch_up();
        self.current.borrow().clone()
    }

    /// Takes over what has been published, if that is new.
    pub(crate) fn catch_up(&self) {
        let published = self.published.load();
        if !Arc::ptr_eq(&published, &self.current.borrow().snapshot) {
            self.swap(Arc::clone(&published));
        }
    }

    #[cold]
    fn swap(&self, snapshot: Arc<Snapshot>) {
        let generation = Generation::new(snapshot, self.balancers.clone());
        self.entries.borrow_mut().retain(|_, entry| match entry.upgrade() {
            Some(entry) => {
                entry.follow(&generation);
                true
            }
            None => false,
        });
        // What was found goes on in the new one; the old one need not keep it for its last request.
        self.current.replace(generation).found.iter().for_each(Hosts::clear);
    }

    /// Ends what still streams by these routes and began under `generation` or an earlier one.
    pub(crate) fn cut(&self, routes: &[RouteId], generation: u64) {
        for route in routes {
            self.cuts.add(*route, generation);
        }
        for entry in self.entries.borrow().values().filter_map(Weak::upgrade) {
            entry.drain.wake();
        }
    }

    /// A generation that is no longer in force.
    pub(super) fn bygone(&self, snapshot: Arc<Snapshot>) -> Rc<Generation> {
        Generation::new(snapshot, self.balancers.clone())
    }

    pub(crate) fn entry(&self, number: u64) -> Option<Rc<Entry>> {
        self.entries.borrow().get(&number).and_then(Weak::upgrade)
    }

    pub(crate) fn add_entry(&self, number: u64, entry: &Rc<Entry>) {
        self.entries.borrow_mut().insert(number, Rc::downgrade(entry));
    }

    /// Lets go of what is not in force any more, also where no request comes. To be called now and then.
    pub(crate) fn refresh(&self) {
        self.catch_up();
        self.current.borrow().found.iter().for_each(Hosts::refresh);
        self.balancers.refresh();
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
