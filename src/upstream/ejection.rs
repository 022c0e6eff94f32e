//! Whether an endpoint is to be left out for a while, by what its attempts came to.
//!
//! Three signals, for each misses what another sees. *Failures in a row* see an endpoint that is gone, within a few
//! attempts and in the smallest pool; one that fails every second time never has enough of them. The *failure ratio* sees
//! that one, and the 500s that are no sign of a dead endpoint; it needs some volume. The *success rate* (see
//! [`super::outlier`]) sees one that is merely worse than the others, and needs many others.
//!
//! An endpoint that was ejected comes back by itself when its time is over, with a small share that grows; a check that
//! passes meanwhile does not bring it back, for what it failed at were real requests. Each further ejection is longer,
//! until it has behaved for as long as it was once out.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::moment::Moment;
use super::window::{Counts, Mark, Window};
use crate::config::model::Ejection as Policy;
use crate::outcome::Class;

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Consecutive,
    FailureRatio,
    SuccessRate,
}

impl Cause {
    pub(crate) const ALL: [Cause; 3] = [Cause::Consecutive, Cause::FailureRatio, Cause::SuccessRate];

    /// The word in logs and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Cause::Consecutive => "consecutive",
            Cause::FailureRatio => "failure_ratio",
            Cause::SuccessRate => "success_rate",
        }
    }
}

/// How often something was a cause.
#[derive(Debug, Default)]
pub(crate) struct Causes([AtomicU64; 3]);

impl Causes {
    pub(super) fn count(&self, cause: Cause) {
        self.0[cause as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize].load(Relaxed)
    }
}

/// What one endpoint's attempts came to. All workers write; `now` and the policy come from outside.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    in_a_row: AtomicU32,
    recent: Window,
    /// Ejections that still count for the next one's length.
    times: AtomicU32,
    /// When the last one ends.
    until: AtomicU64,
    /// Why it was: an index of [`Cause::ALL`].
    cause: AtomicU8,
    /// Ejections since the endpoint is known.
    total: AtomicU64,
}

impl Ejection {
    /// An attempt at an endpoint that is in has ended. Says why the endpoint should be out, if it should.
    pub(crate) fn record(&self, class: Class, policy: &Policy, now: Moment) -> Option<Cause> {
        let failed = class.is_failure()?;
        let in_a_row = if counts_in_a_row(class) {
            self.in_a_row.fetch_add(1, Relaxed).saturating_add(1)
        } else {
            if self.in_a_row.load(Relaxed) != 0 {
                self.in_a_row.store(0, Relaxed);
            }
            0
        };
        if policy.failure_ratio.is_some() || policy.deviations.is_some() {
            self.recent.record(now, policy.window, Mark { failed, slow: false }, 1);
        }
        if policy.consecutive.is_some_and(|most| in_a_row >= most) {
            return Some(Cause::Consecutive);
        }
        let most = policy.failure_ratio.filter(|_| failed)?;
        let recent = self.recent(policy, now);
        (recent.total >= policy.min_requests && recent.failure_ratio() >= most).then_some(Cause::FailureRatio)
    }

    /// True while failures in a row may yet come to an ejection.
    pub(crate) fn is_suspect(&self, policy: &Policy) -> bool {
        let in_a_row = self.in_a_row.load(Relaxed);
        policy.consecutive.is_some_and(|most| in_a_row > 0 && in_a_row < most)
    }

    /// What its attempts came to lately.
    pub(crate) fn recent(&self, policy: &Policy, now: Moment) -> Counts {
        self.recent.counts(now, policy.window)
    }

    /// Out it goes. Says for how long.
    pub(crate) fn eject(&self, cause: Cause, policy: &Policy, now: Moment) -> Duration {
        let behaved = now.since(self.until()).as_micros() / policy.base.as_micros().max(1);
        let behaved = u32::try_from(behaved).unwrap_or(u32::MAX);
        let times = self.times.load(Relaxed).saturating_sub(behaved).saturating_add(1);
        let span = policy.base.saturating_mul(times).min(policy.longest.max(policy.base));
        // Beyond the cap nothing grows, and nothing has to be behaved off.
        let cap = u32::try_from(policy.longest.as_micros() / policy.base.as_micros().max(1)).unwrap_or(u32::MAX);
        self.times.store(times.min(cap.max(1)), Relaxed);
        self.cause.store(cause as u8, Relaxed);
        self.until.store(now.after(span).micros(), Relaxed);
        self.total.fetch_add(1, Relaxed);
        self.in_a_row.store(0, Relaxed);
        self.recent.clear();
        span
    }

    /// When the last ejection ends or ended.
    pub(crate) fn until(&self) -> Moment {
        Moment::from_micros(self.until.load(Relaxed))
    }

    /// Why it was ejected; `None` where it never was.
    pub(crate) fn cause(&self) -> Option<Cause> {
        (self.total() > 0).then(|| Cause::ALL[usize::from(self.cause.load(Relaxed)) % Cause::ALL.len()])
    }

    pub(crate) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row.load(Relaxed)
    }
}

/// Failures that say that nobody is there: the endpoint's own 500 shows that somebody is.
pub(crate) fn counts_in_a_row(class: Class) -> bool {
    matches!(class, Class::ConnectFailure | Class::GatewayError | Class::Reset | Class::Timeout)
}

/// Whether one more of `size` may be out when `out` are. The share is rounded down, but one of two may always be, and the
/// last one never.
pub(crate) fn may_eject(policy: &Policy, size: usize, out: usize) -> bool {
    let most = ((size as f64 * policy.max_ratio) as usize).max(usize::from(policy.max_ratio > 0.0));
    out < most.min(size.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::builtin;

    fn policy() -> Policy {
        builtin::EJECTION
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(1 + seconds * 1_000_000)
    }

    #[test]
    fn five_in_a_row_are_enough_and_anything_else_begins_anew() {
        let ejection = Ejection::default();
        let record = |class| ejection.record(class, &policy(), at(0));
        for class in [Class::ConnectFailure, Class::Reset, Class::Timeout, Class::GatewayError] {
            assert_eq!(record(class), None);
        }
        assert_eq!(record(Class::Nothing), None, "says nothing either way");
        assert_eq!(record(Class::Reset), Some(Cause::Consecutive));
        assert_eq!(record(Class::ServerError), None, "somebody is there");
        for _ in 0..4 {
            assert_eq!(record(Class::Reset), None);
        }
        assert_eq!(record(Class::Reset), Some(Cause::Consecutive));
    }

    #[test]
    fn the_ratio_needs_volume() {
        let ejection = Ejection::default();
        let policy = Policy { failure_ratio: Some(0.5), min_requests: 10, ..policy() };
        let record = |class| ejection.record(class, &policy, at(0));
        for _ in 0..4 {
            assert_eq!((record(Class::ServerError), record(Class::Success)), (None, None));
        }
        assert_eq!((record(Class::ServerError), record(Class::ServerError)), (None, Some(Cause::FailureRatio)));
    }

    #[test]
    fn each_ejection_is_longer_until_it_behaves() {
        let ejection = Ejection::default();
        let mut now = 0;
        let mut eject = |pause: u64| {
            now += pause;
            let span = ejection.eject(Cause::Consecutive, &policy(), at(now)).as_secs();
            now += span;
            span
        };
        assert_eq!([eject(0), eject(1), eject(1), eject(29)], [30, 60, 90, 120]);
        assert_eq!(eject(30), 120, "one is forgiven");
        assert_eq!((0..20).map(|_| eject(0)).max(), Some(300));
        assert_eq!(eject(299), 60, "nine of ten are forgiven");
        assert_eq!(eject(30 * 60), 30);
    }

    #[test]
    fn one_always_stays() {
        let most = |ratio: f64, size: usize| {
            let policy = Policy { max_ratio: ratio, ..policy() };
            (0..).find(|out| !may_eject(&policy, size, *out)).unwrap()
        };
        for (ratio, size, expected) in
            [(0.5, 0, 0), (0.5, 1, 0), (0.5, 2, 1), (0.5, 3, 1), (0.5, 5, 2), (1.0, 3, 2), (0.1, 2, 1), (0.0, 9, 0)]
        {
            assert_eq!(most(ratio, size), expected, "{ratio} of {size}");
        }
    }

    fn class() -> impl Strategy<Value = Class> {
        prop::sample::select(vec![
            Class::Success,
            Class::ServerError,
            Class::GatewayError,
            Class::ConnectFailure,
            Class::Refused,
            Class::Reset,
            Class::Timeout,
            Class::Nothing,
        ])
    }

    proptest! {
        /// The naive model keeps a list of all outcomes and looks through it each time.
        #[test]
        fn agrees_with_a_list(
            outcomes in prop::collection::vec((0u64..3, class()), 1..200),
            consecutive in prop::option::of(1u32..8), failure_ratio in prop::option::of(0.1f64..1.0), min_requests in 1u32..20,
        ) {
            let policy = Policy { consecutive, failure_ratio, min_requests, ..policy() };
            let ejection = Ejection::default();
            let mut list: Vec<(u64, Class)> = Vec::new();
            let mut now = 0;
            for (pause, class) in outcomes {
                now += pause;
                let verdict = ejection.record(class, &policy, at(now));
                let mut expected = None;
                if let Some(failed) = class.is_failure() {
                    list.push((now, class));
                    let run = list.iter().rev().take_while(|(_, class)| counts_in_a_row(*class)).count() as u32;
                    let recent = list.iter().filter(|(then, _)| now - then < 10);
                    let failures = recent.clone().filter(|(_, class)| class.is_failure() == Some(true)).count() as f64;
                    let total = recent.count();
                    if consecutive.is_some_and(|most| run >= most) {
                        expected = Some(Cause::Consecutive);
                    } else if failed && total >= min_requests as usize && failure_ratio.is_some_and(|most| failures / total as f64 >= most) {
                        expected = Some(Cause::FailureRatio);
                    }
                }
                prop_assert_eq!(verdict, expected);
                if verdict.is_some() {
                    ejection.eject(Cause::Consecutive, &policy, at(now));
                    list.clear();
                }
            }
        }
    }
}
