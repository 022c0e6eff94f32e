//! A second attempt while the first is still out: whoever answers well first (4xx is an answer), answers, and the other is
//! cancelled. Where none does, bad news go before none.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;

use super::answer;
use super::attempt::{self, Checkpoints, Plan};
use crate::body::Body;
use crate::config::model::Hedge;
use crate::outcome::{Class, Outcome};
use crate::transport::{Deadlines, Failure};
use crate::upstream::quantile::Latencies;
use crate::upstream::state::EndpointState;

/// What the second attempt would be.
pub(super) struct Second {
    pub(super) after: Duration,
    pub(super) head: Request<Body>,
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
    /// The outcome was the first to end, and has been judged: bad news that the other one did not better.
    pub(super) kept: bool,
}

/// The attempt that ended and was not the answer: the first to end where it was bad news, the later one where there was
/// nothing better than these.
pub(super) struct Lost {
    pub(super) outcome: Outcome,
    pub(super) at: Instant,
    /// An idle connection had died, which says nothing of who answers the next one.
    pub(super) stale: bool,
}

impl Lost {
    /// It has just ended so.
    fn of(outcome: &Result<Box<Response<Body>>, Failure>, grpc: bool) -> Self {
        let stale = outcome.as_ref().is_err_and(|failure| failure.stale);
        let outcome = match outcome {
            Ok(response) => answer::outcome(response, grpc),
            Err(failure) => Outcome::Failed(failure.error.reason),
        };
        Lost { outcome, at: Instant::now(), stale }
    }
}

/// How long the first attempt is given; `None` where nothing is known yet of how long answers take.
pub(super) fn after(hedge: Hedge, latencies: &Latencies) -> Option<Duration> {
    match hedge {
        Hedge::After(delay) => Some(delay),
        Hedge::Percentile(share) => latencies.quantile(share),
    }
}

/// `launch` picks the second attempt's endpoint, takes the body, of which all has to be there, and pays for it, once it is
/// due. `judge` hears of each that ends and is no good answer, with how long it took.
pub(super) async fn race(
    plan: &Plan<'_>,
    first: impl Future<Output = Result<Box<Response<Body>>, Failure>>,
    second: Box<Second>,
    launch: impl FnOnce() -> Option<(Arc<EndpointState>, Body)>,
    judge: impl Fn(&EndpointState, &Lost, Duration),
) -> Raced {
    let Second { after, mut head } = *second;
    let mut first = pin!(first);
    tokio::select! {
        biased;
        outcome = &mut first => return Raced { outcome, second: None },
        () = tokio::time::sleep(after) => {}
    }
    let Some((endpoint, mut body)) = launch() else { return Raced { outcome: first.await, second: None } };
    let (of_first, first_began, began) = (plan.endpoint, plan.began, Instant::now());
    let per_try = plan.target.timeouts.timeouts.per_try.map(|bound| began + bound);
    let deadlines = &Deadlines { per_try, ..*plan.deadlines };
    let plan = Plan { endpoint: &endpoint, began, deadlines, ..*plan };
    let (mut checkpoints, mut kept) = (Checkpoints::begin(plan.worker, plan.trace), false);
    let (outcome, won, lost) = {
        let mut other = pin!(attempt::send(&plan, &mut head, &mut body, &mut checkpoints));
        let (outcome, won) = tokio::select! {
            biased;
            outcome = &mut first => (outcome, false),
            outcome = &mut other => (outcome, true),
        };
        let ended = Lost::of(&outcome, plan.grpc);
        if ended.outcome.class() == Class::Success {
            (outcome, won, None)
        } else {
            let judge = |second: bool, lost: &Lost| {
                let (loser, since) = if second { (&endpoint, began) } else { (of_first, first_began) };
                judge(loser, lost, lost.at - since);
            };
            judge(won, &ended);
            let later = if won { first.await } else { other.await };
            if outcome.is_ok() && later.is_err() {
                // Bad news are better than none.
                let lost = Lost::of(&later, plan.grpc);
                judge(!won, &lost);
                kept = true;
                (outcome, won, Some(lost))
            } else {
                (later, !won, Some(ended))
            }
        }
    };
    Raced { outcome, second: Some(Hedged { endpoint, began, checkpoints, won, lost, kept }) }
}
