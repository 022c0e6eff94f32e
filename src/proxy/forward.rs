//! One request to an upstream: admission, then attempts until one is the answer.

use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response, request};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::affinity;
use super::attempt::{self, Checkpoints, Plan};
use super::deadline;
use super::forwarded::Client;
use super::hop_by_hop::HopByHop;
use super::record::{Record, grpc_status};
use super::replay::Replay;
use super::retry::{BodyLeft, Ended, Retrying, Verdict};
use super::spans::AttemptEnd;
use super::worker::Generation;
use crate::body::{Body, Downstream};
use crate::config::model::{Mode, UpstreamProtocol};
use crate::error::{Error, Reason};
use crate::outcome::{Class, Outcome};
use crate::snapshot::{Target, Upstream};
use crate::telemetry::metrics::{ListenerCounter, UpstreamCounter};
use crate::transport::{Deadlines, Failure};
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
    let worker = record.worker().clone();

    // Admission.
    record.permit = Some(upstream.state.requests.try_acquire().ok_or_else(|| Error::local(Reason::Overflow))?);
    let deadlines = deadline::of_request(target, record, request.headers())?;

    // Attempts.
    let (mut head, body) = std::mem::take(request).into_parts();
    let raw_head = body.raw_head().clone();
    let mut retrying = begin_retrying(record, target, upstream, &head);
    let mut replay = Replay::new(body, bytes_to_keep(&retrying, target, upstream, record.grpc));
    let key = affinity::key(&upstream.balancing.load_balancer, &head.headers, client);
    let mut tried = SmallVec::<[u64; 4]>::new();
    let mut fresh = false;
    loop {
        let mut began = Instant::now();
        let wish = Wish { key, failed: &tried, now: began.into() };
        let picked = match &record.original {
            Some(original) if upstream.is_original => Ok(original.endpoint(upstream)?),
            None if upstream.is_original => return Err(Error::local(Reason::NoRoute)),
            _ => generation.pick_endpoint(target.upstream, wish),
        };
        let endpoint = match picked {
            Ok(endpoint) => endpoint,
            Err(_) => {
                let endpoint = Box::pin(first_endpoint(&generation, target, wish, &deadlines)).await?;
                began = Instant::now();
                endpoint
            }
        };
        record.endpoint = Some(endpoint.clone());
        record.attempts += 1;
        let plan = Plan {
            worker: &worker,
            target,
            upstream,
            endpoint: &endpoint,
            trace: &record.trace,
            hop,
            downstream,
            deadlines: Deadlines { per_try: target.timeouts.timeouts.per_try.map(|bound| began + bound), ..deadlines },
            began,
            grpc: record.grpc,
            tcp: record.listener().mode == Mode::Tcp,
            fresh,
            careful: !retrying.may_repeat() || !replay.can_repeat(),
            raw_head: &raw_head,
        };
        let mut body = replay.body();
        let mut checkpoints = Checkpoints::default();
        let outcome = attempt::send(&plan, &mut head, &mut body, &mut checkpoints).await;
        let took = began.elapsed();
        record.note_attempt(checkpoints);
        let ended = match &outcome {
            Ok(response) => {
                record.first_byte = Some(began + took);
                record.attempt_answered(response, took, began + took);
                record.span(&AttemptEnd {
                    endpoint: &endpoint,
                    head: &head,
                    began,
                    ended: began + took,
                    outcome: Outcome::answered(response.status().as_u16()),
                    version: Some(response.version()),
                });
                if !may_be_retried(response, record.grpc) {
                    count_retry(record, upstream, Outcome::answered(response.status().as_u16()));
                    return outcome.map_err(|failure| failure.error);
                }
                let unix = || worker.clock.unix(Instant::now().into_std());
                Ended::answered(response.status().as_u16(), response.headers(), record.grpc, unix)
            }
            Err(failure) => {
                replay.take_back(body, failure.body_intact);
                endpoint.count_failure();
                count_failure(record, upstream, failure.error.reason);
                let failed = Outcome::Failed(failure.error.reason);
                record.judge(failed, took, began + took);
                record.span(&AttemptEnd {
                    endpoint: &endpoint,
                    head: &head,
                    began,
                    ended: began + took,
                    outcome: failed,
                    version: None,
                });
                if !fresh && is_stale(failure, &retrying, &replay) {
                    fresh = true;
                    worker.metrics.count_upstream(upstream.id, UpstreamCounter::StaleConnectionReplays, 1);
                    continue;
                }
                Ended::failed(&failure.error, record.grpc)
            }
        };
        count_retry(record, upstream, ended.outcome());
        let body_left = match (replay.is_repeatable(), replay.is_too_large()) {
            (true, _) => BodyLeft::Whole,
            (false, true) => BodyLeft::TooLarge,
            (false, false) => BodyLeft::Gone,
        };
        let pay = || pay_for_retry(record, upstream);
        match retrying.after(&ended, body_left, Instant::now(), &deadlines, fastrand::f64(), pay) {
            Verdict::Final => return outcome.map_err(|failure| failure.error),
            Verdict::Refused(refused) => {
                record.retry_refused = Some(refused);
                worker.metrics.count_upstream(upstream.id, refused.counter(), 1);
                return outcome.map_err(|failure| failure.error);
            }
            Verdict::Again(pause) => {
                drop(outcome);
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                tried.push(endpoint.id);
                retrying.announce(&mut head.headers, record.grpc);
                record.retries += 1;
            }
        }
    }
}

fn begin_retrying<'a>(record: &Record, target: &'a Target, upstream: &Upstream, head: &request::Parts) -> Retrying<'a> {
    let listener = record.listener();
    let retrying = Retrying::new(&target.retries, &head.method, &head.headers, record.grpc, listener.edge);
    if retrying.is_somebodys_retry() {
        record.worker().metrics.count_listener(listener.id, ListenerCounter::RetriedRequests);
    }
    if retrying.is_possible() {
        upstream.state.budget.deposit(record.received);
    }
    retrying
}

/// How much of the body has to be kept. Over HTTP/1, what must not be processed twice is only sent again where not a
/// byte of it had left; over HTTP/2, a stream can also be refused later.
fn bytes_to_keep(retrying: &Retrying<'_>, target: &Target, upstream: &Upstream, grpc: bool) -> Option<usize> {
    let http2 = match upstream.protocol {
        UpstreamProtocol::Auto => grpc || upstream.tls.is_some(),
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
    };
    let wanted = retrying.is_possible() && (retrying.may_repeat() || http2);
    wanted.then_some(target.retries.body_bytes)
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
    generation.pick_endpoint(target.upstream, wish).map_err(|_| {
        // "There is none" is an answer; that nobody can tell is another thing.
        let unknown = endpoints.load().members.is_empty() && endpoints.is_failing();
        Error::local(if unknown { Reason::DiscoveryFailed } else { Reason::NoEndpoint })
    })
}

/// True where the answer is bad news, so that it is worth a closer look.
fn may_be_retried(response: &Response<Body>, grpc: bool) -> bool {
    response.status().as_u16() >= 400 || grpc && grpc_status(response.headers()).is_some_and(|code| code != 0)
}

/// An idle connection may die just as it is used. Once more, on a connection that cannot have: the next idle one may be
/// as dead. RFC 9110, section 9.2.2 lets a proxy repeat what is idempotent or provably unprocessed; it is no retry, for
/// nobody has seen the request.
fn is_stale(failure: &Failure, retrying: &Retrying<'_>, replay: &Replay) -> bool {
    failure.stale && replay.is_repeatable() && (failure.error.unsent || retrying.may_repeat())
}

/// The retry's place among those in flight, and its price.
fn pay_for_retry(record: &mut Record, upstream: &Upstream) -> bool {
    if record.retry_permit.is_none() {
        record.retry_permit = upstream.state.retries.try_acquire();
    }
    record.retry_permit.is_some() && upstream.state.budget.withdraw(Instant::now()).is_some()
}

/// How a retry ended, where the attempt was one.
fn count_retry(record: &Record, upstream: &Upstream, outcome: Outcome) {
    if record.retries > 0 {
        let succeeded = outcome.class() == Class::Success;
        let counter = if succeeded { UpstreamCounter::RetrySuccess } else { UpstreamCounter::RetryFailure };
        record.worker().metrics.count_upstream(upstream.id, counter, 1);
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
