//! How long an endpoint takes, as a moving average that believes bad news at once.
//!
//! Peak EWMA, as Finagle has it: a latency above the average takes its place, one below moves it by as much as time has
//! passed since the last. So a stall shows with the first answer that it delays, and is forgotten over [`DECAY`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::moment::{Moment, micros};

/// After this time an old latency has 1/e of its weight. Finagle's and Linkerd's default.
const DECAY: Duration = Duration::from_secs(10);

/// Both in one word, so that they change together: the average in microseconds, and when it was, in milliseconds. A
/// worker that loses a race for it loses one observation.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

impl Latency {
    /// An attempt took so long.
    #[inline]
    pub(crate) fn observe(&self, took: Duration, now: Moment) {
        // 0 is for "nothing known".
        let took = u32::try_from(micros(took)).unwrap_or(u32::MAX).max(1);
        let word = self.0.load(Relaxed);
        let average = match unpack(word) {
            (0, _) => took,
            (average, _) if took >= average => took,
            (average, at) => {
                let kept = weight_after(millis(now).wrapping_sub(at));
                (f64::from(average) * kept + f64::from(took) * (1.0 - kept)) as u32
            }
        };
        self.0.store(pack(average.max(1), millis(now)), Relaxed);
    }

    /// The average in microseconds, ever less where nothing is heard: an endpoint that was slow gets another chance.
    /// `None` where nothing was ever heard.
    pub(crate) fn expected(&self, now: Moment) -> Option<f64> {
        let (average, at) = unpack(self.0.load(Relaxed));
        (average > 0).then(|| f64::from(average) * weight_after(millis(now).wrapping_sub(at)))
    }

    /// The average as it was last changed, for people.
    pub(crate) fn last(&self) -> Option<Duration> {
        let (average, _) = unpack(self.0.load(Relaxed));
        (average > 0).then(|| Duration::from_micros(average.into()))
    }
}

/// Milliseconds that come round every 49 days; only differences count. One that another worker's clock makes negative
/// is none.
fn weight_after(milliseconds: u32) -> f64 {
    let passed = f64::from((milliseconds as i32).max(0)) / DECAY.as_millis() as f64;
    // Under load so little passes that the first terms of the series do, without the function's table.
    if passed < 0.01 { 1.0 - passed + passed * passed / 2.0 } else { (-passed).exp() }
}

fn millis(now: Moment) -> u32 {
    (now.micros() / 1_000) as u32
}

fn pack(average: u32, at: u32) -> u64 {
    u64::from(average) << 32 | u64::from(at)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::from_micros(milliseconds * 1_000)
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn bad_news_is_believed_at_once_and_good_news_with_time() {
        let latency = Latency::default();
        assert_eq!((latency.last(), latency.expected(at(0))), (None, None));
        latency.observe(ms(10), at(0));
        latency.observe(ms(500), at(1));
        assert_eq!(latency.last(), Some(ms(500)));
        latency.observe(ms(10), at(101));
        assert!(latency.last().unwrap() > ms(490));
        latency.observe(ms(10), at(60_101));
        assert!(latency.last().unwrap() < ms(12));
    }

    #[test]
    fn silence_makes_it_ever_less() {
        let latency = Latency::default();
        latency.observe(ms(1_000), at(0));
        let after_one_decay = latency.expected(at(10_000)).unwrap();
        assert!((after_one_decay - 1e6 / std::f64::consts::E).abs() < 1.0);
        assert!(latency.expected(at(100_000)).unwrap() < 100.0);
    }

    proptest! {
        /// The same in plain arithmetic over the whole list.
        #[test]
        fn agrees_with_arithmetic_in_the_long_form(
            observations in prop::collection::vec((0u64..5_000, 1u64..1_000_000), 1..100),
        ) {
            let latency = Latency::default();
            let (mut now, mut expected, mut last) = (0, 0.0f64, 0);
            for (pause, took) in observations {
                now += pause;
                latency.observe(Duration::from_micros(took), at(now));
                let took = took as f64;
                let kept = (-((now - last) as f64) / 10_000.0).exp();
                expected = if took >= expected.floor() { took } else { expected * kept + took * (1.0 - kept) };
                last = now;
                // Whole microseconds are kept, so a fraction of one is lost at each step.
                let average = latency.last().unwrap().as_micros() as f64;
                prop_assert!((average - expected).abs() <= 100.0, "{} {}", average, expected);
                expected = average;
            }
        }
    }
}
