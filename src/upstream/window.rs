//! Outcomes of the last so many seconds, counted by all workers without a lock.
//!
//! The window is cut into ten slices, so what is counted leaves in tenths. A slice is one word: which one it is, and
//! three counts, changed together by one compare-and-swap. Two workers that meet at the turn of a slice can lose a count;
//! nothing else can be lost, and nothing is counted twice.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::moment::{Moment, micros};

/// Slices of a window. Ten is what resilience4j and Hystrix cut theirs into.
const SLICES: usize = 10;

/// What is known of one outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

impl Mark {
    /// True for what an opened breaker or an ejection can come from.
    pub(crate) fn is_bad(self) -> bool {
        self.failed || self.slow
    }
}

/// Sums over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) total: u32,
    pub(crate) failed: u32,
    pub(crate) slow: u32,
}

impl Counts {
    pub(crate) fn failure_ratio(self) -> f64 {
        ratio(self.failed, self.total)
    }

    pub(crate) fn slow_ratio(self) -> f64 {
        ratio(self.slow, self.total)
    }
}

fn ratio(part: u32, whole: u32) -> f64 {
    if whole == 0 { 0.0 } else { f64::from(part) / f64::from(whole) }
}

/// Counts of the recent past.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// How long a slice is, in microseconds: what is counted under another length means nothing.
    slice: AtomicU64,
    /// The latest slice that anybody has counted in.
    newest: AtomicU64,
    /// The latest slice in which something failed or was slow, counted from 1; 0 where there is none.
    marred: AtomicU64,
    slices: [AtomicU64; SLICES],
}

impl Window {
    /// Counts an outcome `times` times, over a window of this length.
    pub(crate) fn record(&self, now: Moment, length: Duration, mark: Mark, times: u16) {
        let number = self.turn_to(now, length);
        let Some(slice) = self.slices.get((number % SLICES as u64) as usize) else { return };
        let _ = slice.fetch_update(Relaxed, Relaxed, |word| {
            let slice = Slice::unpack(word);
            let slice =
                if slice.tag == number as u16 { slice } else { Slice { tag: number as u16, ..Slice::default() } };
            slice.with(mark, times).map(Slice::pack)
        });
        // After the count: what is forgotten meanwhile is forgotten in the other order, so no failure goes unseen.
        if mark.is_bad() {
            self.marred.fetch_max(number + 1, Relaxed);
        }
    }

    /// True where nothing in the window that ends now failed or was slow; known without a sum, for it is asked of each
    /// request. It may be false for a while after what was bad has been taken out.
    pub(crate) fn is_clean(&self, now: Moment, length: Duration) -> bool {
        let marred = self.marred.load(Relaxed);
        marred == 0 || now.micros() / slice_of(length) + 1 >= marred.saturating_add(SLICES as u64)
    }

    /// What happened in the window that ends now.
    pub(crate) fn counts(&self, now: Moment, length: Duration) -> Counts {
        let slice = slice_of(length);
        let number = now.micros() / slice;
        if self.slice.load(Relaxed) != slice || number >= self.newest.load(Relaxed).saturating_add(SLICES as u64) {
            return Counts::default();
        }
        let mut counts = Counts::default();
        for slice in self.slices.iter().map(|slice| Slice::unpack(slice.load(Relaxed))) {
            // Another worker may be a little ahead of this one's `now`.
            if ((number as u16).wrapping_sub(slice.tag) as i16) < SLICES as i16 {
                counts.total += u32::from(slice.total);
                counts.failed += u32::from(slice.failed);
                counts.slow += u32::from(slice.slow);
            }
        }
        counts
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.marred.store(0, Relaxed);
        for slice in &self.slices {
            slice.store(0, Relaxed);
        }
    }

    /// Takes out what is counted in `part`, a window of the same length, which then is empty.
    pub(crate) fn take_out(&self, part: &Window) {
        if self.slice.load(Relaxed) != part.slice.load(Relaxed) {
            return;
        }
        for (whole, part) in self.slices.iter().zip(&part.slices) {
            let part = Slice::unpack(part.swap(0, Relaxed));
            let _ = whole.fetch_update(Relaxed, Relaxed, |word| {
                let whole = Slice::unpack(word);
                (whole.tag == part.tag).then(|| whole.without(part).pack())
            });
        }
    }

    /// The number of the slice that `now` is in. What is older than a window, or was counted under another length, goes.
    fn turn_to(&self, now: Moment, length: Duration) -> u64 {
        let slice = slice_of(length);
        let newest = self.newest.load(Relaxed);
        // Nearly always it is still that one, which a product tells, and no quotient.
        if self.slice.load(Relaxed) == slice && now.micros().wrapping_sub(newest.wrapping_mul(slice)) < slice {
            return newest;
        }
        let number = now.micros() / slice;
        if self.slice.load(Relaxed) != slice {
            self.slice.store(slice, Relaxed);
            self.newest.store(number, Relaxed);
            self.clear();
        }
        // Tags are short. Once all slices are stale, none may be mistaken for a younger one of the same tag.
        let newest = self.newest.load(Relaxed);
        if number > newest && self.newest.fetch_max(number, Relaxed).saturating_add(SLICES as u64) <= number {
            self.clear();
        }
        number.max(newest.saturating_sub(SLICES as u64 - 1))
    }
}

fn slice_of(length: Duration) -> u64 {
    (micros(length) / SLICES as u64).max(1)
}

#[derive(Clone, Copy, Default)]
struct Slice {
    tag: u16,
    total: u16,
    failed: u16,
    slow: u16,
}

impl Slice {
    fn unpack(word: u64) -> Self {
        Slice { tag: (word >> 48) as u16, total: (word >> 32) as u16, failed: (word >> 16) as u16, slow: word as u16 }
    }

    fn pack(self) -> u64 {
        u64::from(self.tag) << 48 | u64::from(self.total) << 32 | u64::from(self.failed) << 16 | u64::from(self.slow)
    }

    /// A slice that is full counts no more: its ratios are as good as they get.
    fn with(self, mark: Mark, times: u16) -> Option<Self> {
        let total = self.total.checked_add(times)?;
        let counted = |count: u16, counts: bool| if counts { count + times } else { count };
        Some(Slice { total, failed: counted(self.failed, mark.failed), slow: counted(self.slow, mark.slow), ..self })
    }

    fn without(self, part: Self) -> Self {
        Slice {
            tag: self.tag,
            total: self.total.saturating_sub(part.total),
            failed: self.failed.saturating_sub(part.failed),
            slow: self.slow.saturating_sub(part.slow),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn at(milliseconds: u64) -> Moment {
        Moment::from_micros(milliseconds * 1_000)
    }

    const FAILED: Mark = Mark { failed: true, slow: false };

    #[test]
    fn what_is_counted_leaves_by_itself() {
        let window = Window::default();
        window.record(at(500), LENGTH, FAILED, 1);
        window.record(at(9_900), LENGTH, Mark::default(), 2);
        assert_eq!(window.counts(at(9_999), LENGTH), Counts { total: 3, failed: 1, slow: 0 });
        assert_eq!(window.counts(at(10_000), LENGTH), Counts { total: 2, failed: 0, slow: 0 });
        assert_eq!(window.counts(at(30_000), LENGTH), Counts::default());
    }

    #[test]
    fn a_tag_that_comes_round_again_is_not_mistaken() {
        let window = Window::default();
        window.record(at(0), LENGTH, FAILED, 1);
        let round = 65_536 * 1_000;
        assert_eq!(window.counts(at(round), LENGTH), Counts::default());
        window.record(at(round + 1_000), LENGTH, Mark::default(), 1);
        assert_eq!(window.counts(at(round + 1_000), LENGTH), Counts { total: 1, failed: 0, slow: 0 });
    }

    #[test]
    fn another_length_begins_anew() {
        let window = Window::default();
        window.record(at(0), LENGTH, FAILED, 1);
        window.record(at(1), LENGTH * 2, Mark::default(), 1);
        assert_eq!(window.counts(at(1), LENGTH * 2), Counts { total: 1, failed: 0, slow: 0 });
        assert_eq!(window.counts(at(1), LENGTH), Counts::default());
        assert!(window.is_clean(at(1), LENGTH * 2));
    }

    #[test]
    fn a_part_can_be_taken_out() {
        let (whole, part) = (Window::default(), Window::default());
        for (milliseconds, ours) in [(0, true), (1_500, false), (3_000, true), (3_000, true)] {
            whole.record(at(milliseconds), LENGTH, FAILED, 1);
            if ours {
                part.record(at(milliseconds), LENGTH, FAILED, 1);
            }
        }
        whole.take_out(&part);
        assert_eq!(whole.counts(at(3_000), LENGTH), Counts { total: 1, failed: 1, slow: 0 });
        assert_eq!(part.counts(at(3_000), LENGTH), Counts::default());
    }

    #[test]
    fn a_full_slice_keeps_its_ratio() {
        let window = Window::default();
        for _ in 0..70_000 {
            window.record(at(0), LENGTH, FAILED, 1);
        }
        assert_eq!(window.counts(at(0), LENGTH).failure_ratio(), 1.0);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_list(
            events in prop::collection::vec((0u64..4_000, any::<bool>(), any::<bool>()), 1..200),
            length in 1u64..20,
        ) {
            let length = Duration::from_secs(length);
            let slice = micros(length) / 10;
            let window = Window::default();
            let mut list = Vec::new();
            let mut now = 0;
            for (pause, failed, slow) in events {
                now += pause;
                window.record(at(now), length, Mark { failed, slow }, 1);
                list.push((at(now).micros() / slice, failed, slow));
                let here = at(now).micros() / slice;
                let recent = || list.iter().filter(|(number, ..)| here - number < 10);
                let expected = Counts {
                    total: recent().count() as u32,
                    failed: recent().filter(|(_, failed, _)| *failed).count() as u32,
                    slow: recent().filter(|(_, _, slow)| *slow).count() as u32,
                };
                prop_assert_eq!(window.counts(at(now), length), expected);
                prop_assert_eq!(window.is_clean(at(now), length), expected.failed + expected.slow == 0);
            }
        }
    }
}
