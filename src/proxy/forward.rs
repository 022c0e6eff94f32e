//! One request to an upstream: an endpoint, a connection, an exchange; and once more where it was never sent.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{EXPECT, TE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, request};
use http_body::Body as _;
use tokio::time::Instant;

use super::affinity;
use super::deadline;
use super::forwarded::Client;
use super::hop_by_hop::HopByHop;
use super::record::Record;
use super::upgrade;
use super::worker::Generation;
use crate::body::{Body, Downstream, Tunnel};
use crate::config::model::{Mode, UpstreamProtocol};
use crate::error::{Error, Reason, Source};
use crate::identity::Offer;
use crate::outcome::Outcome;
use crate::runtime::timer::earlier;
use crate::snapshot::{Target, Upstream};
use crate::telemetry::metrics::UpstreamCounter;
use crate::transport::{Answer, Attempt, Checkout, Deadlines, Failure, Negotiated, Wanted};
use crate::upstream::state::EndpointState;
use crate::upstream::turns::Wish;

/// Sends the request to the target's upstream.
pub(super) async fn forward(
    record: &mut Record,
    target: &Target,
    request: &mut Request<Body>,
    hop: &HopByHop,
    client: &Client,
    downstream: Option<&Rc<dyn Downstream>>,
) -> Result<Response<Body>, Error> {
    let generation = record.generation().clone();
    let upstream = generation.snapshot.upstream(target.upstream);
    record.permit = Some(upstream.state.requests.try_acquire().ok_or_else(|| Error::local(Reason::Overflow))?);

    let deadlines = deadlines(target, record, request.headers())?;
    let (mut head, mut body) = std::mem::take(request).into_parts();
    let raw_head = body.raw_head().clone();
    let mut fresh = false;
    let key = affinity::key(&upstream.balancing.load_balancer, &head.headers, client);
    loop {
        let mut began = Instant::now();
        let wish = Wish { key, failed: &[], now: began.into() };
        let endpoint = match generation.pick_endpoint(target.upstream, wish) {
            Ok(endpoint) => endpoint,
            Err(_) => {
                let endpoint = Box::pin(first_endpoint(&generation, target, wish, &deadlines)).await?;
                began = Instant::now();
                endpoint
            }
        };
        record.endpoint = Some(endpoint.clone());
        record.attempts += 1;
        let plan =
            Plan { upstream, endpoint: &endpoint, hop, downstream, deadlines, began, fresh, raw_head: &raw_head };
        let outcome = attempt(record, &plan, &mut head, &mut body).await;
        let ended = Instant::now();
        let failure = match outcome {
            Ok(response) => {
                record.first_byte = Some(ended);
                record.attempt_answered(&response, ended - began, ended);
                return Ok(response);
            }
            Err(failure) => failure,
        };
        endpoint.count_failure();
        count_failure(record, upstream, failure.error.reason);
        record.judge(Outcome::Failed(failure.error.reason), ended - began, ended);
        // An idle connection may die just as it is used. Once more, on a connection that cannot have: the next idle
        // one may be as dead. RFC 9110, section 9.2.2 lets a proxy repeat what is idempotent or provably unprocessed.
        let repeatable = failure.body_intact && (failure.error.unsent || head.method.is_idempotent());
        if fresh || !failure.stale || !repeatable {
            return Err(failure.error);
        }
        fresh = true;
        record.worker().metrics.count_upstream(upstream.id, UpstreamCounter::StaleConnectionReplays, 1);
    }
}

/// Where the upstream's source has said nothing yet, its first answer may be a moment away.
async fn first_endpoint(
    generation: &Generation,
    target: &Target,
    wish: Wish<'_>,
    deadlines: &Deadlines,
) -> Result<Arc<EndpointState>, Error> {
    let endpoints = &generation.snapshot.upstream(target.upstream).endpoints;
    if !endpoints.is_answered() {
        endpoints.answered_within(deadlines.connect).await;
    }
    generation.pick_endpoint(target.upstream, wish).map_err(|_| Error::local(Reason::NoEndpoint))
}

/// What one attempt goes by.
struct Plan<'a> {
    upstream: &'a Upstream,
    endpoint: &'a Arc<EndpointState>,
    hop: &'a HopByHop,
    downstream: Option<&'a Rc<dyn Downstream>>,
    deadlines: Deadlines,
    began: Instant,
    /// Only on a new connection.
    fresh: bool,
    /// The head as it came from the client.
    raw_head: &'a [u8],
}

async fn attempt(
    record: &mut Record,
    plan: &Plan<'_>,
    head: &mut request::Parts,
    body: &mut Body,
) -> Result<Response<Body>, Failure> {
    let &Plan { upstream, endpoint, hop, downstream, deadlines, began, fresh, raw_head } = plan;
    let worker = record.worker().clone();
    let pools = &worker.pools;
    let span = worker.ids.borrow_mut().span_id();
    record.trace.send(&mut head.headers, &span);
    let careful = !head.method.is_idempotent() || !body_is_whole(body);
    let tunnel = head.method == Method::CONNECT && !upgrade::is_extended_connect(head);
    let wanted = Wanted {
        now: began,
        // What becomes a tunnel has never spoken HTTP.
        fresh: fresh || tunnel,
        careful,
        until: earlier(deadlines.connect.map(|bound| began + bound), deadlines.request),
        idle: deadlines.idle,
        // What goes through a CONNECT is the client's own, TLS too.
        tls: upstream.tls.as_ref().filter(|_| !tunnel || record.listener().mode == Mode::Tcp),
        tunnel,
    };
    let guard = endpoint.begin();
    let unsent = |mut error: Error| {
        if error.source == Source::Upstream {
            error.reason = deadlines.reason(error.reason);
        }
        Failure { error, stale: false, body_intact: true }
    };

    let only_http1 = tunnel || upgrade::is_wanted(head, hop);
    let offer = if only_http1 { Offer::Http1 } else { offer(upstream, endpoint, record.grpc) };
    // On the heap what most requests do not need: their path need not have room for the largest.
    let found = match offer {
        Offer::Http1 | Offer::Nothing => pools.http1(&upstream.state, endpoint, wanted).await.map(Negotiated::Http1),
        Offer::Http2 => Box::pin(pools.http2(&upstream.state, endpoint, wanted)).await.map(Negotiated::Http2),
        Offer::Either => Box::pin(pools.negotiated(&upstream.state, endpoint, wanted)).await,
    };
    let Checkout { connection, queued, connected } = match found.map_err(unsent)? {
        Negotiated::Http1(checkout) => checkout,
        Negotiated::Http2(connection) => {
            prepare_http2(head, hop);
            record.connect = Some(began.elapsed());
            record.queued = Some(Duration::ZERO);
            pass_deadline_on(head, &deadlines);
            let mut attempt = Attempt { head, raw_head, body, downstream, deadlines, began };
            return Box::pin(connection.exchange(&mut attempt, guard)).await;
        }
    };
    if !connected.is_zero() {
        worker.metrics.count_upstream(upstream.id, UpstreamCounter::Connected, 1);
    }
    record.queued = Some(queued);
    record.connect = Some(connected);
    if tunnel {
        let (stream, permit) = connection.into_stream();
        return Ok(opened(Tunnel {
            endpoint: Box::new(stream),
            early: bytes::Bytes::new(),
            idle: deadlines.tunnel_idle,
            _guard: Some(Box::new((permit, guard))),
        }));
    }
    let restored = upgrade::prepare_http1(head, hop);
    prepare_http1(head);
    pass_deadline_on(head, &deadlines);
    let mut attempt = Attempt { head, raw_head, body, downstream, deadlines, began };
    match connection.exchange(&mut attempt, guard, pools).await? {
        Answer::Response(response) => restored.check(response),
        Answer::Switched { response, raw_head, stream, early, guards } => {
            let tunnel = Tunnel {
                endpoint: Box::new(stream),
                early,
                idle: deadlines.tunnel_idle,
                _guard: Some(Box::new(guards)),
            };
            let mut response = restored.answer(response, tunnel);
            response.body_mut().set_raw_head(raw_head);
            Ok(response)
        }
    }
}

fn count_failure(record: &Record, upstream: &Upstream, reason: Reason) {
    let counter = match reason {
        Reason::ConnectFailure => UpstreamCounter::ConnectFailure,
        Reason::ConnectTimeout => UpstreamCounter::ConnectTimeout,
        Reason::TlsError => UpstreamCounter::TlsError,
        _ => return,
    };
    record.worker().metrics.count_upstream(upstream.id, counter, 1);
}

/// gRPC needs HTTP/2. Where nobody said what an upstream speaks, everything else goes as the endpoint chooses under TLS,
/// and in the clear the way that all understand.
fn offer(upstream: &Upstream, endpoint: &EndpointState, grpc: bool) -> Offer {
    let written = upstream.protocol;
    let said = if written == UpstreamProtocol::Auto { endpoint.protocol() } else { written };
    match said {
        UpstreamProtocol::Auto if grpc => Offer::Http2,
        UpstreamProtocol::Auto if upstream.tls.is_some() => Offer::Either,
        UpstreamProtocol::Auto | UpstreamProtocol::Http1 => Offer::Http1,
        UpstreamProtocol::Http2 => Offer::Http2,
    }
}

/// What a gRPC client still waits, for the endpoint to know; as late as possible.
fn pass_deadline_on(head: &mut request::Parts, deadlines: &Deadlines) {
    if deadlines.request_reason == Reason::DeadlineExceeded
        && let Some(deadline) = deadlines.request
    {
        deadline::send(&mut head.headers, deadline.saturating_duration_since(Instant::now()));
    }
}

fn prepare_http2(head: &mut request::Parts, hop: &HopByHop) {
    // The proxy answers for the endpoint: HTTP/2 endpoints are never waited for.
    head.headers.remove(EXPECT);
    if hop.trailers {
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn prepare_http1(head: &mut request::Parts) {
    if head.version == Version::HTTP_2 {
        crate::transport::join_cookies(&mut head.headers);
    }
}

/// True where the body can be sent again as a whole: it has not been touched, or is in memory.
fn body_is_whole(body: &Body) -> bool {
    body.is_end_stream() || body.as_full().is_some()
}

/// The patience of the request's route, and of a gRPC client where that is less.
fn deadlines(target: &Target, record: &Record, headers: &http::HeaderMap) -> Result<Deadlines, Error> {
    let timeouts = target.timeouts.timeouts;
    let grpc = record.grpc;
    let mut deadlines = Deadlines {
        connect: timeouts.connect,
        response: timeouts.response.filter(|_| !grpc || timeouts.response_written),
        idle: if grpc { target.timeouts.stream_idle } else { timeouts.idle },
        stream_idle: target.timeouts.stream_idle,
        request: timeouts.request.map(|bound| record.received + bound),
        request_reason: Reason::RequestTimeout,
        tunnel_idle: timeouts.tunnel_idle,
    };
    if grpc && let Some(timeout) = deadline::receive(headers) {
        let deadline = record.received + timeout;
        if deadline <= Instant::now() {
            return Err(Error::local(Reason::DeadlineExceeded));
        }
        if deadlines.request.is_none_or(|own| deadline < own) {
            deadlines.request = Some(deadline);
            deadlines.request_reason = Reason::DeadlineExceeded;
        }
    }
    Ok(deadlines)
}

fn opened(tunnel: Tunnel) -> Response<Body> {
    let mut response = Response::new(Body::tunnel(tunnel));
    *response.status_mut() = StatusCode::OK;
    response
}
