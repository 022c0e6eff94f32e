//! What happens to a request between its listener and its upstream.
//!
//! `Connection::handle` is the whole way, top to bottom; each step is a file beside this one. The steps are futures, one
//! in the other, and pinned where they are made: to wait for one by `.await` alone moves it first, with all the room
//! that it will ever need, and what is written there is in no cache.

pub(crate) mod affinity;
mod answer;
mod attempt;
mod breaker;
mod cut;
pub(crate) mod deadline;
pub(crate) mod decisions;
mod destination;
pub(crate) mod entry;
mod fault;
mod forward;
pub mod forwarded;
pub mod header_rules;
mod hedge;
pub mod hop_by_hop;
mod list_field;
mod mirror;
mod original;
mod peek;
pub(crate) mod record;
mod replay;
mod reply;
pub(crate) mod retry;
mod spans;
pub(crate) mod tunnel;
pub(crate) mod upgrade;
mod variables;
pub mod via;
pub(crate) mod worker;

use std::hint::cold_path;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{DATE, HeaderName};
use http::uri::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use self::decisions::{HTTP_PORT, HTTPS_PORT, drop_own_fields};
use self::destination::Destination;
use self::entry::Entry;
use self::forward::Order;
use self::forwarded::{Client, Peer};
use self::original::Original;
use self::record::Record;
use self::reply::Audience;
use self::variables::RequestVariables;
use self::worker::{Generation, Worker};
use crate::body::{Body, Downstream, Tunnel};
use crate::config::model::{Direction, ListenerLimits, Mode, TlsVersion};
use crate::error::{Error, Reason};
use crate::identity::{self, ServerTls};
use crate::route::rewrite::redirect_location;
use crate::snapshot::{self, Action, Route};

const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// One client's connection, as its requests see it.
pub(crate) struct Connection {
    worker: Rc<Worker>,
    entry: Rc<Entry>,
    peer: Peer,
    peer_port: Option<u16>,
    /// Whom TLS says that it is with; `None` in the clear.
    secured: Option<Rc<identity::Peer>>,
    /// Where the client was going to, where the kernel redirected it.
    original: Option<Rc<Original>>,
}

impl Connection {
    pub(crate) fn new(worker: Rc<Worker>, entry: Rc<Entry>, peer: Option<SocketAddr>) -> Self {
        let (peer, peer_port) = (Peer::new(peer.map(|peer| peer.ip())), peer.map(|peer| peer.port()));
        Connection { worker, entry, peer, peer_port, secured: None, original: None }
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// The connection was going to this address.
    pub(crate) fn captured(&mut self, address: SocketAddr) {
        self.original = Some(Rc::new(Original::new(address)));
    }

    /// The way out for what is no HTTP: where the client was going to, if the listener lets that through.
    pub(crate) async fn pass_on(&self) -> Option<Result<Tunnel, Error>> {
        let (generation, listener) = self.current();
        let target = generation.snapshot.listeners[listener].passthrough.as_ref()?;
        let original = self.original.as_ref()?;
        Some(original::connect(&self.worker, generation.snapshot.upstream(target.upstream), target, original).await)
    }

    pub(crate) fn passes_on(&self) -> bool {
        let (generation, listener) = self.current();
        generation.snapshot.listeners[listener].passthrough.is_some()
    }

    /// Where it came in.
    pub(crate) fn entry(&self) -> &Rc<Entry> {
        &self.entry
    }

    /// For a line of the log.
    pub(crate) fn peer_name(&self) -> String {
        match self.peer.address() {
            Some(ip) => SocketAddr::new(ip, self.peer_port.unwrap_or_default()).to_string(),
            None => "unix".to_owned(),
        }
    }

    pub(crate) fn listener_name(&self) -> Arc<str> {
        let (generation, listener) = self.current();
        generation.snapshot.listeners[listener].name.clone()
    }

    /// How the listener speaks TLS now, where it does.
    pub(crate) fn tls(&self) -> Option<Arc<ServerTls>> {
        let (generation, listener) = self.current();
        generation.snapshot.listeners[listener].tls.clone()
    }

    /// What the listener speaks now.
    pub(crate) fn mode(&self) -> Mode {
        let (generation, listener) = self.current();
        generation.snapshot.listeners[listener].mode
    }

    /// True where the listener has to know whom its clients ask for.
    pub(crate) fn routes_by_host(&self) -> bool {
        let (generation, listener) = self.current();
        generation.snapshot.listeners[listener].routes.iter().any(|route| route.names_host)
    }

    /// Whom the client's TLS, which ends here, asked for.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.secured.as_ref().and_then(|peer| peer.server_name.as_deref())
    }

    /// From now on the connection is with this peer.
    pub(crate) fn secure(&mut self, peer: Rc<identity::Peer>) {
        self.secured = Some(peer);
    }

    /// `None` in the clear.
    pub(crate) fn tls_version(&self) -> Option<TlsVersion> {
        self.secured.as_ref().map(|peer| peer.version)
    }

    fn scheme(&self) -> &'static str {
        if self.secured.is_some() { "https" } else { "http" }
    }

    /// What the listener says now. Asked for once a request.
    pub(crate) fn limits(&self) -> ListenerLimits {
        let (generation, listener) = self.current();
        generation.snapshot.listeners[listener].limits
    }

    /// The generation that serves the next request, and the listener's position in it.
    fn current(&self) -> (Rc<Generation>, usize) {
        self.worker.catch_up();
        self.entry.at()
    }

    /// Answers a request. Never fails: what goes wrong becomes a response.
    pub(crate) async fn handle(&self, request: &mut Request<Body>) -> Box<Response<Body>> {
        let downstream = request.body_mut().take_downstream();
        let mut record = self.begin(request, downstream.clone());
        record.request_body(request.body_mut());
        let outcome = pin!(self.answer(&mut record, request, downstream.as_ref())).await;
        self.finish(record, outcome)
    }

    /// Answers a request that its listener refuses before anything is done with it.
    pub(crate) fn refuse(&self, request: &mut Request<Body>, error: Error) -> Box<Response<Body>> {
        let downstream = request.body_mut().take_downstream();
        let record = self.begin(request, downstream);
        self.finish(record, Err(error))
    }

    /// The answer to what nobody could read: how and what it asked is not known, and no guess is logged.
    pub(crate) fn refuse_unread(&self, downstream: Option<Rc<dyn Downstream>>, error: Error) -> Box<Response<Body>> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::from_bytes(b"_OTHER").unwrap_or_default();
        *request.uri_mut() = Uri::from_parts(Parts::default()).unwrap_or_default();
        let record = self.begin(&request, downstream);
        self.finish(record, Err(error))
    }

    /// What a request in flight gets when time is up.
    pub(crate) fn draining(&self) -> Box<Response<Body>> {
        let (generation, listener) = self.current();
        let listener = &generation.snapshot.listeners[listener];
        let audience = Audience { grpc: false, edge: listener.edge, listener: &listener.name, request_id: None };
        let mut response = Box::new(reply::failure(&Error::local(Reason::Draining), audience));
        self.date(&mut response);
        response
    }

    /// How an answer to gRPC ends that has broken off.
    pub(crate) fn grpc_trailers(&self, error: &Error) -> HeaderMap {
        let (generation, listener) = self.current();
        reply::grpc_trailers(error, generation.snapshot.listeners[listener].edge)
    }

    /// Who answers says when (RFC 9110, section 6.6.1); what an endpoint answers is passed on as it is.
    fn date(&self, response: &mut Response<Body>) {
        response.headers_mut().insert(DATE, self.worker.clock.date(Instant::now().into_std()));
    }

    fn begin(&self, request: &Request<Body>, downstream: Option<Rc<dyn Downstream>>) -> Box<Record> {
        let (generation, listener) = self.current();
        let received = downstream.as_ref().map_or_else(Instant::now, |downstream| downstream.received());
        let mut record = Record::begin(
            &self.worker,
            &self.entry,
            generation,
            listener,
            downstream,
            received,
            request.method().clone(),
            request.uri().clone(),
            request.version(),
            request.headers(),
            self.secured.clone(),
        );
        record.original.clone_from(&self.original);
        // Until it is known whom trusted proxies name.
        record.client_address = self.peer.address();
        record
    }

    /// The response as it goes to the client, with the record riding on its body.
    fn finish(&self, mut record: Box<Record>, outcome: Result<Box<Response<Body>>, Error>) -> Box<Response<Body>> {
        let mut response = outcome.unwrap_or_else(|error| {
            cold_path();
            record.reason = Some(error.reason);
            if error.reason == Reason::Internal {
                tracing::error!(%error, request_id = record.request_id.as_str(), "a bug in the proxy cost a request");
            } else {
                tracing::debug!(%error, request_id = record.request_id.as_str(), "request failed");
            }
            let listener = record.listener();
            let audience = Audience {
                grpc: record.grpc,
                edge: listener.edge,
                listener: &listener.name,
                request_id: Some(record.request_id.as_str()),
            };
            let mut response = Box::new(reply::failure(&error, audience));
            self.date(&mut response);
            response
        });
        if let Some(refused) = record.retry_refused
            && !record.listener().edge
        {
            cold_path();
            refused.tell(response.headers_mut());
        }
        record.answered(response.status(), response.headers());
        // What the proxy answers by itself has a body that a HEAD must not get, whatever the client speaks.
        if record.method() == Method::HEAD
            && let Some(length) = response.body().as_full().map(bytes::Bytes::len)
        {
            cold_path();
            response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
            *response.body_mut() = Body::empty();
        }
        record.response(&mut response);
        response.body_mut().observe(record);
        response
    }

    async fn answer(
        &self,
        record: &mut Record,
        request: &mut Request<Body>,
        downstream: Option<&Rc<dyn Downstream>>,
    ) -> Result<Box<Response<Body>>, Error> {
        let generation = record.generation().clone();
        let listener = &generation.snapshot.listeners[record.listener_position()];
        let caller = self.secured.as_deref();
        if !identity::Peer::is_allowed(caller, &listener.allow) {
            return Err(Error::local(Reason::Denied));
        }
        let mut hop = hop_by_hop::strip(request.headers_mut());
        if hop.upgrade.is_some() && request.version() == Version::HTTP_10 {
            // RFC 9110, section 7.8: it is passed over.
            hop.upgrade = None;
        }
        let client = Client::find(&listener.trust, self.peer.address(), request.headers());
        if let Some(admission) = &listener.admission {
            record.admit(admission, &client, request.headers())?;
        }
        let port = if self.secured.is_some() { HTTPS_PORT } else { HTTP_PORT };
        record.asked_by(&client, self.peer.address().map(|ip| SocketAddr::new(ip, self.peer_port.unwrap_or_default())));
        let target = decisions::target(request, port, self.original.as_deref().map(Original::port));
        let position = listener.table.find(&target, request.headers());
        record.route = position;
        let route = position.map(|position| &listener.routes[position]);
        let connect =
            request.method() == Method::CONNECT && request.extensions().get::<hyper::ext::Protocol>().is_none();
        if connect {
            cold_path();
            let (local, captured) = (self.entry.local, self.original.is_some());
            if !decisions::takes_connect(&generation.snapshot, listener, route, local, captured) {
                return Err(Error::local(Reason::ConnectNotAllowed));
            }
        }
        let route = route.ok_or_else(|| Error::local(Reason::NoRoute))?;
        if !identity::Peer::is_allowed(caller, &route.allow) {
            return Err(Error::local(Reason::Denied));
        }
        if let Some(admission) = &route.admission {
            record.admit(admission, &client, request.headers())?;
        }
        if let Some(fault) = &route.fault {
            cold_path();
            Box::pin(fault::inject(fault, request.headers())).await?;
        }
        let captured = route.response_headers.capture(request.headers());
        let mut response = match decide(route, record, &generation, request, self.scheme())? {
            Decision::Answer(mut response) => {
                self.date(&mut response);
                response
            }
            Decision::Send(target) => {
                let destination = &Destination::of(record, &generation, target, request)?;
                self.prepare(record, route, request, &client)?;
                let order = Order {
                    target,
                    destination,
                    mirror: route.mirror.as_ref(),
                    hop: &hop,
                    client: &client,
                    downstream,
                };
                let mut response = pin!(breaker::pass(record, &order, request)).await?;
                let hop = hop_by_hop::strip(response.headers_mut());
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    cold_path();
                    upgrade::keep_switch(response.headers_mut(), hop.upgrade);
                }
                if listener.edge {
                    drop_own_fields(response.headers_mut());
                }
                // A gateway need not say on responses that they came through it (RFC 9110, section 7.6.3), and inbound
                // that is what we are; outbound, the app's proxy has to.
                if listener.direction == Direction::Outbound {
                    let version = response.version();
                    self.worker.via.append(response.headers_mut(), version);
                }
                response
            }
        };
        if !route.response_headers.is_empty() {
            let variables = self.variables(record, client);
            route.response_headers.apply_to_response(response.headers_mut(), &variables, &captured);
        }
        Ok(response)
    }

    /// Makes the client's request the one that goes to the endpoint.
    fn prepare(
        &self,
        record: &mut Record,
        route: &Route,
        request: &mut Request<Body>,
        client: &Client,
    ) -> Result<(), Error> {
        let version = request.version();
        let listener = record.listener();
        let edge = listener.edge;
        decisions::rewrite(route, request)?;
        let headers = request.headers_mut();
        if edge {
            drop_own_fields(headers);
        }
        let scheme = if self.secured.is_some() { &HTTPS } else { &HTTP };
        forwarded::write(headers, edge, client, &self.peer, scheme, record.host());
        if edge || listener.tls.is_some() {
            self.forward_client_cert(headers);
        }
        self.worker.via.append(headers, version);
        record.request_id.send(headers);
        decisions::set_host(route, headers);
        if !route.request_headers.is_empty() {
            let variables = self.variables(record, *client);
            route.request_headers.apply_to_request(request.headers_mut(), &variables);
        }
        Ok(())
    }

    /// What the app is told of its caller's certificate is ours to say, or nobody's.
    fn forward_client_cert(&self, headers: &mut HeaderMap) {
        decisions::drop_spellings(headers, &X_FORWARDED_CLIENT_CERT);
        if let Some(value) = self.secured.as_ref().and_then(|peer| peer.forwarded.as_ref()) {
            headers.insert(X_FORWARDED_CLIENT_CERT, value.clone());
        }
    }

    fn variables<'a>(&self, record: &'a Record, client: Client) -> RequestVariables<'a> {
        RequestVariables { record, client, client_port: self.peer_port, scheme: self.scheme() }
    }
}

/// What becomes of a request that a route has taken.
enum Decision<'a> {
    Answer(Box<Response<Body>>),
    Send(&'a snapshot::Target),
}

fn decide<'a>(
    route: &'a Route,
    record: &Record,
    generation: &Generation,
    request: &Request<Body>,
    scheme: &str,
) -> Result<Decision<'a>, Error> {
    Ok(match &route.action {
        Action::Upstream(target) => Decision::Send(target),
        Action::Split { split, targets } => {
            let weights = targets.iter().map(|(weight, _)| *weight);
            let picked = generation.pick_split(*split, weights).ok_or_else(|| Error::local(Reason::NoEndpoint))?;
            Decision::Send(&targets[picked].1)
        }
        Action::Redirect(redirect) => {
            let host = record.host().and_then(|host| host.to_str().ok()).unwrap_or_default();
            let uri = request.uri();
            let location = redirect_location(redirect, scheme, host, uri.path(), uri.query())
                .map_err(|error| Error::downstream(Reason::BadRequest).because(error))?;
            Decision::Answer(Box::new(reply::redirect(redirect.status, location)))
        }
        Action::Respond(answer) => {
            Decision::Answer(Box::new(reply::fixed(answer.status, &answer.body, &answer.content_type)))
        }
    })
}
