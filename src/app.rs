//! The composition root: a configuration in, a running proxy out. Everything is built here, in order, and passed on by
//! name.
//!
//! A program that embeds the proxy loads a configuration ([`crate::config::load`]), starts it ([`Builder::start`]),
//! asks where it listens ([`Running::listeners`]), and ends it from any thread ([`Running::handle`]). The proxy brings
//! its own threads; it neither needs nor touches a tokio runtime of the program's.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use socket2::Socket;
use tokio::sync::{mpsc, watch};
use tower::{Layer, Service};

use crate::admin;
use crate::body::Body;
use crate::config::model::{Config, Direction, Workers};
pub use crate::control::Ending;
use crate::control::{Command, Control, Heartbeat, InForce, Report, WorkerHandle};
use crate::discovery;
use crate::identity;
use crate::listener::socket;
use crate::listener::{Door, LayerFn, Loads, Proxy, StreamIn, listen, take_over};
use crate::proxy::via::Pseudonym;
use crate::proxy::worker::Worker;
use crate::registration;
use crate::runtime::address::BoundAddress;
use crate::runtime::drain::Phase;
use crate::runtime::worker;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::{AccessLog, WorkerLog};
use crate::telemetry::metrics::{Exporter, ListenerId, Names, Shard};
use crate::transport::{OwnAddresses, Pools};
use crate::upstream::limit::Limit;
use crate::upstream::registry::Registry;

/// How often a worker tidies up: log lines go out, its heart beats.
const TICK: Duration = Duration::from_millis(250);
/// How often it looks through idle connections.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// For the access log's last lines to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener, or the admin or metrics address, could not be bound.
    #[error("cannot listen on {address} for {what}: {error}{}", hint(.error))]
    Bind {
        /// `listener inbound`, `admin`, `metrics`.
        what: String,
        /// As configured.
        address: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The access log's file could not be opened.
    #[error("cannot open the access log: {0}")]
    AccessLog(io::Error),
    /// The admin's token could not be read.
    #[error("cannot read the admin token {path}: {error}", path = .path.display())]
    Token {
        /// `admin.token_file`
        path: PathBuf,
        /// What the file system said.
        error: io::Error,
    },
    /// A certificate, key or bundle of authorities cannot be used.
    #[error(transparent)]
    Identity(#[from] identity::FileError),
    /// What the environment says of Consul cannot be used.
    #[error("{0}")]
    Consul(String),
    /// A thread or runtime could not be made.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The metrics registry refused a collector.
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has it (find it with `ss -ltnp`, or share the port with --reuse-port)"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// A proxy that is about to start.
pub struct Builder {
    config: Config,
    in_force: InForce,
    layers: Option<LayerFn>,
    reuse_port: bool,
}

impl Builder {
    /// A proxy with this configuration. `source` says where it comes from, for people.
    pub fn new(config: Config, source: impl Into<String>) -> Self {
        let in_force = InForce { source: source.into(), hash: String::new(), effective: String::new() };
        Builder { config, in_force, layers: None, reuse_port: false }
    }

    /// What `GET /config` shows, and the hash that metrics carry.
    #[must_use]
    pub fn shown_as(mut self, effective: String, hash: String) -> Self {
        self.in_force.effective = effective;
        self.in_force.hash = hash;
        self
    }

    /// Puts a layer of your own around the proxy, at the edge: it sees each request before routing and each response
    /// after everything else. Several layers are one [`tower::ServiceBuilder`]; a second call replaces the first.
    ///
    /// Each connection gets a service of its own from the layer, on the worker that serves it; each request a clone of
    /// that. Bodies and futures stay on their worker, so they need not be `Send`. What a layer answers by itself does
    /// not appear in the proxy's metrics and access log. `examples/edge_layer.rs` has one from top to bottom.
    #[must_use]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Proxy> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    {
        self.layers = Some(Arc::new(move |proxy| Box::new(layer.layer(proxy))));
        self
    }

    /// Lets another process of the same user listen on the same addresses, so that one can take over from the other.
    #[must_use]
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// Binds every address and starts the threads. When this returns, connections are accepted.
    ///
    /// # Errors
    /// When an address, file or thread cannot be had. Nothing is left running then.
    pub fn start(self) -> Result<Running, StartError> {
        let Builder { config, in_force, layers, reuse_port } = self;
        let count = match config.workers {
            Workers::Auto => worker::cpus(),
            Workers::Count(count) => count.get(),
        };
        let mut bound = Vec::new();
        let mut own = OwnAddresses::default();
        for listener in &config.listeners {
            let sockets = socket::bind(&listener.address, count, reuse_port).map_err(|error| StartError::Bind {
                what: format!("listener {}", listener.name),
                address: listener.address.to_string(),
                error,
            })?;
            own.add(&sockets.address);
            bound.push(sockets);
        }
        let admin = admin::bind(&config)?;
        for address in admin.addresses() {
            own.add(&address);
        }

        discovery::check(&config).map_err(StartError::Consul)?;
        let addresses: Vec<_> = bound.iter().map(|bound| bound.address.clone()).collect();
        let registration = registration::Wanted::new(&config, &addresses).map_err(StartError::Consul)?;

        let names = Arc::new(Names::new());
        let registry = Registry::default();
        let identities = identity::Store::default();
        let snapshot = Snapshot::compile(&config, 1, &registry, &identities, &names)?;
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let access_log = AccessLog::start(&config.telemetry.access_log).map_err(StartError::AccessLog)?;
        let closing = (watch::Sender::new(false), watch::Sender::new(false));

        let loads: Loads = (0..count).map(|_| AtomicUsize::new(0)).collect();
        let channels: Vec<_> = (0..count).map(|_| mpsc::unbounded_channel()).collect();
        let senders: Vec<mpsc::UnboundedSender<Command>> = channels.iter().map(|(sender, _)| sender.clone()).collect();
        let listeners: Vec<_> = bound.iter().map(|bound| bound.address.clone()).collect();
        let mut entrances = spread(&config, &snapshot.load(), bound, count, &closing);
        let own = Arc::new(own);
        let mut threads = Vec::with_capacity(count);
        let mut handles = Vec::with_capacity(count);
        for (index, (sender, commands)) in channels.into_iter().enumerate() {
            let heartbeat = Heartbeat::new();
            handles.push(WorkerHandle { commands: sender, heartbeat: heartbeat.clone() });
            let duty = Duty {
                index,
                commands,
                heartbeat,
                entrances: std::mem::take(&mut entrances[index]),
                peers: senders.clone(),
                loads: loads.clone(),
                snapshot: snapshot.clone(),
                own: own.clone(),
                access_log: access_log.worker(),
                layers: layers.clone(),
            };
            threads.push(worker::start(format!("worker-{index}"), move || duty.run()).map_err(StartError::Thread)?);
        }
        let control = Arc::new(Control {
            workers: handles,
            snapshot,
            identities,
            exporter: Exporter::new(names)?,
            in_force,
            access_log: std::sync::Mutex::new(Some(access_log)),
            phase: watch::Sender::new(Phase::Serving),
            discovered: watch::Sender::new(false),
            registered: watch::Sender::new(false),
            inbound_drained: watch::Sender::new(false),
            closing,
            drain: config.drain,
        });
        let addresses = config.listeners.iter().map(|listener| listener.name.clone()).zip(listeners).collect();
        let admin_addresses = (admin.admin_address(), admin.metrics_address());
        let (wishes, wished) = mpsc::unbounded_channel();
        let (done, ended) = std::sync::mpsc::channel();
        let thread = worker::start("control".to_owned(), {
            let (control, wishes) = (control.clone(), wishes.clone());
            move || async move {
                for (upstream, compiled) in config.upstreams.iter().zip(&control.snapshot.load().upstreams) {
                    discovery::start(upstream, &compiled.endpoints);
                }
                tokio::task::spawn_local({
                    let control = control.clone();
                    async move { control.identities.keep_current().await }
                });
                tokio::task::spawn_local({
                    let control = control.clone();
                    async move { control.discover(config.wait_for_discovery).await }
                });
                if let Some(wanted) = registration {
                    let control = control.clone();
                    tokio::task::spawn_local(async move { registration::keep(wanted, &control).await });
                }
                let admin = admin.serve(control.clone(), Handle { wishes });
                let ending = conduct(&control, wished).await;
                admin.finish().await;
                let _ = done.send(ending);
            }
        })
        .map_err(StartError::Thread)?;
        threads.push(thread);
        Ok(Running { addresses, admin_addresses, handle: Handle { wishes }, control, threads, ended })
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("source", &self.in_force.source).finish_non_exhaustive()
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<(String, BoundAddress)>,
    admin_addresses: (Option<BoundAddress>, Option<BoundAddress>),
    handle: Handle,
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
    ended: std::sync::mpsc::Receiver<Ending>,
}

impl Running {
    /// Each listener's name and the address that it really has.
    pub fn listeners(&self) -> &[(String, BoundAddress)] {
        &self.addresses
    }

    /// The admin's address, where it has one.
    pub fn admin(&self) -> Option<&BoundAddress> {
        self.admin_addresses.0.as_ref()
    }

    /// The address of metrics and probes, where it has one.
    pub fn metrics(&self) -> Option<&BoundAddress> {
        self.admin_addresses.1.as_ref()
    }

    /// For whoever decides that it ends.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Blocks until the proxy has ended.
    pub fn wait(self) -> Ending {
        let ending = self.ended.recv().unwrap_or(Ending::Forced);
        for thread in self.threads {
            let _ = thread.join();
        }
        let log = self.control.access_log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(log) = log {
            log.shutdown(LAST_LINES);
        }
        for (_, address) in &self.addresses {
            if let BoundAddress::Unix(path) = address {
                let _ = std::fs::remove_file(path);
            }
        }
        ending
    }
}

/// What is wished of a running proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Unready, then inbound drained; the proxy stays.
    Drain,
    /// Drained and ended.
    End { delay: bool },
    /// Ended now.
    EndNow,
}

/// Ends a running proxy, from anywhere.
#[derive(Debug, Clone)]
pub struct Handle {
    wishes: mpsc::UnboundedSender<Wish>,
}

impl Handle {
    /// Unready from now on; after `drain.delay` inbound requests are let finish and no new ones taken. Outbound goes on
    /// until the proxy is ended, for the app beside it is still at work.
    pub fn drain(&self) {
        let _ = self.wishes.send(Wish::Drain);
    }

    /// Drains and ends: what SIGTERM does. The second time, ends at once.
    pub fn end(&self) {
        let _ = self.wishes.send(Wish::End { delay: true });
    }

    /// The same without `drain.delay`: what Ctrl-C does.
    pub fn end_soon(&self) {
        let _ = self.wishes.send(Wish::End { delay: false });
    }

    /// Ends at once; what is in flight is cut.
    pub fn end_now(&self) {
        let _ = self.wishes.send(Wish::EndNow);
    }
}

/// Follows the wishes until the proxy has ended.
async fn conduct(control: &Arc<Control>, mut wishes: mpsc::UnboundedReceiver<Wish>) -> Ending {
    let mut draining = false;
    let mut ending = false;
    let mut drain = std::pin::pin!(None::<std::pin::Pin<Box<dyn Future<Output = bool>>>>);
    loop {
        let wish = tokio::select! {
            wish = wishes.recv() => wish.unwrap_or(Wish::EndNow),
            drained = async { match drain.as_mut().as_pin_mut() {
                Some(drain) => drain.await,
                None => std::future::pending().await,
            } } => {
                drain.set(None);
                if ending {
                    return control.end(drained).await;
                }
                continue;
            }
        };
        match wish {
            Wish::EndNow => return control.end(false).await,
            Wish::End { .. } if ending => return control.end(false).await,
            Wish::End { delay } => {
                ending = true;
                tracing::info!("ending: unready, then draining");
                // Whoever began a drain by hand has waited, or has no time left.
                let delay = if delay && !draining { control.drain.delay } else { Duration::ZERO };
                drain.set(Some(Box::pin(drained(control.clone(), delay, true))));
            }
            Wish::Drain if draining || ending => {}
            Wish::Drain => {
                draining = true;
                tracing::info!("draining inbound");
                drain.set(Some(Box::pin(drained(control.clone(), control.drain.delay, false))));
            }
        }
        control.announce();
    }
}

async fn drained(control: Arc<Control>, delay: Duration, outbound_too: bool) -> bool {
    tokio::time::sleep(delay).await;
    control.out_of_registries().await;
    control.drain_inbound(control.drain.timeout, outbound_too).await
}

/// One listener's socket on one worker.
struct Entrance {
    socket: Socket,
    listener: ListenerId,
    direction: Direction,
    connections: Arc<Limit>,
    local: bool,
    closing: watch::Receiver<bool>,
}

/// Gives each worker its sockets.
fn spread(
    config: &Config,
    snapshot: &Snapshot,
    bound: Vec<socket::Bound>,
    workers: usize,
    closing: &(watch::Sender<bool>, watch::Sender<bool>),
) -> Vec<Vec<Entrance>> {
    let mut entrances: Vec<Vec<Entrance>> = (0..workers).map(|_| Vec::new()).collect();
    for ((listener, compiled), bound) in config.listeners.iter().zip(&snapshot.listeners).zip(bound) {
        let connections = Limit::new(listener.limits.connections);
        let local = bound.address.is_local();
        for (index, socket) in bound.sockets.into_iter().enumerate() {
            entrances[index].push(Entrance {
                socket,
                listener: compiled.id,
                direction: listener.direction,
                connections: connections.clone(),
                local,
                closing: match listener.direction {
                    Direction::Inbound => closing.0.subscribe(),
                    Direction::Outbound => closing.1.subscribe(),
                },
            });
        }
    }
    entrances
}

/// What one worker thread does.
struct Duty {
    index: usize,
    commands: mpsc::UnboundedReceiver<Command>,
    heartbeat: Arc<Heartbeat>,
    entrances: Vec<Entrance>,
    peers: Vec<mpsc::UnboundedSender<Command>>,
    loads: Loads,
    snapshot: Arc<ArcSwap<Snapshot>>,
    own: Arc<OwnAddresses>,
    access_log: WorkerLog,
    layers: Option<LayerFn>,
}

impl Duty {
    async fn run(mut self) {
        let Ok(via) = Pseudonym::new("outrigger") else { return };
        let pools = Pools::new(self.own.clone());
        let worker = Worker::new(self.snapshot.clone(), pools, Shard::new(self.index), self.access_log, via);
        let inbound: Vec<Arc<Limit>> = self
            .entrances
            .iter()
            .filter(|entrance| entrance.direction == Direction::Inbound)
            .map(|entrance| entrance.connections.clone())
            .collect();
        let hand_over: Rc<dyn Fn(usize, StreamIn)> = {
            let peers = self.peers;
            Rc::new(move |peer, stream| {
                let _ = peers[peer].send(Command::Serve(stream));
            })
        };
        for entrance in self.entrances {
            let door = Door {
                worker: worker.clone(),
                index: self.index,
                loads: self.loads.clone(),
                listener: entrance.listener,
                connections: entrance.connections,
                local: entrance.local,
                layers: self.layers.clone(),
                hand_over: hand_over.clone(),
                closing: entrance.closing,
            };
            tokio::task::spawn_local(async move {
                if let Err(error) = listen(entrance.socket, door).await {
                    tracing::error!(%error, "a listener has failed");
                }
            });
        }
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut swept = tokio::time::Instant::now();
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Serve(stream)) => take_over(stream, &worker, self.layers.as_ref()),
                    Some(Command::Report(answer)) => {
                        let _ = answer.send(report(&worker, self.index, &inbound));
                    }
                    Some(Command::Enter(phase)) => worker.drain.enter(phase),
                    Some(Command::Stop) | None => break,
                },
                now = ticks.tick() => {
                    self.heartbeat.beat();
                    worker.access_log.flush();
                    worker.refresh();
                    worker.pools.yield_wanted();
                    if now.duration_since(swept) >= SWEEP_EVERY {
                        swept = now;
                        worker.pools.sweep(now);
                    }
                }
            }
        }
        worker.access_log.flush();
    }
}

/// Connections to inbound listeners are counted over all workers, so only the first reports them.
fn report(worker: &Worker, index: usize, inbound: &[Arc<Limit>]) -> Report {
    Report {
        metrics: worker.metrics.snapshot(),
        in_flight: worker.in_flight(),
        inbound: if index == 0 { inbound.iter().map(|limit| limit.used() as usize).sum() } else { 0 },
        pools: worker.pools.counts(),
    }
}
