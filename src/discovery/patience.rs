//! What an answer without endpoints is worth.
//!
//! "There is nobody" may be true, and may be what a registry says that has just lost its memory: services register
//! again one after the other. So the endpoints known last are kept for a while, and for longer where the registry had
//! to be found again. A failure says nothing about endpoints, and stops the clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::model::OnEmpty;

/// After a reset or a reconnect, an empty answer is kept back for at least this long.
const KEEP_AFTER_RESET: Duration = Duration::from_secs(5 * 60);
/// For this long after it, an empty answer is put down to it.
const RESET_IS_RECENT: Duration = Duration::from_secs(60);

/// Decides about empty answers of one source.
#[derive(Debug)]
pub(super) struct Patience {
    failing: bool,
    /// When the registry was last found again, or found to have lost its memory.
    reset: Option<Instant>,
    /// Until when the endpoints known last are kept, while answers are empty.
    until: Option<Instant>,
}

/// What to do with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// Keep what is known, and take the empty answer at this time unless another one has come.
    KeepUntil(Instant),
}

impl Patience {
    pub(super) fn new() -> Self {
        Patience { failing: false, reset: None, until: None }
    }

    pub(super) fn failed(&mut self) {
        self.failing = true;
        self.until = None;
    }

    pub(super) fn reset(&mut self, now: Instant) {
        self.reset = Some(now);
    }

    /// `nobody`: the answer has no endpoint; `anybody_known`: there is something to keep.
    pub(super) fn answered(&mut self, on_empty: OnEmpty, nobody: bool, anybody_known: bool, now: Instant) -> Verdict {
        if std::mem::take(&mut self.failing) {
            self.reset(now);
        }
        if !nobody || !anybody_known {
            self.until = None;
            return Verdict::Take;
        }
        let OnEmpty::Keep(keep) = on_empty else { return Verdict::Take };
        let recent = self.reset.is_some_and(|reset| now < reset + RESET_IS_RECENT);
        let until = *self.until.get_or_insert(now + if recent { keep.max(KEEP_AFTER_RESET) } else { keep });
        if until <= now { Verdict::Take } else { Verdict::KeepUntil(until) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(30);
    const ON_EMPTY: OnEmpty = OnEmpty::Keep(KEEP);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_empty_answer_is_taken_after_a_while() {
        let start = Instant::now();
        let mut patience = Patience::new();
        assert_eq!(patience.answered(ON_EMPTY, true, false, start), Verdict::Take, "there is nothing to keep");
        assert_eq!(patience.answered(ON_EMPTY, false, false, start), Verdict::Take);
        assert_eq!(patience.answered(ON_EMPTY, true, true, start), Verdict::KeepUntil(start + KEEP));
        let again = patience.answered(ON_EMPTY, true, true, start + seconds(20));
        assert_eq!(again, Verdict::KeepUntil(start + KEEP), "it does not begin anew");
        assert_eq!(patience.answered(ON_EMPTY, true, true, start + KEEP), Verdict::Take);
        assert_eq!(patience.answered(ON_EMPTY, false, true, start + seconds(31)), Verdict::Take);
        let later = start + seconds(40);
        assert_eq!(patience.answered(ON_EMPTY, true, true, later), Verdict::KeepUntil(later + KEEP));
    }

    #[test]
    fn who_was_lost_and_found_is_not_believed_so_soon() {
        let start = Instant::now();
        let mut patience = Patience::new();
        patience.failed();
        assert_eq!(patience.answered(ON_EMPTY, true, true, start), Verdict::KeepUntil(start + KEEP_AFTER_RESET));
        patience.answered(ON_EMPTY, false, true, start);
        let soon = start + seconds(59);
        assert_eq!(patience.answered(ON_EMPTY, true, true, soon), Verdict::KeepUntil(soon + KEEP_AFTER_RESET));
        patience.answered(ON_EMPTY, false, true, soon);
        let late = start + seconds(60);
        assert_eq!(patience.answered(ON_EMPTY, true, true, late), Verdict::KeepUntil(late + KEEP));
        patience.answered(ON_EMPTY, false, true, late);
        patience.reset(late);
        assert_eq!(patience.answered(ON_EMPTY, true, true, late), Verdict::KeepUntil(late + KEEP_AFTER_RESET));
    }

    #[test]
    fn failures_stop_the_clock() {
        let start = Instant::now();
        let mut patience = Patience::new();
        patience.answered(ON_EMPTY, true, true, start);
        patience.failed();
        let later = start + seconds(3_600);
        assert_eq!(patience.answered(ON_EMPTY, true, true, later), Verdict::KeepUntil(later + KEEP_AFTER_RESET));
    }

    #[test]
    fn longer_wishes_hold_and_drop_is_drop() {
        let start = Instant::now();
        let mut patience = Patience::new();
        patience.reset(start);
        assert_eq!(
            patience.answered(OnEmpty::Keep(seconds(3_600)), true, true, start),
            Verdict::KeepUntil(start + seconds(3_600))
        );
        let mut patience = Patience::new();
        patience.failed();
        assert_eq!(patience.answered(OnEmpty::Drop, true, true, start), Verdict::Take);
    }
}
