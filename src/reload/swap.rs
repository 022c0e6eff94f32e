//! A configuration takes the place of another: bind, compile, publish, then see off what is gone.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Refusal;
use super::removed::Removed;
use crate::config::model::{Config, LogLevel};
use crate::control::doors::Plan;
use crate::control::{Command, Control, KEEP_IDLE};
use crate::discovery::{self, Discovery};
use crate::identity::FileError;
use crate::listener::entrance::Entrance;
use crate::listener::socket::BindError;
use crate::registration;
use crate::runtime::address::BoundAddress;
use crate::runtime::drain::Phase;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::log::LogHandle;
use crate::telemetry::metrics::{Names, RouteId, ShardSnapshot};
use crate::transport::OwnAddresses;
use crate::upstream::registry::{Found, Registry};

/// How often generations that no worker uses any more are let go.
const LET_GO_EVERY: Duration = Duration::from_millis(250);
/// Between two attempts to bind an address that is free in a moment.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What generations share, and the one in force.
pub(crate) struct Stage {
    parts: Parts,
    discovery: Discovery,
    generation: Cell<u64>,
    /// What was compiled for it.
    config: Rc<RefCell<Arc<Config>>>,
    /// Those that are not in force any more and that some worker may still use. They are kept here so that the last to
    /// let go, and to give the memory back, is never a worker.
    bygone: RefCell<Vec<Arc<Snapshot>>>,
}

/// What a stage is built from.
pub(crate) struct Parts {
    pub(crate) control: Arc<Control>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) names: Arc<Names>,
    pub(crate) own: Arc<OwnAddresses>,
    /// The admin's: they are ours, and no listener's.
    pub(crate) admin: Vec<BoundAddress>,
    pub(crate) reuse_port: bool,
    /// This proxy as it is to stand in a registry.
    pub(crate) registration: watch::Sender<Option<registration::Wanted>>,
    pub(crate) log: Option<LogHandle>,
}

impl Stage {
    /// With the first generation, which is published and whose doors are open.
    pub(crate) fn new(parts: Parts, config: &Arc<Config>) -> Self {
        let snapshot = parts.control.snapshot.load_full();
        let generation = Cell::new(snapshot.generation);
        let (discovery, bygone) = (Discovery::default(), RefCell::default());
        let stage = Stage { parts, discovery, generation, config: Rc::new(RefCell::new(config.clone())), bygone };
        stage.follow_sources(config, &snapshot);
        stage.claim_addresses();
        stage
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// The one in force, and those that requests, streams and tunnels still run under.
    pub(crate) fn generations_alive(&self) -> usize {
        self.let_go();
        1 + self.bygone.borrow().len()
    }

    /// How requests have ended until now, of each worker that answers in time.
    pub(crate) async fn shards(&self) -> Vec<ShardSnapshot> {
        self.parts.control.reports().await.into_iter().map(|report| report.metrics).collect()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.parts.control.phase()
    }

    /// Binds what a swap would bind, and lets go of it again.
    pub(crate) async fn try_on(&self, config: &Config) -> Result<(), Refusal> {
        self.plan(config).await?;
        Ok(())
    }

    /// Binds. An address that one of our own doors has only just left is waited for.
    async fn plan(&self, config: &Config) -> Result<Plan, BindError> {
        loop {
            let (planned, is_closing) = {
                let doors = self.parts.control.doors();
                let workers = self.parts.control.workers.len();
                let planned = doors.plan(&config.listeners, workers, self.parts.reuse_port);
                (planned, doors.is_closing_for(&config.listeners))
            };
            match planned {
                Err(error) if is_closing && error.error.kind() == ErrorKind::AddrInUse => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                planned => return planned,
            }
        }
    }

    /// Puts `config` in force instead of `before`. On an error, nothing has changed.
    pub(crate) async fn swap(&self, before: &Arc<Config>, config: &Arc<Config>) -> Result<(), Refusal> {
        let plan = self.plan(config).await?;
        discovery::check(config).map_err(Refusal::Consul)?;
        registration::Wanted::new(config, |_| None).map_err(Refusal::Consul)?;
        let logs_elsewhere = before.telemetry.access_log != config.telemetry.access_log;
        let access_log = logs_elsewhere.then(|| AccessLog::start(&config.telemetry.access_log));
        let access_log = access_log.transpose().map_err(Refusal::AccessLog)?;
        let (snapshot, removed) = self.compile(before, config).await?;
        if self.phase() != Phase::Serving {
            // It began to end meanwhile: no door opens any more.
            return Err(Refusal::Draining);
        }
        // From here on, nothing can go wrong.
        snapshot.put_in_force(config, &self.parts.registry);
        let turned = self.parts.control.doors().turn(plan, &config.listeners, &snapshot);
        let old = self.publish(snapshot.clone());
        *self.config.borrow_mut() = config.clone();
        self.follow_sources(config, &snapshot);
        self.parts.control.open(turned.opened, &snapshot);
        self.claim_addresses();
        self.register(config);
        self.see_off(turned.closed, before.drain.timeout);
        self.cut(removed, old.generation, before.drain.timeout);
        *self.parts.control.drain.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = config.drain;
        self.set_level(config.telemetry.log.level);
        if let Some(access_log) = access_log {
            self.log_elsewhere(access_log);
        }
        Ok(())
    }

    /// Beside the thread; also which of the routes in force it would remove.
    async fn compile(&self, before: &Arc<Config>, config: &Arc<Config>) -> Result<(Arc<Snapshot>, Removed), Refusal> {
        let (before, old) = (before.clone(), self.parts.control.snapshot.load_full());
        let (config, registry, names) = (config.clone(), self.parts.registry.clone(), self.parts.names.clone());
        let generation = self.generation.get() + 1;
        let control = self.parts.control.clone();
        let compiling = tokio::task::spawn_blocking(move || {
            let snapshot = Snapshot::compile(&config, generation, &registry, &control.identities, &names)?;
            let removed = Removed::between(&old, &before, &snapshot, &config);
            Ok::<_, FileError>((Arc::new(snapshot), removed))
        });
        Ok(compiling.await.map_err(|_| Refusal::Internal)??)
    }

    /// Returns what was in force.
    fn publish(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.generation.set(snapshot.generation);
        let old = self.parts.control.snapshot.swap(snapshot);
        self.let_go();
        self.bygone.borrow_mut().push(old.clone());
        old
    }

    fn let_go(&self) {
        drop_beside(self.bygone.borrow_mut().extract_if(.., |snapshot| Arc::strong_count(snapshot) == 1));
    }

    /// Follows the sources of services that are called for the first time, for as long as the proxy runs.
    pub(crate) async fn follow_found(&self, mut found: mpsc::UnboundedReceiver<Found>) {
        while let Some(Found { source, endpoints }) = found.recv().await {
            self.discovery.start(&source, &endpoints, false);
        }
    }

    /// Lets go of old generations, and of services that nobody calls any more, for as long as the proxy runs.
    pub(crate) async fn tidy(&self) {
        let mut ticks = tokio::time::interval(LET_GO_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            self.let_go();
            for on_demand in self.parts.control.snapshot.load().on_demand() {
                on_demand.services.tidy(on_demand.rules.idle, now.into());
            }
        }
    }

    /// Follows the sources that no generation has had.
    fn follow_sources(&self, config: &Config, snapshot: &Snapshot) {
        for (upstream, compiled) in config.upstreams.iter().zip(&snapshot.upstreams) {
            self.discovery.start(&upstream.source, &compiled.endpoints, true);
        }
    }

    /// What may be wrong was found before: the environment does not change.
    fn register(&self, config: &Config) {
        let wanted = {
            let doors = self.parts.control.doors();
            let bound =
                |name: &str| doors.open().iter().find(|door| door.listener == name).map(|door| door.bound.clone());
            registration::Wanted::new(config, bound).ok().flatten()
        };
        self.parts.registration.send_if_modified(|known| {
            let changed = *known != wanted;
            *known = wanted;
            changed
        });
    }

    fn claim_addresses(&self) {
        let doors = self.parts.control.doors();
        self.parts.own.set(doors.open().iter().map(|door| &door.bound).chain(&self.parts.admin));
    }

    /// Clients of what is gone are told with their next answer; who waits with nothing to ask is closed after a while,
    /// and what is left at the end of the drain's time is cut.
    fn see_off(&self, closed: Vec<Arc<Entrance>>, timeout: Duration) {
        for entrance in &closed {
            entrance.enter(Phase::Draining);
        }
        if closed.is_empty() {
            return;
        }
        tokio::task::spawn_local(async move {
            let patience = KEEP_IDLE.min(timeout / 2);
            for (after, phase) in [(patience, Phase::ClosingIdle), (timeout - patience, Phase::Forced)] {
                tokio::time::sleep(after).await;
                for entrance in &closed {
                    entrance.enter(phase);
                }
            }
        });
    }

    /// What streams by them is cut when the drain's time is over.
    fn cut(&self, removed: Removed, generation: u64, timeout: Duration) {
        if removed.is_empty() {
            return;
        }
        let (control, config) = (self.parts.control.clone(), self.config.clone());
        tokio::task::spawn_local(async move {
            tokio::time::sleep(timeout).await;
            let routes: Arc<[RouteId]> = removed.under(&control.snapshot.load(), &config.borrow()).into();
            if routes.is_empty() {
                return;
            }
            control.each_worker(|| Command::Cut { routes: routes.clone(), generation });
        });
    }

    fn set_level(&self, level: LogLevel) {
        if let Some(log) = &self.parts.log {
            log.set_level(level);
        }
    }

    /// Lines go to the new target; those that workers still hold go to the old one first.
    fn log_elsewhere(&self, access_log: AccessLog) {
        self.parts.control.each_worker(|| Command::Log(access_log.worker()));
        let mut held = self.parts.control.access_log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let old = held.replace(access_log);
        drop(held);
        let control = self.parts.control.clone();
        tokio::task::spawn_local(async move {
            // Every worker that answers has passed on what it held.
            control.reports().await;
            drop(old);
        });
    }
}

/// Gives the memory of what may be large back without the thread's waiting for it.
pub(super) fn drop_beside<T: Send + 'static>(unused: impl IntoIterator<Item = T>) {
    let unused: Vec<T> = unused.into_iter().collect();
    if !unused.is_empty() {
        tokio::task::spawn_blocking(move || drop(unused));
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("generation", &self.generation).finish_non_exhaustive()
    }
}
