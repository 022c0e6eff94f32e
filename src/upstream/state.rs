//! What the proxy remembers of upstreams and endpoints, whatever the configuration says meanwhile.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::breaker::Breaker;
use super::budget::Budget;
use super::ejection::{Causes, Ejection};
use super::health::Health;
use super::latency::Latency;
use super::limit::Limit;
use super::moment::{Moment, micros};
use super::quantile::Latencies;
use super::standing::{Objection, Standing};
use super::window::Window;
use crate::config::model::{EndpointAddress, UpstreamLimits, UpstreamProtocol};

/// What an endpoint gets of its share when its slow start begins. Envoy's 10 %.
const LEAST_WARMTH: f64 = 0.1;
/// What a failed attempt counts as at least: the time that a connection may take, by default.
const FAILURE_TAKES: Duration = Duration::from_secs(1);
/// Checks of an upstream under way at a time; beyond, they wait for each other. A check is a connection.
const CHECKS_AT_ONCE: usize = 64;

/// An upstream's memory, kept under its name.
#[derive(Debug)]
pub(crate) struct UpstreamState {
    pub(crate) name: Arc<str>,
    /// Open connections.
    pub(crate) connections: Arc<Limit>,
    /// Requests in flight.
    pub(crate) requests: Arc<Limit>,
    /// Requests that wait for a connection.
    pub(crate) waiting: Arc<Limit>,
    /// Requests in flight that have been sent again.
    pub(crate) retries: Arc<Limit>,
    /// How many more may be.
    pub(crate) budget: Budget,
    /// How long its answers take; kept only where a hedge asks for it.
    pub(crate) latencies: Latencies,
    pub(crate) breaker: Arc<Breaker>,
    /// Checks that have passed, and that have failed.
    pub(crate) checks: (AtomicU64, AtomicU64),
    /// Room for those under way. One for all upstreams would let one that is silent delay the others' checks.
    pub(crate) checking: Semaphore,
    /// A new endpoint is down until its first check has passed.
    initially_down: AtomicBool,
    pub(crate) ejections: Causes,
    /// Somebody decides whether an endpoint is ejected.
    pub(super) ejecting: AtomicBool,
    /// When success rates were last compared.
    compared: AtomicU64,
    /// Rises with every change of an endpoint's standing.
    pub(super) changes: AtomicU64,
    /// Microseconds over which a new endpoint's share grows; 0: it has it at once.
    slow_start: AtomicU64,
    known: Mutex<Known>,
}

/// Endpoints by their addresses.
#[derive(Debug, Default)]
struct Known {
    endpoints: HashMap<EndpointAddress, Weak<EndpointState>>,
    /// There has been a set before: what is new from now on is new.
    settled: bool,
}

/// An endpoint's memory, kept under its upstream and address.
#[derive(Debug)]
pub(crate) struct EndpointState {
    /// Never used twice: keys of pools.
    pub(crate) id: u64,
    pub(crate) address: EndpointAddress,
    /// The address as logs show it.
    pub(crate) label: Arc<str>,
    /// What speaks against it.
    pub(super) standing: Standing,
    /// How long it takes.
    pub(crate) latency: Latency,
    /// What its checks came to.
    pub(crate) health: Health,
    /// What its attempts came to.
    pub(crate) ejection: Ejection,
    /// Failed requests that do not count for the breaker yet.
    pub(super) held: AtomicU16,
    /// What the breaker has counted of it that was bad.
    pub(super) counted: Window,
    /// Since when its share grows, and over how many microseconds.
    warming: (AtomicU64, AtomicU64),
    in_flight: AtomicU32,
    requests: AtomicU64,
    failures: AtomicU64,
    /// What the source of the endpoint says that it speaks: 1 is HTTP/1.1, 2 is HTTP/2, 0 is nothing said.
    protocol: AtomicU8,
}

impl EndpointState {
    fn new(address: EndpointAddress) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        EndpointState {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            label: address.to_string().into(),
            address,
            standing: Standing::default(),
            latency: Latency::default(),
            health: Health::default(),
            ejection: Ejection::default(),
            held: AtomicU16::new(0),
            counted: Window::default(),
            warming: (AtomicU64::new(0), AtomicU64::new(0)),
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            protocol: AtomicU8::new(0),
        }
    }

    /// Counts an attempt for as long as the guard lives.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Every state that it can be in.
    pub(crate) const WORDS: [&'static str; 4] = ["ready", "warming", "ejected", "down"];

    /// The state that it is in, for people.
    pub(crate) fn word(&self) -> &'static str {
        match () {
            () if self.standing.has(Objection::Down) => "down",
            () if self.standing.has(Objection::Ejected) => "ejected",
            () if self.standing.has(Objection::Warming) => "warming",
            () => "ready",
        }
    }

    /// True where nothing but its being new speaks against it.
    pub(crate) fn is_available(&self) -> bool {
        !self.standing.has(Objection::Down) && !self.standing.has(Objection::Ejected)
    }

    /// True where it is ejected, or would be.
    pub(super) fn is_out(&self) -> bool {
        self.standing.has(Objection::Ejected) || self.standing.has(Objection::Shadowed)
    }

    /// From now on its share grows to what is due.
    pub(super) fn warm_up(&self, over: Duration, now: Moment) {
        self.warming.0.store(now.micros(), Relaxed);
        self.warming.1.store(micros(over), Relaxed);
        self.standing.raise(Objection::Warming);
    }

    /// The part of its share that it gets. Once that is all of it, nothing speaks against it any more.
    pub(super) fn warmth(&self, now: Moment) -> f64 {
        let passed = now.since(Moment::from_micros(self.warming.0.load(Relaxed)));
        let warmth = micros(passed) as f64 / self.warming.1.load(Relaxed) as f64;
        if warmth >= 1.0 {
            self.standing.drop(Objection::Warming);
        }
        warmth.max(LEAST_WARMTH)
    }

    /// An attempt has ended after so long. One that failed tells nothing of how long answers take, but must not look
    /// quick.
    pub(super) fn observe(&self, took: Duration, failed: bool, now: Moment) {
        self.latency.observe(if failed { took.max(FAILURE_TAKES) } else { took }, now);
    }

    /// An attempt was given up while it was still out: it would have taken longer than this.
    pub(crate) fn observe_at_least(&self, took: Duration, now: Moment) {
        if self.latency.last().is_none_or(|average| took > average) {
            self.latency.observe(took, now);
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What its source says that it speaks; [`UpstreamProtocol::Auto`] where it says nothing.
    pub(crate) fn protocol(&self) -> UpstreamProtocol {
        match self.protocol.load(Ordering::Relaxed) {
            1 => UpstreamProtocol::Http1,
            2 => UpstreamProtocol::Http2,
            _ => UpstreamProtocol::Auto,
        }
    }

    pub(super) fn speaks(&self, protocol: Option<UpstreamProtocol>) {
        let number = match protocol {
            None | Some(UpstreamProtocol::Auto) => 0,
            Some(UpstreamProtocol::Http1) => 1,
            Some(UpstreamProtocol::Http2) => 2,
        };
        self.protocol.store(number, Ordering::Relaxed);
    }

    /// Attempts since the endpoint is known.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Attempts that got no answer, or one that is a failure.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// An attempt in flight.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<EndpointState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl UpstreamState {
    pub(crate) fn new(name: &str, limits: UpstreamLimits) -> Self {
        UpstreamState {
            name: name.into(),
            connections: Limit::new(limits.connections),
            requests: Limit::new(limits.requests),
            waiting: Limit::new(limits.waiting),
            breaker: Arc::default(),
            checks: (AtomicU64::new(0), AtomicU64::new(0)),
            checking: Semaphore::new(CHECKS_AT_ONCE),
            initially_down: AtomicBool::new(false),
            ejections: Causes::default(),
            ejecting: AtomicBool::new(false),
            compared: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            slow_start: AtomicU64::new(0),
            retries: Limit::new(limits.retries),
            budget: Budget::new(Instant::now()),
            latencies: Latencies::default(),
            known: Mutex::default(),
        }
    }

    /// New bounds; what exists above them stays until it ends by itself.
    pub(super) fn set_limits(&self, limits: UpstreamLimits) {
        self.connections.set_max(limits.connections);
        self.requests.set_max(limits.requests);
        self.waiting.set_max(limits.waiting);
        self.retries.set_max(limits.retries);
    }

    /// What new endpoints are until their first check has ended. Gives what they were before.
    pub(super) fn set_initially_down(&self, down: bool) -> bool {
        self.initially_down.swap(down, Relaxed)
    }

    /// From now on this speaks against the endpoint. True where it did not before.
    pub(super) fn raise(&self, endpoint: &EndpointState, objection: Objection) -> bool {
        let is_new = endpoint.standing.raise(objection);
        if is_new {
            self.changes.fetch_add(1, Release);
        }
        is_new
    }

    /// This speaks against it no longer. True where it did.
    pub(super) fn drop(&self, endpoint: &EndpointState, objection: Objection) -> bool {
        let did = endpoint.standing.drop(objection);
        if did {
            self.changes.fetch_add(1, Release);
        }
        did
    }

    pub(super) fn compared(&self) -> Moment {
        Moment::from_micros(self.compared.load(Relaxed))
    }

    pub(super) fn set_compared(&self, now: Moment) {
        self.compared.store(now.micros(), Relaxed);
    }

    /// Over how long the share of endpoints grows that are new from now on.
    pub(super) fn set_slow_start(&self, over: Option<Duration>) {
        self.slow_start.store(over.map_or(0, micros), Relaxed);
    }

    /// The memory of one endpoint, new where there is none.
    pub(crate) fn endpoint(&self, address: &EndpointAddress, now: Moment) -> Option<Arc<EndpointState>> {
        self.endpoints(std::iter::once(address), now).pop()
    }

    pub(super) fn slow_start(&self) -> Option<Duration> {
        Some(self.slow_start.load(Relaxed)).filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// The memory of each of these endpoints, new where there is none.
    pub(super) fn endpoints<'a>(
        &self,
        addresses: impl Iterator<Item = &'a EndpointAddress>,
        now: Moment,
    ) -> Vec<Arc<EndpointState>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let slow_start = Some(self.slow_start.load(Relaxed)).filter(|micros| *micros > 0 && known.settled);
        known.settled = true;
        known.endpoints.retain(|_, state| state.strong_count() > 0);
        let remembered = addresses.map(|address| {
            if let Some(state) = known.endpoints.get(address).and_then(Weak::upgrade) {
                return state;
            }
            let state = Arc::new(EndpointState::new(address.clone()));
            if self.initially_down.load(Relaxed) {
                state.standing.raise(Objection::Down);
            } else if let Some(slow_start) = slow_start {
                state.warm_up(Duration::from_micros(slow_start), now);
            }
            known.endpoints.insert(address.clone(), Arc::downgrade(&state));
            state
        });
        remembered.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_lasts_as_long_as_somebody_uses_it() {
        let upstream = UpstreamState::new("a", UpstreamLimits { connections: 1, requests: 1, waiting: 1, retries: 1 });
        let address = EndpointAddress::Tcp("127.0.0.1:1".parse().unwrap());
        let endpoint = || upstream.endpoints([&address].into_iter(), Moment::from_micros(1)).remove(0);
        let first = endpoint();
        let running = first.begin();
        assert_eq!(endpoint().in_flight(), 1);
        let id = first.id;
        drop((first, running));
        assert_ne!(endpoint().id, id);
    }
}
