//! Following something in Consul: blocking queries, one after the other.

use std::num::NonZeroU64;

use tokio::time::Instant;

use super::Indexed;
use super::error::Error;
use super::pace::Pace;

/// The index and the pace of one sequence of questions. It never ends by itself.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What the next question waits for a change of.
    index: Option<NonZeroU64>,
    /// The index of the last answer, failures since then or not.
    seen: u64,
    pace: Pace,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Watch { index: None, seen: 0, pace: Pace::new(Instant::now(), fastrand::u64(..)) }
    }

    /// Waits for its turn; then the question may be asked, blocking where there is an index.
    pub(crate) async fn turn(&mut self) -> Option<NonZeroU64> {
        tokio::time::sleep_until(self.pace.next(Instant::now())).await;
        self.index
    }

    /// True where the index went backwards: this is another Consul than the one that was asked before, or it has lost
    /// its memory. Then, as where there is no index, the next question does not block.
    pub(crate) fn answered<T>(&mut self, answer: &Indexed<T>) -> bool {
        self.pace.succeeded();
        let index = answer.index.unwrap_or_default();
        let backwards = index < self.seen && answer.index.is_some();
        self.seen = index;
        self.index = NonZeroU64::new(index).filter(|_| !backwards);
        backwards
    }

    /// What was asked has no index, and all is well.
    pub(crate) fn succeeded(&mut self) {
        self.pace.succeeded();
    }

    /// The next question does not block: a Consul that comes back may count from a lower index, and would let us wait.
    pub(crate) fn failed(&mut self, error: &Error) {
        self.index = None;
        self.pace.failed(Instant::now(), error.reached_nobody(), error.retry_after());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(index: Option<u64>) -> Indexed<()> {
        Indexed { index, value: () }
    }

    #[tokio::test(start_paused = true)]
    async fn the_index_follows_the_answers_and_failures_forget_it() {
        let mut watch = Watch::new();
        assert_eq!(watch.turn().await, None);
        for (index, blocks_on, backwards) in [
            (Some(7), Some(7), false),
            (Some(7), Some(7), false),
            (Some(9), Some(9), false),
            (Some(3), None, true),
            (Some(3), Some(3), false),
            (None, None, false),
            (Some(0), None, false),
            (Some(1), Some(1), false),
        ] {
            assert_eq!(watch.answered(&answer(index)), backwards, "{index:?}");
            assert_eq!(watch.turn().await.map(NonZeroU64::get), blocks_on, "{index:?}");
        }
        watch.answered(&answer(Some(8)));
        watch.failed(&Error::Hidden);
        assert_eq!(watch.turn().await, None);
        // Across a failure, too, a lower index is another Consul's.
        assert!(watch.answered(&answer(Some(2))));
    }
}
