//! Long work on a thread that may share its core with a worker, done in bites.
//!
//! That a thread is [nicer](super::priority) says how much of a core it gets, and not when: a worker that wakes up there
//! waits until the kernel looks again, at its next tick, up to 4 ms later. So what takes long on the control side takes a
//! breath now and then, in which whoever waits goes first.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Between two breaths. A quarter of the tick that a worker would wait for; and where others want all of the core, the kernel
/// takes a whole slice (some 3 ms) from whoever yields, so that in shorter bites such work would hardly go on. What a few
/// dozen routes take is no longer than one.
const BITE: Duration = Duration::from_millis(1);
/// Steps between two looks at the clock. A step takes up to some 10 µs, the look 0.05 µs.
const LOOK_EVERY: u32 = 16;

thread_local! {
    static PACE: Cell<Pace> = const { Cell::new(Pace { steps: 0, breathed: None }) };
}

/// To be called at each step of long work: for each of ten thousand routes.
pub(crate) fn breathe() {
    let mut pace = PACE.get();
    if pace.is_due(Instant::now) {
        std::thread::yield_now();
    }
    PACE.set(pace);
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    steps: u32,
    breathed: Option<Instant>,
}

impl Pace {
    fn is_due(&mut self, now: impl FnOnce() -> Instant) -> bool {
        self.steps = self.steps.wrapping_add(1);
        if !self.steps.is_multiple_of(LOOK_EVERY) {
            return false;
        }
        let now = now();
        let due = self.breathed.is_none_or(|last| now.saturating_duration_since(last) >= BITE);
        if due {
            self.breathed = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bite_is_as_long_as_it_may_be_however_long_a_step_is() {
        for step in [1, 10, 100].map(Duration::from_micros) {
            let (mut pace, start) = (Pace { steps: 0, breathed: None }, Instant::now());
            let breaths: Vec<Duration> =
                (0..30_000).map(|count| step * count).filter(|passed| pace.is_due(|| start + *passed)).collect();
            assert!(breaths.len() > 10);
            let looks = step * LOOK_EVERY;
            let bites = breaths.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(bites.into_iter().all(|bite| bite >= BITE && bite < BITE + looks), "{step:?}");
        }
    }
}
