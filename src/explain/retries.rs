//! Whether a request would be sent again: asked of what decides it, and put into words.

use http::Request;

use super::report::Retries;
use crate::config::model::{self, Hedge};
use crate::config::{write_duration, write_size};
use crate::proxy::retry::Retrying;
use crate::snapshot::Target;

/// `written`: the route says how many there may be.
pub(super) fn retries(
    target: &Target,
    written: bool,
    upstream: &model::Upstream,
    request: &Request<()>,
    grpc: bool,
    edge: bool,
) -> Retries {
    let terms = &target.retries;
    let retrying = Retrying::new(terms, request.method(), request.headers(), grpc, edge);
    let (method, when) = (request.method(), terms.when.words());
    let times = if terms.max == 1 { "once more".to_owned() } else { format!("up to {} times more", terms.max) };
    let verdict = if terms.max == 0 && !written && upstream.source.is_alone_beside_us() {
        "never: retries.max is 0, as it is by default where the only endpoint is on this machine".to_owned()
    } else if terms.max == 0 {
        "never: retries.max is 0".to_owned()
    } else if !retrying.is_possible() {
        "never here: a hop before this one repeats it already".to_owned()
    } else if when.is_empty() {
        "never: retries.when is empty".to_owned()
    } else if retrying.may_repeat() {
        let why = if terms.idempotent { "retries.idempotent says that it may" } else { "it may be repeated" };
        format!("{times} on {}; {why}", when.join(", "))
    } else if terms.when.asks_for_unsent() {
        format!("{times} on {}, and only while no endpoint has seen it: {method} is not idempotent", when.join(", "))
    } else {
        format!("never: {method} is not idempotent, and {} come too late to be sure", when.join(", "))
    };
    let budget = upstream.retry_budget;
    let mut bounds = vec![
        format!("pause {} to {}", write_duration(terms.backoff.base), write_duration(terms.backoff.max)),
        format!(
            "budget {} % of the requests and {} a second over {}",
            budget.ratio * 100.0,
            budget.min_per_second,
            write_duration(budget.window)
        ),
        format!("bodies up to {}", write_size(terms.body_bytes as u64)),
    ];
    if let Some(hedge) = terms.hedge.filter(|_| retrying.may_hedge()) {
        bounds.push(match hedge {
            Hedge::After(after) => format!("a hedge after {}", write_duration(after)),
            Hedge::Percentile(share) => format!("a hedge when {} % of the answers would have come", share * 100.0),
        });
    }
    Retries {
        max: if retrying.is_possible() { terms.max } else { 0 },
        when,
        repeatable: retrying.may_repeat(),
        verdict,
        terms: bounds.join("; "),
    }
}
