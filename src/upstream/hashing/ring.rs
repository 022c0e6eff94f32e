//! Ring hash: each endpoint has many points on a ring of hashes, and a key belongs to the next point.
//!
//! One more endpoint takes its share of keys from all others, and no other key moves (Karger et al. 1997).

use super::circle::Circle;
use super::hash;

/// Points of an endpoint of weight 1: its share is then within about 6 % of what is due. Envoy has at least 1,024 on the
/// whole ring, ketama 160 an endpoint.
const POINTS: f64 = 256.0;
/// Points of a ring at most, 3 MiB. Beyond, each endpoint has half as many, or a quarter, …
const MOST_POINTS: f64 = 262_144.0;

/// A ring, made once for a set of endpoints and shared by the workers.
#[derive(Debug)]
pub(crate) struct Ring {
    hashes: Box<[u64]>,
    circle: Circle,
    endpoints: usize,
}

impl Ring {
    /// Names and weights by position. The ring of the same endpoints is the same in every proxy, whatever their order.
    pub(crate) fn new(endpoints: &[(&str, u32)]) -> Self {
        let total: f64 = endpoints.iter().map(|(_, weight)| f64::from(*weight)).sum();
        // By halves, so that one endpoint more or less seldom changes it: the points that stay are the same ones.
        let halvings = (total * POINTS / MOST_POINTS).log2().ceil().max(0.0);
        let points_of_one = POINTS / halvings.exp2();
        let mut points = Vec::new();
        let mut name_and_number = Vec::new();
        for (position, (name, weight)) in endpoints.iter().enumerate() {
            let own = if *weight == 0 { 0 } else { (f64::from(*weight) * points_of_one).round().max(1.0) as u32 };
            for number in 0..own {
                name_and_number.clear();
                name_and_number.extend_from_slice(name.as_bytes());
                name_and_number.push(b'#');
                name_and_number.extend_from_slice(&number.to_le_bytes());
                points.push((hash(&name_and_number), *name, position as u32));
            }
        }
        points.sort_unstable();
        Ring {
            hashes: points.iter().map(|(hash, ..)| *hash).collect(),
            circle: Circle(points.iter().map(|(.., position)| *position).collect()),
            endpoints: endpoints.len(),
        }
    }

    /// The position that a key belongs to, or the next that is usable.
    pub(crate) fn pick(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let next = self.hashes.partition_point(|hash| *hash < key);
        let start = if next == self.hashes.len() { 0 } else { next };
        self.circle.walk(start, self.endpoints, usable)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::mix;
    use super::*;

    const KEYS: u64 = 4_000;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("10.0.0.{index}:8080")).collect()
    }

    fn ring(names: &[String], weights: &[u32]) -> Ring {
        Ring::new(&names.iter().map(String::as_str).zip(weights.iter().copied()).collect::<Vec<_>>())
    }

    fn owner(ring: &Ring, key: u64) -> usize {
        ring.pick(mix(key), |_| true).unwrap()
    }

    #[test]
    fn nobody_to_pick() {
        assert_eq!(ring(&[], &[]).pick(1, |_| true), None);
        let ring = ring(&names(3), &[1, 0, 1]);
        assert_eq!(ring.pick(1, |_| false), None);
        assert_eq!(ring.pick(1, |position| position == 1), None, "weight 0 is on no ring");
    }

    #[test]
    fn the_order_of_endpoints_does_not_matter() {
        let forward = names(5);
        let backward: Vec<String> = forward.iter().rev().cloned().collect();
        let (one, other) = (ring(&forward, &[1; 5]), ring(&backward, &[1; 5]));
        for key in 0..KEYS {
            assert_eq!(forward[owner(&one, key)], backward[owner(&other, key)]);
        }
    }

    #[test]
    fn heavy_sets_have_a_bounded_ring() {
        let names = names(200);
        let ring = ring(&names, &[65_535; 200]);
        assert!(ring.hashes.len() <= MOST_POINTS as usize + 200, "{}", ring.hashes.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn shares_are_about_the_weights(weights in prop::collection::vec(1u32..6, 1..10)) {
            let ring = ring(&names(weights.len()), &weights);
            let mut counts = vec![0u32; weights.len()];
            (0..KEYS).for_each(|key| counts[owner(&ring, key)] += 1);
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let (share, due) = (f64::from(*count) / KEYS as f64, f64::from(*weight) / f64::from(total));
                prop_assert!((share - due).abs() < due * 0.35 + 0.01, "{:?} {:?}", counts, weights);
            }
        }

        /// One endpoint more takes about its share, and keys move only to it.
        #[test]
        fn one_more_takes_its_share_and_nothing_else_moves(count in 1usize..20) {
            let names = names(count + 1);
            let (before, after) = (ring(&names[..count], &vec![1; count]), ring(&names, &vec![1; count + 1]));
            let mut moved = 0;
            for key in 0..KEYS {
                let (old, new) = (owner(&before, key), owner(&after, key));
                if old != new {
                    prop_assert_eq!(new, count);
                    moved += 1;
                }
            }
            let share = 1.0 / (count + 1) as f64;
            prop_assert!(f64::from(moved) / KEYS as f64 <= share * 1.35, "{} of {}", moved, count);
        }

        /// Keys of an unusable endpoint go elsewhere; all others stay, and so do those when it is back.
        #[test]
        fn keys_of_others_stay(count in 2usize..10, gone in 0usize..10) {
            let gone = gone % count;
            let ring = ring(&names(count), &vec![1; count]);
            for key in 0..KEYS / 4 {
                let now = ring.pick(mix(key), |position| position != gone).unwrap();
                prop_assert_ne!(now, gone);
                prop_assert!(owner(&ring, key) == gone || owner(&ring, key) == now);
            }
        }

        /// The naive way: of all points of usable endpoints, the one least far ahead.
        #[test]
        fn agrees_with_a_search_over_all_points(
            weights in prop::collection::vec(0u32..3, 1..6), unusable in any::<u8>(), keys in prop::collection::vec(any::<u64>(), 20),
        ) {
            let names = names(weights.len());
            let usable = |position: usize| unusable >> position & 1 == 0;
            let ring = ring(&names, &weights);
            for key in keys {
                let points = names.iter().zip(&weights).enumerate().filter(|(position, _)| usable(*position));
                let nearest = points.flat_map(|(position, (name, weight))| {
                    (0..weight * 256).map(move |number| {
                        let point = [name.as_bytes(), b"#", &number.to_le_bytes()].concat();
                        (hash(&point).wrapping_sub(key), position)
                    })
                }).min();
                prop_assert_eq!(ring.pick(key, usable), nearest.map(|(_, position)| position));
            }
        }
    }
}
