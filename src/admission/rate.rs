//! Token buckets, one for everybody or one for each key, for all workers together and without a lock.
//!
//! A bucket is one word: the time at which it will be full again (the "generic cell rate algorithm" of ATM). A request
//! moves that time on by one token's share, and is refused where it would lie further off than the bucket is deep.
//!
//! Keys come from strangers, so there is room for a fixed number. A set of eight places is searched; a new key takes the
//! place whose bucket is the fullest, which as a rule has been full for long and so remembers nothing.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::model::RateLimit;

/// Places in which a key can stand.
const WAYS: usize = 8;

/// A rate limit with its memory.
#[derive(Debug)]
pub(crate) struct Rate {
    start: Instant,
    /// Nanoseconds that a token takes to come.
    interval: u64,
    /// Tokens that a bucket holds.
    burst: u64,
    buckets: Buckets,
}

#[derive(Debug)]
enum Buckets {
    One(Bucket),
    Keyed { hasher: RandomState, places: Box<[Place]> },
}

/// Nanoseconds after the start at which the bucket will be full.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

#[derive(Debug, Default)]
struct Place {
    /// The key's hash; 0: nobody's.
    key: AtomicU64,
    bucket: Bucket,
}

impl Rate {
    pub(crate) fn new(terms: &RateLimit, now: Instant) -> Self {
        let buckets = match terms.key {
            None => Buckets::One(Bucket::default()),
            Some(_) => {
                let sets = (terms.keys as usize).div_ceil(WAYS).next_power_of_two();
                let places = std::iter::repeat_with(Place::default).take(sets * WAYS).collect();
                Buckets::Keyed { hasher: RandomState::new(), places }
            }
        };
        Rate {
            start: now,
            interval: 1_000_000_000 / u64::from(terms.per_second.max(1)),
            burst: u64::from(terms.burst.max(1)),
            buckets,
        }
    }

    /// Takes a token from the bucket of `key`.
    ///
    /// # Errors
    /// How long until there will be one.
    pub(crate) fn take(&self, key: &[u8], now: Instant) -> Result<(), Duration> {
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX / 2);
        let bucket = match &self.buckets {
            Buckets::One(bucket) => bucket,
            Buckets::Keyed { hasher, places } => bucket_of(hasher.hash_one(key).max(1), places),
        };
        bucket.take(now, self.interval, self.burst)
    }
}

impl Bucket {
    fn take(&self, now: u64, interval: u64, burst: u64) -> Result<(), Duration> {
        let deep = interval.saturating_mul(burst);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(interval);
            (full_at - now <= deep).then_some(full_at)
        });
        match taken {
            Ok(_) => Ok(()),
            Err(full_at) => Err(Duration::from_nanos(full_at.max(now) + interval - now - deep)),
        }
    }
}

fn bucket_of(key: u64, places: &[Place]) -> &Bucket {
    let sets = places.len() / WAYS;
    let first = (key as usize % sets) * WAYS;
    let set = &places[first..first + WAYS];
    if let Some(place) = set.iter().find(|place| place.key.load(Ordering::Relaxed) == key) {
        return &place.bucket;
    }
    let fullest = set.iter().min_by_key(|place| place.bucket.0.load(Ordering::Relaxed)).unwrap_or(&set[0]);
    let known = fullest.key.swap(key, Ordering::Relaxed);
    if known != key {
        fullest.bucket.0.store(0, Ordering::Relaxed);
    }
    &fullest.bucket
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::RateLimitKey;

    fn rate(per_second: u32, burst: u32, keys: Option<u32>, now: Instant) -> Rate {
        let key = keys.map(|_| RateLimitKey::Client);
        Rate::new(&RateLimit { per_second, burst, key, keys: keys.unwrap_or(1), shadow: false }, now)
    }

    /// The naive one: tokens as a fraction.
    struct Model {
        tokens: f64,
        at: f64,
    }

    proptest! {
        #[test]
        fn agrees_with_a_bucket_that_holds_tokens(
            per_second in 1_u32..1_000,
            burst in 1_u32..50,
            waits in prop::collection::vec(0_u64..20_000, 1..300),
        ) {
            let start = Instant::now();
            let rate = rate(per_second, burst, None, start);
            let mut model = Model { tokens: f64::from(burst), at: 0.0 };
            let mut micros = 0;
            for wait in waits {
                micros += wait;
                let at = micros as f64 / 1e6;
                model.tokens = (model.tokens + (at - model.at) * f64::from(per_second)).min(f64::from(burst));
                model.at = at;
                let taken = rate.take(b"", start + Duration::from_micros(micros));
                // At the very border, fractions of nanoseconds decide.
                if (model.tokens - 1.0).abs() > 1e-3 {
                    prop_assert_eq!(taken.is_ok(), model.tokens > 1.0, "{} tokens", model.tokens);
                }
                match taken {
                    Ok(()) => model.tokens = (model.tokens - 1.0).max(0.0),
                    Err(wait) => {
                        let due = (1.0 - model.tokens) / f64::from(per_second);
                        prop_assert!((wait.as_secs_f64() - due).abs() < 1e-3, "{wait:?} for {due}");
                    }
                }
            }
        }
    }

    #[test]
    fn each_key_has_its_own_bucket() {
        let now = Instant::now();
        let rate = rate(1, 2, Some(1_000), now);
        for key in 0..100_u32 {
            let key = key.to_be_bytes();
            assert_eq!([rate.take(&key, now), rate.take(&key, now)], [Ok(()), Ok(())]);
            assert!(rate.take(&key, now).is_err());
        }
    }

    #[test]
    fn a_flood_of_keys_takes_no_more_room_and_frees_nobody_who_is_limited_now() {
        let now = Instant::now();
        let rate = rate(1, 100, Some(64), now);
        for _ in 0..100 {
            rate.take(b"greedy", now).unwrap();
        }
        // Each of them takes one token: their buckets are fuller than the greedy one's, and go first.
        for key in 0..100_000_u32 {
            let _ = rate.take(&key.to_be_bytes(), now);
        }
        assert!(rate.take(b"greedy", now).is_err());
        let Buckets::Keyed { places, .. } = &rate.buckets else { panic!() };
        assert_eq!(places.len(), 64);
    }

    #[test]
    fn workers_together_take_no_more_than_there_is() {
        let now = Instant::now();
        let rate = rate(1, 1_000, None, now);
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1_000).filter(|_| rate.take(b"", now).is_ok()).count())).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_000);
    }
}
