//! Finds out whether the app passes its callers' trace on.
//!
//! No proxy can tell which of the app's calls belongs to which request that the app is at. But where traced requests
//! are with the app, and hardly any of its calls carries a trace, the app does not pass `traceparent` on, and every
//! trace ends at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Calls without a trace, before anything is said: an app's own background work is no finding.
const ENOUGH: u64 = 20;
/// Calls without a trace for each that has one, above which the app is meant, and not its background work.
const MANY: u64 = 9;

/// What is said of it.
pub const FINDING: &str = "the app does not pass `traceparent` on: its calls carry no trace while traced requests are \
                           with it, so that traces end at it";

/// The process' doctor. Touched only by requests that are in a trace, and by outbound ones.
#[derive(Debug, Default)]
pub struct Doctor {
    /// Traced inbound requests in flight.
    visiting: AtomicUsize,
    without: AtomicU64,
    with: AtomicU64,
    said: AtomicBool,
}

/// A traced inbound request in flight.
#[derive(Debug)]
pub struct Visit(Arc<Doctor>);

impl Doctor {
    /// A traced request goes to the app.
    pub fn visit(self: &Arc<Self>) -> Visit {
        self.visiting.fetch_add(1, Ordering::Relaxed);
        Visit(self.clone())
    }

    /// The app calls somebody.
    pub fn call(&self, carries_trace: bool) {
        if self.visiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let count = if carries_trace { &self.with } else { &self.without };
        count.fetch_add(1, Ordering::Relaxed);
        if !carries_trace && self.finds() && !self.said.swap(true, Ordering::Relaxed) {
            tracing::warn!("{FINDING}");
        }
    }

    /// Calls without a trace while traced requests were with the app.
    pub fn calls_without_trace(&self) -> u64 {
        self.without.load(Ordering::Relaxed)
    }

    /// [`FINDING`], where that is so.
    pub fn finding(&self) -> Option<&'static str> {
        self.finds().then_some(FINDING)
    }

    fn finds(&self) -> bool {
        let without = self.without.load(Ordering::Relaxed);
        without >= ENOUGH && without >= self.with.load(Ordering::Relaxed).saturating_mul(MANY)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.visiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_during_a_traced_visit_count() {
        let doctor = Arc::new(Doctor::default());
        (0..2 * ENOUGH).for_each(|_| doctor.call(false));
        assert_eq!((doctor.calls_without_trace(), doctor.finding()), (0, None));
        let visit = doctor.visit();
        (1..ENOUGH).for_each(|_| doctor.call(false));
        assert_eq!(doctor.finding(), None, "too few to say anything");
        doctor.call(false);
        assert_eq!(doctor.finding(), Some(FINDING));
        drop(visit);
        doctor.call(false);
        assert_eq!(doctor.calls_without_trace(), ENOUGH);
    }

    #[test]
    fn an_app_that_passes_its_trace_on_is_not_suspected_for_its_background_work() {
        let doctor = Arc::new(Doctor::default());
        let _visit = doctor.visit();
        for _ in 0..100 {
            doctor.call(true);
            (0..5).for_each(|_| doctor.call(false));
        }
        assert_eq!(doctor.finding(), None);
    }
}
