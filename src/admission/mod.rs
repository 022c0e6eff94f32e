//! Who comes in: rate limits and limits of concurrency, of listeners and of routes.
//!
//! What is refused here has cost next to nothing: no endpoint has been looked for and no body read.

mod gradient;
mod rate;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use self::gradient::Gradient;
use self::rate::Rate;
use crate::config::model::{self, RateLimit, RateLimitKey};
use crate::error::{Error, Reason};

/// After how long a request that was one too many at a time may come again: a guess, for it hangs on the others.
const RETRY_AFTER_CONCURRENCY: Duration = Duration::from_secs(1);

/// The limits of one listener or route.
#[derive(Debug)]
pub(crate) struct Admission {
    terms: Terms,
    // What is remembered, each for itself: other terms for the one are no reason to forget the others.
    rate: Option<Arc<Rate>>,
    in_flight: Arc<AtomicU32>,
    adapted: Option<Arc<Adapted>>,
}

/// A limit that is not fixed.
#[derive(Debug)]
struct Adapted {
    gradient: Mutex<Gradient>,
    /// In force.
    limit: AtomicU32,
}

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) concurrency: Option<model::Concurrency>,
}

/// A request that was let in, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted(Option<Arc<Admission>>);

/// What would have been refused, where limits only count.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shadow {
    pub(crate) rate_limited: bool,
    pub(crate) concurrency_limited: bool,
}

impl Terms {
    /// True where nothing is limited.
    pub(crate) fn is_empty(&self) -> bool {
        self.rate_limit.is_none() && self.concurrency.is_none()
    }
}

impl Admission {
    /// These limits, which remember what those `before` them do. Where the buckets are others, they begin full: what is
    /// remembered of them are times, which say nothing of another rate.
    pub(crate) fn new(terms: Terms, before: Option<&Admission>, now: Instant) -> Self {
        let rate = terms.rate_limit.as_ref().map(|limit| {
            let same =
                before.filter(|before| before.terms.rate_limit.as_ref().is_some_and(|old| same_buckets(old, limit)));
            same.and_then(|before| before.rate.clone()).unwrap_or_else(|| Arc::new(Rate::new(limit, now)))
        });
        let adaptive = terms.concurrency.is_some_and(|concurrency| concurrency.max.is_none());
        let adapted = adaptive.then(|| before.and_then(|before| before.adapted.clone()).unwrap_or_default());
        let in_flight = before.map(|before| before.in_flight.clone()).unwrap_or_default();
        Admission { terms, rate, in_flight, adapted }
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What tells clients apart, where something does.
    pub(crate) fn key(&self) -> Option<&RateLimitKey> {
        self.terms.rate_limit.as_ref()?.key.as_ref()
    }

    /// Requests in flight, and how many may be; `None` where that is not limited.
    pub(crate) fn concurrency(&self) -> Option<(u32, u32)> {
        let concurrency = self.terms.concurrency?;
        Some((self.in_flight.load(Ordering::Relaxed), self.most(concurrency)))
    }

    /// Lets a request in, or refuses it: first what is cheap to say.
    ///
    /// # Errors
    /// `rate_limited` and `concurrency_limited`, with the time after which it may come again.
    pub(crate) fn admit(self: &Arc<Self>, key: &[u8], now: Instant) -> Result<(Admitted, Shadow), Error> {
        let mut shadow = Shadow::default();
        if let (Some(rate), Some(terms)) = (&self.rate, &self.terms.rate_limit)
            && let Err(wait) = rate.take(key, now)
        {
            if !terms.shadow {
                return Err(Error::local(Reason::RateLimited).retry_after(wait));
            }
            shadow.rate_limited = true;
        }
        let Some(concurrency) = self.terms.concurrency else { return Ok((Admitted(None), shadow)) };
        let most = self.most(concurrency);
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= most {
            if !concurrency.shadow {
                self.in_flight.fetch_sub(1, Ordering::Relaxed);
                return Err(Error::local(Reason::ConcurrencyLimited).retry_after(RETRY_AFTER_CONCURRENCY));
            }
            shadow.concurrency_limited = true;
        }
        Ok((Admitted(Some(self.clone())), shadow))
    }

    fn most(&self, concurrency: model::Concurrency) -> u32 {
        let adapted = || self.adapted.as_ref().map_or(0, |adapted| adapted.limit.load(Ordering::Relaxed));
        concurrency.max.unwrap_or_else(adapted)
    }
}

impl Default for Adapted {
    fn default() -> Self {
        let gradient = Gradient::new();
        Adapted { limit: AtomicU32::new(gradient.limit()), gradient: Mutex::new(gradient) }
    }
}

impl Admitted {
    /// The response began so long after the request. Who finds another worker at it lets it be: one sample more or less
    /// does not matter, and nobody waits.
    pub(crate) fn answered(&self, now: Instant, took: Duration) {
        let Some(admission) = &self.0 else { return };
        let Some(adapted) = &admission.adapted else { return };
        let Ok(mut gradient) = adapted.gradient.try_lock() else { return };
        gradient.sample(now, took, admission.in_flight.load(Ordering::Relaxed));
        adapted.limit.store(gradient.limit(), Ordering::Relaxed);
    }

    /// The answer that the client gets has begun. An adaptive limit looks at the time until then, so that is what it
    /// counts: streams and tunnels, which only live on, would fill it, and who is not let in teaches it nothing.
    pub(crate) fn begun(&mut self) {
        if self.0.as_ref().is_some_and(|admission| admission.adapted.is_some()) {
            *self = Admitted(None);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(admission) = &self.0 {
            admission.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether they refuse does not matter.
fn same_buckets(one: &RateLimit, other: &RateLimit) -> bool {
    RateLimit { shadow: other.shadow, ..one.clone() } == *other
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(max: Option<u32>, shadow: bool) -> Arc<Admission> {
        let concurrency = Some(model::Concurrency { max, shadow });
        Arc::new(Admission::new(Terms { rate_limit: None, concurrency }, None, Instant::now()))
    }

    #[test]
    fn no_more_than_allowed_are_in_flight() {
        let admission = limited(Some(2), false);
        let now = Instant::now();
        let (first, _) = admission.admit(b"", now).unwrap();
        let _second = admission.admit(b"", now).unwrap();
        let refused = admission.admit(b"", now).unwrap_err();
        assert_eq!(refused.reason, Reason::ConcurrencyLimited);
        assert!(refused.retry_after.is_some());
        drop(first);
        assert!(admission.admit(b"", now).is_ok());
    }

    #[test]
    fn a_shadow_counts_and_lets_in() {
        let admission = limited(Some(1), true);
        let now = Instant::now();
        let first = admission.admit(b"", now).unwrap();
        let second = admission.admit(b"", now).unwrap();
        assert!(!first.1.concurrency_limited && second.1.concurrency_limited);
        assert_eq!(admission.concurrency(), Some((2, 1)));
    }

    #[test]
    fn other_terms_for_one_limit_leave_what_all_of_them_remember() {
        let now = Instant::now();
        let follow = |before: &Admission, rate_limit: &RateLimit, max, shadow| {
            let concurrency = Some(model::Concurrency { max, shadow });
            let terms = Terms { rate_limit: Some(rate_limit.clone()), concurrency };
            Arc::new(Admission::new(terms, Some(before), now))
        };
        let empty = RateLimit { per_second: 1, burst: 4, key: None, keys: 1, shadow: true };
        let shadows = follow(&limited(Some(9), false), &empty, None, true);
        let mut busy: Vec<_> = (0..60).map(|_| shadows.admit(b"", now).unwrap().0).collect();
        (0..1_000).for_each(|step| busy[0].answered(now + Duration::from_millis(5) * step, Duration::from_millis(5)));
        let learnt = shadows.concurrency().unwrap();
        assert!(learnt.0 == 60 && learnt.1 > 50, "{learnt:?}");

        let limit = RateLimit { shadow: false, ..empty };
        let enforced = follow(&shadows, &limit, None, false);
        assert_eq!(enforced.concurrency().unwrap(), learnt);
        assert_eq!(enforced.admit(b"", now).unwrap_err().reason, Reason::RateLimited, "its bucket is empty");
        let plenty = RateLimit { per_second: 1_000, burst: 1_000, ..limit };
        let fixed = follow(&enforced, &plenty, Some(2), false);
        assert_eq!(fixed.admit(b"", now).unwrap_err().reason, Reason::ConcurrencyLimited);
        // Those of generations before end under this one.
        busy.truncate(1);
        assert_eq!(fixed.concurrency(), Some((1, 2)));
        assert!(fixed.admit(b"", now).is_ok());
    }

    #[test]
    fn where_the_limit_adapts_what_is_being_answered_takes_no_place() {
        let now = Instant::now();
        for (max, left) in [(None, 0), (Some(50), 50)] {
            let admission = limited(max, false);
            let mut streams: Vec<_> = (0..50).map(|_| admission.admit(b"", now).unwrap().0).collect();
            assert!(admission.admit(b"", now).is_err());
            streams.iter_mut().for_each(Admitted::begun);
            assert_eq!(admission.concurrency(), Some((left, 50)));
            drop(streams);
            assert_eq!(admission.concurrency(), Some((0, 50)));
        }
    }

    #[test]
    fn an_adaptive_limit_moves() {
        let admission = limited(None, false);
        let mut now = Instant::now();
        let (_, first) = admission.concurrency().unwrap();
        let busy: Vec<_> = (0..first).map(|_| admission.admit(b"", now).unwrap().0).collect();
        for _ in 0..1_000 {
            busy[0].answered(now, Duration::from_millis(5));
            now += Duration::from_millis(5);
        }
        assert!(admission.concurrency().unwrap().1 > first);
    }
}
