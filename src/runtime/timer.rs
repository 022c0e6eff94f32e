//! Timeouts that cost nothing while they do not fire.
//!
//! Deadlines of one connection move outward with each request. Registering each with the runtime would lock and
//! rebuild its wheel; this timer stays armed for an old, earlier deadline instead, and looks again when that fires.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A reusable deadline.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ready once `deadline` has passed; never where there is none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

/// `now + timeout`, or never.
pub(crate) fn after(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

/// The earlier of two deadlines, where no deadline is the latest.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fires_at_the_deadline_of_this_call_whatever_was_armed_before() {
        let mut timer = Timer::default();
        let start = Instant::now();
        let far = start + Duration::from_secs(50);
        poll_fn(|cx| {
            assert!(timer.poll(cx, Some(far)).is_pending());
            Poll::Ready(())
        })
        .await;
        let near = start + Duration::from_secs(5);
        poll_fn(|cx| timer.poll(cx, Some(near))).await;
        assert_eq!(start.elapsed().as_secs(), 5);
        poll_fn(|cx| timer.poll(cx, Some(far))).await;
        assert_eq!(start.elapsed().as_secs(), 50);
    }
}
