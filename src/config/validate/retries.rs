//! `retries:`

use std::time::Duration;

use super::Validator;
use crate::config::builtin;
use crate::config::findings::Finding;
use crate::config::given::Given;
use crate::config::model::{EndpointSource, Hedge, Retries, RetryBudget, RetryConditions, RetryOverrides};
use crate::config::raw::retries as raw;
use crate::config::raw::retries::ConditionWord;

/// Bytes of a body that may be kept. More is memory that any client can take, for each of its requests.
const MOST_BODY_BYTES: u64 = 16 << 20;
/// Bounds of a budget's window.
const WINDOW: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

impl Validator<'_> {
    /// Numbers of one mapping that make no sense, by themselves or together.
    pub(super) fn check_retries(&mut self, given: &Given<raw::Retries>, of_route: bool) {
        let Some(retries) = given.get() else { return };
        if let Some(conditions) = retries.when.spanned()
            && conditions.value.is_empty()
            && retries.max.get().is_none_or(|max| max.0 > 0)
        {
            let finding =
                Finding::warning("no-effect", conditions.node, "`when` is empty, so nothing is ever sent again");
            self.push(finding.hint("write `max: 0` for no retries"));
        }
        if let Some(hedge) = retries.hedge.spanned()
            && hedge_of(&hedge.value).is_some()
            && retries.max.get().is_some_and(|max| max.0 == 0)
        {
            let reason = "a hedge is a retry before its time, and `max` is 0";
            self.push(Finding::warning("no-effect", hedge.node, reason).hint("raise `max`, or write `hedge: none`"));
        }
        for condition in retries.when.get().into_iter().flatten() {
            if let Some(spanned) = condition.spanned()
                && let raw::Condition::Grpc(grpc) = &spanned.value
                && grpc.grpc.is_absent()
            {
                self.missing(spanned.node, "this condition is empty", "write it as in `{ grpc: [unavailable] }`");
            }
        }
        if let Some(backoff) = retries.backoff.get()
            && let (Some(base), Some(max)) = (backoff.base.spanned(), backoff.max.spanned())
            && base.value.0 > max.value.0
        {
            let reason = format!(
                "`base` ({}) is longer than `max` ({})",
                self.tree.written(base.node),
                self.tree.written(max.node)
            );
            let finding = Finding::error("impossible-number", base.node, reason);
            self.push(finding.hint("lower it, or raise `max`").related(max.node, "`max`"));
        }
        if let Some(size) = retries.body_bytes.spanned()
            && size.value.0 > MOST_BODY_BYTES
        {
            let reason = format!("{} for each request in flight is too much", self.shown(size.node));
            self.error("impossible-number", size.node, reason, "it can be `0` to `16MiB`");
        }
        if let Some(hedge) = retries.hedge.spanned()
            && let raw::HedgeForm::Long(long) = &hedge.value
        {
            match (long.after.node(), long.percentile.node()) {
                (None, None) => {
                    self.missing(hedge.node, "this hedge never begins", "write `200ms`, or `{ percentile: 0.95 }`");
                }
                (Some(_), Some(node)) => {
                    self.error("conflict", node, "a hedge has `after` or `percentile`, not both", "remove one of them");
                }
                _ => {}
            }
        }
        let Some(budget) = retries.budget.spanned() else { return };
        if of_route {
            self.error(
                "conflict",
                budget.node,
                "a budget belongs to an upstream, whose routes share it",
                "write it in the upstream's `retries`, or in `defaults`",
            );
        }
        if let Some(window) = budget.value.window.spanned()
            && !WINDOW.contains(&window.value.0)
        {
            let reason = format!("{} is out of range", self.shown(window.node));
            self.error("impossible-number", window.node, reason, "it can be `1s` to `10m`");
        }
    }
}

/// What one mapping says.
pub(super) fn overrides(given: &Given<raw::Retries>) -> RetryOverrides {
    let Some(retries) = given.get() else { return RetryOverrides::default() };
    let backoff = retries.backoff.get();
    RetryOverrides {
        max: retries.max.get().map(|max| max.0),
        when: retries.when.get().map(|conditions| conditions_of(conditions)),
        idempotent: retries.idempotent.get().map(|flag| flag.0),
        nested: retries.nested.get().map(|flag| flag.0),
        backoff_base: backoff.and_then(|backoff| backoff.base.get()).map(|period| period.0),
        backoff_max: backoff.and_then(|backoff| backoff.max.get()).map(|period| period.0),
        hedge: retries.hedge.get().map(hedge_of),
        body_bytes: retries.body_bytes.get().and_then(|size| usize::try_from(size.0).ok()),
    }
}

/// An upstream's retries over the defaults over the built-in ones. An app that is alone beside us is not tried again unless
/// that is written for it: whoever called us can reach another instance, and we cannot.
pub(super) fn merged(
    own: Option<&Given<raw::Retries>>,
    defaults: Option<&Given<raw::Retries>>,
    source: &EndpointSource,
) -> (Retries, RetryBudget) {
    let (own_said, default_said) =
        (own.map(overrides).unwrap_or_default(), defaults.map(overrides).unwrap_or_default());
    let mut retries = own_said.over(default_said.over(builtin::retries()));
    if own_said.max.is_none() && source.is_alone_beside_us() {
        retries.max = 0;
    }
    let budgets = || own.into_iter().chain(defaults).filter_map(|given| given.get()?.budget.get());
    let builtin = builtin::RETRY_BUDGET;
    let budget = RetryBudget {
        ratio: budgets().find_map(|budget| budget.ratio.get()).map_or(builtin.ratio, |ratio| ratio.0),
        min_per_second: budgets()
            .find_map(|budget| budget.min_per_second.get())
            .map_or(builtin.min_per_second, |number| number.0),
        window: budgets().find_map(|budget| budget.window.get()).map_or(builtin.window, |period| period.0),
    };
    (retries, budget)
}

fn hedge_of(form: &raw::HedgeForm) -> Option<Hedge> {
    match form {
        raw::HedgeForm::After(period) => period.value.0.map(|period| Hedge::After(period.0)),
        raw::HedgeForm::Long(long) => match (long.after.get(), long.percentile.get()) {
            (Some(after), _) => Some(Hedge::After(after.0)),
            (None, share) => share.map(|share| Hedge::Percentile(share.0)),
        },
    }
}

fn conditions_of(given: &[Given<raw::Condition>]) -> RetryConditions {
    let mut conditions = RetryConditions::default();
    for condition in given.iter().filter_map(Given::get) {
        match condition {
            raw::Condition::Word(word) => match word.value {
                ConditionWord::ConnectFailure => conditions.connect_failure = true,
                ConditionWord::RefusedStream => conditions.refused_stream = true,
                ConditionWord::UpstreamReset => conditions.upstream_reset = true,
                ConditionWord::PerTryTimeout => conditions.per_try_timeout = true,
                ConditionWord::ResponseTimeout => conditions.response_timeout = true,
                ConditionWord::GatewayError => conditions.gateway_error = true,
                ConditionWord::ServerError => conditions.server_error = true,
                ConditionWord::Status(status) => conditions.statuses.push(status),
            },
            raw::Condition::Grpc(grpc) => {
                for status in grpc.grpc.get().into_iter().flat_map(|statuses| statuses.iter()) {
                    conditions.grpc |= 1 << status.value.0;
                }
            }
        }
    }
    conditions
}
