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
    rate: Option<Rate>,
    in_flight: AtomicU32,
    gradient: Option<Mutex<Gradient>>,
    /// In force, where it is not fixed.
    adapted: AtomicU32,
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
    /// `None` where there are no limits.
    pub(crate) fn new(terms: Terms, now: Instant) -> Option<Self> {
        if terms.is_empty() {
            return None;
        }
        let adaptive = terms.concurrency.is_some_and(|concurrency| concurrency.max.is_none());
        let gradient = adaptive.then(Gradient::new);
        Some(Admission {
            rate: terms.rate_limit.as_ref().map(|limit| Rate::new(limit, now)),
            in_flight: AtomicU32::new(0),
            adapted: AtomicU32::new(gradient.as_ref().map_or(0, Gradient::limit)),
            gradient: gradient.map(Mutex::new),
            terms,
        })
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
        concurrency.max.unwrap_or_else(|| self.adapted.load(Ordering::Relaxed))
    }
}

impl Admitted {
    /// The response began so long after the request. Who finds another worker at it lets it be: one sample more or less
    /// does not matter, and nobody waits.
    pub(crate) fn answered(&self, now: Instant, took: Duration) {
        let Some(admission) = &self.0 else { return };
        let Some(Ok(mut gradient)) = admission.gradient.as_ref().map(Mutex::try_lock) else { return };
        gradient.sample(now, took, admission.in_flight.load(Ordering::Relaxed));
        admission.adapted.store(gradient.limit(), Ordering::Relaxed);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(admission) = &self.0 {
            admission.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(max: Option<u32>, shadow: bool) -> Arc<Admission> {
        let concurrency = Some(model::Concurrency { max, shadow });
        Arc::new(Admission::new(Terms { rate_limit: None, concurrency }, Instant::now()).unwrap())
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
