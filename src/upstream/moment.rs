//! A point in time that fits into an atomic.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

/// Microseconds since this process first asked, counted from 1: 0 is free to mean "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) const fn from_micros(micros: u64) -> Self {
        Moment(micros)
    }

    pub(crate) const fn micros(self) -> u64 {
        self.0
    }

    /// Later by so much.
    pub(crate) fn after(self, span: Duration) -> Self {
        Moment(self.0.saturating_add(micros(span)))
    }

    /// How long after `earlier` this is; nothing where it is not.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl From<Instant> for Moment {
    #[inline]
    fn from(instant: Instant) -> Self {
        static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
        Moment(micros(instant.saturating_duration_since(*BEGINNING)).saturating_add(1))
    }
}

/// A duration in microseconds; one beyond 500,000 years is as long as can be said.
pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_ordered_as_instants_are() {
        let beginning = Moment::from(Instant::now());
        let now = Instant::now() + Duration::from_secs(1);
        let (first, second) = (Moment::from(now), Moment::from(now + Duration::from_millis(3)));
        assert!(first > beginning && beginning.micros() > 0);
        assert_eq!((second.since(first), first.since(second)), (Duration::from_millis(3), Duration::ZERO));
    }
}
