//! How long an upstream's answers take, for who has to know when one is late.
//!
//! Counts in buckets that grow by a fifth, for all workers together and without a lock. When there are many, all are
//! halved: what was long ago counts less and less.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Buckets for each doubling; a quantile is at most a fifth too long.
const PER_DOUBLING: f64 = 4.0;
/// Up to about a minute.
const BUCKETS: usize = 26 * PER_DOUBLING as usize;
/// Samples at which all counts are halved.
const MOST: u32 = 2_048;
/// With fewer, nothing is known.
const LEAST: u32 = 32;

/// A histogram that forgets.
#[derive(Debug)]
pub(crate) struct Latencies {
    counts: [AtomicU32; BUCKETS],
    samples: AtomicU32,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies { counts: [const { AtomicU32::new(0) }; BUCKETS], samples: AtomicU32::new(0) }
    }
}

impl Latencies {
    pub(crate) fn observe(&self, took: Duration) {
        let micros = (took.as_secs_f64() * 1e6).max(1.0);
        let bucket = ((micros.log2() * PER_DOUBLING) as usize).min(BUCKETS - 1);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        if self.samples.fetch_add(1, Ordering::Relaxed) + 1 >= MOST {
            let mut left = 0;
            for count in &self.counts {
                let halved = count.load(Ordering::Relaxed) / 2;
                count.store(halved, Ordering::Relaxed);
                left += halved;
            }
            self.samples.store(left, Ordering::Relaxed);
        }
    }

    /// What this share of the answers took at most; `None` before there were enough.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let total: u32 = counts.iter().sum();
        if total < LEAST {
            return None;
        }
        let wanted = (f64::from(total) * share).ceil() as u32;
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        })?;
        Some(Duration::from_secs_f64(((bucket + 1) as f64 / PER_DOUBLING).exp2() / 1e6))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quantile_is_never_short_and_at_most_a_fifth_long(
            mut micros in prop::collection::vec(1_u64..10_000_000, 32..1_000),
            share in 0.01_f64..1.0,
        ) {
            let latencies = Latencies::default();
            for micros in &micros {
                latencies.observe(Duration::from_micros(*micros));
            }
            micros.sort_unstable();
            let exact = micros[((micros.len() as f64 * share).ceil() as usize).max(1) - 1] as f64;
            let found = latencies.quantile(share).unwrap().as_secs_f64() * 1e6;
            prop_assert!(found >= exact * 0.999 && found <= exact * 1.2, "{found} for {exact}");
        }
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        (0..2_000).for_each(|_| latencies.observe(Duration::from_secs(1)));
        assert!(latencies.quantile(0.5).unwrap() >= Duration::from_secs(1));
        (0..6_000).for_each(|_| latencies.observe(Duration::from_millis(1)));
        assert!(latencies.quantile(0.9).unwrap() < Duration::from_millis(2));
    }
}
