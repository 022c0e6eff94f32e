//! What has been counted of an upstream, and only ever grows.

use std::ops::{Add, AddAssign};
use std::sync::atomic::Ordering::Relaxed;

use super::ejection::Cause;
use super::endpoints::Endpoints;
use super::state::UpstreamState;

/// Counters of one upstream, or of several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Ejections, by cause.
    pub(crate) ejections: [u64; 3],
    /// Health checks that have passed, and that have failed.
    pub(crate) checks: (u64, u64),
    /// How often its breaker has opened.
    pub(crate) opened: u64,
    /// Requests that its breaker has refused.
    pub(crate) refused: u64,
    /// Answers of its source that changed the endpoints.
    pub(crate) updates: u64,
    /// Look-ups that failed.
    pub(crate) failures: u64,
}

impl Counted {
    pub(crate) fn of(state: &UpstreamState, endpoints: &Endpoints) -> Self {
        let (passed, failed) = &state.checks;
        let status = endpoints.status();
        Counted {
            ejections: Cause::ALL.map(|cause| state.ejections.of(cause)),
            checks: (passed.load(Relaxed), failed.load(Relaxed)),
            opened: state.breaker.opened(),
            refused: state.breaker.refused(),
            updates: status.updates,
            failures: status.failures,
        }
    }
}

impl Add for Counted {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let [a, b, c] = self.ejections;
        let [other_a, other_b, other_c] = other.ejections;
        Counted {
            ejections: [a + other_a, b + other_b, c + other_c],
            checks: (self.checks.0 + other.checks.0, self.checks.1 + other.checks.1),
            opened: self.opened + other.opened,
            refused: self.refused + other.refused,
            updates: self.updates + other.updates,
            failures: self.failures + other.failures,
        }
    }
}

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
