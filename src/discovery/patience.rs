//! What an answer without endpoints is worth.
//!
//! "There is nobody" may be true, and may be what a registry says that has just lost its memory: services register
//! again one after the other. So the endpoints known last are kept for a while, and for longer where the registry had
//! to be found again. Where services register at the registry itself, they are then kept also beside the first that has
//! registered again, which could not do the work of all; not where it is told by somebody who knows all of them at once,
//! as nameservers are. A failure says nothing about endpoints, and stops the clock.

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
    /// Services register at the registry themselves.
    registers: bool,
    failing: bool,
    /// When the registry was last found again, or found to have lost its memory.
    reset: Option<Instant>,
    /// Until when the endpoints known last are kept, while answers are empty.
    until: Option<Instant>,
    /// Where the registry has evidently lost its memory: until when those are kept that have to be named again since.
    lost: Option<Instant>,
}

/// What to do with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// Keep what is known, and take the empty answer at this time unless another one has come.
    KeepUntil(Instant),
    /// Take it, and keep beside it what has not been named since the registry lost its memory.
    TakeAndKeep,
}

impl Patience {
    pub(super) fn new(registers: bool) -> Self {
        Patience { registers, failing: false, reset: None, until: None, lost: None }
    }

    pub(super) fn failed(&mut self) {
        self.failing = true;
        self.until = None;
    }

    /// The registry is another one, or has lost its memory.
    pub(super) fn reset(&mut self, now: Instant) {
        self.reset = Some(now);
        self.lose(now + KEEP_AFTER_RESET);
    }

    /// Until when those are kept that have to be named again from now on.
    pub(super) fn lost(&self) -> Option<Instant> {
        self.lost
    }

    /// `nobody`: the answer has no endpoint; `anybody_known`: there is something to keep.
    pub(super) fn answered(&mut self, on_empty: OnEmpty, nobody: bool, anybody_known: bool, now: Instant) -> Verdict {
        if std::mem::take(&mut self.failing) {
            self.reset = Some(now);
        }
        let OnEmpty::Keep(keep) = on_empty else { return Verdict::Take };
        if !nobody || !anybody_known {
            self.until = None;
            self.lost = self.lost.filter(|lost| now < *lost);
            return if self.lost.is_some() && anybody_known { Verdict::TakeAndKeep } else { Verdict::Take };
        }
        let recent = self.reset.is_some_and(|reset| now < reset + RESET_IS_RECENT);
        let until = *self.until.get_or_insert(now + if recent { keep.max(KEEP_AFTER_RESET) } else { keep });
        if until <= now {
            return Verdict::Take;
        }
        if recent {
            self.lose(until);
        }
        Verdict::KeepUntil(until)
    }

    fn lose(&mut self, until: Instant) {
        if self.registers {
            self.lost = Some(until);
        }
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
        let mut patience = Patience::new(true);
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
        let mut patience = Patience::new(true);
        patience.failed();
        assert_eq!(patience.answered(ON_EMPTY, true, true, start), Verdict::KeepUntil(start + KEEP_AFTER_RESET));
        let one_of_many = patience.answered(ON_EMPTY, false, true, start);
        assert_eq!(one_of_many, Verdict::TakeAndKeep);
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
    fn who_is_not_named_again_is_kept_for_a_while() {
        let start = Instant::now();
        let mut patience = Patience::new(true);
        patience.failed();
        assert_eq!(patience.answered(ON_EMPTY, false, true, start), Verdict::Take, "who was lost and found knows all");
        patience.reset(start);
        let end = start + KEEP_AFTER_RESET;
        assert_eq!(patience.lost(), Some(end));
        assert_eq!(patience.answered(ON_EMPTY, false, true, end - seconds(1)), Verdict::TakeAndKeep);
        assert_eq!(patience.answered(OnEmpty::Drop, false, true, start), Verdict::Take);
        assert_eq!(patience.answered(ON_EMPTY, false, false, start), Verdict::Take, "there is nothing to keep");
        assert_eq!(patience.answered(ON_EMPTY, false, true, end), Verdict::Take);
    }

    #[test]
    fn who_is_told_all_at_once_names_all_at_once() {
        let start = Instant::now();
        let mut patience = Patience::new(false);
        patience.failed();
        assert_eq!(patience.answered(ON_EMPTY, true, true, start), Verdict::KeepUntil(start + KEEP_AFTER_RESET));
        assert_eq!(patience.answered(ON_EMPTY, false, true, start), Verdict::Take);
    }

    #[test]
    fn failures_stop_the_clock() {
        let start = Instant::now();
        let mut patience = Patience::new(true);
        patience.answered(ON_EMPTY, true, true, start);
        patience.failed();
        let later = start + seconds(3_600);
        assert_eq!(patience.answered(ON_EMPTY, true, true, later), Verdict::KeepUntil(later + KEEP_AFTER_RESET));
    }

    #[test]
    fn longer_wishes_hold_and_drop_is_drop() {
        let start = Instant::now();
        let mut patience = Patience::new(true);
        patience.reset(start);
        assert_eq!(
            patience.answered(OnEmpty::Keep(seconds(3_600)), true, true, start),
            Verdict::KeepUntil(start + seconds(3_600))
        );
        let mut patience = Patience::new(true);
        patience.failed();
        assert_eq!(patience.answered(OnEmpty::Drop, true, true, start), Verdict::Take);
    }
}
