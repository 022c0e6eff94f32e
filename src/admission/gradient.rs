//! How many requests may be in flight, found out from how long they take.
//!
//! A service that is given more than it can do at a time does not do more; it only takes longer. So latency is compared
//! with what it has been for long: as long as it is no worse, the limit grows by a few; where it is, the limit shrinks
//! with the ratio. The rule and its constants are those of Netflix' concurrency-limits (`Gradient2Limit` in a
//! `WindowedLimit`), whose tolerance lets latency vary by half before anything is done about it.

use std::time::Duration;

use tokio::time::Instant;

/// A limit is never outside of this, and begins here.
const LEAST: f64 = 4.0;
const MOST: f64 = 1_000.0;
const FIRST: f64 = 50.0;
/// Latencies are looked at together: for as long as this, and at least so many.
const WINDOW: Duration = Duration::from_millis(500);
const SAMPLES: u32 = 10;
/// Windows over which the long average forgets.
const LONG: f64 = 600.0;
/// How much worse than the long average is still no worse.
const TOLERANCE: f64 = 1.5;
/// What a window's result counts.
const SMOOTHING: f64 = 0.2;
/// Requests that may queue in the service, so that there is something to grow into.
const QUEUE: f64 = 4.0;

/// A limit that adapts.
#[derive(Debug)]
pub(crate) struct Gradient {
    limit: f64,
    /// Seconds.
    long: Option<f64>,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    seconds: f64,
    samples: u32,
    in_flight: u32,
}

impl Gradient {
    pub(crate) fn new() -> Self {
        Gradient { limit: FIRST, long: None, window: None }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// A request took so long, with so many in flight.
    pub(crate) fn sample(&mut self, now: Instant, took: Duration, in_flight: u32) {
        let window = self.window.get_or_insert(Window { began: now, seconds: 0.0, samples: 0, in_flight: 0 });
        window.seconds += took.as_secs_f64();
        window.samples += 1;
        window.in_flight = window.in_flight.max(in_flight);
        if window.samples >= SAMPLES && now.saturating_duration_since(window.began) >= WINDOW {
            let (short, in_flight) = (window.seconds / f64::from(window.samples), window.in_flight);
            self.window = None;
            self.update(short.max(1e-6), f64::from(in_flight));
        }
    }

    fn update(&mut self, short: f64, in_flight: f64) {
        let mut long = self.long.map_or(short, |long| long + (short - long) / LONG);
        // The service has become much faster: what was long ago says nothing any more.
        if long / short > 2.0 {
            long *= 0.95;
        }
        self.long = Some(long);
        // Where the limit is not used, nothing can be learnt of it.
        if in_flight < self.limit / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * long / short).clamp(0.5, 1.0);
        let aim = self.limit * gradient + QUEUE;
        self.limit = (self.limit * (1.0 - SMOOTHING) + aim * SMOOTHING).clamp(LEAST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A service that does `capacity` requests at a time, in `base` each; the others queue. As many ask as are let in.
    fn serve(gradient: &mut Gradient, now: &mut Instant, seconds: u64, capacity: f64, base: f64) {
        let end = *now + Duration::from_secs(seconds);
        while *now < end {
            let in_flight = gradient.limit();
            let took = Duration::from_secs_f64(base * (f64::from(in_flight) / capacity).max(1.0));
            for _ in 0..in_flight {
                gradient.sample(*now, took, in_flight);
            }
            *now += took;
        }
    }

    #[test]
    fn finds_a_limit_near_what_the_service_can_do_at_a_time() {
        for capacity in [10.0, 40.0, 200.0] {
            let (mut gradient, mut now) = (Gradient::new(), Instant::now());
            // What the service is like when it is not overloaded, is seen first.
            for _ in 0..200 {
                gradient.sample(now, Duration::from_millis(10), 1);
                now += Duration::from_millis(50);
            }
            serve(&mut gradient, &mut now, 120, capacity, 0.010);
            let limit = f64::from(gradient.limit());
            assert!(limit >= capacity * 0.8 && limit <= capacity * 2.5 + 8.0, "{limit} for {capacity}");
        }
    }

    #[test]
    fn shrinks_when_the_service_slows_down_and_grows_back() {
        let (mut gradient, mut now) = (Gradient::new(), Instant::now());
        serve(&mut gradient, &mut now, 60, 100.0, 0.010);
        let healthy = gradient.limit();
        serve(&mut gradient, &mut now, 20, 10.0, 0.050);
        let slow = gradient.limit();
        assert!(slow < healthy / 2, "{slow} after {healthy}");
        serve(&mut gradient, &mut now, 120, 100.0, 0.010);
        assert!(gradient.limit() > healthy / 2, "{} after {slow}", gradient.limit());
    }

    #[test]
    fn learns_nothing_from_a_limit_that_is_not_used() {
        let (mut gradient, mut now) = (Gradient::new(), Instant::now());
        for _ in 0..10_000 {
            gradient.sample(now, Duration::from_millis(5), 3);
            now += Duration::from_millis(5);
        }
        assert_eq!(gradient.limit(), FIRST as u32);
    }

    proptest! {
        #[test]
        fn never_leaves_its_bounds(samples in prop::collection::vec((0_u64..100_000, 0_u64..10_000_000, 0_u32..5_000), 0..2_000)) {
            let (mut gradient, mut now) = (Gradient::new(), Instant::now());
            for (wait, took, in_flight) in samples {
                now += Duration::from_micros(wait);
                gradient.sample(now, Duration::from_micros(took), in_flight);
                prop_assert!((LEAST as u32..=MOST as u32).contains(&gradient.limit()));
            }
        }
    }
}
