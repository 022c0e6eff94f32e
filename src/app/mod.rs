//! The composition root: a configuration in, a running proxy out. Everything is built here, in order, and passed on by
//! name.
//!
//! A program that embeds the proxy loads a configuration ([`crate::config::load`]), starts it ([`Builder::start`]),
//! asks where it listens ([`Running::listeners`]), and ends it from any thread ([`Running::handle`]). The proxy brings
//! its own threads; it neither needs nor touches a tokio runtime of the program's.

mod conduct;
mod relief;
mod running;
mod threads;
pub(crate) mod trial;
mod worker;

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tower::{Layer, Service};

use crate::admin::{self, Taps};
use crate::body::Body;
use crate::config::model::{Config, Metrics, OtlpProtocol, UpstreamTls, Workers};
use crate::config::{ContentHash, Loaded};
pub use crate::control::Ending;
use crate::control::doors::Doors;
use crate::control::{Control, Heartbeat, WorkerHandle};
use crate::discovery;
use crate::health;
use crate::identity;
pub use crate::listener::socket::BindError;
use crate::listener::{LayerFn, Loads, Proxy};
use crate::registration;
use crate::reload::document::{Accepted, Reading};
use crate::reload::source::Source;
use crate::reload::swap::{Parts, Stage};
use crate::reload::{Beginning, Reload, StandIn};
use crate::runtime::drain::Phase;
use crate::runtime::priority;
use crate::runtime::stream::Stream;
use crate::runtime::worker::cpus;
use crate::snapshot::Snapshot;
use crate::succession::{Inheritance, Manager};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::doctor::Doctor;
use crate::telemetry::log::LogHandle;
use crate::telemetry::metrics::{Bounds, Exporter, Names, Push};
use crate::telemetry::otlp::Securing;
use crate::telemetry::traces::{self, Tracer};
use crate::telemetry::{WorkerEnds, tap};
use crate::transport::OwnAddresses;
use crate::upstream::registry::Registry;
pub use conduct::Handle;
use conduct::{Conduct, conduct};
use relief::{Taken, report_unclaimed};
pub use running::Running;
use threads::Threads;
use worker::Duty;

/// At the end, for the last metrics and the last spans to be exported.
const LAST_EXPORT: Duration = Duration::from_secs(1);

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener, or the admin or metrics address, could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A variable of the environment that tells how spans are exported cannot be understood.
    #[error("cannot export spans: {0}")]
    Traces(String),
    /// A variable of the environment that tells how metrics are exported cannot be understood.
    #[error("cannot export metrics: {0}")]
    MetricsExport(String),
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
    /// The process whose place is to be taken may not be asked, or cannot be understood.
    #[error("cannot take over at {path}: {error}", path = .path.display())]
    TakeOver {
        /// Where it was asked.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
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

/// A proxy that is about to start.
pub struct Builder {
    loaded: Loaded,
    name: String,
    source: Source,
    stands_in: Option<StandIn>,
    last_good: Option<PathBuf>,
    allowed_variables: Vec<String>,
    metrics: Metrics,
    log: Option<LogHandle>,
    layers: Option<LayerFn>,
    reuse_port: bool,
    inheritance: Inheritance,
    manager: Manager,
    take_over: Option<PathBuf>,
}

impl Builder {
    /// A proxy with this configuration. `source` says where it comes from, for people.
    pub fn new(loaded: Loaded, source: impl Into<String>) -> Self {
        Builder {
            loaded,
            name: source.into(),
            source: Source::Fixed,
            stands_in: None,
            last_good: None,
            allowed_variables: Vec::new(),
            metrics: Metrics::default(),
            log: None,
            layers: None,
            reuse_port: false,
            inheritance: Inheritance::default(),
            manager: Manager::default(),
            take_over: None,
        }
    }

    /// What it will start with.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Swaps the configuration whenever this file holds another one.
    #[must_use]
    pub fn follow_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.source = Source::File(path.into());
        self
    }

    /// Swaps the configuration whenever this key in Consul's KV store holds another one. How Consul is reached is the
    /// environment's to say (`CONSUL_HTTP_ADDR`, `CONSUL_HTTP_TOKEN` …).
    #[must_use]
    pub fn follow_consul_kv(mut self, key: impl Into<String>) -> Self {
        self.source = Source::ConsulKv(key.into());
        self
    }

    /// Says that the configuration is not what its source holds, which has this hash and was refused for this reason, but
    /// the last good one, of the file `kept`. Without a hash, what the source holds is looked at again as soon as it runs.
    #[must_use]
    pub fn instead_of(mut self, refused: Option<ContentHash>, error: String, kept: impl Into<PathBuf>) -> Self {
        self.stands_in = Some(StandIn { path: kept.into(), refused, error });
        self
    }

    /// Keeps what the source held last, of what could be accepted, in this file.
    #[must_use]
    pub fn keep_last_good(mut self, path: impl Into<PathBuf>) -> Self {
        self.last_good = Some(path.into());
        self
    }

    /// Lets configurations that come over the network use these variables, and no others.
    #[must_use]
    pub fn allow_variables(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.allowed_variables = names.into_iter().collect();
        self
    }

    /// What the command line says of `metrics`, for configurations that come later; what they say goes over it.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Lets a configuration change the log's level.
    #[must_use]
    pub fn log(mut self, log: LogHandle) -> Self {
        self.log = Some(log);
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

    /// Takes the place of the proxy that runs with the same path, if one does, and gives its own place to the next: the
    /// listening sockets change hands over a Unix socket there, which only the same user (and root) may use. The old proxy
    /// serves until this one does, then drains and ends.
    #[must_use]
    pub fn take_over(mut self, path: impl Into<PathBuf>) -> Self {
        self.take_over = Some(path.into());
        self
    }

    /// Sockets that need not be bound.
    #[must_use]
    pub(crate) fn inherit(mut self, inheritance: Inheritance) -> Self {
        self.inheritance = inheritance;
        self
    }

    /// Whom to tell when it is ready, reads its configuration again, or ends.
    #[must_use]
    pub(crate) fn service_manager(mut self, manager: Manager) -> Self {
        self.manager = manager;
        self
    }

    /// Binds every address and starts the threads. When this returns, connections are accepted; where it takes over, by the
    /// old proxy until this one has heard where requests go.
    ///
    /// # Errors
    /// When an address, file or thread cannot be had. Nothing is left running then.
    pub fn start(self) -> Result<Running, StartError> {
        let config = self.loaded.config.clone();
        let count = workers(&config);
        let mut inheritance = self.inheritance;
        let taken = self.take_over.map(|path| Taken::at(path, &mut inheritance)).transpose()?;
        let mut doors = Doors::new(inheritance);
        let plan = doors.plan(&config.listeners, count, self.reuse_port)?;
        let admin = admin::bind(&config, doors.inheritance())?;

        discovery::check(&config).map_err(StartError::Consul)?;

        let names = Arc::new(Names::new());
        let (finding, found) = mpsc::unbounded_channel();
        let registry = Arc::new(Registry::new(finding));
        let own = Arc::new(OwnAddresses::default());
        let identities = Arc::<identity::Store>::default();
        let snapshot = Arc::new(Snapshot::compile(&config, 1, &registry, &identities, &names)?);
        snapshot.put_in_force(&config, &registry);
        let opened = doors.turn(plan, &config.listeners, &snapshot).opened;
        own.set(doors.open().iter().map(|door| &door.bound).chain(&admin.addresses()));
        report_unclaimed(&doors, &admin.addresses());
        let left = doors.inheritance().left(doors.open().iter().map(|door| &door.bound).chain(&admin.addresses()));
        doors.settle();
        let addresses: Vec<_> = doors.open().iter().map(|door| (door.listener.clone(), door.bound.clone())).collect();
        let bound = |name: &str| addresses.iter().find(|(known, _)| known == name).map(|(_, bound)| bound.clone());
        let (registration, wanted) =
            watch::channel(registration::Wanted::new(&config, bound).map_err(StartError::Consul)?);
        let access_log = AccessLog::start(&config.telemetry.access_log).map_err(StartError::AccessLog)?;
        let environment = |name: &str| std::env::var(name).ok();
        let traces = &config.telemetry.traces;
        let traces = traces::Settings::resolve(traces.as_ref(), config.service.as_deref(), &environment);
        let (tracer, exporter) = Tracer::start(traces.map_err(StartError::Traces)?, secure_collector);
        let push = config.metrics.export.as_ref();
        let push = Push::resolve(push, config.service.as_deref(), &environment, secure_collector);
        let push = push.map_err(StartError::MetricsExport)?;
        let (worker_tap, tap, tap_switch) = tap::tap();
        let doctor = Arc::new(Doctor::default());
        let bounds = Bounds::from(&config.metrics.buckets);

        let published = Arc::new(ArcSwap::new(snapshot.clone()));
        let loads: Loads = (0..count).map(|_| AtomicUsize::new(0)).collect();
        let channels: Vec<_> = (0..count).map(|_| mpsc::unbounded_channel()).collect();
        let peers: Vec<_> = channels.iter().map(|(sender, _)| sender.clone()).collect();
        let mut threads = Threads::of(peers.clone());
        let mut workers = Vec::with_capacity(count);
        for (index, (sender, commands)) in channels.into_iter().enumerate() {
            let heartbeat = Heartbeat::new();
            workers.push(WorkerHandle { commands: sender, heartbeat: heartbeat.clone() });
            let duty = Duty {
                index,
                bounds,
                commands,
                heartbeat,
                peers: peers.clone(),
                loads: loads.clone(),
                snapshot: published.clone(),
                own: own.clone(),
                telemetry: WorkerEnds {
                    access_log: access_log.worker(),
                    tracer: tracer.worker(),
                    tap: worker_tap.clone(),
                    doctor: doctor.clone(),
                },
                layers: self.layers.clone(),
            };
            threads.start(format!("worker-{index}"), move || duty.run())?;
        }
        let control = Arc::new(Control {
            workers,
            snapshot: published,
            identities,
            exporter: Exporter::new(names.clone(), bounds)?,
            doors: Mutex::new(doors),
            access_log: Mutex::new(Some(access_log)),
            trace_counts: tracer.counts(),
            doctor,
            phase: watch::Sender::new(Phase::Serving),
            discovered: watch::Sender::new(false),
            registered_elsewhere: Mutex::default(),
            registration_failure: Mutex::default(),
            registered: watch::Sender::new(false),
            inbound_drained: watch::Sender::new(false),
            drain: Mutex::new(config.drain),
        });
        // Beside an old process that serves, there is time to learn where requests go.
        let later = match &taken {
            Some(taken) if taken.is_beside_another() => Some((opened, snapshot)),
            _ => {
                control.open(opened, &snapshot);
                None
            }
        };
        let admin_addresses = (admin.admin_address(), admin.metrics_address());
        let addresses_of_own = own.clone();
        let parts = Parts {
            control: control.clone(),
            registry,
            names,
            own,
            admin: admin.addresses(),
            reuse_port: self.reuse_port,
            registration,
            log: self.log.clone(),
        };
        let beginning = Beginning {
            source: self.name,
            accepted: Accepted::new(self.loaded, self.source.trust()),
            trust: self.source.trust(),
            stands_in: self.stands_in,
            last_good: self.last_good,
            reading: Reading { allowed: self.allowed_variables, metrics: self.metrics },
        };
        let (source, manager, (handle, wished)) = (self.source, self.manager, Handle::new());
        let (done, ended) = std::sync::mpsc::channel();
        threads.start("control".to_owned(), {
            let (control, handle) = (control.clone(), handle.clone());
            move || async move {
                priority::give_way();
                let manager = Rc::new(manager);
                let reload = Reload::new(Stage::new(parts, &beginning.accepted.config), beginning);
                tokio::task::spawn_local({
                    let reload = reload.clone();
                    async move { reload.follow_found(found).await }
                });
                tokio::task::spawn_local({
                    let identities = control.identities.clone();
                    async move { identities.keep_current().await }
                });
                tokio::task::spawn_local({
                    let (control, manager) = (control.clone(), manager.clone());
                    async move {
                        control.discover(config.wait_for_discovery).await;
                        manager.ready();
                    }
                });
                tokio::task::spawn_local({
                    let control = control.clone();
                    async move { health::keep(&control.snapshot, addresses_of_own).await }
                });
                let registered = wanted.borrow().as_ref().map(|wanted| wanted.id().to_owned());
                tokio::task::spawn_local({
                    let control = control.clone();
                    async move { registration::keep(wanted, &control).await }
                });
                if let Some((opened, snapshot)) = later {
                    control.discover(config.wait_for_discovery.min(relief::LONGEST_WAIT)).await;
                    control.open(opened, &snapshot);
                }
                let exporting = exporter.map(|exporter| tokio::task::spawn_local(exporter.run()));
                let (pushes_end, end_of_pushes) = oneshot::channel::<()>();
                let pushing = push.map(|push| {
                    let (control, reload) = (control.clone(), reload.clone());
                    let gather = async move || control.gather(reload.facts()).await;
                    tokio::task::spawn_local(push.run(gather, async { drop(end_of_pushes.await) }))
                });
                let admin =
                    admin.serve(control.clone(), reload.clone(), handle, Taps::start(tap, tap_switch), self.log);
                let post = taken.and_then(|taken| taken.relieve(left, registered));
                let (control, reload, source, manager, of_admin) = (&control, &reload, &source, &manager, &admin);
                let conducted = Conduct { control, reload, source, manager, admin: of_admin, post };
                let ending = conduct(conducted, wished).await;
                admin.finish().await;
                drop(pushes_end);
                tokio::join!(last_export(pushing, "metrics"), last_export(exporting, "spans"));
                let _ = done.send(ending);
            }
        })?;
        Ok(Running { addresses, admin_addresses, handle, control, threads: threads.keep(), ended })
    }
}

async fn last_export(exporting: Option<JoinHandle<()>>, of: &str) {
    if let Some(exporting) = exporting
        && tokio::time::timeout(LAST_EXPORT, exporting).await.is_err()
    {
        tracing::warn!("the last {of} could not be exported in time");
    }
}

/// TLS with a collector.
fn secure_collector<'a>(stream: Stream, tls: &'a UpstreamTls, host: &'a str, protocol: OtlpProtocol) -> Securing<'a> {
    let offer = match protocol {
        OtlpProtocol::Grpc => identity::Offer::Http2,
        OtlpProtocol::Http => identity::Offer::Http1,
    };
    Box::pin(identity::secure(stream, tls, host, offer))
}

/// Threads that carry requests.
fn workers(config: &Config) -> usize {
    match config.workers {
        Workers::Auto => cpus(),
        Workers::Count(count) => count.get(),
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("source", &self.name).finish_non_exhaustive()
    }
}
