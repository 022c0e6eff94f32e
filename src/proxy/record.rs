//! What is known of one request, from its first byte to the last of its response; then metrics and a log line.

mod tell;

use std::hint::cold_path;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::answer::{self, grpc_status, may_be_retried};
use super::attempt::Checkpoints;
use super::destination::Destination;
use super::entry::Entry;
use super::forwarded::Client;
use super::original::Original;
use super::peek::Peek;
use super::retry::Refused;
use super::spans::{AttemptEnd, Spans};
use super::worker::{Generation, RequestInFlight, Worker};
use crate::admission::{Admission, Admitted};
use crate::body::{Body, Downstream, Observer};
use crate::config::model::{Direction, RateLimitKey};
use crate::error::{Cause, Error, Reason, Source};
use crate::identity::Peer;
use crate::outcome::{Class, Outcome};
use crate::runtime::drain::{Phase, Ticket};
use crate::snapshot::{Listener, Upstream};
use crate::telemetry::access_log::Logged;
use crate::telemetry::doctor::Visit;
use crate::telemetry::metrics::{
    Exemplar, Held, ListenerCounter, ListenerGauge, MethodLabel, RequestKey, RouteId, UpstreamCounter, UpstreamId,
};
use crate::telemetry::request_id::RequestId;
use crate::telemetry::trace_context::TraceContext;
use crate::upstream::breaker::Pass;
use crate::upstream::limit::Permit;
use crate::upstream::state::EndpointState;

/// One request. Ends when [`Observer::end`] is called or, where the client has left before, when it is dropped.
pub(crate) struct Record {
    worker: Rc<Worker>,
    entry: Rc<Entry>,
    generation: Rc<Generation>,
    listener: usize,
    /// Whom TLS says that it comes from; `None` in the clear.
    client: Option<Rc<Peer>>,
    /// Who asks, as far as trust reaches.
    pub(super) client_address: Option<IpAddr>,
    downstream: Option<Rc<dyn Downstream>>,
    pub(crate) received: Instant,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    version: Version,
    pub(crate) trace: TraceContext,
    spans: Option<Box<Spans>>,
    peek: Option<Box<Peek>>,
    /// The headers that its line in the access log shows.
    logged: Option<Box<Logged>>,
    /// Where it is traced and inbound: it is with the app.
    _visit: Option<Visit>,
    pub(crate) request_id: RequestId,
    /// The route that matched, by its position.
    pub(crate) route: Option<usize>,
    destination: Option<Destination>,
    pub(crate) upstream_name: Option<Arc<str>>,
    pub(crate) endpoint: Option<Arc<EndpointState>>,
    /// Where the client was going to, where the kernel redirected it.
    pub(crate) original: Option<Rc<Original>>,
    pub(crate) grpc: bool,
    grpc_code: Option<u8>,
    code: StatusCode,
    pub(crate) reason: Option<Reason>,
    pub(crate) attempts: u32,
    /// Those after the first, without what was sent again because its connection had died.
    pub(crate) retries: u32,
    /// What stopped further ones.
    pub(crate) retry_refused: Option<Refused>,
    /// An attempt whose response is under way, and will be judged by its end.
    unjudged: Option<Duration>,
    /// Waiting for a connection, all attempts together.
    pub(crate) queued: Option<Duration>,
    /// Making one.
    pub(crate) connect: Option<Duration>,
    pub(crate) first_byte: Option<Instant>,
    /// When it was first sent to an endpoint.
    pub(super) sent_on: Option<Instant>,
    /// How long the last attempt waited for the client to send more of its request, which is not the endpoint's time.
    uploading: Duration,
    /// An attempt that is waited for.
    pub(super) under_way: Option<UnderWay>,
    /// Through a tunnel; those of a body are the connection's to count.
    bytes_in: u64,
    bytes_out: u64,
    ended: bool,
    /// Wakes whoever waits for more of the response, where its connection does not.
    ticket: Option<Ticket>,
    /// What the listener and the route let in.
    admitted: SmallVec<[Admitted; 1]>,
    /// The upstream's permit for this request.
    pub(crate) permit: Option<Permit>,
    /// The upstream's permit for this request's retries.
    pub(crate) retry_permit: Option<Permit>,
    /// That of its circuit breaker.
    pub(crate) pass: Option<Pass>,
    _in_flight: (RequestInFlight, Held),
}

/// An attempt of which nothing is known yet.
pub(super) struct UnderWay {
    pub(super) began: Instant,
    /// What its endpoint got as its parent.
    pub(super) span_id: [u8; 16],
}

impl Record {
    #[allow(clippy::too_many_arguments)] // What a request begins with; a struct would be named once and taken apart.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        entry: &Rc<Entry>,
        generation: Rc<Generation>,
        listener: usize,
        downstream: Option<Rc<dyn Downstream>>,
        received: Instant,
        method: Method,
        uri: Uri,
        version: Version,
        headers: &HeaderMap,
        client: Option<Rc<Peer>>,
    ) -> Box<Self> {
        let Listener { edge, id, direction, .. } = generation.snapshot.listeners[listener];
        let ids = &mut *worker.ids.borrow_mut();
        let trace = TraceContext::receive(headers, edge, worker.tracer.policy(), ids);
        Box::new(Record {
            listener,
            client,
            client_address: None,
            downstream,
            received,
            spans: trace.is_recorded().then(|| Spans::begin(headers, ids)),
            peek: worker.tap.is_on().then(|| Peek::begin(headers, worker.tap.body_bytes())),
            logged: worker.access_log.borrow().capture(headers),
            _visit: visit(worker, &trace, direction),
            trace,
            request_id: RequestId::receive(headers, edge, ids),
            host: headers.get(http::header::HOST).cloned(),
            method,
            uri,
            version,
            route: None,
            destination: None,
            upstream_name: None,
            endpoint: None,
            original: None,
            grpc: is_grpc(headers),
            grpc_code: None,
            code: StatusCode::OK,
            reason: None,
            attempts: 0,
            retries: 0,
            retry_refused: None,
            unjudged: None,
            queued: None,
            connect: None,
            first_byte: None,
            sent_on: None,
            uploading: Duration::ZERO,
            under_way: None,
            bytes_in: 0,
            bytes_out: 0,
            ended: false,
            ticket: None,
            admitted: SmallVec::new(),
            permit: None,
            retry_permit: None,
            pass: None,
            _in_flight: (worker.begin_request(), worker.metrics.hold_listener(id, ListenerGauge::RequestsInFlight)),
            worker: worker.clone(),
            entry: entry.clone(),
            generation,
        })
    }

    /// The upstream is known; so much is true however the attempt ends.
    pub(super) fn send_to(&mut self, destination: &Destination) {
        self.upstream_name = Some(self.generation.upstream(destination).state.name.clone());
        self.destination = Some(destination.clone());
    }

    fn upstream(&self) -> Option<&Upstream> {
        self.destination.as_ref().map(|destination| self.generation.upstream(destination))
    }

    pub(crate) fn listener_position(&self) -> usize {
        self.listener
    }

    pub(crate) fn listener(&self) -> &Listener {
        &self.generation.snapshot.listeners[self.listener]
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    pub(crate) fn generation(&self) -> &Rc<Generation> {
        &self.generation
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(crate) fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// Asks a listener's or route's limits.
    pub(super) fn admit(
        &mut self,
        admission: &Arc<Admission>,
        client: &Client,
        headers: &HeaderMap,
    ) -> Result<(), Error> {
        let (admitted, shadow) = match admission.key() {
            None => admission.admit(b"", self.received),
            Some(RateLimitKey::Header(name)) => {
                admission.admit(headers.get(name).map_or(&b""[..], |value| value.as_bytes()), self.received)
            }
            Some(RateLimitKey::Client) => match client.address {
                Some(IpAddr::V4(address)) => admission.admit(&address.octets(), self.received),
                Some(IpAddr::V6(address)) => admission.admit(&address.octets(), self.received),
                None => admission.admit(b"", self.received),
            },
        }?;
        let listener = self.listener().id;
        if shadow.rate_limited {
            self.worker.metrics.count_listener(listener, ListenerCounter::ShadowRateLimited);
        }
        if shadow.concurrency_limited {
            self.worker.metrics.count_listener(listener, ListenerCounter::ShadowConcurrencyLimited);
        }
        self.admitted.push(admitted);
        Ok(())
    }

    /// What an attempt took to have its connection.
    pub(super) fn note_attempt(&mut self, checkpoints: &Checkpoints) {
        self.queued = checkpoints.queued.or(self.queued);
        self.connect = checkpoints.connect.or(self.connect);
        self.uploading = checkpoints.uploading;
    }

    /// An attempt's response has begun, `took` after the attempt did; `judged` where a race has done that already.
    pub(crate) fn attempt_answered(&mut self, response: &Response<Body>, took: Duration, now: Instant, judged: bool) {
        let bad_news = may_be_retried(response, self.grpc);
        // How quickly something fails says nothing of how long work takes.
        for admitted in self.admitted.iter().filter(|_| !bad_news) {
            admitted.answered(now, now - self.received);
        }
        let streams = !response.body().is_end_stream() && response.body().as_full().is_none();
        // It may break yet, and gRPC's status comes last; what is bad news as it is may be tried again.
        if streams && !bad_news && (!self.grpc || grpc_status(response.headers()).is_none()) {
            self.code = response.status();
            self.unjudged = Some(took);
        } else if !judged {
            self.judge(answer::outcome(response, self.grpc), took, now);
        }
    }

    /// A response that was under way is over, `broken` or not.
    fn judge_at_its_end(&mut self, broken: Option<Cause>, took: Duration, now: Instant) {
        let answered = Outcome::Answered { status: self.code.as_u16(), grpc: self.grpc_code };
        let outcome = match broken {
            None => answered,
            Some(cause) => {
                cold_path();
                let failed = Outcome::Failed(cause.reason);
                // One that has begun to answer may be silent for as long as it likes; gRPC's answer is its status.
                let is_failure = match failed.class() {
                    Class::Reset => true,
                    Class::Nothing => false,
                    _ => self.grpc,
                };
                if is_failure && cause.source != Source::Downstream {
                    if let Some(endpoint) = &self.endpoint {
                        endpoint.count_failure();
                    }
                    failed
                } else if self.grpc && self.grpc_code.is_none() {
                    // Not its endpoint's doing, and what that would have said is not known.
                    self.count_attempt(failed, took);
                    self.pass = None;
                    return;
                } else {
                    answered
                }
            }
        };
        self.judge(outcome, took, now);
        self.tell_breaker(outcome, now);
    }

    /// It is known how the latest attempt ended.
    pub(crate) fn judge(&self, outcome: Outcome, took: Duration, now: Instant) {
        if let Some(endpoint) = &self.endpoint {
            self.judge_endpoint(endpoint, outcome, took, now);
        }
    }

    /// An attempt has ended, which says nothing of its endpoint.
    pub(super) fn count_attempt(&self, outcome: Outcome, took: Duration) {
        if let Some(upstream) = self.upstream() {
            self.worker.metrics.attempt(upstream.id, outcome, took);
        }
    }

    /// It is known how an attempt at this endpoint ended.
    pub(super) fn judge_endpoint(&self, endpoint: &EndpointState, outcome: Outcome, took: Duration, now: Instant) {
        let Some(upstream) = self.upstream() else { return };
        self.worker.metrics.attempt(upstream.id, outcome, took);
        upstream.judge().attempt_ended(endpoint, outcome.class(), took.saturating_sub(self.uploading), now.into());
    }

    /// It is known how the request ended, with its retries; or that this is known when its response has ended.
    pub(crate) fn request_ended(&mut self, outcome: Result<&Response<Body>, Cause>, now: Instant) {
        match outcome {
            // A pass that is gone without a word counts for nothing.
            Err(cause) if cause.source == Source::Downstream => self.pass = None,
            Err(cause) => self.tell_breaker(Outcome::Failed(cause.reason), now),
            // Probes are waited for, and a stream may outlast that: with gRPC too, that there is an answer is enough.
            Ok(response) if self.unjudged.is_some() && self.pass.as_ref().is_some_and(Pass::is_probe) => {
                self.tell_breaker(Outcome::answered(response.status().as_u16()), now);
            }
            Ok(_) if self.unjudged.is_some() => {}
            Ok(response) => {
                self.tell_breaker(answer::outcome(response, self.grpc), now);
            }
        }
    }

    /// The version of TLS that the client speaks.
    pub(crate) fn client_tls(&self) -> Option<&'static str> {
        self.client.as_ref().map(|client| client.version.as_str())
    }

    /// Whom the client's certificate names.
    pub(crate) fn client_identity(&self) -> Option<&str> {
        self.client.as_ref().and_then(|client| client.identity.as_deref())
    }

    /// Who asked.
    pub(crate) fn asked_by(&mut self, client: &Client, peer: Option<SocketAddr>) {
        self.client_address = client.address;
        if let Some(peek) = &mut self.peek {
            peek.client = client.address;
        }
        if let Some(spans) = &mut self.spans {
            spans.client = Some(*client);
            spans.peer = peer;
        }
    }

    /// An attempt has ended: where spans are wanted, it is one.
    pub(crate) fn span(&mut self, attempt: &AttemptEnd<'_>) {
        if let Outcome::Failed(_) = attempt.outcome
            && self.trace.records_failures()
        {
            self.spans.get_or_insert_with(|| Spans::late(&mut self.worker.ids.borrow_mut()));
        }
        if let Some(spans) = &mut self.spans {
            spans.attempt(attempt, &self.worker.clock);
        }
    }

    /// The request's body is about to pass.
    pub(crate) fn request_body(&mut self, body: &mut Body) {
        if let Some(peek) = &mut self.peek {
            peek.request_body(body);
        }
    }

    /// The response is about to pass.
    pub(crate) fn response(&mut self, response: &mut Response<Body>) {
        if let Some(peek) = &mut self.peek {
            let (headers, body) = (response.headers().clone(), response.body_mut());
            peek.response(headers, body);
        }
    }

    fn tell_breaker(&mut self, outcome: Outcome, now: Instant) {
        let pass = self.pass.take();
        let (Some(pass), Some(upstream)) = (pass, self.upstream()) else { return };
        let since = self.sent_on.unwrap_or(self.received);
        let took = self.first_byte.unwrap_or(now).saturating_duration_since(since).saturating_sub(self.uploading);
        upstream.judge().request_ended(pass, self.endpoint.as_deref(), outcome.class(), took, now.into());
    }

    /// The response's head is there.
    pub(crate) fn answered(&mut self, code: StatusCode, headers: &HeaderMap) {
        self.code = code;
        self.first_byte.get_or_insert_with(Instant::now);
        self.admitted.iter_mut().for_each(Admitted::begun);
        if self.grpc {
            self.trailers(headers);
        }
    }

    fn finish(&mut self, outcome: Result<(), Cause>, now: Instant) {
        self.ended = true;
        if let Err(cause) = outcome {
            cold_path();
            // What went wrong first explains the rest.
            self.reason.get_or_insert(cause.reason);
            if self.first_byte.is_none() {
                self.code = cause.reason.status();
            }
            self.give_up_attempt(cause.reason, now);
        }
        if let Some(took) = self.unjudged.take() {
            self.judge_at_its_end(outcome.err(), took, now);
        }
        let total = now.saturating_duration_since(self.received);
        let bytes_in = self.bytes_in + self.downstream.as_ref().map_or(0, |downstream| downstream.bytes_in());
        let code = self.code.as_u16();
        let route: RouteId = match self.route {
            Some(route) => self.listener().routes[route].id,
            None => self.listener().no_route,
        };
        let grpc = self.grpc.then_some(self.grpc_code).flatten();
        let upstream: Option<UpstreamId> = self.upstream().map(|upstream| upstream.id);
        let key =
            RequestKey { route, upstream, method: MethodLabel::from(&self.method), code, grpc, reason: self.reason };
        let exemplar = self
            .trace
            .is_recorded()
            .then(|| Exemplar::new(self.trace.trace_id(), self.worker.clock.unix((self.received + total).into_std())));
        self.worker.metrics.request(&key, total, (bytes_in, self.bytes_out), exemplar.flatten());
        if let Some(upstream) = upstream {
            self.worker.metrics.count_upstream(upstream, UpstreamCounter::SentBytes, bytes_in);
            self.worker.metrics.count_upstream(upstream, UpstreamCounter::ReceivedBytes, self.bytes_out);
        }
        if self.worker.access_log.borrow().wants(code, grpc, self.reason) {
            self.write_log(total, bytes_in, grpc);
        }
        if self.trace.is_recorded() || (self.reason.is_some() && self.trace.records_failures()) {
            self.record_spans(total, grpc);
        }
        if let Some(peek) = self.peek.take() {
            self.show(*peek, total, bytes_in, grpc);
        }
    }

    fn scheme(&self) -> &'static str {
        if self.client.is_some() { "https" } else { "http" }
    }
}

/// A traced request goes to the app; or the app calls somebody.
fn visit(worker: &Worker, trace: &TraceContext, direction: Direction) -> Option<Visit> {
    match direction {
        Direction::Inbound => trace.is_traced().then(|| worker.doctor.visit()),
        Direction::Outbound => {
            worker.doctor.call(trace.parent_id().is_some());
            None
        }
    }
}

/// gRPC in any of its encodings.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

impl Observer for Record {
    fn sent(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    fn received(&mut self, bytes: u64) {
        self.bytes_in += bytes;
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_code = grpc_status(trailers).or(self.grpc_code);
    }

    fn is_cut(&mut self, waker: &Waker) -> bool {
        // A connection of HTTP/1 is one task, which has left its waker already; streams of HTTP/2 have their own.
        if self.version == Version::HTTP_2 {
            self.ticket.get_or_insert_with(|| self.entry.drain.join()).watch(waker);
        }
        let route = || Some(self.generation.snapshot.listeners[self.listener].routes[self.route?].id);
        self.worker.cuts.has(route, self.generation.snapshot.generation)
    }

    fn end(mut self: Box<Self>, outcome: Result<(), Cause>, now: Instant) {
        self.finish(outcome, now);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        cold_path();
        // Nobody dropped it but the end of the proxy, or the client.
        let forced = self.entry.drain.phase() == Phase::Forced;
        let cause = if forced { Cause::local(Reason::Draining) } else { Cause::downstream(Reason::ClientCancelled) };
        self.finish(Err(cause), Instant::now());
    }
}
