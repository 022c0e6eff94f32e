//! Durations in buckets, cheap to observe: integers, no atomics.

use std::time::Duration;

use prometheus::proto;

/// Upper bounds in nanoseconds, 0.5 ms to 60 s.
///
/// Eleven, so that ten routes with two classes of codes stay below 300 series; closer together where most services
/// answer (1 to 25 ms) than where only timeouts are.
const BOUNDS: [u64; 11] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
    60_000_000_000,
];

/// With the one that has no upper bound.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// Counts of durations. The last bucket has no upper bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    buckets: [u64; BUCKETS],
    nanos: u64,
}

impl Histogram {
    /// Counts one duration, and tells in which bucket.
    #[inline]
    pub(super) fn observe(&mut self, duration: Duration) -> usize {
        let nanos = duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into());
        let index = BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[index] += 1;
        self.nanos = self.nanos.wrapping_add(nanos);
        index
    }

    /// Adds another worker's counts.
    pub(super) fn add(&mut self, other: &Histogram) {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
        self.nanos = self.nanos.wrapping_add(other.nanos);
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What came after `before`, which was taken of the same counts.
    pub(super) fn since(&self, before: &Histogram) -> Histogram {
        let mut difference = self.clone();
        for (bucket, old) in difference.buckets.iter_mut().zip(before.buckets) {
            *bucket = bucket.saturating_sub(old);
        }
        difference.nanos = self.nanos.wrapping_sub(before.nanos);
        difference
    }

    /// What this share of the durations did not exceed, as if they lay evenly in their buckets; `None` where there are
    /// none.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = share * self.count() as f64;
        let mut below = 0.0;
        let mut lower = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            let upper = BOUNDS.get(index).copied().unwrap_or(lower);
            if *count > 0 && below + *count as f64 >= wanted {
                let part = ((wanted - below) / *count as f64).clamp(0.0, 1.0);
                return Some(Duration::from_nanos(lower + ((upper - lower) as f64 * part) as u64));
            }
            below += *count as f64;
            lower = upper;
        }
        None
    }

    /// As Prometheus wants it: cumulative, in seconds. The encoder adds `+Inf`.
    pub(super) fn to_proto(&self) -> proto::Histogram {
        let mut sum = 0;
        let buckets = BOUNDS.iter().zip(self.buckets).map(|(bound, count)| {
            sum += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(Duration::from_nanos(*bound).as_secs_f64());
            bucket.set_cumulative_count(sum);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(self.buckets.iter().sum());
        histogram.set_sample_sum(Duration::from_nanos(self.nanos).as_secs_f64());
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_above_all_to_none() {
        let mut histogram = Histogram::default();
        for micros in [0, 500, 501, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        histogram.observe(Duration::MAX);
        let exported = histogram.to_proto();
        let counts: Vec<u64> = exported.get_bucket().iter().map(proto::Bucket::cumulative_count).collect();
        assert_eq!(counts, [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
        assert_eq!(exported.get_sample_count(), 6);
    }

    #[test]
    fn sums_are_seconds() {
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1_500));
        let mut total = Histogram::default();
        total.add(&histogram);
        total.add(&histogram);
        assert_eq!(total.to_proto().get_sample_sum(), 3.0);
        assert_eq!(total.to_proto().get_bucket()[0].upper_bound(), 0.000_5);
        assert_eq!(total.to_proto().get_bucket()[10].upper_bound(), 60.0);
    }

    #[test]
    fn quantiles_are_estimated_within_their_bucket() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        let mut histogram = Histogram::default();
        for _ in 0..10 {
            histogram.observe(Duration::from_millis(2));
        }
        let before = histogram.clone();
        for _ in 0..90 {
            histogram.observe(Duration::from_millis(20));
        }
        assert_eq!(histogram.quantile(0.05), Some(Duration::from_micros(1_750)));
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_millis(25)));
        assert_eq!(histogram.since(&before).count(), 90);
        assert_eq!(histogram.since(&before).quantile(0.0), Some(Duration::from_millis(10)));
        histogram.observe(Duration::from_secs(100));
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_secs(60)), "no more is known");
    }

    /// The contract: ten routes with their good and bad answers stay below 300 series.
    #[test]
    fn ten_routes_stay_below_three_hundred_series() {
        let sum_count_and_infinity = 3;
        assert!(10 * 2 * (BOUNDS.len() + sum_count_and_infinity) < 300);
    }
}
