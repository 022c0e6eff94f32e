//! `ejection` and `circuit_breaker`.

use std::time::Duration;

use super::Validator;
use super::layers::{Layers, Switch};
use crate::config::builtin;
use crate::config::findings::Finding;
use crate::config::given::Spanned;
use crate::config::model::{CircuitBreaker, Ejection, Fallback, UpstreamIndex};
use crate::config::raw::judging as raw;
use crate::config::raw::upstream::UpstreamLong;
use crate::config::tree::NodeId;
use crate::config::units::Period;

impl Switch for raw::EjectionForm {
    type Mapping = raw::Ejection;

    fn mapping(&self) -> Option<&raw::Ejection> {
        match self {
            raw::EjectionForm::Off(raw::Off::None) => None,
            raw::EjectionForm::On(ejection) => Some(ejection),
        }
    }
}

impl Switch for raw::CircuitBreakerForm {
    type Mapping = raw::CircuitBreaker;

    fn mapping(&self) -> Option<&raw::CircuitBreaker> {
        match self {
            raw::CircuitBreakerForm::Off(raw::Off::None) => None,
            raw::CircuitBreakerForm::On(breaker) => Some(breaker),
        }
    }
}

/// Upstream that requests of another fall back to, and where that is written.
#[derive(Debug, Clone)]
pub(super) struct WrittenFallback {
    of: UpstreamIndex,
    to: String,
    node: NodeId,
    /// It is the upstream's own word, and not the defaults'.
    own: bool,
}

impl Validator<'_> {
    pub(super) fn ejection(&mut self, long: Option<&UpstreamLong>) -> Option<Ejection> {
        let defaults = self.raw.defaults.get().map(|defaults| &defaults.ejection);
        let layers = Layers::of(long.map(|long| &long.ejection), defaults, true)?;
        let builtin = builtin::EJECTION;
        let ejection = Ejection {
            consecutive: layers.or_none(|raw| &raw.consecutive, None).map(|number| number.0),
            failure_ratio: layers.or_none(|raw| &raw.failure_ratio, None).map(|ratio| ratio.0),
            deviations: layers.or_none(|raw| &raw.deviations, None).map(|deviations| deviations.0),
            min_requests: layers.number(|raw| &raw.min_requests, builtin.min_requests),
            window: layers.period(|raw| &raw.window, builtin.window),
            base: layers.period(|raw| &raw.base, builtin.base),
            longest: layers.period(|raw| &raw.max_for, builtin.longest),
            max_ratio: layers.ratio(|raw| &raw.max_ratio, builtin.max_ratio),
            panic_ratio: layers.ratio(|raw| &raw.panic_ratio, builtin.panic_ratio),
            shadow: layers.spanned(|raw| &raw.shadow).is_some_and(|shadow| shadow.value.0),
        };
        // Here `none` and nothing differ.
        let consecutive = match layers.spanned(|raw| &raw.consecutive) {
            Some(_) => ejection.consecutive,
            None => builtin.consecutive,
        };
        self.some_time(layers.spanned(|raw| &raw.window));
        self.some_time(layers.spanned(|raw| &raw.base));
        self.not_shorter(layers.spanned(|raw| &raw.max_for), layers.spanned(|raw| &raw.base), "for", ejection.base);
        Some(Ejection { consecutive, ..ejection })
    }

    pub(super) fn circuit_breaker(&mut self, long: Option<&UpstreamLong>) -> Option<CircuitBreaker> {
        let defaults = self.raw.defaults.get().map(|defaults| &defaults.circuit_breaker);
        let layers = Layers::of(long.map(|long| &long.circuit_breaker), defaults, false)?;
        let builtin = builtin::circuit_breaker();
        let breaker = CircuitBreaker {
            failure_ratio: layers.ratio(|raw| &raw.failure_ratio, builtin.failure_ratio),
            slow: layers.or_none(|raw| &raw.slow, None).map(|slow| slow.0),
            slow_ratio: layers.ratio(|raw| &raw.slow_ratio, builtin.slow_ratio),
            min_requests: layers.number(|raw| &raw.min_requests, builtin.min_requests),
            window: layers.period(|raw| &raw.window, builtin.window),
            open_for: layers.period(|raw| &raw.open_for, builtin.open_for),
            longest: layers.period(|raw| &raw.max_open_for, builtin.longest),
            probes: u8::try_from(layers.number(|raw| &raw.probes, builtin.probes.into())).unwrap_or(u8::MAX),
            fallback: self.fallback(&layers),
            shadow: layers.spanned(|raw| &raw.shadow).is_some_and(|shadow| shadow.value.0),
        };
        for ratio in [layers.spanned(|raw| &raw.failure_ratio), layers.spanned(|raw| &raw.slow_ratio)] {
            if let Some(ratio) = ratio.filter(|ratio| ratio.value.0 == 0.0) {
                self.error("impossible-number", ratio.node, "a breaker with this ratio is always open", "raise it");
            }
        }
        if let (Some(ratio), None) = (layers.spanned(|raw| &raw.slow_ratio), layers.spanned(|raw| &raw.slow)) {
            let finding = Finding::warning("no-effect", ratio.node, "without `slow`, no request is slow");
            self.push(finding.hint("write `slow`, or remove it"));
        }
        self.some_time(layers.spanned(|raw| &raw.window));
        self.some_time(layers.spanned(|raw| &raw.open_for));
        let open_for = layers.spanned(|raw| &raw.open_for);
        self.not_shorter(layers.spanned(|raw| &raw.max_open_for), open_for, "open_for", breaker.open_for);
        Some(breaker)
    }

    /// A fixed answer at once; an upstream is resolved once all are known.
    fn fallback(&mut self, layers: &Layers<'_, raw::CircuitBreaker>) -> Fallback {
        let Some(spanned) = layers.spanned(|raw| &raw.fallback) else { return Fallback::Refuse };
        match &spanned.value {
            raw::Fallback::Upstream(name) => {
                let of = UpstreamIndex(self.upstreams.len());
                let own = layers.own(|raw| &raw.fallback).is_some();
                self.fallbacks.push(WrittenFallback { of, to: name.0.clone(), node: spanned.node, own });
                Fallback::Refuse
            }
            raw::Fallback::Respond(fallback) => match fallback.respond.get() {
                Some(respond) => Fallback::Respond(Box::new(self.respond(respond))),
                None => {
                    if fallback.respond.is_absent() {
                        let hint = "write it as in `{ respond: { status: 200, body: \"[]\" } }`";
                        self.missing(spanned.node, "this fallback has no answer", hint);
                    }
                    Fallback::Refuse
                }
            },
        }
    }

    /// Finds the upstreams that others fall back to. One that would fall back to itself, since all fall back to it, has
    /// no fallback.
    pub(super) fn resolve_fallbacks(&mut self) {
        while let Some(WrittenFallback { of, to, node, own }) = self.fallbacks.pop() {
            let Some(index) = self.resolve(&to, node) else { continue };
            if index == of && own {
                let reason = format!("{} cannot stand in for itself", self.shown(node));
                self.error("contradiction", node, reason, "name another upstream, or leave `fallback` out");
            }
            if index != of
                && let Some(breaker) = &mut self.upstreams[of.0].circuit_breaker
            {
                breaker.fallback = Fallback::Upstream(index);
            }
        }
    }

    pub(super) fn some_time(&mut self, period: Option<&Spanned<Period>>) {
        if let Some(period) = period.filter(|period| period.value.0.is_zero()) {
            let reason = format!("{} is no time at all", self.shown(period.node));
            self.error("impossible-number", period.node, reason, "write at least `1ms`");
        }
    }

    fn not_shorter(
        &mut self,
        longest: Option<&Spanned<Period>>,
        first: Option<&Spanned<Period>>,
        name: &str,
        least: Duration,
    ) {
        let Some(longest) = longest.filter(|longest| longest.value.0 < least) else { return };
        let reason = format!("the longest is shorter than the first, which is `{name}`");
        let finding =
            Finding::error("impossible-number", longest.node, reason).hint(format!("raise it, or lower `{name}`"));
        self.push(match first {
            Some(first) => finding.related(first.node, "the first"),
            None => finding,
        });
    }
}
