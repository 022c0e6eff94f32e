//! How many retries an upstream may get: a share of its requests and a few besides, over a sliding window.
//!
//! Retries help while few requests fail. When many fail, each of them adds to the load that makes them fail, and a
//! number of retries per request multiplies it. The budget bounds the sum instead: over any `window`, retries are at
//! most `ratio` of the requests, and `min_per_second` besides, so that a proxy with little traffic can retry at all.
//! Finagle and Linkerd bound it so; Finagle's ten a second are too many for a sidecar that sends twenty.
//!
//! One budget serves all workers. It takes no lock: each slot of the window is one word that holds its number and its
//! count. What is looked at is always at least the window for retries, and at most the window for requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::model::RetryBudget;

/// Parts of a window that go out of it one by one.
const PARTS: u64 = 10;
/// One more than a window has, for the one that has begun.
const SLOTS: usize = PARTS as usize + 1;

/// A budget.
#[derive(Debug)]
pub(crate) struct Budget {
    start: Instant,
    /// The bits of an `f64`.
    ratio: AtomicU64,
    min_per_second: AtomicU64,
    window_millis: AtomicU64,
    requests: [Slot; SLOTS],
    retries: [Slot; SLOTS],
}

/// A retry that has been paid for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Paid;

/// The number of a part in the upper half, and what happened in it in the lower one.
#[derive(Debug, Default)]
struct Slot(AtomicU64);

impl Slot {
    fn add(&self, part: u64) {
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            let count = if word >> 32 == part { word & u64::from(u32::MAX) } else { 0 };
            Some(part << 32 | (count + 1).min(u32::MAX.into()))
        });
    }

    fn take_back(&self, part: u64) {
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            (word >> 32 == part && word & u64::from(u32::MAX) > 0).then(|| word - 1)
        });
    }

    fn count(&self, parts: std::ops::RangeInclusive<u64>) -> u64 {
        let word = self.0.load(Ordering::SeqCst);
        if parts.contains(&(word >> 32)) { word & u64::from(u32::MAX) } else { 0 }
    }
}

impl Budget {
    /// Pays nothing before it has been given terms.
    pub(crate) fn new(now: Instant) -> Self {
        Budget {
            start: now,
            ratio: AtomicU64::new(0),
            min_per_second: AtomicU64::new(0),
            window_millis: AtomicU64::new(1),
            requests: Default::default(),
            retries: Default::default(),
        }
    }

    /// New terms. What was counted stays, as long as the window does.
    pub(crate) fn set(&self, terms: RetryBudget) {
        self.ratio.store(terms.ratio.to_bits(), Ordering::Relaxed);
        self.min_per_second.store(terms.min_per_second.into(), Ordering::Relaxed);
        let millis = u64::try_from(terms.window.as_millis()).unwrap_or(u64::MAX);
        self.window_millis.store(millis.max(PARTS), Ordering::Relaxed);
    }

    /// Ratio, retries a second besides, and milliseconds of the window.
    #[cfg(test)]
    pub(crate) fn terms(&self) -> (f64, u64, u64) {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (f64::from_bits(read(&self.ratio)), read(&self.min_per_second), read(&self.window_millis))
    }

    /// A request begins.
    pub(crate) fn deposit(&self, now: Instant) {
        let part = self.part(now);
        self.requests[slot(part)].add(part);
    }

    /// Pays for a retry, or says that there is nothing left.
    pub(crate) fn withdraw(&self, now: Instant) -> Option<Paid> {
        let part = self.part(now);
        // First taken, then looked at: of two who take at a time, the later sees both.
        self.retries[slot(part)].add(part);
        if self.retries_at(part) as f64 <= self.allowance_at(part) {
            return Some(Paid);
        }
        self.retries[slot(part)].take_back(part);
        None
    }

    /// Retries that could be paid for now.
    pub(crate) fn balance(&self, now: Instant) -> f64 {
        let part = self.part(now);
        (self.allowance_at(part) - self.retries_at(part) as f64).max(0.0)
    }

    /// Attempts per request over the window; 1 where there were none.
    pub(crate) fn amplification(&self, now: Instant) -> f64 {
        let part = self.part(now);
        let requests = self.requests_at(part);
        if requests == 0 { 1.0 } else { 1.0 + self.retries_at(part) as f64 / requests as f64 }
    }

    /// Parts count from one window on, so that a slot which was never used is always too old.
    fn part(&self, now: Instant) -> u64 {
        let since = u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        let length = (self.window_millis.load(Ordering::Relaxed) / PARTS).max(1);
        (since / length + PARTS + 1) & u64::from(u32::MAX)
    }

    fn retries_at(&self, part: u64) -> u64 {
        self.retries.iter().map(|slot| slot.count(part - PARTS..=part)).sum()
    }

    fn requests_at(&self, part: u64) -> u64 {
        self.requests.iter().map(|slot| slot.count(part - PARTS + 1..=part)).sum()
    }

    fn allowance_at(&self, part: u64) -> f64 {
        let ratio = f64::from_bits(self.ratio.load(Ordering::Relaxed));
        let window = Duration::from_millis(self.window_millis.load(Ordering::Relaxed)).as_secs_f64();
        let floor = self.min_per_second.load(Ordering::Relaxed) as f64 * window;
        ratio * self.requests_at(part) as f64 + floor
    }
}

fn slot(part: u64) -> usize {
    (part % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget(terms: RetryBudget, now: Instant) -> Budget {
        let budget = Budget::new(now);
        budget.set(terms);
        budget
    }

    fn terms(ratio: f64, min_per_second: u32, window: u64) -> RetryBudget {
        RetryBudget { ratio, min_per_second, window: Duration::from_secs(window) }
    }

    #[test]
    fn a_share_of_the_requests_and_a_few_besides() {
        let now = Instant::now();
        let budget = budget(terms(0.2, 1, 10), now);
        assert_eq!(budget.balance(now), 10.0);
        for _ in 0..100 {
            budget.deposit(now);
        }
        let paid = (0..100).filter(|_| budget.withdraw(now).is_some()).count();
        assert_eq!(paid, 30);
        assert!((budget.amplification(now) - 1.3).abs() < 1e-9);
        let later = now + Duration::from_secs(20);
        assert_eq!((budget.balance(later), budget.amplification(later)), (10.0, 1.0));
    }

    #[test]
    fn new_terms_hold_at_once_and_memory_stays() {
        let now = Instant::now();
        let budget = budget(terms(0.0, 0, 10), now);
        (0..100).for_each(|_| budget.deposit(now));
        assert_eq!(budget.withdraw(now), None);
        budget.set(terms(0.01, 0, 10));
        assert_eq!((budget.withdraw(now), budget.withdraw(now)), (Some(Paid), None));
    }

    #[test]
    fn workers_that_pay_at_the_same_time_never_pay_more() {
        let now = Instant::now();
        let budget = budget(terms(0.0, 100, 10), now);
        let paid: usize = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1_000).filter(|_| budget.withdraw(now).is_some()).count())).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert!(paid <= 1_000, "{paid}");
        assert!(paid >= 990, "{paid}: taking back what was not paid lets the others pay");
    }

    /// The naive one: every event with its time.
    #[derive(Default)]
    struct Model {
        requests: Vec<u64>,
        retries: Vec<u64>,
    }

    impl Model {
        fn within(events: &[u64], from: u64, to: u64) -> usize {
            events.iter().filter(|at| (from..=to).contains(*at)).count()
        }
    }

    proptest! {
        // In the model there are no parts; the budget may pay less than it allows, for it rounds to its own side.
        #[test]
        fn is_never_exceeded_over_any_window_and_agrees_with_the_model_up_to_one_part(
            steps in prop::collection::vec((0_u64..400, any::<bool>()), 1..600),
            ratio in 0.0_f64..1.0,
            floor in 0_u32..5,
        ) {
            let start = Instant::now();
            let budget = budget(terms(ratio, floor, 10), start);
            let mut model = Model::default();
            let mut millis = 0;
            for (wait, retry) in steps {
                millis += wait;
                let now = start + Duration::from_millis(millis);
                if !retry {
                    budget.deposit(now);
                    model.requests.push(millis);
                    continue;
                }
                let allowance = |requests: usize| ratio * requests as f64 + f64::from(floor) * 10.0;
                let paid = budget.withdraw(now).is_some();
                if paid {
                    model.retries.push(millis);
                    let from = (millis + 1).saturating_sub(10_000);
                    let retries = Model::within(&model.retries, from, millis) as f64;
                    prop_assert!(retries <= allowance(Model::within(&model.requests, from, millis)) + 1e-9);
                } else {
                    let retries = Model::within(&model.retries, millis.saturating_sub(11_000), millis) + 1;
                    let requests = Model::within(&model.requests, (millis + 1).saturating_sub(9_000), millis);
                    prop_assert!(retries as f64 > allowance(requests) - 1e-9, "refused without need");
                }
            }
        }
    }
}
