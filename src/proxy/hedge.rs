//! A second attempt while the first is still out: whoever answers well first, answers, and the other is cancelled.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;

use super::attempt::{self, Checkpoints, Plan};
use super::forward::may_be_retried;
use super::record::grpc_status;
use crate::body::Body;
use crate::config::model::Hedge;
use crate::outcome::Outcome;
use crate::transport::{Deadlines, Failure};
use crate::upstream::quantile::Latencies;
use crate::upstream::state::EndpointState;

/// What the second attempt would be.
pub(super) struct Second {
    pub(super) after: Duration,
    pub(super) head: Request<Body>,
    pub(super) body: Body,
}

/// How the race went.
pub(super) struct Raced {
    pub(super) outcome: Result<Box<Response<Body>>, Failure>,
    /// The second attempt, where there was one.
    pub(super) second: Option<Hedged>,
}

/// A second attempt.
pub(super) struct Hedged {
    pub(super) endpoint: Arc<EndpointState>,
    pub(super) began: Instant,
    pub(super) checkpoints: Checkpoints,
    /// The race's outcome is its own, and not the first attempt's.
    pub(super) won: bool,
    /// How the one that lost ended; `None` where it was still out, and was cancelled.
    pub(super) lost: Option<Lost>,
}

/// The attempt that ended first, and was no answer.
pub(super) struct Lost {
    pub(super) outcome: Outcome,
    pub(super) at: Instant,
    /// An idle connection had died, which says nothing of who answers the next one.
    pub(super) stale: bool,
}

/// How long the first attempt is given; `None` where nothing is known yet of how long answers take.
pub(super) fn after(hedge: Hedge, latencies: &Latencies) -> Option<Duration> {
    match hedge {
        Hedge::After(delay) => Some(delay),
        Hedge::Percentile(share) => latencies.quantile(share),
    }
}

/// `launch` picks the second attempt's endpoint and pays for it, once it is due. `judge` hears of the one that ends first,
/// where that is no answer, with how long it took.
pub(super) async fn race(
    plan: &Plan<'_>,
    first: impl Future<Output = Result<Box<Response<Body>>, Failure>>,
    second: Box<Second>,
    launch: impl FnOnce() -> Option<Arc<EndpointState>>,
    judge: impl FnOnce(&EndpointState, &Lost, Duration),
) -> Raced {
    let Second { after, mut head, mut body } = *second;
    let mut first = pin!(first);
    tokio::select! {
        biased;
        outcome = &mut first => return Raced { outcome, second: None },
        () = tokio::time::sleep(after) => {}
    }
    let Some(endpoint) = launch() else { return Raced { outcome: first.await, second: None } };
    let (of_first, first_began, began) = (plan.endpoint, plan.began, Instant::now());
    let per_try = plan.target.timeouts.timeouts.per_try.map(|bound| began + bound);
    let deadlines = &Deadlines { per_try, ..*plan.deadlines };
    let plan = Plan { endpoint: &endpoint, began, deadlines, ..*plan };
    let mut checkpoints = Checkpoints::default();
    let (outcome, won, lost) = {
        let mut other = pin!(attempt::send(&plan, &mut head, &mut body, &mut checkpoints));
        let good = |outcome: &Result<Box<Response<Body>>, Failure>| {
            outcome.as_ref().is_ok_and(|response| !may_be_retried(response, plan.grpc))
        };
        let (outcome, won) = tokio::select! {
            biased;
            outcome = &mut first => (outcome, false),
            outcome = &mut other => (outcome, true),
        };
        if good(&outcome) {
            (outcome, won, None)
        } else {
            let stale = outcome.as_ref().is_err_and(|failure| failure.stale);
            let lost = Lost { outcome: ended(&outcome), at: Instant::now(), stale };
            drop(outcome);
            let (loser, since) = if won { (&endpoint, began) } else { (of_first, first_began) };
            judge(loser, &lost, lost.at - since);
            let lost = Some(lost);
            if won { (first.await, false, lost) } else { (other.await, true, lost) }
        }
    };
    Raced { outcome, second: Some(Hedged { endpoint, began, checkpoints, won, lost }) }
}

fn ended(outcome: &Result<Box<Response<Body>>, Failure>) -> Outcome {
    match outcome {
        Ok(response) => Outcome::Answered { status: response.status().as_u16(), grpc: grpc_status(response.headers()) },
        Err(failure) => Outcome::Failed(failure.error.reason),
    }
}
