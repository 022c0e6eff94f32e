//! The better of two that are drawn at random.
//!
//! Looking at two is almost as good as looking at all (Mitzenmacher 2001, "The Power of Two Choices in Randomized Load
//! Balancing"), costs the same for any number, and no two proxies run to the same endpoint at once.

use fastrand::Rng;

/// Draws positions by weight and compares what they cost. Owned by one worker.
#[derive(Debug)]
pub(crate) struct TwoChoices {
    weights: Weights,
    random: Rng,
}

#[derive(Debug)]
enum Weights {
    /// All that are not zero are the same: these positions.
    Equal(Box<[usize]>),
    /// Positions with the sums of the weights up to them.
    Sums(Box<[(u64, usize)]>),
}

impl TwoChoices {
    /// Weights by position; 0 is never picked.
    pub(crate) fn new(weights: impl IntoIterator<Item = u32>, seed: u64) -> Self {
        let weighted: Vec<(usize, u64)> =
            weights.into_iter().map(u64::from).enumerate().filter(|(_, weight)| *weight > 0).collect();
        let weights = if weighted.windows(2).all(|pair| pair[0].1 == pair[1].1) {
            Weights::Equal(weighted.iter().map(|(position, _)| *position).collect())
        } else {
            let mut sum = 0;
            let sums = weighted.iter().map(|(position, weight)| {
                sum += weight;
                (sum, *position)
            });
            Weights::Sums(sums.collect())
        };
        TwoChoices { weights, random: Rng::with_seed(seed) }
    }

    /// The cheaper of two positions; where both cost the same, the first that was drawn, so that shares are the weights.
    /// `None` where none is usable.
    pub(crate) fn pick(&mut self, usable: impl Fn(usize) -> bool, cost: impl Fn(usize) -> f64) -> Option<usize> {
        let (first, second) = self.draw()?;
        let (first, second) = if usable(first) && usable(second) { (first, second) } else { self.draw_among(usable)? };
        Some(if second != first && cost(second) < cost(first) { second } else { first })
    }

    /// Two positions. Of equal ones two that differ; else each by its weight, or a heavy one would be in every pair and
    /// get more than its share.
    fn draw(&mut self) -> Option<(usize, usize)> {
        let random = &mut self.random;
        match &self.weights {
            Weights::Equal(positions) => match **positions {
                [] => None,
                [only] => Some((only, only)),
                _ => {
                    let first = random.usize(..positions.len());
                    let second = (first + 1 + random.usize(..positions.len() - 1)) % positions.len();
                    Some((positions[first], positions[second]))
                }
            },
            Weights::Sums(sums) => {
                let total = sums.last()?.0;
                let mut one = || {
                    let drawn = random.u64(..total);
                    sums[sums.partition_point(|(sum, _)| *sum <= drawn)].1
                };
                Some((one(), one()))
            }
        }
    }

    /// The same among those that are usable: one look at each, no list.
    fn draw_among(&mut self, usable: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
        let random = &mut self.random;
        let mut total = 0;
        let mut pair = None;
        let mut consider = |position: usize, weight: u64| {
            if !usable(position) {
                return;
            }
            total += weight;
            let (mut first, mut second) = pair.unwrap_or((position, position));
            if random.u64(..total) < weight {
                first = position;
            }
            if random.u64(..total) < weight {
                second = position;
            }
            pair = Some((first, second));
        };
        match &self.weights {
            Weights::Equal(positions) => positions.iter().for_each(|position| consider(*position, 1)),
            Weights::Sums(sums) => {
                let mut before = 0;
                for (sum, position) in sums {
                    consider(*position, sum - before);
                    before = *sum;
                }
            }
        }
        pair
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PICKS: usize = 20_000;

    fn shares(weights: &[u32], usable: &[bool], cost: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut balancer = TwoChoices::new(weights.iter().copied(), 7);
        let mut counts = vec![0; weights.len()];
        for _ in 0..PICKS {
            if let Some(position) = balancer.pick(|position| usable[position], &cost) {
                counts[position] += 1;
            }
        }
        counts.into_iter().map(|count| f64::from(count) / PICKS as f64).collect()
    }

    #[test]
    fn the_cheaper_of_two_wins() {
        assert_eq!(shares(&[1, 1], &[true; 2], |position| position as f64), [1.0, 0.0]);
        // Of four, the dearest is never the better, and the best is in half of the pairs.
        let shares = shares(&[1; 4], &[true; 4], |position| position as f64);
        for (share, expected) in shares.into_iter().zip([1.0 / 2.0, 1.0 / 3.0, 1.0 / 6.0, 0.0]) {
            assert!((share - expected).abs() < 0.02, "{share} {expected}");
        }
    }

    #[test]
    fn nobody_to_pick() {
        assert_eq!(shares(&[], &[], |_| 0.0), [0.0; 0]);
        assert_eq!(shares(&[0, 0], &[true; 2], |_| 0.0), [0.0; 2]);
        assert_eq!(shares(&[1, 2], &[false; 2], |_| 0.0), [0.0; 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn shares_are_the_weights_where_all_cost_the_same(
            weighted in prop::collection::vec((0u32..10, prop::bool::weighted(0.8)), 1..8),
        ) {
            let (weights, usable): (Vec<_>, Vec<_>) = weighted.into_iter().unzip();
            let due = |position: usize| if usable[position] { f64::from(weights[position]) } else { 0.0 };
            let total: f64 = (0..weights.len()).map(due).sum();
            for (position, share) in shares(&weights, &usable, |_| 0.0).into_iter().enumerate() {
                let expected = if total > 0.0 { due(position) / total } else { 0.0 };
                prop_assert!((share - expected).abs() < 0.02, "{:?} {:?}: {} {}", weights, usable, share, expected);
                prop_assert!(expected > 0.0 || share == 0.0);
            }
        }
    }
}
