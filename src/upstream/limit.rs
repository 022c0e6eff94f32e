//! Counts that refuse at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// A number of things that may exist at a time, all workers together.
#[derive(Debug)]
pub(crate) struct Limit {
    used: AtomicU32,
    max: AtomicU32,
    waiters: AtomicU32,
    freed: Notify,
}

impl Limit {
    pub(crate) fn new(max: u32) -> Arc<Self> {
        Arc::new(Limit {
            used: AtomicU32::new(0),
            max: AtomicU32::new(max),
            waiters: AtomicU32::new(0),
            freed: Notify::new(),
        })
    }

    /// A new bound; what exists above it stays until it ends by itself.
    pub(crate) fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(crate) fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    pub(crate) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// True while somebody waits for a permit.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiters.load(Ordering::SeqCst) > 0
    }

    /// One more, or `None` at the bound.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let max = self.max.load(Ordering::Relaxed);
        self.used
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |used| (used < max).then_some(used + 1))
            .ok()
            .map(|_| Permit(self.clone()))
    }

    /// Announces that somebody will wait. To be called before the `try_acquire` that decides, or a permit that is
    /// given back in between goes unnoticed.
    pub(crate) fn queue(&self) -> Queued<'_> {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        Queued(self)
    }

    fn release(&self) {
        self.used.fetch_sub(1, Ordering::SeqCst);
        if self.is_wanted() {
            self.freed.notify_one();
        }
    }
}

/// Somebody who waits for a permit.
#[derive(Debug)]
pub(crate) struct Queued<'a>(&'a Limit);

impl Queued<'_> {
    /// Waits until a permit was given back; somebody else may have taken it since.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }

    /// Passes the word on: several permits given back at once wake only one.
    pub(crate) fn pass_on(&self) {
        self.0.freed.notify_one();
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One of the things that a [`Limit`] counts.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Limit>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refuses_at_the_bound_and_wakes_who_waits() {
        let limit = Limit::new(1);
        let permit = limit.try_acquire().unwrap();
        assert!(limit.try_acquire().is_none());
        let waiting = tokio::spawn({
            let limit = limit.clone();
            async move { limit.queue().freed().await }
        });
        while !limit.is_wanted() {
            tokio::task::yield_now().await;
        }
        drop(permit);
        waiting.await.unwrap();
        assert!(limit.try_acquire().is_some());
        assert_eq!(limit.used(), 0);
    }
}
