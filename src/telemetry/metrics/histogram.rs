//! Durations in buckets, cheap to observe: integers, no atomics.

use std::time::Duration;

use prometheus::proto;

use crate::config::model::Buckets;

/// With the one that has no upper bound.
pub(super) const BUCKETS: usize = Buckets::MOST + 1;

/// Upper bounds of the buckets, the same for all histograms of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// In nanoseconds. Those that are not used are larger than everything, so that a search needs no length.
    nanos: [u64; Buckets::MOST],
    used: usize,
}

impl From<&Buckets> for Bounds {
    fn from(buckets: &Buckets) -> Self {
        let mut nanos = [u64::MAX; Buckets::MOST];
        for (nanos, bound) in nanos.iter_mut().zip(buckets.bounds()) {
            *nanos = in_nanos(*bound);
        }
        Bounds { nanos, used: buckets.bounds().len().min(Buckets::MOST) }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds::from(&Buckets::default())
    }
}

impl Bounds {
    /// The bucket of a duration.
    #[inline]
    fn index(&self, nanos: u64) -> usize {
        self.nanos.iter().position(|bound| nanos <= *bound).unwrap_or(Buckets::MOST)
    }

    fn used(&self) -> &[u64] {
        &self.nanos[..self.used]
    }
}

fn in_nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}

/// Counts of durations. The last bucket has no upper bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    buckets: [u64; BUCKETS],
    nanos: u64,
}

impl Histogram {
    /// Counts one duration, and tells in which bucket.
    #[inline]
    pub(super) fn observe(&mut self, duration: Duration, bounds: &Bounds) -> usize {
        let nanos = in_nanos(duration);
        let index = bounds.index(nanos);
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
    pub(super) fn quantile(&self, share: f64, bounds: &Bounds) -> Option<Duration> {
        let wanted = share * self.count() as f64;
        let mut below = 0.0;
        let mut lower = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            let upper = bounds.used().get(index).copied().unwrap_or(lower);
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
    pub(super) fn to_proto(&self, bounds: &Bounds) -> proto::Histogram {
        let mut sum = 0;
        let buckets = bounds.used().iter().zip(self.buckets).map(|(bound, count)| {
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

    fn observe(histogram: &mut Histogram, duration: Duration) {
        histogram.observe(duration, &Bounds::default());
    }

    fn counts(histogram: &Histogram, bounds: &Bounds) -> Vec<u64> {
        histogram.to_proto(bounds).get_bucket().iter().map(proto::Bucket::cumulative_count).collect()
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_above_all_to_none() {
        let mut histogram = Histogram::default();
        for micros in [0, 500, 501, 60_000_000, 60_000_001] {
            observe(&mut histogram, Duration::from_micros(micros));
        }
        observe(&mut histogram, Duration::MAX);
        assert_eq!(counts(&histogram, &Bounds::default()), [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
        assert_eq!(histogram.to_proto(&Bounds::default()).get_sample_count(), 6);
    }

    #[test]
    fn bounds_are_as_many_as_were_asked_for() {
        for count in [1, 2, Buckets::MOST] {
            let buckets = Buckets::of((1..=count as u64).map(Duration::from_secs));
            let (bounds, mut histogram) = (Bounds::from(&buckets), Histogram::default());
            for seconds in 1..=30 {
                histogram.observe(Duration::from_secs(seconds), &bounds);
            }
            assert_eq!(counts(&histogram, &bounds), (1..=count as u64).collect::<Vec<_>>());
            assert_eq!(histogram.to_proto(&bounds).get_sample_count(), 30);
            assert_eq!(histogram.quantile(1.0, &bounds), Some(Duration::from_secs(count as u64)), "no more is known");
        }
    }

    #[test]
    fn sums_are_seconds() {
        let (mut histogram, bounds) = (Histogram::default(), Bounds::default());
        observe(&mut histogram, Duration::from_millis(1_500));
        let mut total = Histogram::default();
        total.add(&histogram);
        total.add(&histogram);
        assert_eq!(total.to_proto(&bounds).get_sample_sum(), 3.0);
        assert_eq!(total.to_proto(&bounds).get_bucket()[0].upper_bound(), 0.000_5);
        assert_eq!(total.to_proto(&bounds).get_bucket()[10].upper_bound(), 60.0);
    }

    #[test]
    fn quantiles_are_estimated_within_their_bucket() {
        let bounds = Bounds::default();
        assert_eq!(Histogram::default().quantile(0.5, &bounds), None);
        let mut histogram = Histogram::default();
        for _ in 0..10 {
            observe(&mut histogram, Duration::from_millis(2));
        }
        let before = histogram.clone();
        for _ in 0..90 {
            observe(&mut histogram, Duration::from_millis(20));
        }
        assert_eq!(histogram.quantile(0.05, &bounds), Some(Duration::from_micros(1_750)));
        assert_eq!(histogram.quantile(1.0, &bounds), Some(Duration::from_millis(25)));
        assert_eq!(histogram.since(&before).count(), 90);
        assert_eq!(histogram.since(&before).quantile(0.0, &bounds), Some(Duration::from_millis(10)));
        observe(&mut histogram, Duration::from_secs(100));
        assert_eq!(histogram.quantile(1.0, &bounds), Some(Duration::from_secs(60)), "no more is known");
    }

    /// The contract: ten routes with their good and bad answers stay below 300 series.
    #[test]
    fn ten_routes_stay_below_three_hundred_series() {
        let sum_count_and_infinity = 3;
        assert!(10 * 2 * (Bounds::default().used().len() + sum_count_and_infinity) < 300);
    }
}
