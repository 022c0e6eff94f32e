//! One worker's connections to every endpoint.
//!
//! Idle connections are a stack: the last one used is the most likely to be alive, and those at the bottom may end.
//! Bounds are the upstream's, over all workers; a request at the bound waits for a connection, at most as long as
//! connecting may take.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::http1::{Care, Http1Connection};
use super::http2::Http2Connection;
use super::queue::{Either, Queue, Queued, Waited};
use super::tls::{self, Secured};
use super::{OwnAddresses, connect};
use crate::config::model::EndpointAddress;
use crate::error::{Error, Reason};
use crate::identity::{ClientTls, Offer};
use crate::runtime::stream::Stream;
use crate::telemetry::log::throttle::Throttle;
use crate::upstream::limit::Permit;
use crate::upstream::state::{EndpointState, UpstreamState};

/// A connection ends after this long however busy it is, so that load finds new machines behind an address.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// In so many parts idle connections are looked through.
const SWEEPS: u64 = 4;
/// Lines a second about handshakes that fail.
const LINES: u32 = 10;
/// Streams on one HTTP/2 connection before another is opened: RFC 9113, section 6.5.2 recommends that servers allow at
/// least 100.
const STREAMS: u32 = 100;

/// One worker's connections.
#[derive(Debug)]
pub(crate) struct Pools {
    own: Arc<OwnAddresses>,
    /// Failed handshakes that are worth a line.
    log: Throttle,
    endpoints: RefCell<HashMap<Place, EndpointPool, foldhash::fast::FixedState>>,
    /// The part that was looked through last.
    swept: Cell<u64>,
}

/// Which connections are alike: those to one endpoint that were made with the same certificates and demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    endpoint: u64,
    /// [`ClientTls::id`]; 0 in the clear.
    tls: u64,
}

#[derive(Debug)]
struct EndpointPool {
    upstream: Arc<UpstreamState>,
    endpoint: Weak<EndpointState>,
    /// How connections are made, where that is not in the clear.
    tls: Option<Weak<ClientTls>>,
    /// What the endpoint has chosen last, where it had the choice.
    chose_http2: Option<bool>,
    #[expect(clippy::vec_box, reason = "they come and go as the boxes in which requests hold them")]
    idle: Vec<Box<Http1Connection>>,
    /// How long a connection may be idle, as the last request said.
    idle_bound: Option<Duration>,
    waiters: VecDeque<oneshot::Sender<Box<Http1Connection>>>,
    http2: Vec<Rc<Http2Connection>>,
    /// Told when a stream of one of them has ended.
    room: Rc<Notify>,
    queue: Rc<Queue>,
}

/// What a worker's pools hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PoolCounts {
    pub(crate) idle: u64,
    pub(crate) http2: u64,
}

/// What a caller wants of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// When the attempt began: about now.
    pub(crate) now: Instant,
    /// A new one, whatever stands in the pool. One of HTTP/2 that has been made since `now` is new to all who want it.
    pub(crate) fresh: bool,
    /// The request cannot be repeated: look twice before an idle connection is trusted.
    pub(crate) careful: bool,
    /// Until there has to be a usable connection.
    pub(crate) until: Option<Instant>,
    /// How long idle ones are kept.
    pub(crate) idle: Option<Duration>,
    /// In the clear without it.
    pub(crate) tls: Option<&'a Arc<ClientTls>>,
    /// For something other than HTTP.
    pub(crate) tunnel: bool,
}

/// A connection, and what it took to have it.
#[derive(Debug)]
pub(crate) struct Checkout<C> {
    pub(crate) connection: C,
    /// Waiting at the upstream's bound, or for a connection that was being made.
    pub(crate) queued: Duration,
    /// Connecting; zero for one that was there.
    pub(crate) connected: Duration,
}

/// A connection that speaks what its endpoint chose.
#[derive(Debug)]
pub(crate) enum Negotiated {
    Http1(Checkout<Box<Http1Connection>>),
    Http2(Checkout<Rc<Http2Connection>>),
}

impl<C> Checkout<C> {
    fn at_once(connection: C) -> Self {
        Checkout { connection, queued: Duration::ZERO, connected: Duration::ZERO }
    }

    /// One that stood there after a wait since then.
    fn after(began: Instant, connection: C) -> Self {
        Checkout { queued: began.elapsed(), ..Checkout::at_once(connection) }
    }
}

impl Negotiated {
    /// How long it was waited for, and how long it took to connect.
    pub(crate) fn took(&self) -> (Duration, Duration) {
        match self {
            Negotiated::Http1(checkout) => (checkout.queued, checkout.connected),
            Negotiated::Http2(checkout) => (checkout.queued, checkout.connected),
        }
    }
}

impl Pools {
    pub(crate) fn new(own: Arc<OwnAddresses>) -> Rc<Self> {
        Rc::new(Pools { own, log: Throttle::new(LINES), endpoints: RefCell::default(), swept: Cell::new(0) })
    }

    /// A connection that is no part of any pool.
    ///
    /// # Errors
    /// What [`connect()`] says.
    pub(crate) async fn connect(&self, address: &EndpointAddress, until: Option<Instant>) -> Result<Stream, Error> {
        let connected = connect(address, &self.own, until).await;
        if let Err(error) = &connected
            && error.reason == Reason::Overflow
            && self.log.admit()
        {
            tracing::warn!(%error, "no file descriptor is left for a connection to an endpoint");
        }
        connected
    }

    /// An HTTP/1 connection that is there, where one may be taken.
    pub(crate) fn idle(
        &self,
        upstream: &Arc<UpstreamState>,
        endpoint: &Arc<EndpointState>,
        wanted: Wanted<'_>,
    ) -> Option<Checkout<Box<Http1Connection>>> {
        if wanted.fresh {
            return None;
        }
        self.pop_idle(upstream, endpoint, wanted).map(Checkout::at_once)
    }

    /// A new HTTP/1 connection; at the upstream's bound, whatever becomes free first.
    ///
    /// # Errors
    /// `overflow` at the upstream's bounds, and what [`connect()`] says.
    pub(crate) async fn http1(
        &self,
        upstream: &Arc<UpstreamState>,
        endpoint: &Arc<EndpointState>,
        wanted: Wanted<'_>,
    ) -> Result<Checkout<Box<Http1Connection>>, Error> {
        let began = Instant::now();
        let permit = match upstream.connections.try_acquire() {
            Some(permit) => permit,
            None => match Box::pin(self.wait(upstream, endpoint, wanted)).await? {
                Waited::Connection(connection) => return Ok(Checkout::after(began, connection)),
                Waited::Permit(permit) => permit,
            },
        };
        let queued = began.elapsed();
        let place = Place::of(endpoint, wanted);
        let stream = match wanted.tls {
            None => Box::pin(self.connect(&endpoint.address, wanted.until)).await?,
            Some(_) => {
                let offer = if wanted.tunnel { Offer::Nothing } else { Offer::Http1 };
                Box::pin(self.secured(upstream, endpoint, wanted, offer)).await?.stream
            }
        };
        let connected = began.elapsed() - queued;
        Ok(Checkout { connection: Http1Connection::new(stream, permit, place), queued, connected })
    }

    /// An HTTP/2 connection with room for a stream.
    ///
    /// # Errors
    /// As [`Pools::http1`].
    pub(crate) async fn http2(
        &self,
        upstream: &Arc<UpstreamState>,
        endpoint: &Arc<EndpointState>,
        wanted: Wanted<'_>,
    ) -> Result<Checkout<Rc<Http2Connection>>, Error> {
        if let Some(connection) = self.pick_http2(upstream, endpoint, wanted, None) {
            return Ok(Checkout::at_once(connection));
        }
        let began = Instant::now();
        let queue = self.with(upstream, endpoint, wanted, |pool| pool.queue.clone().join());
        let making = async {
            let _turn = queue.turn.lock().await;
            if let Some(connection) = self.pick_http2(upstream, endpoint, wanted, Some(&queue)) {
                return Ok(Checkout::after(began, connection));
            }
            let permit = match upstream.connections.try_acquire() {
                Some(permit) => {
                    queue.set_for_stream(false);
                    permit
                }
                None => match self.wait_for_either(upstream, endpoint, wanted, &queue).await? {
                    Either::Room(connection) => return Ok(Checkout::after(began, connection)),
                    // An HTTP/1 connection of this endpoint gives its place.
                    Either::Waited(Waited::Connection(connection)) => connection.into_stream().1,
                    Either::Waited(Waited::Permit(permit)) => permit,
                },
            };
            let queued = began.elapsed();
            let stream = match wanted.tls {
                None => self.connect(&endpoint.address, None).await?,
                Some(_) => self.secured(upstream, endpoint, wanted, Offer::Http2).await?.stream,
            };
            let connection = self.add_http2(upstream, endpoint, wanted, stream, permit).await?;
            Ok(Checkout { connection, queued, connected: began.elapsed() - queued })
        };
        within(wanted.until, making).await
    }

    /// A connection that speaks what the endpoint likes best, under TLS.
    ///
    /// # Errors
    /// As [`Pools::http1`], and `tls_error`.
    pub(crate) async fn negotiated(
        &self,
        upstream: &Arc<UpstreamState>,
        endpoint: &Arc<EndpointState>,
        wanted: Wanted<'_>,
    ) -> Result<Negotiated, Error> {
        if let Some(found) = self.pick_negotiated(upstream, endpoint, wanted, None) {
            return Ok(found);
        }
        let began = Instant::now();
        let queue = self.with(upstream, endpoint, wanted, |pool| pool.queue.clone().join());
        let making = async {
            // Where a connection may take a hundred requests, or that is not known yet, one is made at a time.
            let turn = queue.turn.lock().await;
            match self.pick_negotiated(upstream, endpoint, wanted, Some(&queue)) {
                Some(Negotiated::Http1(idle)) => {
                    return Ok(Negotiated::Http1(Checkout::after(began, idle.connection)));
                }
                Some(Negotiated::Http2(made)) => {
                    return Ok(Negotiated::Http2(Checkout::after(began, made.connection)));
                }
                None => {}
            }
            let one_each = self.with(upstream, endpoint, wanted, |pool| pool.chose_http2) == Some(false);
            let turn = (!one_each).then_some(turn);
            let permit = match upstream.connections.try_acquire() {
                Some(permit) => {
                    queue.set_for_stream(false);
                    permit
                }
                None => match self.wait_for_either(upstream, endpoint, wanted, &queue).await? {
                    Either::Room(connection) => {
                        return Ok(Negotiated::Http2(Checkout::after(began, connection)));
                    }
                    Either::Waited(Waited::Connection(connection)) => {
                        return Ok(Negotiated::Http1(Checkout::after(began, connection)));
                    }
                    Either::Waited(Waited::Permit(permit)) => permit,
                },
            };
            let queued = began.elapsed();
            let place = Place::of(endpoint, wanted);
            let Secured { stream, http2 } = self.secured(upstream, endpoint, wanted, Offer::Either).await?;
            self.with(upstream, endpoint, wanted, |pool| pool.chose_http2 = Some(http2));
            let connected = began.elapsed() - queued;
            let made = if http2 {
                let connection = self.add_http2(upstream, endpoint, wanted, stream, permit).await?;
                Negotiated::Http2(Checkout { connection, queued, connected })
            } else {
                let connection = Http1Connection::new(stream, permit, place);
                Negotiated::Http1(Checkout { connection, queued, connected })
            };
            drop(turn);
            Ok(made)
        };
        Box::pin(within(wanted.until, making)).await
    }

    fn pick_negotiated(
        &self,
        upstream: &Arc<UpstreamState>,
        endpoint: &Arc<EndpointState>,
        wanted: Wanted<'_>,
        queued: Option<&Queued>,
    ) -> Option<Negotiated> {
        if let Some(connection) = self.pick_http2(upstream, endpoint, wanted, queued) {
            return Some(Negotiated::Http2(Checkout::at_once(connection)));
        }
        let idle = if wanted.fresh { None } else { self.pop_idle(upstream, endpoint, wanted) };
        idle.map(|connection| Negotiated::Http1(Checkout::at_once(connection)))
    }

    /// A new connection under TLS.
    async fn secured(
        &self,
        upstream: &UpstreamState,
        endpoint: &EndpointState,
        wanted: Wanted<'_>,
        offer: Offer,
    ) -> Result<Secured, Error> {
        let stream = self.connect(&endpoint.address, wanted.until).await?;
        let Some(tls) = wanted.tls else { return Ok(Secured { stream, http2: offer == Offer::Http2 }) };
        let secured = tls::secure(stream, tls, offer, &endpoint.address, wanted.until).await;
        secured.inspect_err(|error| self.tell(upstream, endpoint, error))
    }

    /// Says in the log why TLS with an endpoint did not come about.
    pub(crate) fn tell(&self, upstream: &UpstreamState, endpoint: &EndpointState, error: &Error) {
        if self.log.admit() {
            let (upstream, endpoint) = (&*upstream.name, &*endpoint.label);
            tracing::warn!(upstream, endpoint, %error, "TLS handshake with an endpoint failed");
        }
    }

    async fn add_http2(
        &self,
        upstream: &Arc<UpstreamState>,
        endpoint: &Arc<EndpointState>,
        wanted: Wanted<'_>,
        stream: Stream,
        permit: Permit,
    ) -> Result<Rc<Http2Connection>, Error> {
        let room = self.with(upstream, endpoint, wanted, |pool| pool.room.clone());
        let connection = Rc::new(Http2Connection::handshake(stream, permit, wanted.tls.is_some(), room).await?);
        self.with(upstream, endpoint, wanted, |pool| pool.http2.push(connection.clone()));
        Ok(connection)
    }

    /// Takes a connection back from a request that is done with it.
    pub(super) fn put_back(&self, mut connection: Box<Http1Connection>, now: Instant) {
        let mut endpoints = self.endpoints.borrow_mut();
        // Without its pool, the endpoint has been removed meanwhile, or its certificates have changed.
        let Some(pool) = endpoints.get_mut(&connection.place) else { return };
        if !pool.waiters.is_empty() && !connection.is_usable(now, None, LIFETIME, Care::Usual) {
            return; // Its place goes to somebody who waits.
        }
        while let Some(waiter) = pool.waiters.pop_front() {
            match waiter.send(connection) {
                Ok(()) => return,
                Err(unwanted) => connection = unwanted,
            }
        }
        // Another worker or endpoint of the upstream waits for the place that this one takes.
        if !pool.upstream.connections.is_wanted() {
            pool.idle.push(connection);
        }
    }

    /// Ends what is idle for too long, dead, or of an endpoint that is gone: of one part of [`SWEEPS`] of the endpoints, so
    /// that ten thousand of them do not keep requests waiting. Whoever uses a connection looks again.
    pub(crate) fn sweep(&self, now: Instant) {
        let part = (self.swept.get() + 1) % SWEEPS;
        self.swept.set(part);
        self.endpoints.borrow_mut().retain(|place, pool| {
            if place.endpoint % SWEEPS != part {
                return true;
            }
            let wanted = pool.upstream.connections.is_wanted();
            let bound = pool.idle_bound;
            pool.idle.retain_mut(|connection| {
                connection.release_buffer(now);
                !wanted && connection.is_usable(now, bound, LIFETIME, Care::Heard)
            });
            pool.http2.retain(|connection| connection.is_usable(now, bound, LIFETIME));
            pool.endpoint.strong_count() > 0 && pool.is_current(*place)
        });
    }

    /// Gives up what is idle of upstreams at whose bound somebody waits, on another worker or for another endpoint.
    pub(crate) fn yield_wanted(&self) {
        for pool in self.endpoints.borrow_mut().values_mut() {
            if !pool.upstream.connections.is_wanted() {
                continue;
            }
            // Who waited for an HTTP/2 connection, or got a place, has left a letter box that nobody looks at.
            pool.waiters.retain(|waiter| !waiter.is_closed());
            if pool.waiters.is_empty() {
                pool.idle.clear();
                pool.http2.retain(|connection| connection.streams() > 0);
            }
        }
    }

    /// Gives up one idle connection of the upstream, for somebody who waits for its place.
    pub(crate) fn give_up_idle(&self, upstream: &UpstreamState) {
        let mut endpoints = self.endpoints.borrow_mut();
        let fullest = endpoints
            .values_mut()
            .filter(|pool| std::ptr::eq(&*pool.upstream, upstream))
            .max_by_key(|pool| pool.idle.len());
        if let Some(pool) = fullest
            && !pool.idle.is_empty()
        {
            pool.idle.remove(0);
        }
    }

    /// Gives up everything idle, where file descriptors have run out.
    pub(crate) fn give_up_all_idle(&self) {
        for pool in self.endpoints.borrow_mut().values_mut() {
            pool.idle.clear();
        }
    }

    pub(crate) fn counts(&self) -> HashMap<Arc<str>, PoolCounts> {
        let mut counts: HashMap<Arc<str>, PoolCounts> = HashMap::new();
        for pool in self.endpoints.borrow().values() {
            let count = counts.entry(pool.upstream.name.clone()).or_default();
            count.idle += pool.idle.len() as u64;
            count.http2 += pool.http2.len() as u64;
        }
        counts
    }

    fn pop_idle(
        &self,
        upstream: &Arc<UpstreamState>,
        endpoint: &Arc<EndpointState>,
        wanted: Wanted<'_>,
    ) -> Option<Box<Http1Connection>> {
        let (now, care) = (wanted.now, if wanted.careful { Care::Utmost } else { Care::Usual });
        self.with(upstream, endpoint, wanted, |pool| {
            pool.idle_bound = wanted.idle;
            while let Some(mut connection) = pool.idle.pop() {
                if connection.is_usable(now, wanted.idle, LIFETIME, care) {
                    return Some(connection);
                }
            }
            None
        })
    }

    fn pick_http2(
        &self,
        upstream: &Arc<UpstreamState>,
        endpoint: &Arc<EndpointState>,
        wanted: Wanted<'_>,
        queued: Option<&Queued>,
    ) -> Option<Rc<Http2Connection>> {
        self.with(upstream, endpoint, wanted, |pool| {
            if queued.is_none() && pool.queue.is_for_stream() {
                return None;
            }
            pool.idle_bound = wanted.idle;
            pool.http2.retain(|connection| connection.is_open());
            let with_room = pool.http2.iter().filter(|connection| {
                connection.has_room(STREAMS) && (!wanted.fresh || connection.is_newer(wanted.now))
            });
            with_room.min_by_key(|connection| connection.streams()).cloned()
        })
    }

    async fn wait(
        &self,
        upstream: &Arc<UpstreamState>,
        endpoint: &Arc<EndpointState>,
        wanted: Wanted<'_>,
    ) -> Result<Waited, Error> {
        let overflow = || Error::local(Reason::Overflow);
        let _waiting = upstream.waiting.try_acquire().ok_or_else(overflow)?;
        let queued = upstream.connections.queue();
        self.give_up_idle(upstream);
        loop {
            if let Some(permit) = upstream.connections.try_acquire() {
                queued.pass_on();
                return Ok(Waited::Permit(permit));
            }
            let (sender, returned) = oneshot::channel();
            self.with(upstream, endpoint, wanted, |pool| {
                pool.waiters.retain(|waiter| !waiter.is_closed());
                pool.waiters.push_back(sender);
            });
            tokio::select! {
                // First, or a connection that has just been given to us would be dropped.
                biased;
                Ok(connection) = returned => return Ok(Waited::Connection(connection)),
                () = queued.freed() => {}
                () = sleep_until(wanted.until) => return Err(overflow()),
            }
        }
    }

    /// At the upstream's bound, where a stream is enough: whichever comes first, the end of one on a connection that is
    /// there or what [`Pools::wait`] waits for.
    async fn wait_for_either(
        &self,
        upstream: &Arc<UpstreamState>,
        endpoint: &Arc<EndpointState>,
        wanted: Wanted<'_>,
        queue: &Queued,
    ) -> Result<Either, Error> {
        // Who wants a fresh connection cannot use every stream, and holds nobody up.
        queue.set_for_stream(!wanted.fresh);
        let room = self.with(upstream, endpoint, wanted, |pool| pool.room.clone());
        let stream = async {
            loop {
                room.notified().await;
                if let Some(connection) = self.pick_http2(upstream, endpoint, wanted, Some(queue)) {
                    return connection;
                }
            }
        };
        tokio::select! {
            // First, or what it has just been given would be dropped.
            biased;
            waited = self.wait(upstream, endpoint, wanted) => {
                queue.set_for_stream(false);
                Ok(Either::Waited(waited?))
            }
            connection = stream => Ok(Either::Room(connection)),
        }
    }

    fn with<T>(
        &self,
        upstream: &Arc<UpstreamState>,
        endpoint: &Arc<EndpointState>,
        wanted: Wanted<'_>,
        use_pool: impl FnOnce(&mut EndpointPool) -> T,
    ) -> T {
        let mut endpoints = self.endpoints.borrow_mut();
        let pool = endpoints.entry(Place::of(endpoint, wanted)).or_insert_with(|| EndpointPool {
            upstream: upstream.clone(),
            endpoint: Arc::downgrade(endpoint),
            tls: wanted.tls.map(Arc::downgrade),
            chose_http2: None,
            idle: Vec::new(),
            idle_bound: None,
            waiters: VecDeque::new(),
            http2: Vec::new(),
            room: Rc::default(),
            queue: Rc::default(),
        });
        use_pool(pool)
    }
}

impl Place {
    fn of(endpoint: &EndpointState, wanted: Wanted<'_>) -> Self {
        Place { endpoint: endpoint.id, tls: wanted.tls.map_or(0, |tls| tls.id()) }
    }
}

impl EndpointPool {
    /// False once nobody wants connections like these any more.
    fn is_current(&self, place: Place) -> bool {
        match &self.tls {
            None => true,
            Some(tls) => tls.upgrade().is_some_and(|tls| tls.id() == place.tls),
        }
    }
}

async fn within<T>(until: Option<Instant>, making: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match until {
        None => making.await,
        Some(until) => tokio::time::timeout_at(until, making)
            .await
            .unwrap_or_else(|_| Err(Error::upstream(Reason::ConnectTimeout).unsent())),
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
