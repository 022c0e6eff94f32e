//! Wall time for log lines from the monotonic reading that a request needs anyway.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;

/// How long an anchor is good: a step of the system's clock shows after this time.
const ANCHOR_AGE: Duration = Duration::from_secs(1);

/// The wall clock, for people to read.
#[expect(clippy::disallowed_methods, reason = "the one place that looks at the wall clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// A worker's wall clock: one pair of readings a second serves all of its requests.
#[derive(Debug)]
pub struct Clock {
    monotonic: Cell<Instant>,
    wall: Cell<Duration>,
    /// The latest second as `Date` has it.
    date: RefCell<(u64, HeaderValue)>,
}

impl Clock {
    /// A clock anchored now.
    pub fn new() -> Self {
        let date = RefCell::new((0, http_date(0)));
        Clock { monotonic: Cell::new(Instant::now()), wall: Cell::new(wall()), date }
    }

    /// `instant` as the `Date` of a response (RFC 9110, section 6.6.1). The text of a second is made once.
    pub fn date(&self, instant: Instant) -> HeaderValue {
        let second = self.unix(instant).as_secs();
        let mut date = self.date.borrow_mut();
        if date.0 != second {
            *date = (second, http_date(second));
        }
        date.1.clone()
    }

    /// The time since the Unix epoch at `instant`, which may also lie in the past, and no later than now.
    pub fn unix(&self, instant: Instant) -> Duration {
        match instant.checked_duration_since(self.monotonic.get()) {
            Some(after) if after < ANCHOR_AGE => self.wall.get().saturating_add(after),
            Some(_) => {
                self.monotonic.set(Instant::now());
                self.wall.set(wall());
                self.wall.get().saturating_sub(self.monotonic.get().saturating_duration_since(instant))
            }
            None => self.wall.get().saturating_sub(self.monotonic.get() - instant),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

fn http_date(second: u64) -> HeaderValue {
    // Ends with the year 9999.
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second.min(253_402_300_799));
    HeaderValue::try_from(httpdate::fmt_http_date(time)).unwrap_or(HeaderValue::from_static(""))
}

/// A clock before 1970 is taken as 1970: a wrong time in the log is no reason to stop.
fn wall() -> Duration {
    now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_monotonic_clock_both_ways() {
        let clock = Clock::new();
        let (anchor, at_anchor) = (clock.monotonic.get(), clock.wall.get());
        assert_eq!(clock.unix(anchor + Duration::from_millis(250)), at_anchor + Duration::from_millis(250));
        assert_eq!(clock.unix(anchor - Duration::from_millis(250)), at_anchor - Duration::from_millis(250));
    }

    #[test]
    fn dates_are_of_their_second() {
        let clock = Clock::new();
        clock.wall.set(Duration::from_secs(784_111_777));
        let anchor = clock.monotonic.get();
        assert_eq!(clock.date(anchor), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(clock.date(anchor + Duration::from_millis(999)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(clock.date(anchor - Duration::from_millis(1)), "Sun, 06 Nov 1994 08:49:36 GMT");
    }

    #[test]
    fn a_step_of_the_wall_clock_shows_after_the_anchors_age() {
        let clock = Clock::new();
        clock.wall.set(Duration::ZERO);
        let late = clock.monotonic.get() + ANCHOR_AGE;
        assert!(clock.unix(late) > Duration::from_secs(1_700_000_000), "anchored anew");
    }
}
