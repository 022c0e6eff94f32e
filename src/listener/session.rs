//! One connection's way into the proxy: through the layers that an embedding program has put around it, or straight.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tower::{Service, ServiceExt as _};

use crate::body::Body;
use crate::config::model::ListenerLimits;
use crate::error::Error;
use crate::proxy::Connection;
use crate::proxy::worker::Worker;
use crate::runtime::drain::Ticket;
use crate::telemetry::metrics::{ListenerCounter, ListenerId};

type ResponseFuture = Pin<Box<dyn Future<Output = Response<Body>>>>;

/// Puts an embedding program's layers around the proxy of one connection.
pub(crate) type LayerFn = Arc<dyn Fn(Proxy) -> Box<dyn EdgeService> + Send + Sync>;

/// A service whose type is forgotten.
pub(crate) trait EdgeService {
    fn call(&self, request: Request<Body>) -> ResponseFuture;
}

impl<S> EdgeService for S
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + 'static,
{
    fn call(&self, request: Request<Body>) -> ResponseFuture {
        let service = self.clone();
        Box::pin(async move {
            match service.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    }
}

/// The proxy of one connection as a [`tower::Service`]: what layers are put around. Always ready, never fails.
///
/// Like everything on a worker, it is not `Send`.
#[derive(Clone)]
pub struct Proxy(Rc<Connection>);

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proxy")
    }
}

impl Service<Request<Body>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let connection = self.0.clone();
        Box::pin(async move { Ok(*connection.handle(&mut request).await) })
    }
}

/// One connection.
pub(crate) struct Session {
    connection: Rc<Connection>,
    layered: Option<Box<dyn EdgeService>>,
}

impl Session {
    pub(crate) fn new(connection: Connection, layers: Option<&LayerFn>) -> Self {
        let connection = Rc::new(connection);
        let layered = layers.map(|layers| layers(Proxy(connection.clone())));
        Session { connection, layered }
    }

    /// Answers a request.
    pub(super) async fn call(&self, request: &mut Request<Body>) -> Box<Response<Body>> {
        match &self.layered {
            None => pin!(self.connection.handle(request)).await,
            Some(layered) => Box::new(layered.call(std::mem::take(request)).await),
        }
    }

    /// The answer to what is no request.
    pub(super) fn refuse(&self, error: Error, received: Instant) -> Box<Response<Body>> {
        self.connection.refuse_unread(Some(Rc::new(Unread(received))), error)
    }

    /// The answer to a request that goes no further.
    pub(super) fn refuse_request(&self, error: Error, request: &mut Request<Body>) -> Box<Response<Body>> {
        self.connection.refuse(request, error)
    }

    /// The answer to a request in flight when time is up.
    pub(super) fn draining(&self) -> Box<Response<Body>> {
        self.connection.draining()
    }

    /// How an answer to gRPC ends that has broken off.
    pub(super) fn grpc_trailers(&self, error: &Error) -> HeaderMap {
        self.connection.grpc_trailers(error)
    }

    pub(super) fn worker(&self) -> &Rc<Worker> {
        self.connection.worker()
    }

    pub(super) fn listener(&self) -> ListenerId {
        self.connection.entry().listener
    }

    /// What the listener says now. Asked for once a request.
    pub(super) fn limits(&self) -> ListenerLimits {
        self.connection.limits()
    }

    /// A place among those that hear of the end.
    pub(super) fn join_drain(&self) -> Ticket {
        self.connection.entry().drain.join()
    }

    /// The connection ends because its client floods it.
    pub(super) fn flooded(&self, reason: &str) {
        let worker = self.worker();
        worker.metrics.count_listener(self.listener(), ListenerCounter::RejectedHttp2Flood);
        if worker.client_log.admit() {
            let (listener, peer) = (self.connection.listener_name(), self.connection.peer_name());
            tracing::warn!(listener = &*listener, peer, reason, "a client floods HTTP/2, which ends its connection");
        }
    }

    pub(super) fn count_header_timeout(&self) {
        self.worker().metrics.count_listener(self.listener(), ListenerCounter::RejectedHeaderTimeout);
    }
}

/// Stands for a request that was never read.
pub(super) struct Unread(pub(super) Instant);

impl crate::body::Downstream for Unread {
    fn received(&self) -> Instant {
        self.0
    }

    fn send_interim(&self, _: &Response<Body>) {}

    fn leave_continue_to_endpoint(&self) {}

    fn bytes_in(&self) -> u64 {
        0
    }
}
