//! Which trace stands for a bucket: the way from a slow percentile to a request that was so slow.

use std::time::Duration;

use super::histogram::BUCKETS;

/// A request whose trace was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// 32 hexadecimal digits.
    pub trace_id: [u8; 32],
    /// When it ended, since the Unix epoch.
    pub at: Duration,
    pub(super) took: Duration,
}

impl Exemplar {
    /// Of a request that ended then; `None` where its id is none.
    pub fn new(trace_id: &str, at: Duration) -> Option<Self> {
        Some(Exemplar { trace_id: trace_id.as_bytes().try_into().ok()?, at, took: Duration::ZERO })
    }

    /// As OpenMetrics writes it, after a sample.
    pub(super) fn write(&self, text: &mut String) {
        let id = std::str::from_utf8(&self.trace_id).unwrap_or_default();
        let (took, at) = (self.took.as_secs_f64(), self.at.as_secs_f64());
        text.push_str(&format!(" # {{trace_id=\"{id}\"}} {took} {at:.3}"));
    }
}

/// The latest of each bucket. Nothing is kept where no trace is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Exemplars(Option<Box<[Option<Exemplar>; BUCKETS]>>);

impl Exemplars {
    pub(super) fn keep(&mut self, bucket: usize, took: Duration, exemplar: Exemplar) {
        let exemplar = Exemplar { took, ..exemplar };
        let kept = self.0.get_or_insert_with(|| Box::new([None; BUCKETS]));
        if let Some(place) = kept.get_mut(bucket) {
            *place = Some(exemplar);
        }
    }

    /// With those of another worker, where they are later.
    pub(super) fn add(&mut self, other: &Exemplars) {
        let Some(others) = &other.0 else { return };
        let kept = self.0.get_or_insert_with(|| Box::new([None; BUCKETS]));
        for (ours, theirs) in kept.iter_mut().zip(others.iter()) {
            if theirs.is_some_and(|theirs| ours.is_none_or(|ours| ours.at < theirs.at)) {
                *ours = *theirs;
            }
        }
    }

    pub(super) fn of(&self, bucket: usize) -> Option<&Exemplar> {
        self.0.as_ref()?.get(bucket)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_all_workers_stands_for_a_bucket() {
        let exemplar = |digit: &str, at| Exemplar::new(&digit.repeat(32), Duration::from_secs(at)).unwrap();
        let (mut one, mut other) = (Exemplars::default(), Exemplars::default());
        one.keep(3, Duration::from_millis(4), exemplar("a", 2));
        other.keep(3, Duration::from_millis(5), exemplar("b", 3));
        other.keep(4, Duration::from_millis(6), exemplar("c", 1));
        one.add(&other);
        let mut text = String::new();
        one.of(3).unwrap().write(&mut text);
        assert_eq!(text, format!(" # {{trace_id=\"{}\"}} 0.005 3.000", "b".repeat(32)));
        assert!(one.of(4).is_some() && one.of(5).is_none());
        assert!(Exemplar::new("", Duration::ZERO).is_none());
    }
}
