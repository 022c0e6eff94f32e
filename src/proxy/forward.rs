//! One request to an upstream: admission, then attempts until one is the answer.

use std::hint::cold_path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::affinity;
use super::answer::may_be_retried;
use super::attempt::{self, Checkpoints, Plan};
use super::deadline;
use super::destination::Destination;
use super::forwarded::Client;
use super::hedge::{self, Lost, Second};
use super::hop_by_hop::HopByHop;
use super::mirror::{self, Copy};
use super::record::{Record, UnderWay};
use super::replay::{Replay, without_body};
use super::retry::{BodyLeft, Ended, Retrying, Verdict};
use super::spans::AttemptEnd;
use super::worker::Generation;
use crate::body::{Body, Downstream};
use crate::config::model::{Hedge, Mode, UpstreamProtocol};
use crate::error::{Error, Reason, Source};
use crate::outcome::{Class, Outcome};
use crate::snapshot::{Mirror, Target, Upstream};
use crate::telemetry::metrics::{ListenerCounter, UpstreamCounter};
use crate::transport::{Deadlines, Failure};
use crate::upstream::state::EndpointState;
use crate::upstream::turns::{Nobody, Wish};

/// Where a request goes, and what is known of it.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) target: &'a Target,
    pub(super) destination: &'a Destination,
    pub(super) mirror: Option<&'a Mirror>,
    pub(super) hop: &'a HopByHop,
    pub(super) client: &'a Client,
    pub(super) downstream: Option<&'a Rc<dyn Downstream>>,
}

/// Sends the request to the target's upstream.
pub(super) async fn forward(
    record: &mut Record,
    order: &Order<'_>,
    request: &mut Request<Body>,
) -> Result<Box<Response<Body>>, Error> {
    let generation = record.generation().clone();
    let upstream = generation.upstream(order.destination);

    // Admission.
    record.permit = Some(upstream.state.requests.try_acquire().ok_or_else(|| Error::local(Reason::Overflow))?);
    let deadlines = deadline::of_request(order.target, record, request.headers())?;

    // Attempts.
    let now = Instant::now();
    record.sent_on = Some(now);
    let copy = order.mirror.and_then(|mirror| Copy::of(mirror, request, order.hop));
    let retrying = begin_retrying(record, order.target, upstream, request, now);
    let keep = bytes_to_keep(&retrying, order.target, upstream, record.grpc);
    let keep = if copy.is_some() { keep.max(Some(mirror::BODY_BYTES)) } else { keep };
    let body = std::mem::take(request.body_mut());
    let raw_head = body.raw_head().clone();
    let mut sending = Sending { head: request, raw_head, body: Replay::new(body, keep), deadlines };
    let outcome = pin!(attempts(record, order, upstream, &generation, retrying, &mut sending, now)).await;
    if let (Some(mirror), Some(copy)) = (order.mirror, copy) {
        copy.send(record, mirror, &sending.body);
    }
    outcome
}

/// What all attempts share.
struct Sending<'a> {
    /// The request, whose body is in `body`.
    head: &'a mut Request<Body>,
    /// The head as it came from the client.
    raw_head: Bytes,
    body: Replay,
    /// `per_try` is the latest attempt's.
    deadlines: Deadlines,
}

/// Attempts, until one is the answer.
async fn attempts(
    record: &mut Record,
    order: &Order<'_>,
    upstream: &Upstream,
    generation: &Generation,
    mut retrying: Retrying<'_>,
    sending: &mut Sending<'_>,
    mut now: Instant,
) -> Result<Box<Response<Body>>, Error> {
    let (target, destination) = (order.target, order.destination);
    let worker = record.worker().clone();
    let key = affinity::key(&upstream.balancing.load_balancer, sending.head.headers(), order.client);
    let mut tried = SmallVec::<[u64; 4]>::new();
    let mut fresh = false;
    loop {
        let mut began = now;
        let wish = Wish { key, failed: &tried, now: began.into() };
        let picked = match &record.original {
            Some(original) if upstream.is_original => Ok(original.endpoint(upstream)?),
            None if upstream.is_original => return Err(Error::local(Reason::NoRoute)),
            _ => generation.pick_endpoint(destination, wish),
        };
        let endpoint = match picked {
            Ok(endpoint) => endpoint,
            Err(_) => {
                cold_path();
                let endpoint = Box::pin(first_endpoint(generation, destination, wish, &sending.deadlines)).await?;
                began = Instant::now();
                endpoint
            }
        };
        record.endpoint = Some(endpoint.clone());
        record.attempts += 1;
        let second = second_attempt(&retrying, target, upstream, sending.head, record.grpc);
        let mut body = sending.body.body();
        sending.deadlines.per_try = target.timeouts.timeouts.per_try.map(|bound| began + bound);
        let mut checkpoints = Checkpoints::begin(&worker, &record.trace);
        record.under_way = Some(UnderWay { began, span_id: checkpoints.span_id });
        let plan = Plan {
            worker: &worker,
            target,
            upstream,
            endpoint: &endpoint,
            trace: &record.trace,
            hop: order.hop,
            downstream: order.downstream,
            deadlines: &sending.deadlines,
            began,
            grpc: record.grpc,
            tcp: record.listener().mode == Mode::Tcp,
            fresh,
            careful: !retrying.may_repeat() || !sending.body.can_repeat(),
            raw_head: &sending.raw_head,
        };
        let (outcome, hedged) = {
            let first = pin!(attempt::send(&plan, sending.head, &mut body, &mut checkpoints));
            match second {
                None => (first.await, None),
                Some(second) => {
                    cold_path();
                    let mut permit = None;
                    // Picked before it is paid for: what cannot be sent costs nothing.
                    let launch = || {
                        let (now, mut failed) = (Instant::now(), tried.clone());
                        failed.push(endpoint.id);
                        let wish = Wish { key: None, failed: &failed, now: now.into() };
                        let picked = generation.pick_endpoint(destination, wish).ok()?;
                        let body = sending.body.complete()?;
                        let place = upstream.state.retries.try_acquire()?;
                        upstream.state.budget.withdraw(now)?;
                        permit = Some(place);
                        Some((picked, body))
                    };
                    let judge =
                        |loser: &EndpointState, lost: &Lost, took| judge_lost(record, upstream, loser, lost, took);
                    let raced = Box::pin(hedge::race(&plan, first, second, launch, judge)).await;
                    record.retry_permit = record.retry_permit.take().or(permit);
                    (raced.outcome, raced.second)
                }
            }
        };
        record.under_way = None;
        let (mut endpoint, mut began) = (endpoint, began);
        let mut number = record.attempts - 1;
        let (mut beaten, mut judged) = (None, false);
        if let Some(hedged) = hedged {
            cold_path();
            retrying.hedged();
            record.attempts += 1;
            let counter = if hedged.won { UpstreamCounter::HedgeWon } else { UpstreamCounter::HedgeLost };
            worker.metrics.count_upstream(upstream.id, counter, 1);
            let mut other = Racer { endpoint: hedged.endpoint, began: hedged.began, checkpoints: hedged.checkpoints };
            let mut other_number = number + 1;
            if hedged.won {
                let first = Racer { endpoint, began, checkpoints };
                Racer { endpoint, began, checkpoints } = std::mem::replace(&mut other, first);
                std::mem::swap(&mut number, &mut other_number);
                record.endpoint = Some(endpoint.clone());
            }
            (beaten, judged) = (Some(other.endpoint.id), hedged.kept);
            tell_of_loser(record, upstream.scheme(), sending.head, &other, other_number, hedged.lost);
        }
        let took = checkpoints.answered.unwrap_or_else(Instant::now).saturating_duration_since(began);
        record.note_attempt(&checkpoints);
        let ended = match &outcome {
            Ok(response) => {
                record.first_byte = Some(began + took);
                record.attempt_answered(response, took, began + took, judged);
                record.span(&AttemptEnd {
                    id: checkpoints.span_id,
                    number,
                    endpoint: &endpoint,
                    scheme: upstream.scheme(),
                    head: sending.head,
                    began,
                    ended: began + took,
                    outcome: Outcome::answered(response.status().as_u16()),
                    version: Some(response.version()),
                });
                if !may_be_retried(response, record.grpc) {
                    if matches!(target.retries.hedge, Some(Hedge::Percentile(_))) {
                        upstream.state.latencies.observe(took);
                    }
                    count_retry(record, upstream, Outcome::answered(response.status().as_u16()));
                    return outcome.map_err(|failure| failure.error);
                }
                cold_path();
                let unix = || worker.clock.unix(Instant::now().into_std());
                Ended::answered(response.status().as_u16(), response.headers(), record.grpc, unix)
            }
            Err(failure) => {
                cold_path();
                // An earlier attempt may have been answered, and this one is what the client hears of.
                record.first_byte = None;
                sending.body.take_back(body, failure.body_intact);
                let failed = Outcome::Failed(failure.error.reason);
                let clients = failure.error.source == Source::Downstream;
                if !clients && failed.class().is_failure() == Some(true) {
                    endpoint.count_failure();
                }
                count_failure(record, upstream, failure.error.reason);
                // That an idle connection has died says nothing of who answers the next one, and what the client has
                // done nothing at all.
                if failure.stale || clients {
                    worker.metrics.attempt(upstream.id, failed, took);
                } else {
                    record.judge(failed, took, began + took);
                }
                record.span(&AttemptEnd {
                    id: checkpoints.span_id,
                    number,
                    endpoint: &endpoint,
                    scheme: upstream.scheme(),
                    head: sending.head,
                    began,
                    ended: began + took,
                    outcome: failed,
                    version: None,
                });
                if clients {
                    return outcome.map_err(|failure| failure.error);
                }
                if !fresh && is_stale(failure, &retrying, &sending.body) {
                    fresh = true;
                    worker.metrics.count_upstream(upstream.id, UpstreamCounter::StaleConnectionReplays, 1);
                    now = Instant::now();
                    continue;
                }
                Ended::failed(&failure.error, record.grpc)
            }
        };
        cold_path();
        count_retry(record, upstream, ended.outcome());
        let body_left = BodyLeft::of(&sending.body);
        let pay = || pay_for_retry(record, upstream);
        match retrying.after(&ended, body_left, Instant::now(), &sending.deadlines, fastrand::f64(), pay) {
            Verdict::Final => return outcome.map_err(|failure| failure.error),
            Verdict::Refused(refused) => {
                record.retry_refused = Some(refused);
                worker.metrics.count_upstream(upstream.id, refused.counter(), 1);
                return outcome.map_err(|failure| failure.error);
            }
            Verdict::Again(pause) => {
                drop(outcome);
                // Whoever leaves from here on has had no answer.
                record.first_byte = None;
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                tried.push(endpoint.id);
                tried.extend(beaten);
                retrying.announce(sending.head.headers_mut(), record.grpc);
                record.retries += 1;
                now = Instant::now();
            }
        }
    }
}

fn begin_retrying<'a>(
    record: &Record,
    target: &'a Target,
    upstream: &Upstream,
    head: &Request<Body>,
    now: Instant,
) -> Retrying<'a> {
    let listener = record.listener();
    let retrying = Retrying::new(&target.retries, head.method(), head.headers(), record.grpc, listener.edge);
    if retrying.is_somebodys_retry() {
        record.worker().metrics.count_listener(listener.id, ListenerCounter::RetriedRequests);
    }
    if retrying.is_possible() {
        upstream.state.budget.deposit(now);
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

/// What a hedge would send, where there may be one.
fn second_attempt(
    retrying: &Retrying<'_>,
    target: &Target,
    upstream: &Upstream,
    request: &Request<Body>,
    grpc: bool,
) -> Option<Box<Second>> {
    let hedge = target.retries.hedge.filter(|_| retrying.may_hedge())?;
    let after = hedge::after(hedge, &upstream.state.latencies)?;
    let mut head = without_body(request);
    retrying.announce_next(head.headers_mut(), grpc);
    Some(Box::new(Second { after, head }))
}

/// Where the upstream's source has said nothing yet, its first answer may be a moment away.
async fn first_endpoint(
    generation: &Generation,
    destination: &Destination,
    wish: Wish<'_>,
    deadlines: &Deadlines,
) -> Result<Arc<EndpointState>, Error> {
    let endpoints = &generation.upstream(destination).endpoints;
    if !endpoints.is_answered() {
        let left = deadlines.request.map(|request| request.saturating_duration_since(Instant::now()));
        endpoints.answered_within(deadlines.connect.into_iter().chain(left).min()).await;
        if deadlines.request.is_some_and(|request| Instant::now() >= request) {
            return Err(Error::local(deadlines.request_reason));
        }
    }
    generation.pick_endpoint(destination, wish).map_err(|nobody| {
        // "There is none" is an answer; that nobody can tell is another thing.
        let unknown = endpoints.load().members.is_empty() && endpoints.is_failing();
        match nobody {
            Nobody::Empty if unknown => {
                let error = Error::local(Reason::DiscoveryFailed);
                match endpoints.status().error {
                    Some(cause) => error.because(cause),
                    None => error,
                }
            }
            Nobody::Empty => Error::local(Reason::NoEndpoint),
            Nobody::Down => Error::local(Reason::NoHealthyEndpoint),
        }
    })
}

/// One of two attempts that race.
struct Racer {
    endpoint: Arc<EndpointState>,
    began: Instant,
    checkpoints: Checkpoints,
}

/// An attempt that loses a race by how it ended is judged as it ends, be the other out for as long as it likes.
fn judge_lost(record: &Record, upstream: &Upstream, loser: &EndpointState, lost: &Lost, took: Duration) {
    if let Outcome::Failed(reason) = lost.outcome {
        if lost.outcome.class().is_failure() == Some(true) {
            loser.count_failure();
        }
        count_failure(record, upstream, reason);
    }
    if lost.stale {
        record.count_attempt(lost.outcome, took);
    } else {
        record.judge_endpoint(loser, lost.outcome, took, lost.at);
    }
}

/// One that was still out has failed nobody; but that it took at least so long is known.
fn tell_of_loser(
    record: &mut Record,
    scheme: &'static str,
    head: &Request<Body>,
    loser: &Racer,
    number: u32,
    lost: Option<Lost>,
) {
    let (outcome, ended) = match &lost {
        Some(lost) => (lost.outcome, lost.at),
        None => (Outcome::Failed(Reason::ClientCancelled), Instant::now()),
    };
    let took = ended - loser.began;
    if lost.is_none() {
        record.count_attempt(outcome, took);
        loser.endpoint.observe_at_least(took, ended.into());
    }
    record.span(&AttemptEnd {
        id: loser.checkpoints.span_id,
        number,
        endpoint: &loser.endpoint,
        scheme,
        head,
        began: loser.began,
        ended,
        outcome,
        version: None,
    });
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
