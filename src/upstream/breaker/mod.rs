//! The circuit breaker of an upstream: closed, open, half-open.
//!
//! Closed, it counts requests over a sliding window, after their retries. At its failure ratio or its ratio of slow
//! requests it opens: everything is refused at once, which spares the callers their wait and the upstream its load. After
//! `open_for` it is half-open: a few requests go through as probes. If all of them are well it closes, and forgets; at
//! the first that is not it opens again, for twice as long.
//!
//! Everything is a word or two, so no worker waits for another. A [`Pass`] knows the *era* that it was given in, which
//! ends with every change of state: what was asked before the breaker opened cannot close it, nor open it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::moment::Moment;
use super::window::{Counts, Mark, Window};
use crate::config::model::CircuitBreaker as Policy;

/// What the breaker does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Closed,
    Open,
    HalfOpen,
}

impl Phase {
    pub(crate) const ALL: [Phase; 3] = [Phase::Closed, Phase::Open, Phase::HalfOpen];

    /// The word in `/upstreams`, metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Phase::Closed => "closed",
            Phase::Open => "open",
            Phase::HalfOpen => "half_open",
        }
    }
}

/// An upstream's breaker. The policy comes with each question, so that a new one holds at once.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: AtomicU64,
    /// While open: until when. While half-open: until when probes are waited for.
    until: AtomicU64,
    /// Times that it opened since it was last closed.
    times: AtomicU32,
    window: Window,
    opened: AtomicU64,
    refused: AtomicU64,
}

/// What [`Breaker::admit`] says.
#[derive(Debug)]
pub(crate) enum Admission {
    Pass(Pass),
    /// Come back after this time.
    Refused(Duration),
}

/// A request that was let through. Gone without a word, it counts for nothing, and a probe's place is free again.
#[derive(Debug)]
pub(crate) struct Pass {
    breaker: Arc<Breaker>,
    era: u32,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counted,
    Probe {
        /// It begins a round.
        first: bool,
    },
    /// Only shadowed: it would have been refused.
    Shadowed,
}

/// The state in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Rises with every change of phase, and with every round of probes.
    era: u32,
    phase: Phase,
    /// Probes that are out.
    probing: u8,
    /// Probes that were well.
    passed: u8,
}

impl Breaker {
    /// May a request go through? While the breaker is closed, nobody asks what time it is.
    pub(crate) fn admit(self: &Arc<Self>, policy: &Policy, now: impl FnOnce() -> Moment) -> Admission {
        let state = self.state();
        if state.phase == Phase::Closed {
            return self.pass(state.era, Kind::Counted);
        }
        self.admit_some(policy, now())
    }

    #[cold]
    fn admit_some(self: &Arc<Self>, policy: &Policy, now: Moment) -> Admission {
        loop {
            let state = self.state();
            let (next, kind) = match state.phase {
                Phase::Closed => return self.pass(state.era, Kind::Counted),
                Phase::HalfOpen if state.probing.saturating_add(state.passed) < policy.probes => {
                    (State { probing: state.probing + 1, ..state }, Kind::Probe { first: false })
                }
                _ if now < self.until() => return self.refuse(policy, state.era, self.until().since(now)),
                // A new round: its probes are out for as long as the breaker was open, then others may try.
                _ => {
                    let era = state.era.wrapping_add(1);
                    (State { era, phase: Phase::HalfOpen, probing: 1, passed: 0 }, Kind::Probe { first: true })
                }
            };
            if next.era != state.era {
                // Before the state, or another worker could find the new round's time over already.
                self.until.store(now.after(self.span(policy)).micros(), Relaxed);
            }
            if self.change(state, next) {
                return self.pass(next.era, kind);
            }
        }
    }

    fn pass(self: &Arc<Self>, era: u32, kind: Kind) -> Admission {
        Admission::Pass(Pass { breaker: self.clone(), era, kind })
    }

    fn refuse(self: &Arc<Self>, policy: &Policy, era: u32, wait: Duration) -> Admission {
        self.refused.fetch_add(1, Relaxed);
        if policy.shadow { self.pass(era, Kind::Shadowed) } else { Admission::Refused(wait) }
    }

    /// Counts outcomes that were not known to count when their requests ended. Says when it opens by that.
    pub(crate) fn count(&self, mark: Mark, times: u16, policy: &Policy, now: Moment) -> Option<Phase> {
        let state = self.state();
        if state.phase != Phase::Closed || times == 0 {
            return None;
        }
        self.window.record(now, policy.window, mark, times);
        if self.window.is_clean(now, policy.window) {
            return None;
        }
        let counts = self.recent(policy, now);
        let slow = policy.slow.is_some() && counts.slow_ratio() >= policy.slow_ratio;
        let trips = counts.total >= policy.min_requests && (counts.failure_ratio() >= policy.failure_ratio || slow);
        (trips && self.open(state, policy, now)).then_some(Phase::Open)
    }

    /// Takes back what was counted of an endpoint that has turned out to be at fault alone.
    pub(crate) fn take_out(&self, part: &Window) {
        self.window.take_out(part);
    }

    fn open(&self, state: State, policy: &Policy, now: Moment) -> bool {
        // Before the state, or another worker could see an open breaker whose time is over.
        let before = self.until.load(Relaxed);
        self.until.store(now.after(span(policy, self.times.load(Relaxed))).micros(), Relaxed);
        let opens =
            self.change(state, State { era: state.era.wrapping_add(1), phase: Phase::Open, probing: 0, passed: 0 });
        if opens {
            self.times.fetch_add(1, Relaxed);
            self.opened.fetch_add(1, Relaxed);
            self.window.clear();
        } else {
            self.until.store(before, Relaxed);
        }
        opens
    }

    /// How long it is open this time.
    fn span(&self, policy: &Policy) -> Duration {
        span(policy, self.times.load(Relaxed).saturating_sub(1))
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state().phase
    }

    pub(crate) fn recent(&self, policy: &Policy, now: Moment) -> Counts {
        self.window.counts(now, policy.window)
    }

    /// Times that it has opened.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Requests that it has refused, or would have.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// How long it is open yet.
    pub(crate) fn wait(&self, now: Moment) -> Duration {
        self.until().since(now)
    }

    fn until(&self) -> Moment {
        Moment::from_micros(self.until.load(Relaxed))
    }

    fn state(&self) -> State {
        State::unpack(self.state.load(Relaxed))
    }

    fn change(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from.pack(), to.pack(), Relaxed, Relaxed).is_ok()
    }
}

/// Doubled each time, up to the longest.
fn span(policy: &Policy, times: u32) -> Duration {
    policy.open_for.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX)).min(policy.longest.max(policy.open_for))
}

impl Pass {
    /// True for one that is to find out whether the upstream is well.
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self.kind, Kind::Probe { .. })
    }

    /// True for the first probe of a round.
    pub(crate) fn begins_round(&self) -> bool {
        self.kind == Kind::Probe { first: true }
    }

    /// Tells what became of the request. Says into which phase the breaker goes by that.
    pub(crate) fn record(mut self, mark: Mark, policy: &Policy, now: Moment) -> Option<Phase> {
        let kind = std::mem::replace(&mut self.kind, Kind::Shadowed);
        let breaker = &self.breaker;
        match kind {
            Kind::Shadowed => None,
            Kind::Counted if breaker.state().era != self.era => None,
            Kind::Counted => breaker.count(mark, 1, policy, now),
            Kind::Probe { .. } => loop {
                let state = breaker.state();
                if state.era != self.era {
                    return None;
                }
                if mark.is_bad() {
                    if breaker.open(state, policy, now) {
                        return Some(Phase::Open);
                    }
                    continue;
                }
                let passed = state.passed.saturating_add(1);
                let closes = passed >= policy.probes;
                let next = if closes {
                    State { era: state.era.wrapping_add(1), phase: Phase::Closed, probing: 0, passed: 0 }
                } else {
                    State { probing: state.probing.saturating_sub(1), passed, ..state }
                };
                if breaker.change(state, next) {
                    if closes {
                        breaker.times.store(0, Relaxed);
                        breaker.window.clear();
                    }
                    return closes.then_some(Phase::Closed);
                }
            },
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        while self.is_probe() {
            let state = self.breaker.state();
            let next = State { probing: state.probing.saturating_sub(1), ..state };
            if state.era != self.era || self.breaker.change(state, next) {
                return;
            }
        }
    }
}

impl State {
    fn unpack(word: u64) -> Self {
        let phase = match (word >> 16) as u8 {
            1 => Phase::Open,
            2 => Phase::HalfOpen,
            _ => Phase::Closed,
        };
        State { era: (word >> 32) as u32, phase, probing: (word >> 8) as u8, passed: word as u8 }
    }

    fn pack(self) -> u64 {
        u64::from(self.era) << 32 | (self.phase as u64) << 16 | u64::from(self.probing) << 8 | u64::from(self.passed)
    }
}

#[cfg(test)]
mod naive;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::builtin;
    use crate::config::model::Fallback;

    pub(super) fn policy() -> Policy {
        builtin::circuit_breaker()
    }

    pub(super) fn at(milliseconds: u64) -> Moment {
        Moment::from_micros(1 + milliseconds * 1_000)
    }

    pub(super) const WELL: Mark = Mark { failed: false, slow: false };
    const FAILED: Mark = Mark { failed: true, slow: false };
    const SLOW: Mark = Mark { failed: false, slow: true };

    #[track_caller]
    fn pass(breaker: &Arc<Breaker>, policy: &Policy, now: u64) -> Pass {
        match breaker.admit(policy, || at(now)) {
            Admission::Pass(pass) => pass,
            Admission::Refused(wait) => panic!("refused for {wait:?}"),
        }
    }

    #[track_caller]
    fn refused(breaker: &Arc<Breaker>, policy: &Policy, now: u64) -> Duration {
        match breaker.admit(policy, || at(now)) {
            Admission::Pass(_) => panic!("let through"),
            Admission::Refused(wait) => wait,
        }
    }

    fn opened(policy: &Policy, mark: Mark) -> Arc<Breaker> {
        let breaker = Arc::<Breaker>::default();
        for _ in 0..policy.min_requests {
            pass(&breaker, policy, 0).record(mark, policy, at(0));
        }
        assert_eq!(breaker.phase(), Phase::Open);
        breaker
    }

    #[test]
    fn it_opens_at_the_ratio_and_not_before_the_least_volume() {
        let (breaker, policy) = (Arc::<Breaker>::default(), policy());
        for index in 0..20 {
            let mark = if index % 2 == 0 { FAILED } else { WELL };
            assert_eq!(breaker.phase(), Phase::Closed, "after {index}");
            pass(&breaker, &policy, 0).record(mark, &policy, at(0));
        }
        assert_eq!(breaker.phase(), Phase::Open);
        assert_eq!(refused(&breaker, &policy, 1_000), Duration::from_secs(4));
    }

    #[test]
    fn slow_requests_open_it_too() {
        let policy = Policy { slow: Some(Duration::from_secs(2)), ..policy() };
        opened(&policy, SLOW);
        let fast = Policy { slow: None, ..policy };
        let breaker = Arc::<Breaker>::default();
        for _ in 0..100 {
            pass(&breaker, &fast, 0).record(SLOW, &fast, at(0));
        }
        assert_eq!(breaker.phase(), Phase::Closed);
    }

    #[test]
    fn probes_close_it_when_all_are_well() {
        let policy = policy();
        let breaker = opened(&policy, FAILED);
        let probes: Vec<Pass> = (0..3).map(|_| pass(&breaker, &policy, 5_000)).collect();
        refused(&breaker, &policy, 5_000);
        let phases: Vec<_> = probes.into_iter().map(|probe| probe.record(WELL, &policy, at(5_100))).collect();
        assert_eq!(phases, [None, None, Some(Phase::Closed)]);
        assert_eq!(breaker.recent(&policy, at(5_100)), Counts::default(), "it forgets");
    }

    #[test]
    fn each_time_is_twice_as_long_up_to_a_minute() {
        let policy = policy();
        let breaker = opened(&policy, FAILED);
        let mut now = 0;
        let mut spans = Vec::new();
        for _ in 0..6 {
            let wait = refused(&breaker, &policy, now);
            spans.push(wait.as_secs());
            now += wait.as_millis() as u64;
            let probe = pass(&breaker, &policy, now);
            assert_eq!(probe.record(FAILED, &policy, at(now)), Some(Phase::Open));
        }
        assert_eq!(spans, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn probes_that_never_end_are_given_up() {
        let policy = policy();
        let breaker = opened(&policy, FAILED);
        let hung: Vec<Pass> = (0..3).map(|_| pass(&breaker, &policy, 5_000)).collect();
        assert_eq!(refused(&breaker, &policy, 9_000), Duration::from_secs(1));
        let fresh = pass(&breaker, &policy, 10_000);
        hung.into_iter().for_each(|probe| assert_eq!(probe.record(FAILED, &policy, at(10_001)), None));
        fresh.record(WELL, &policy, at(10_002));
        assert_eq!(breaker.phase(), Phase::HalfOpen);
    }

    #[test]
    fn a_probe_whose_client_leaves_makes_room_for_another() {
        let policy = Policy { probes: 1, ..policy() };
        let breaker = opened(&policy, FAILED);
        drop(pass(&breaker, &policy, 5_000));
        assert!(pass(&breaker, &policy, 5_000).is_probe());
    }

    #[test]
    fn what_was_asked_before_it_opened_changes_nothing() {
        let policy = policy();
        let breaker = Arc::<Breaker>::default();
        let early: Vec<Pass> = (0..50).map(|_| pass(&breaker, &policy, 0)).collect();
        for _ in 0..20 {
            pass(&breaker, &policy, 0).record(FAILED, &policy, at(0));
        }
        let probe = pass(&breaker, &policy, 5_000);
        early.into_iter().for_each(|pass| assert_eq!(pass.record(FAILED, &policy, at(5_000)), None));
        assert_eq!(breaker.phase(), Phase::HalfOpen);
        drop(probe);
    }

    #[test]
    fn in_the_shadow_it_counts_and_refuses_nothing() {
        let policy = Policy { shadow: true, ..policy() };
        let breaker = opened(&policy, FAILED);
        for _ in 0..7 {
            pass(&breaker, &policy, 1).record(FAILED, &policy, at(1));
        }
        assert_eq!((breaker.phase(), breaker.refused()), (Phase::Open, 7));
        for _ in 0..3 {
            pass(&breaker, &policy, 6_000).record(WELL, &policy, at(6_000));
        }
        assert_eq!(breaker.phase(), Phase::Closed);
    }

    #[test]
    fn the_policy_has_no_fallback_unless_written() {
        assert!(matches!(policy().fallback, Fallback::Refuse));
    }
}
