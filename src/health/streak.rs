//! When checks that pass or fail change what an endpoint is. Pure.

/// What the checks of one endpoint came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streak {
    up: bool,
    /// A check has ended.
    judged: bool,
    /// Checks in a row that say otherwise.
    against: u32,
}

impl Streak {
    /// Before the first check.
    pub(crate) fn new(initially_up: bool) -> Self {
        Streak { up: initially_up, judged: false, against: 0 }
    }

    /// A check has ended. The first one decides alone: whoever starts must not wait for several, in either direction.
    pub(crate) fn check(&mut self, passed: bool, up_after: u32, down_after: u32) {
        let first = !std::mem::replace(&mut self.judged, true);
        if passed == self.up {
            self.against = 0;
            return;
        }
        self.against += 1;
        if first || self.against >= if passed { up_after } else { down_after } {
            self.up = passed;
            self.against = 0;
        }
    }

    pub(crate) fn is_up(self) -> bool {
        self.up
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_check_decides_alone_and_later_ones_in_a_row() {
        let mut streak = Streak::new(true);
        let is_up = [false, true, false, true, true, false, false, true, false, false, false].map(|passed| {
            streak.check(passed, 2, 3);
            streak.is_up()
        });
        assert_eq!(is_up, [false, false, false, false, true, true, true, true, true, true, false]);
    }

    proptest! {
        /// The naive model looks through the whole list each time.
        #[test]
        fn agrees_with_a_list(checks in prop::collection::vec(any::<bool>(), 0..100), initially_up: bool, up in 1u32..4, down in 1u32..4) {
            let mut streak = Streak::new(initially_up);
            let mut is_up = initially_up;
            // Where the state last changed: what was before does not count.
            let mut since = 0;
            for (index, passed) in checks.iter().enumerate() {
                let run = checks[since..=index].iter().rev().take_while(|other| *other == passed).count() as u32;
                if *passed != is_up && (index == 0 || run >= if *passed { up } else { down }) {
                    is_up = *passed;
                    since = index + 1;
                }
                streak.check(*passed, up, down);
                prop_assert_eq!(streak.is_up(), is_up);
            }
        }
    }
}
