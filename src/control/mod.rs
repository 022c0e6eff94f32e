//! The control side's view of the workers: what it asks of them, what they report, and how the proxy ends.

pub(crate) mod doors;
mod facts;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use socket2::Socket;
use tokio::sync::{mpsc, oneshot, watch};

use self::doors::Doors;
use self::facts::Together;
use crate::config::model::{Direction, Drain};
use crate::identity;
use crate::listener::StreamIn;
use crate::listener::entrance::Entrance;
use crate::runtime::drain::Phase;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::{AccessLog, WorkerLog};
use crate::telemetry::doctor::Doctor;
use crate::telemetry::metrics::{CertificateEnd, ConfigFacts, Exporter, Gathered, RouteId, Scrape, ShardSnapshot};
use crate::telemetry::traces::TraceCounts;
use crate::transport::PoolCounts;

/// A worker that answers no question for this long is left out of a scrape; its last numbers stand in for it.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// A worker whose loop has not turned for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// Between two looks at what is still in flight while the proxy drains.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Closing listeners take in who is at the door for 100 ms; after this, they have.
const LAST_CALL_OVER: Duration = Duration::from_millis(150);
/// Registries get a little less to take this proxy out.
const OUT_OF_REGISTRIES: Duration = Duration::from_millis(2_500);
/// For the last answers to reach the kernel after time is up.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// A client's idle connection is kept for this long after the drain began, so that a request which is on its way is
/// answered (with `Connection: close`) instead of meeting a closed connection.
pub(crate) const KEEP_IDLE: Duration = Duration::from_secs(3);

/// What the control side asks of a worker.
pub(crate) enum Command {
    /// Serve a connection that another worker has accepted.
    Serve(StreamIn),
    Report(oneshot::Sender<Report>),
    /// Accept here from now on.
    Open {
        entrance: Arc<Entrance>,
        socket: Socket,
        /// That has the entrance's listener.
        snapshot: Arc<Snapshot>,
    },
    /// End what still streams by these routes and began under this generation or an earlier one.
    Cut {
        routes: Arc<[RouteId]>,
        generation: u64,
    },
    /// Write access log lines here from now on.
    Log(WorkerLog),
    /// Let go of everything and end.
    Stop,
}

/// How a worker stands.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) metrics: ShardSnapshot,
    /// Requests that have begun and not ended.
    pub(crate) in_flight: usize,
    pub(crate) pools: HashMap<Arc<str>, PoolCounts>,
}

/// The control side's end of a worker.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) heartbeat: Arc<Heartbeat>,
}

/// When a worker's loop turned last.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    started: Instant,
    millis: AtomicU64,
}

impl Heartbeat {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Heartbeat { started: Instant::now(), millis: AtomicU64::new(0) })
    }

    pub(crate) fn beat(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.millis.load(Ordering::Relaxed)))
    }
}

/// How the proxy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every request was answered.
    Drained,
    /// Requests were cut because time was up, or because of a second signal.
    Forced,
}

/// What a drain has still to wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// It waits no longer.
    pub(crate) over: bool,
    /// Every worker has answered; else the numbers are too small.
    pub(crate) whole: bool,
    /// Open connections of clients to inbound listeners.
    pub(crate) inbound_connections: usize,
    /// Requests to inbound listeners that have begun and not ended.
    pub(crate) inbound_requests: u64,
    /// The same of all listeners.
    pub(crate) in_flight: usize,
}

impl Standing {
    /// Nothing is in flight.
    fn is_at_rest(&self) -> bool {
        self.whole && self.in_flight == 0
    }
}

/// What the control side holds.
pub(crate) struct Control {
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) identities: Arc<identity::Store>,
    pub(crate) exporter: Exporter,
    pub(crate) doors: Mutex<Doors>,
    pub(crate) access_log: Mutex<Option<AccessLog>>,
    pub(crate) trace_counts: TraceCounts,
    pub(crate) doctor: Arc<Doctor>,
    pub(crate) phase: watch::Sender<Phase>,
    /// True once every source of endpoints has answered, or was waited for long enough.
    pub(crate) discovered: watch::Sender<bool>,
    /// The service in the registry that is another process' from now on.
    pub(crate) registered_elsewhere: Mutex<Option<String>>,
    /// Why it does not stand in its registry as it should.
    pub(crate) registration_failure: Mutex<Option<String>>,
    /// True while this proxy is registered somewhere, or may be.
    pub(crate) registered: watch::Sender<bool>,
    /// True once the drain of inbound is over, successful or not.
    pub(crate) inbound_drained: watch::Sender<bool>,
    pub(crate) drain: Mutex<Drain>,
}

impl Control {
    /// The doors. Never held across an `await`.
    pub(crate) fn doors(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the proxy is to be drained.
    pub(crate) fn drain(&self) -> Drain {
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the workers stand at new doors. What came there since they were bound has waited in the kernel.
    pub(crate) fn open(&self, opened: Vec<doors::Opened>, snapshot: &Arc<Snapshot>) {
        for doors::Opened { entrance, sockets } in opened {
            // There may be more than workers, of an earlier process that had more.
            for (socket, worker) in sockets.into_iter().zip(self.workers.iter().cycle()) {
                let (entrance, snapshot) = (entrance.clone(), snapshot.clone());
                let _ = worker.commands.send(Command::Open { entrance, socket, snapshot });
            }
        }
    }

    /// Asks something of every worker.
    pub(crate) fn each_worker(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            let _ = worker.commands.send(command());
        }
    }

    /// True from the end of the start until a drain is announced.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase() == Phase::Serving && *self.discovered.borrow()
    }

    /// The start is over when every source of endpoints has answered for the first time, or after this long: two
    /// services that need each other both become ready, and one that is misspelt keeps nobody out.
    pub(crate) async fn discover(&self, wait: Duration) {
        let upstreams = self.snapshot.load_full();
        let deadline = tokio::time::Instant::now() + wait;
        for upstream in upstreams.upstreams.iter().filter(|upstream| upstream.is_discovered) {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if !upstream.endpoints.answered_within(Some(left)).await {
                tracing::warn!(upstream = &*upstream.state.name, "ready without having heard of its endpoints");
            }
        }
        self.discovered.send_replace(true);
    }

    /// How far the end has come, in one word.
    pub(crate) fn phase_name(&self) -> &'static str {
        match self.phase() {
            Phase::Serving if !*self.discovered.borrow() => "starting",
            Phase::Serving => "serving",
            Phase::Forced => "ending",
            _ if *self.inbound_drained.borrow() => "drained",
            Phase::Announced | Phase::Draining | Phase::ClosingIdle => "draining",
        }
    }

    /// Returns when the drain of inbound is over: nothing is left there, its time is, or the proxy ends.
    pub(crate) async fn drain_over(&self) {
        let (mut over, mut phase) = (self.inbound_drained.subscribe(), self.phase.subscribe());
        tokio::select! {
            _ = over.wait_for(|over| *over) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Forced) => {}
        }
    }

    /// What a drain has still to wait for.
    pub(crate) async fn standing(&self) -> Standing {
        let reports = self.reports().await;
        let snapshot = self.snapshot.load();
        let inbound = snapshot.listeners.iter().filter(|listener| listener.direction == Direction::Inbound);
        let requests = |report: &Report| -> u64 {
            inbound.clone().map(|listener| report.metrics.requests_in_flight(listener.id)).sum()
        };
        Standing {
            whole: reports.len() == self.workers.len(),
            over: *self.inbound_drained.borrow() || self.phase() == Phase::Forced,
            inbound_connections: self.connections(Direction::Inbound),
            inbound_requests: reports.iter().map(requests).sum(),
            in_flight: reports.iter().map(|report| report.in_flight).sum(),
        }
    }

    fn connections(&self, direction: Direction) -> usize {
        let doors = self.doors();
        let mut limits: Vec<_> = doors.entrances(direction).map(|entrance| &entrance.connections).collect();
        // A listener whose address has changed has two doors and one limit.
        limits.sort_by_key(|limit| Arc::as_ptr(limit));
        limits.dedup_by(|one, other| Arc::ptr_eq(one, other));
        limits.iter().map(|limit| limit.used() as usize).sum()
    }

    pub(crate) fn access_log_lines_dropped(&self) -> u64 {
        let log = self.access_log.lock().unwrap_or_else(PoisonError::into_inner);
        log.as_ref().map_or(0, AccessLog::dropped)
    }

    /// The text of a scrape, as OpenMetrics or in the older form.
    ///
    /// # Errors
    /// See [`Exporter::render`].
    pub(crate) async fn scrape(&self, config: ConfigFacts, open_metrics: bool) -> prometheus::Result<String> {
        let facts = self.facts(config).await;
        if open_metrics { Ok(self.exporter.render_open_metrics(facts)) } else { self.exporter.render(facts) }
    }

    /// All metrics, for a collector.
    pub(crate) async fn gather(&self, config: ConfigFacts) -> Gathered {
        self.exporter.gather(self.facts(config).await)
    }

    async fn facts(&self, config: ConfigFacts) -> Scrape {
        let reports = self.reports().await;
        let pools = sum_pools(&reports);
        let shards = reports.into_iter().map(|report| report.metrics).collect();
        let snapshot = self.snapshot.load_full();
        let (upstreams, now) = (Together::all(&snapshot), tokio::time::Instant::now());
        Scrape {
            shards,
            endpoints: upstreams.iter().flat_map(Together::endpoints).collect(),
            upstreams: upstreams.iter().map(|upstream| upstream.facts(&pools, now)).collect(),
            discoveries: upstreams.iter().filter_map(Together::discovery).collect(),
            concurrency: facts::concurrency(&snapshot),
            config: Some(config),
            certificates: self
                .identities
                .expiries()
                .into_iter()
                .map(|expiry| CertificateEnd { file: expiry.file.display().to_string(), not_after: expiry.not_after })
                .collect(),
            access_log_lines_dropped: self.access_log_lines_dropped(),
            spans: self.trace_counts.now(),
            calls_without_trace: self.doctor.calls_without_trace(),
        }
    }

    /// What each worker that answers in time says.
    pub(crate) async fn reports(&self) -> Vec<Report> {
        let mut answers = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (sender, answer) = oneshot::channel();
            if worker.commands.send(Command::Report(sender)).is_ok() {
                answers.push(answer);
            }
        }
        let deadline = tokio::time::Instant::now() + ANSWER_WITHIN;
        let mut reports = Vec::with_capacity(answers.len());
        for answer in answers {
            if let Ok(Ok(report)) = tokio::time::timeout_at(deadline, answer).await {
                reports.push(report);
            }
        }
        reports
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Workers that are stuck, by number.
    pub(crate) fn stuck_workers(&self) -> Vec<usize> {
        let workers = self.workers.iter().enumerate();
        workers.filter(|(_, worker)| worker.heartbeat.age() > STUCK_AFTER).map(|(index, _)| index).collect()
    }

    /// Unready from now on, and nothing else yet.
    pub(crate) fn announce(&self) {
        self.enter(Phase::Announced);
    }

    /// Returns when this proxy stands in no registry any more, or cannot be taken out.
    pub(crate) async fn out_of_registries(&self) {
        let mut registered = self.registered.subscribe();
        let out = registered.wait_for(|registered| !*registered);
        let _ = tokio::time::timeout(OUT_OF_REGISTRIES, out).await;
    }

    /// Inbound listeners take nothing new, and their connections end with the request that they are at. Returns when
    /// no inbound connection is left, nor (where `outbound_too`) any request in flight, or `timeout` is over: then
    /// false if requests are left.
    pub(crate) async fn drain_inbound(&self, timeout: Duration, outbound_too: bool) -> bool {
        self.drain_listeners(&[Direction::Inbound], timeout, outbound_too).await
    }

    /// The same of all listeners, whose sockets are another process' now.
    pub(crate) async fn drain_all(&self, timeout: Duration) -> bool {
        self.drain_listeners(&[Direction::Inbound, Direction::Outbound], timeout, true).await
    }

    async fn drain_listeners(&self, directions: &[Direction], timeout: Duration, outbound_too: bool) -> bool {
        let enter = |phase| {
            self.enter(phase);
            for direction in directions {
                self.doors().enter(*direction, phase);
            }
        };
        for direction in directions {
            self.close(*direction);
        }
        enter(Phase::Draining);
        let began = Instant::now();
        let drained = loop {
            let left = self.standing().await;
            let connections: usize = directions.iter().map(|direction| self.connections(*direction)).sum();
            // Who was at the door is let in before the proxy may be done.
            let door_closed = began.elapsed() >= LAST_CALL_OVER;
            if door_closed && left.whole && connections == 0 && (left.in_flight == 0 || !outbound_too) {
                break true;
            }
            if began.elapsed() >= timeout {
                break left.whole && if outbound_too { left.in_flight == 0 } else { left.inbound_requests == 0 };
            }
            if began.elapsed() >= KEEP_IDLE.min(timeout / 2) {
                enter(Phase::ClosingIdle);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        self.inbound_drained.send_replace(true);
        drained
    }

    /// Ends the proxy: what is left after the drain is cut.
    pub(crate) async fn end(&self, drained: bool) -> Ending {
        self.close(Direction::Inbound);
        self.close(Direction::Outbound);
        let mut drained = drained;
        if drained {
            // The app's last connections are taken in, too, and what they ask is answered.
            tokio::time::sleep(LAST_CALL_OVER).await;
            let began = Instant::now();
            while drained && !self.standing().await.is_at_rest() {
                drained = began.elapsed() < self.drain().timeout;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        self.enter(Phase::Forced);
        if !drained {
            tokio::time::sleep(LAST_WORDS).await;
        }
        // What they have counted outlives them, for those that metrics are sent to.
        self.exporter.keep(self.reports().await.into_iter().map(|report| report.metrics));
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Stop);
        }
        if drained { Ending::Drained } else { Ending::Forced }
    }

    /// Takes nothing new in any more.
    fn close(&self, direction: Direction) {
        let mut doors = self.doors();
        doors.close(direction);
        doors.enter(direction, Phase::Draining);
    }

    fn enter(&self, phase: Phase) {
        let moved = self.phase.send_if_modified(|current| {
            let forward = phase > *current;
            *current = phase.max(*current);
            forward
        });
        match phase {
            _ if !moved => {}
            Phase::Serving | Phase::Announced => {}
            Phase::Draining | Phase::ClosingIdle => self.doors().enter(Direction::Inbound, phase),
            Phase::Forced => {
                for direction in [Direction::Inbound, Direction::Outbound] {
                    self.doors().enter(direction, phase);
                }
            }
        }
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

/// Connections to endpoints by upstream, all workers together.
pub(crate) fn sum_pools(reports: &[Report]) -> HashMap<Arc<str>, PoolCounts> {
    let mut sums: HashMap<Arc<str>, PoolCounts> = HashMap::new();
    for (upstream, counts) in reports.iter().flat_map(|report| &report.pools) {
        let sum = sums.entry(upstream.clone()).or_default();
        sum.idle += counts.idle;
        sum.http2 += counts.http2;
    }
    sums
}
