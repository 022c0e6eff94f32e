//! Maglev: a table of a fixed size in which each endpoint has its share of places, to within one in a thousand.
//!
//! Endpoints take turns at choosing the next free place of a list of their own (Eisenbud et al. 2016, section 3.4); a
//! heavier one has more turns. Shares are evener than a ring's and a look-up is one step; where an endpoint comes or goes,
//! a few keys of others move too.

use super::circle::Circle;
use super::{hash, mix};

/// Places. A prime, so that every list visits all of them; 65,537 is the paper's and Envoy's. 256 KiB.
const PLACES: usize = 65_537;

/// Places that a key tries before it goes on from one to the next.
const LEAPS: u32 = 8;

const FREE: u32 = u32::MAX;

/// A table, made once for a set of endpoints and shared by the workers.
#[derive(Debug)]
pub(crate) struct Maglev {
    circle: Circle,
    endpoints: usize,
}

/// An endpoint's list of places: an offset, and then always the same stride. And how far it is in it.
struct List {
    position: usize,
    weight: f64,
    next: usize,
    stride: usize,
    places: f64,
}

impl Maglev {
    /// Names and weights by position. The table of the same endpoints is the same in every proxy, whatever their order.
    pub(crate) fn new(endpoints: &[(&str, u32)]) -> Self {
        let mut named: Vec<(&str, List)> = endpoints
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, (_, weight))| *weight > 0)
            .map(|(position, (name, weight))| {
                let first = hash(name.as_bytes());
                let next = (first % PLACES as u64) as usize;
                let stride = (mix(first) % (PLACES as u64 - 1)) as usize + 1;
                (name, List { position, weight: f64::from(weight), next, stride, places: 0.0 })
            })
            .collect();
        named.sort_unstable_by_key(|(name, _)| *name);
        let mut lists: Vec<List> = named.into_iter().map(|(_, list)| list).collect();
        let circle = Circle(if lists.is_empty() { Box::default() } else { fill(&mut lists) });
        Maglev { circle, endpoints: endpoints.len() }
    }

    /// The position that a key belongs to. Where that is not usable, the key tries other places: neighbours follow each
    /// other too regularly for an endpoint's keys to be spread evenly among the others.
    pub(crate) fn pick(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut place = key;
        for _ in 0..LEAPS {
            let position = *self.circle.0.get((place % PLACES as u64) as usize)? as usize;
            if usable(position) {
                return Some(position);
            }
            place = mix(place.wrapping_add(1));
        }
        self.circle.walk((place % PLACES as u64) as usize, self.endpoints, usable)
    }
}

fn fill(lists: &mut [List]) -> Box<[u32]> {
    let heaviest = lists.iter().map(|list| list.weight).fold(0.0, f64::max);
    let mut table = vec![FREE; PLACES].into_boxed_slice();
    let mut free = PLACES;
    let mut round = 0.0;
    loop {
        round += 1.0;
        for list in &mut *lists {
            // The heaviest has a turn in each round, one of half its weight in every second.
            if round * list.weight < (list.places + 1.0) * heaviest {
                continue;
            }
            while table[list.next] != FREE {
                list.next = (list.next + list.stride) % PLACES;
            }
            table[list.next] = list.position as u32;
            list.places += 1.0;
            free -= 1;
            if free == 0 {
                return table;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("10.0.0.{index}:8080")).collect()
    }

    fn maglev(names: &[String], weights: &[u32]) -> Maglev {
        Maglev::new(&names.iter().map(String::as_str).zip(weights.iter().copied()).collect::<Vec<_>>())
    }

    #[test]
    fn nobody_to_pick() {
        assert_eq!(maglev(&[], &[]).pick(1, |_| true), None);
        let maglev = maglev(&names(3), &[1, 0, 1]);
        assert_eq!(maglev.pick(1, |_| false), None);
        assert_eq!(maglev.pick(1, |position| position == 1), None, "weight 0 has no place");
    }

    #[test]
    fn the_order_of_endpoints_does_not_matter() {
        let forward = names(5);
        let backward: Vec<String> = forward.iter().rev().cloned().collect();
        let (one, other) = (maglev(&forward, &[1; 5]), maglev(&backward, &[1; 5]));
        for key in 0..PLACES as u64 {
            assert_eq!(forward[one.pick(key, |_| true).unwrap()], backward[other.pick(key, |_| true).unwrap()]);
        }
    }

    #[test]
    fn one_more_takes_its_share_and_little_else_moves() {
        let names = names(11);
        let (before, after) = (maglev(&names[..10], &[1; 10]), maglev(&names, &[1; 11]));
        let owner = |table: &Maglev, key: usize| table.pick(key as u64, |_| true).unwrap();
        let moved = (0..PLACES).filter(|key| owner(&before, *key) != owner(&after, *key)).count();
        let among_others =
            (0..PLACES).filter(|key| owner(&after, *key) != 10 && owner(&before, *key) != owner(&after, *key));
        assert!(moved as f64 / PLACES as f64 <= 1.5 / 11.0, "{moved}");
        assert!(among_others.count() as f64 / PLACES as f64 <= 0.05);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn shares_are_the_weights_to_one_in_a_hundred(weights in prop::collection::vec(1u32..100, 1..12)) {
            let table = maglev(&names(weights.len()), &weights);
            let mut counts = vec![0u32; weights.len()];
            table.circle.0.iter().for_each(|position| counts[*position as usize] += 1);
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let due = f64::from(*weight) / f64::from(total) * PLACES as f64;
                prop_assert!((f64::from(*count) - due).abs() <= due * 0.01 + 2.0, "{:?} {:?}", counts, weights);
            }
        }

        #[test]
        fn keys_of_others_stay(count in 2usize..10, gone in 0usize..10) {
            let gone = gone % count;
            let table = maglev(&names(count), &vec![1; count]);
            for key in 0..1_000 {
                let now = table.pick(key, |position| position != gone).unwrap();
                let owner = table.pick(key, |_| true).unwrap();
                prop_assert_ne!(now, gone);
                prop_assert!(owner == gone || owner == now);
            }
        }
    }
}
