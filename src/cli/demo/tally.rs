//! What the load was answered, and how fast.

use std::collections::BTreeMap;
use std::time::Duration;

/// Each bucket of durations is this much wider than the one before: what is read from them is off by at most 5 %.
const STEP: f64 = 1.05;
/// From 1 µs to more than a minute.
const BUCKETS: usize = 370;

/// Every answer, by who gave it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By upstream; answers of the proxy itself are under the empty name.
    pub(super) upstreams: BTreeMap<String, Counts>,
    /// Failures, by what is said of them.
    pub(super) failures: BTreeMap<String, u64>,
}

/// Answers of one upstream.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) failed: u64,
    durations: Vec<u32>,
}

impl Tally {
    /// Counts an answer; `failure` says what was wrong with it.
    pub(super) fn count(&mut self, upstream: &str, took: Duration, failure: Option<String>) {
        let counts = self.upstreams.entry(upstream.to_owned()).or_default();
        counts.requests += 1;
        counts.durations.resize(BUCKETS, 0);
        counts.durations[bucket(took)] += 1;
        if let Some(failure) = failure {
            counts.failed += 1;
            *self.failures.entry(failure).or_default() += 1;
        }
    }

    pub(super) fn requests(&self) -> u64 {
        self.upstreams.values().map(|counts| counts.requests).sum()
    }

    /// Percent of the requests that were answered well.
    pub(super) fn success(&self) -> f64 {
        let failed: u64 = self.upstreams.values().map(|counts| counts.failed).sum();
        success(self.requests(), failed)
    }
}

impl Counts {
    pub(super) fn success(&self) -> f64 {
        success(self.requests, self.failed)
    }

    /// The duration that this share of the requests did not exceed.
    pub(super) fn percentile(&self, share: f64) -> Duration {
        let rank = (self.requests as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let position = self.durations.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        Duration::from_secs_f64(STEP.powf(position.unwrap_or_default() as f64) / 1e6)
    }
}

fn success(requests: u64, failed: u64) -> f64 {
    if requests == 0 { 100.0 } else { 100.0 * (requests - failed) as f64 / requests as f64 }
}

fn bucket(took: Duration) -> usize {
    let micros = (took.as_secs_f64() * 1e6).max(1.0);
    // Rounds up, so that a bucket's number is the most that is in it.
    ((micros.ln() / STEP.ln()).ceil() as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_five_percent() {
        let mut tally = Tally::default();
        for millis in 1..=1_000 {
            tally.count("a", Duration::from_millis(millis), None);
        }
        for (share, expected) in [(0.5, 0.5), (0.9, 0.9), (0.99, 0.99), (1.0, 1.0)] {
            let percentile = tally.upstreams["a"].percentile(share).as_secs_f64();
            assert!((expected..expected * STEP * 1.001).contains(&percentile), "{share}: {percentile}");
        }
    }

    #[test]
    fn failures_are_counted_by_what_they_are() {
        let mut tally = Tally::default();
        for failure in [None, Some("503"), Some("503"), None] {
            tally.count("a", Duration::from_secs(100_000), failure.map(str::to_owned));
        }
        assert_eq!((tally.requests(), tally.success(), tally.failures["503"]), (4, 50.0, 2));
        assert_eq!(Tally::default().success(), 100.0);
    }
}
