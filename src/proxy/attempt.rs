//! One attempt: a connection to the endpoint that was picked, and an exchange on it.

use std::hint::cold_path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{EXPECT, TE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::time::Instant;

use super::deadline;
use super::hop_by_hop::HopByHop;
use super::original;
use super::upgrade;
use super::worker::Worker;
use crate::body::{Body, Downstream, Tunnel};
use crate::config::model::UpstreamProtocol;
use crate::error::{Error, Reason, Source};
use crate::identity::Offer;
use crate::runtime::timer::earlier;
use crate::snapshot::{Target, Upstream};
use crate::telemetry::metrics::UpstreamCounter;
use crate::telemetry::trace_context::TraceContext;
use crate::transport::{Answer, Attempt, Checkout, Deadlines, Failure, Negotiated, Switched, Wanted};
use crate::upstream::state::EndpointState;

/// What one attempt goes by.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) target: &'a Target,
    pub(super) upstream: &'a Upstream,
    pub(super) endpoint: &'a Arc<EndpointState>,
    pub(super) trace: &'a TraceContext,
    pub(super) hop: &'a HopByHop,
    pub(super) downstream: Option<&'a Rc<dyn Downstream>>,
    pub(super) deadlines: &'a Deadlines,
    pub(super) began: Instant,
    pub(super) grpc: bool,
    /// Its listener passes bytes on, whatever they mean.
    pub(super) tcp: bool,
    /// Only on a new connection.
    pub(super) fresh: bool,
    /// It cannot be repeated: a connection that may be dead is looked at twice.
    pub(super) careful: bool,
    /// The head as it came from the client.
    pub(super) raw_head: &'a [u8],
}

/// What became of an attempt on its way; `None` where it did not come so far.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// Waiting at the upstream's bound.
    pub(super) queued: Option<Duration>,
    pub(super) connect: Option<Duration>,
    /// When the response's head was there, where the connection has looked at the clock.
    pub(super) answered: Option<Instant>,
    /// How long all waited for the client to send more of the request.
    pub(super) uploading: Duration,
    /// What the endpoint gets as its parent in the trace.
    pub(super) span_id: [u8; 16],
}

impl Checkpoints {
    /// Before an attempt.
    pub(super) fn begin(worker: &Worker, trace: &TraceContext) -> Self {
        let span_id = if trace.takes_part() { worker.ids.borrow_mut().span_id() } else { [0; 16] };
        Checkpoints { span_id, ..Checkpoints::default() }
    }
}

/// Sends the request, which is `head` with `body`, and waits for the response's headers.
pub(super) async fn send(
    plan: &Plan<'_>,
    head: &mut Request<Body>,
    body: &mut Body,
    checkpoints: &mut Checkpoints,
) -> Result<Box<Response<Body>>, Failure> {
    let &Plan { worker, upstream, endpoint, hop, downstream, deadlines, began, raw_head, .. } = plan;
    let pools = &worker.pools;
    plan.trace.send(head.headers_mut(), &checkpoints.span_id);
    let connect = head.method() == Method::CONNECT && !upgrade::is_extended_connect(head);
    // Where the client was going to is a proxy that takes its CONNECT; elsewhere the tunnel begins here.
    let tunnel = connect && (plan.tcp || !upstream.is_original);
    let wanted = Wanted {
        now: began,
        // What becomes a tunnel has never spoken HTTP.
        fresh: plan.fresh || tunnel,
        careful: plan.careful,
        until: earlier(deadlines.connect.map(|bound| began + bound), deadlines.head()),
        idle: deadlines.idle,
        // What goes through a CONNECT is the client's own, TLS too.
        tls: upstream.tls.as_ref().filter(|_| !tunnel || plan.tcp),
        tunnel,
    };
    let guard = endpoint.begin();
    let unsent = |mut error: Error| {
        if error.source == Source::Upstream {
            error.reason = deadlines.reason(error.reason);
        }
        Failure { error, stale: false, body_intact: true }
    };

    let only_http1 = connect || upgrade::is_wanted(head, hop);
    let offer = if only_http1 { Offer::Http1 } else { offer(upstream, endpoint, plan.grpc) };
    // On the heap what most requests do not need: their path need not have room for the largest.
    let found = match offer {
        Offer::Http1 | Offer::Nothing => match pools.idle(&upstream.state, endpoint, wanted) {
            Some(idle) => Ok(idle),
            None => Box::pin(pools.http1(&upstream.state, endpoint, wanted)).await,
        }
        .map(Negotiated::Http1),
        Offer::Http2 => Box::pin(pools.http2(&upstream.state, endpoint, wanted)).await.map(Negotiated::Http2),
        Offer::Either => Box::pin(pools.negotiated(&upstream.state, endpoint, wanted)).await,
    };
    let found = found.map_err(unsent)?;
    let (queued, connected) = found.took();
    if !connected.is_zero() {
        cold_path();
        worker.metrics.count_upstream(upstream.id, UpstreamCounter::Connected, 1);
    }
    checkpoints.queued = Some(queued);
    checkpoints.connect = Some(connected);
    // With TLS 1.3, that the endpoint does not like our certificate comes to light only after the handshake.
    let tell = |failure: &Failure| {
        if failure.error.reason == Reason::TlsError {
            pools.tell(&upstream.state, endpoint, &failure.error);
        }
    };
    let connection = match found {
        Negotiated::Http1(Checkout { connection, .. }) => connection,
        Negotiated::Http2(Checkout { connection, .. }) => {
            cold_path();
            prepare_http2(head, hop);
            pass_deadline_on(plan, head);
            let began = began + queued + connected;
            let mut attempt = Attempt { head, raw_head, body, downstream, deadlines, began, uploading: Duration::ZERO };
            let answer = Box::pin(connection.exchange(&mut attempt, guard)).await.inspect_err(tell);
            checkpoints.uploading = attempt.uploading;
            return answer;
        }
    };
    if tunnel {
        cold_path();
        let (stream, permit) = connection.into_stream();
        return Ok(opened(Tunnel {
            endpoint: stream,
            early: bytes::Bytes::new(),
            idle: deadlines.tunnel_idle,
            _guard: Some(Box::new((permit, guard))),
        }));
    }
    let restored = upgrade::prepare_http1(head, hop);
    prepare_http1(head);
    if upstream.is_original {
        cold_path();
        original::keep_form(head, raw_head);
    }
    pass_deadline_on(plan, head);
    let began = began + queued + connected;
    let mut attempt = Attempt { head, raw_head, body, downstream, deadlines, began, uploading: Duration::ZERO };
    let answer = pin!(connection.exchange(&mut attempt, guard, pools)).await.inspect_err(tell)?;
    checkpoints.uploading = attempt.uploading;
    match answer {
        Answer::Response(response, answered) => {
            checkpoints.answered = Some(answered);
            restored.check(response)
        }
        Answer::Switched(switched) => {
            cold_path();
            let Switched { response, stream, early, guards } = *switched;
            let tunnel =
                Tunnel { endpoint: stream, early, idle: deadlines.tunnel_idle, _guard: Some(Box::new(guards)) };
            Ok(restored.answer(response, tunnel))
        }
    }
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

/// How long somebody still waits, for the endpoint to know; as late as possible.
fn pass_deadline_on(plan: &Plan<'_>, head: &mut Request<Body>) {
    if let Some(deadline) = plan.deadlines.request {
        let header = plan.target.deadline_header.as_ref();
        deadline::send(head.headers_mut(), deadline.saturating_duration_since(Instant::now()), plan.grpc, header);
    }
}

fn prepare_http2(head: &mut Request<Body>, hop: &HopByHop) {
    // The proxy answers for the endpoint: HTTP/2 endpoints are never waited for.
    head.headers_mut().remove(EXPECT);
    if hop.trailers {
        head.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn prepare_http1(head: &mut Request<Body>) {
    if head.version() == Version::HTTP_2 {
        crate::transport::join_cookies(head.headers_mut());
    }
}

fn opened(tunnel: Tunnel) -> Box<Response<Body>> {
    let mut response = Box::new(Response::new(Body::tunnel(tunnel)));
    *response.status_mut() = StatusCode::OK;
    response
}
