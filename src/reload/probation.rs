//! Whether a configuration that has just been put in force does well. Pure: counts and times come from outside.
//!
//! What counts is how many of the requests fail that end after the swap, of all upstreams together. An upstream of which
//! too many failed before is left out: the new configuration is not to blame, and going back would not help.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::model::Probation as Policy;
use crate::telemetry::metrics::{Tallies, Tally, UpstreamId};

/// Between two looks that are kept, as a share of the time that they are kept for.
const LOOKS: u32 = 10;
/// No more often than this, however short the probation is.
const SHORTEST: Duration = Duration::from_millis(200);

/// One generation's.
#[derive(Debug, Clone)]
pub(super) struct Probation {
    policy: Policy,
    began: Instant,
    before: Tallies,
    left_out: BTreeSet<Option<UpstreamId>>,
}

/// What has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Open,
    Passed,
    /// With what was counted.
    Failed(Tally),
}

impl Probation {
    /// Begins now, when so much has been counted. `window` is what of that was counted last.
    pub(super) fn new(policy: Policy, began: Instant, before: Tallies, window: &Tallies) -> Self {
        let left_out = failing(window, policy.max_error_ratio);
        Probation { policy, began, before, left_out }
    }

    /// For the generation after one that was not judged yet: what failed under that one is nobody's excuse.
    pub(super) fn next(&self, policy: Policy, began: Instant, before: Tallies) -> Self {
        Probation { policy, began, before, left_out: self.left_out.clone() }
    }

    /// Judges by what has been counted until now.
    pub(super) fn judge(&self, now: Instant, counts: &Tallies) -> Verdict {
        let mut sum = Tally::default();
        for (_, tally) in since(counts, &self.before).iter().filter(|(upstream, _)| !self.left_out.contains(upstream)) {
            sum.requests += tally.requests;
            sum.failed += tally.failed;
        }
        if sum.requests >= u64::from(self.policy.min_requests) && is_too_much(sum, self.policy.max_error_ratio) {
            return Verdict::Failed(sum);
        }
        if now >= self.began + self.policy.lasts { Verdict::Passed } else { Verdict::Open }
    }

    /// Until it is passed.
    pub(super) fn left(&self, now: Instant) -> Duration {
        (self.began + self.policy.lasts).saturating_duration_since(now)
    }

    /// Since it began.
    pub(super) fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

/// What was counted last, over about as long as a probation takes.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// The oldest first; at most [`LOOKS`] and two.
    looks: VecDeque<(Instant, Tallies)>,
}

impl Before {
    /// Between two looks that are kept.
    pub(super) fn pace(policy: &Policy) -> Duration {
        (policy.lasts / LOOKS).max(SHORTEST)
    }

    pub(super) fn look(&mut self, policy: &Policy, now: Instant, counts: Tallies) {
        if self.looks.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) < Before::pace(policy)) {
            return;
        }
        self.looks.push_back((now, counts));
        // The oldest that is kept is at least as old as a probation is long, if there is one.
        while self.looks.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= policy.lasts)
            || self.looks.len() > LOOKS as usize + 2
        {
            self.looks.pop_front();
        }
    }

    /// Forgets what was counted before now.
    pub(super) fn restart(&mut self, now: Instant, counts: Tallies) {
        self.looks.clear();
        self.looks.push_back((now, counts));
    }

    /// What of these was counted since the oldest look; everything, where nobody has looked.
    pub(super) fn window(&self, counts: &Tallies) -> Tallies {
        self.looks.front().map_or_else(|| counts.clone(), |(_, oldest)| since(counts, oldest))
    }
}

/// Those that fail so much that all together fail too much: the worst first, and only until the rest is well. One failed
/// request of a few is no reason to look away from an upstream.
fn failing(window: &Tallies, ratio: f64) -> BTreeSet<Option<UpstreamId>> {
    let mut candidates: Vec<_> = window.iter().filter(|(_, tally)| is_too_much(**tally, ratio)).collect();
    candidates.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.failed));
    let mut rest = window.values().fold(Tally::default(), |sum, tally| Tally {
        requests: sum.requests + tally.requests,
        failed: sum.failed + tally.failed,
    });
    let mut left_out = BTreeSet::new();
    for (upstream, tally) in candidates {
        if !is_too_much(rest, ratio) {
            break;
        }
        rest.requests -= tally.requests;
        rest.failed -= tally.failed;
        left_out.insert(*upstream);
    }
    left_out
}

fn since(now: &Tallies, before: &Tallies) -> Tallies {
    let difference = |(upstream, tally): (&Option<UpstreamId>, &Tally)| {
        let before = before.get(upstream).copied().unwrap_or_default();
        let requests = tally.requests.saturating_sub(before.requests);
        (*upstream, Tally { requests, failed: tally.failed.saturating_sub(before.failed) })
    };
    now.iter().map(difference).collect()
}

fn is_too_much(tally: Tally, ratio: f64) -> bool {
    tally.failed as f64 > ratio * tally.requests as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::metrics::Names;

    const POLICY: Policy = Policy { lasts: Duration::from_secs(30), max_error_ratio: 0.05, min_requests: 50 };

    fn upstreams() -> [UpstreamId; 3] {
        let names = Names::new();
        ["a", "b", "c"].map(|name| names.upstream(name))
    }

    fn tallies(counts: &[(u64, u64)]) -> Tallies {
        let tally = |(upstream, (good, failed)): (UpstreamId, &(u64, u64))| {
            (Some(upstream), Tally { requests: good + failed, failed: *failed })
        };
        upstreams().into_iter().zip(counts).map(tally).collect()
    }

    fn sum(one: &Tallies, other: &Tallies) -> Tallies {
        let mut sum = one.clone();
        for (upstream, tally) in other {
            let entry = sum.entry(*upstream).or_default();
            entry.requests += tally.requests;
            entry.failed += tally.failed;
        }
        sum
    }

    #[test]
    fn too_many_failures_end_it_at_once_and_none_at_its_end() {
        let began = Instant::now();
        let before = tallies(&[(1_000, 0)]);
        let probation = Probation::new(POLICY, began, before.clone(), &before);
        let after = |good, failed| sum(&before, &tallies(&[(good, failed)]));
        assert_eq!(probation.judge(began, &after(0, 49)), Verdict::Open, "too few to tell");
        assert_eq!(probation.judge(began, &after(0, 50)), Verdict::Failed(Tally { requests: 50, failed: 50 }));
        assert_eq!(probation.judge(began, &after(95, 5)), Verdict::Open, "just not too many");
        assert_eq!(probation.judge(began, &after(94, 6)), Verdict::Failed(Tally { requests: 100, failed: 6 }));
        assert_eq!(probation.judge(began + POLICY.lasts, &after(0, 49)), Verdict::Passed);
    }

    #[test]
    fn a_failure_or_two_before_are_no_reason_to_look_away() {
        let [a, b, c] = upstreams().map(Some);
        let left_out = |counts: &[(u64, u64)]| failing(&tallies(counts), POLICY.max_error_ratio);
        assert!(left_out(&[(1_000, 0), (1, 1), (3, 1)]).is_empty(), "all together are well");
        assert_eq!(left_out(&[(1_000, 0), (100, 90), (1, 1)]), BTreeSet::from([b]), "the rest is well without it");
        assert_eq!(left_out(&[(10, 9), (10, 8), (1, 1)]), BTreeSet::from([a, b, c]));
    }

    #[test]
    fn a_generation_between_does_not_hide_what_broke() {
        let began = Instant::now();
        let first = Probation::new(POLICY, began, tallies(&[]), &tallies(&[(100, 0)]));
        // The first one breaks everything, and a second one comes before that is noticed.
        let broken = tallies(&[(100, 40)]);
        let second = first.next(POLICY, began, broken.clone());
        let after = sum(&broken, &tallies(&[(0, 60)]));
        assert_eq!(second.judge(began, &after), Verdict::Failed(Tally { requests: 60, failed: 60 }));
    }

    #[test]
    fn only_what_happened_lately_counts_as_before() {
        let (mut before, start) = (Before::default(), Instant::now());
        assert_eq!(before.window(&tallies(&[(5, 5)])), tallies(&[(5, 5)]));
        for second in 0..100 {
            before.look(&POLICY, start + Duration::from_secs(second * 3), tallies(&[(second, 0)]));
            before.look(&POLICY, start + Duration::from_secs(second * 3 + 1), tallies(&[(9_999, 0)]));
            assert!(before.looks.len() <= LOOKS as usize + 2);
        }
        let window = before.window(&tallies(&[(99, 7)]));
        assert_eq!(window, tallies(&[(10, 7)]));
        before.restart(start, tallies(&[(99, 7)]));
        assert_eq!(before.window(&tallies(&[(99, 7)])), tallies(&[(0, 0)]));
    }

    fn counts() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec((0_u64..500, 0_u64..200), 3)
    }

    proptest! {
        #[test]
        fn failures_decide_and_nothing_else(window in counts(), after in counts(), seconds in 0_u64..60) {
            let (began, window, after) = (Instant::now(), tallies(&window), tallies(&after));
            let probation = Probation::new(POLICY, began, window.clone(), &window);
            let counted = sum(&window, &after);
            let now = began + Duration::from_secs(seconds);
            let left_out = failing(&window, POLICY.max_error_ratio);
            let counts = |upstream: &Option<UpstreamId>| !left_out.contains(upstream);
            let (requests, failed) = after
                .iter()
                .filter(|(upstream, _)| counts(upstream))
                .fold((0, 0), |(requests, failed), (_, tally)| (requests + tally.requests, failed + tally.failed));
            let too_many = requests >= 50 && failed as f64 > 0.05 * requests as f64;
            let expected = match (too_many, seconds >= 30) {
                (true, _) => Verdict::Failed(Tally { requests, failed }),
                (false, true) => Verdict::Passed,
                (false, false) => Verdict::Open,
            };
            prop_assert_eq!(probation.judge(now, &counted), expected);
        }

        #[test]
        fn what_failed_before_can_do_what_it_likes(after in counts(), worse in 0_u64..10_000, seconds in 0_u64..60) {
            let window = tallies(&[(100, 0), (100, 0), (50, 50)]);
            let began = Instant::now();
            let probation = Probation::new(POLICY, began, window.clone(), &window);
            let now = began + Duration::from_secs(seconds);
            let counted = sum(&window, &tallies(&after));
            let more = sum(&counted, &tallies(&[(0, 0), (0, 0), (0, worse)]));
            prop_assert_eq!(probation.judge(now, &counted), probation.judge(now, &more));
        }

        #[test]
        fn more_failures_never_save_it(window in counts(), after in counts(), more in 1_u64..1_000) {
            let (began, window) = (Instant::now(), tallies(&window));
            let probation = Probation::new(POLICY, began, window.clone(), &window);
            let counted = sum(&window, &tallies(&after));
            if matches!(probation.judge(began, &counted), Verdict::Failed(_)) {
                let worse = sum(&counted, &tallies(&[(0, more), (0, more), (0, more)]));
                prop_assert!(matches!(probation.judge(began, &worse), Verdict::Failed(_)));
            }
        }
    }
}
