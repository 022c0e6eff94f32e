//! How often an agent is asked: as often as things change, within bounds, and ever more rarely while it fails.
//!
//! Blocking queries return when something *may* have changed; under churn that is all the time, and one sleep after
//! each would miss changes. A bucket of tokens lets a burst of changes through at once and bounds the average. The emptier
//! it is, the wider apart questions are, so that the last change of a long burst does not meet an empty bucket.

use std::time::Duration;

use tokio::time::Instant;

/// Questions in a row.
const BURST: u32 = 10;
/// One more for each of these.
const REFILL: Duration = Duration::from_secs(1);

/// The first pause after a failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest one while a failure is young, or costs nobody but this machine: who comes back is noticed within 2 s.
const PAUSE: Duration = Duration::from_millis(1_500);
/// The longest one after failures for a minute or so: a cluster that is down needs quiet to get up again.
const LONG_PAUSE: Duration = Duration::from_secs(10);
const FAILURES_UNTIL_LONG_PAUSE: u32 = 60;

/// When the next question may be asked.
#[derive(Debug)]
pub(super) struct Pace {
    tokens: u32,
    refilled: Instant,
    /// When the last question was asked, or is going to be.
    asked: Option<Instant>,
    failures: u32,
    not_before: Instant,
    random: fastrand::Rng,
}

impl Pace {
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        Pace {
            tokens: BURST,
            refilled: now,
            asked: None,
            failures: 0,
            not_before: now,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes a token; the question may be asked at this time.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        let periods = u32::try_from(now.saturating_duration_since(self.refilled).as_secs()).unwrap_or(u32::MAX);
        if self.tokens.saturating_add(periods) >= BURST {
            (self.tokens, self.refilled) = (BURST, now);
        } else {
            self.tokens += periods;
            self.refilled += REFILL * periods;
        }
        let token = if self.tokens > 0 {
            self.tokens -= 1;
            now
        } else {
            self.refilled += REFILL;
            self.refilled
        };
        let apart = self.asked.map_or(now, |asked| asked + self.apart());
        let next = token.max(self.not_before).max(apart);
        self.asked = Some(next);
        next
    }

    /// Three at once, then ten in a second and a third.
    fn apart(&self) -> Duration {
        match self.tokens {
            7.. => Duration::ZERO,
            3..7 => Duration::from_millis(100),
            0..3 => Duration::from_millis(300),
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// `cheap`: asking again costs nobody but this machine.
    pub(super) fn failed(&mut self, now: Instant, cheap: bool, wish: Option<Duration>) {
        let most = if cheap || self.failures < FAILURES_UNTIL_LONG_PAUSE { PAUSE } else { LONG_PAUSE };
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        // Between a half and all of it, so that a thousand proxies do not come back as one.
        let pause = pause.mul_f64(0.5 + self.random.f64() / 2.0);
        self.not_before = now + pause.max(wish.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_goes_through_and_then_one_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 0);
        let mut now = start;
        let mut asked = Vec::new();
        for _ in 0..15 {
            now = pace.next(now);
            asked.push((now - start).as_millis());
        }
        assert_eq!(asked, [0, 0, 0, 100, 200, 300, 400, 700, 1000, 1300, 1600, 2000, 3000, 4000, 5000]);
        now += Duration::from_secs(60);
        assert!((0..3).all(|_| pace.next(now) == now));
        assert!(pace.next(now) > now);
    }

    #[test]
    fn failures_slow_down_and_success_forgets_them() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 0);
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..80 {
            pace.failed(now, false, None);
            let next = pace.next(now);
            pauses.push(next - now);
            now = next;
        }
        assert!(pauses[0] <= FIRST_PAUSE);
        assert!(pauses[..60].iter().all(|pause| *pause <= PAUSE), "{pauses:?}");
        assert!(pauses[61..].iter().all(|pause| *pause >= LONG_PAUSE / 2 && *pause <= LONG_PAUSE), "{pauses:?}");
        pace.failed(now, true, None);
        let next = pace.next(now);
        assert!(next - now <= PAUSE);
        now = next + Duration::from_secs(60);
        pace.succeeded();
        pace.failed(now, false, None);
        assert!(pace.next(now) - now <= FIRST_PAUSE);
        pace.failed(now, false, Some(Duration::from_secs(20)));
        assert!(pace.next(now) - now >= Duration::from_secs(20));
    }

    proptest! {
        #[test]
        fn no_minute_has_more_than_seventy_questions(steps in prop::collection::vec((0_u64..3_000, any::<bool>()), 1..400)) {
            let start = Instant::now();
            let mut pace = Pace::new(start, 1);
            let mut now = start;
            let mut asked = Vec::new();
            for (pause, failed) in steps {
                now += Duration::from_millis(pause);
                if failed {
                    pace.failed(now, true, None);
                } else {
                    pace.succeeded();
                }
                now = pace.next(now).max(now);
                asked.push(now);
            }
            for (index, first) in asked.iter().enumerate() {
                let within = asked[index..].iter().take_while(|later| **later - *first < Duration::from_secs(60));
                prop_assert!(within.count() <= 71);
            }
        }
    }
}
