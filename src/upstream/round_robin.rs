//! Weighted round robin, smooth: whoever has a share gets it evenly spread, not in a burst.
//!
//! Equal weights take turns. Unequal ones are a line of appointments: with W the sum of the weights, the k-th pick of an
//! endpoint of weight w is due in the window of picks from (k-1)·W/w to k·W/w, and of those whose window has begun the
//! one goes first whose window ends first (WF²Q, Bennett and Zhang 1996). So after any number of picks, nobody is more
//! than one pick from its share, any W picks in a row hold each endpoint exactly w times, and a pick costs O(log n).
//! nginx's way, which goes through all endpoints and lets the furthest behind win, spreads no better and costs O(n).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;

/// Most picks that a start is shifted by; a bound for its cost.
const MAX_SHIFT: u64 = 256;

/// Picks positions by weight. Owned by one worker.
#[derive(Debug)]
pub struct RoundRobin {
    order: Order,
}

#[derive(Debug)]
enum Order {
    /// All weights that are not zero are the same.
    Equal {
        positions: Box<[usize]>,
        next: usize,
    },
    Weighted(Weighted),
}

#[derive(Debug)]
struct Weighted {
    entries: Box<[Entry]>,
    /// How many picks there were, and how many were passed over for want of somebody to pick.
    now: u64,
    /// By the end of their windows, which have begun.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// By the beginning of their windows.
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    /// Entries that this pick found unusable. Kept for its memory.
    passed_over: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    position: usize,
    weight: u64,
    /// Between two windows: W / w as a whole and a remainder of w-ths.
    stride: (u64, u64),
    /// Where the next window begins, alike.
    window: (u64, u64),
}

impl RoundRobin {
    /// Weights by position; 0 is never picked. Workers with different seeds begin at different places, so that they do
    /// not all send their first requests to the same endpoint.
    pub fn new(weights: impl IntoIterator<Item = u32>, seed: u64) -> Self {
        let weighted: Vec<(usize, u64)> =
            weights.into_iter().map(u64::from).enumerate().filter(|(_, weight)| *weight > 0).collect();
        if weighted.windows(2).all(|pair| pair[0].1 == pair[1].1) {
            let positions: Box<[usize]> = weighted.iter().map(|(position, _)| *position).collect();
            let next = seed.checked_rem(positions.len() as u64).unwrap_or_default() as usize;
            return RoundRobin { order: Order::Equal { positions, next } };
        }
        let mut weighted = Weighted::new(&weighted);
        let total: u64 = weighted.entries.iter().map(|entry| entry.weight).sum();
        for _ in 0..seed % total.min(MAX_SHIFT) {
            weighted.pick(|_| true);
        }
        RoundRobin { order: Order::Weighted(weighted) }
    }

    /// The next position, or `None` where none is usable. Asks about each position at most once. One that is not usable
    /// loses its turn, and the others keep their shares of what is left.
    pub fn pick(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        match &mut self.order {
            Order::Equal { positions, next } => {
                for _ in 0..positions.len() {
                    let position = *positions.get(*next)?;
                    *next = if *next + 1 == positions.len() { 0 } else { *next + 1 };
                    if usable(position) {
                        return Some(position);
                    }
                }
                None
            }
            Order::Weighted(weighted) => weighted.pick(usable),
        }
    }

    /// One by lot, with their weights, and nobody's turn: for a request that others have failed. Were turns taken for
    /// these, they and the turns of first attempts would march in step, and one that fails got more than its share.
    pub(crate) fn pick_out_of_turn(&self, lot: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let (mut random, mut total, mut picked) = (Rng::with_seed(lot), 0, None);
        let mut consider = |position: usize, weight: u64| {
            if usable(position) {
                total += weight;
                if random.u64(..total) < weight {
                    picked = Some(position);
                }
            }
        };
        match &self.order {
            Order::Equal { positions, .. } => positions.iter().for_each(|position| consider(*position, 1)),
            Order::Weighted(Weighted { entries, .. }) => {
                entries.iter().for_each(|entry| consider(entry.position, entry.weight));
            }
        }
        picked
    }
}

impl Weighted {
    fn new(weighted: &[(usize, u64)]) -> Self {
        let total: u64 = weighted.iter().map(|(_, weight)| weight).sum();
        let entry = |&(position, weight): &(usize, u64)| Entry {
            position,
            weight,
            stride: (total / weight, total % weight),
            window: (0, 0),
        };
        let entries: Box<[Entry]> = weighted.iter().map(entry).collect();
        let due = entries.iter().enumerate().map(|(index, entry)| Reverse((entry.window_end(), index))).collect();
        let waiting = BinaryHeap::with_capacity(entries.len());
        Weighted { entries, now: 0, due, waiting, passed_over: Vec::new() }
    }

    fn pick(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let picked = loop {
            self.wake();
            let Some(Reverse((_, index))) = self.due.pop() else {
                // Everybody had their share already, for some of those who were due are unusable: time moves on.
                let Some(Reverse((begin, _))) = self.waiting.peek() else { break None };
                self.now = *begin;
                continue;
            };
            if usable(self.entries[index].position) {
                break Some(index);
            }
            self.passed_over.push(index);
        };
        while let Some(index) = self.passed_over.pop() {
            self.make_wait(index);
        }
        let index = picked?;
        self.make_wait(index);
        self.now += 1;
        Some(self.entries[index].position)
    }

    /// Moves those whose windows have begun.
    fn wake(&mut self) {
        while let Some(Reverse((begin, index))) = self.waiting.peek().copied()
            && begin <= self.now
        {
            self.waiting.pop();
            self.due.push(Reverse((self.entries[index].window_end(), index)));
        }
    }

    /// Turns to an entry's next window. Turns long missed are lost: whoever becomes usable again gets no burst.
    fn make_wait(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        entry.window = entry.window_after();
        if entry.window_end() <= self.now {
            entry.window = (self.now + 1, 0);
        }
        self.waiting.push(Reverse((entry.window_begin(), index)));
    }
}

impl Entry {
    fn window_after(&self) -> (u64, u64) {
        let (whole, part) = (self.window.0 + self.stride.0, self.window.1 + self.stride.1);
        if part >= self.weight { (whole + 1, part - self.weight) } else { (whole, part) }
    }

    /// The first pick that lies in the window.
    fn window_begin(&self) -> u64 {
        self.window.0 + u64::from(self.window.1 > 0)
    }

    /// The first pick that lies behind it.
    fn window_end(&self) -> u64 {
        let (whole, part) = self.window_after();
        whole + u64::from(part > 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picks(weights: &[u32], seed: u64, count: usize) -> Vec<usize> {
        let mut balancer = RoundRobin::new(weights.iter().copied(), seed);
        (0..count).map(|_| balancer.pick(|_| true).unwrap()).collect()
    }

    fn counts(picks: &[usize], positions: usize) -> Vec<u32> {
        picks.iter().fold(vec![0; positions], |mut counts, position| {
            counts[*position] += 1;
            counts
        })
    }

    #[test]
    fn shares_are_spread() {
        assert_eq!(picks(&[5, 1, 1], 0, 14), [0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 0, 2, 0, 0]);
        assert_eq!(picks(&[1, 1, 1], 0, 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(picks(&[0, 3, 3], 0, 4), [1, 2, 1, 2]);
        assert_eq!(picks(&[2, 1], 0, 6), [0, 1, 0, 0, 1, 0]);
    }

    #[test]
    fn workers_begin_at_different_places() {
        let first: Vec<_> = (0..4).map(|seed| picks(&[7; 4], seed, 1)[0]).collect();
        assert_eq!(first, [0, 1, 2, 3]);
        let first: Vec<_> = (0..12).map(|seed| picks(&[3, 4, 5], seed, 1)[0]).collect();
        assert_eq!(counts(&first, 3), [3, 4, 5]);
    }

    #[test]
    fn nobody_to_pick() {
        assert_eq!(RoundRobin::new([], 7).pick(|_| true), None);
        assert_eq!(RoundRobin::new([0, 0], 7).pick(|_| true), None);
        for weights in [[2, 2], [1, 2]] {
            let mut balancer = RoundRobin::new(weights, 7);
            for _ in 0..9 {
                assert_eq!(balancer.pick(|_| false), None);
            }
            assert!(balancer.pick(|_| true).is_some());
        }
    }

    #[test]
    fn the_heaviest_being_unusable_costs_one_question_a_pick() {
        let mut balancer = RoundRobin::new([u32::MAX, 1, 2], 0);
        let mut seen = [0; 3];
        for _ in 0..300 {
            let asked = std::cell::Cell::new(0);
            let position = balancer.pick(|position| {
                asked.set(asked.get() + 1);
                position != 0
            });
            assert!(asked.get() <= 3);
            seen[position.unwrap()] += 1;
        }
        assert_eq!(seen, [0, 100, 200]);
    }

    #[test]
    fn who_comes_back_gets_no_burst_and_its_share() {
        let weights = [4, 2, 1];
        let mut balancer = RoundRobin::new(weights, 0);
        for _ in 0..10_000 {
            balancer.pick(|position| position != 0);
        }
        let after: Vec<_> = (0..7_000).map(|_| balancer.pick(|_| true).unwrap()).collect();
        assert!(counts(&after[..14], 3)[0] <= 10, "{:?}", &after[..14]);
        assert_eq!(counts(&after[3_500..], 3), [2_000, 1_000, 500]);
    }

    proptest! {
        #[test]
        fn any_sum_of_weights_in_a_row_holds_each_weight(
            weights in prop::collection::vec(0_u32..12, 1..12).prop_filter("somebody", |weights| weights.iter().any(|w| *w > 0)),
            seed in any::<u64>(),
        ) {
            let total = weights.iter().sum::<u32>() as usize;
            let picks = picks(&weights, seed, total * 3);
            for start in 0..total * 2 {
                prop_assert_eq!(&counts(&picks[start..start + total], weights.len()), &weights);
            }
        }

        #[test]
        fn nobody_is_ever_more_than_one_pick_from_its_share(weights in prop::collection::vec(1_u32..100, 1..12)) {
            let total = weights.iter().sum::<u32>();
            let mut seen = vec![0_i64; weights.len()];
            for (count, position) in picks(&weights, 0, 2 * total as usize).into_iter().enumerate() {
                seen[position] += 1;
                for (seen, weight) in seen.iter().zip(&weights) {
                    let off = seen * i64::from(total) - (count as i64 + 1) * i64::from(*weight);
                    prop_assert!(off.abs() <= i64::from(total), "{seen} of {weight}/{total} after {count}");
                }
            }
        }

        #[test]
        fn large_weights_have_their_shares_within_one_in_a_hundred(
            weights in prop::collection::vec(0_u32..=65_535, 2..6).prop_filter("somebody", |weights| weights.iter().any(|w| *w > 0)),
            seed in any::<u64>(),
        ) {
            let total = f64::from(weights.iter().sum::<u32>());
            for (seen, weight) in counts(&picks(&weights, seed, 10_000), weights.len()).iter().zip(&weights) {
                prop_assert!((f64::from(*seen) - 10_000.0 * f64::from(*weight) / total).abs() <= 2.0);
            }
        }

        #[test]
        fn the_usable_share_what_is_left_by_their_weights(
            weights in prop::collection::vec((0_u32..20, any::<bool>()), 1..10),
            seed in any::<u64>(),
        ) {
            let mut balancer = RoundRobin::new(weights.iter().map(|(weight, _)| *weight), seed);
            let left: u32 = weights.iter().filter(|(_, usable)| *usable).map(|(weight, _)| weight).sum();
            let rounds = 60;
            // Where they stand as the others stop being usable, some are ahead of what is their share from then on.
            for _ in 0..left {
                balancer.pick(|position| weights[position].1);
            }
            let mut seen = vec![0_u32; weights.len()];
            for _ in 0..rounds * left {
                seen[balancer.pick(|position| weights[position].1).unwrap()] += 1;
            }
            if left == 0 {
                prop_assert_eq!(balancer.pick(|position| weights[position].1), None);
            }
            for (seen, (weight, usable)) in seen.iter().zip(&weights) {
                let share = if *usable { rounds * weight } else { 0 };
                prop_assert!(seen.abs_diff(share) <= 2, "{seen} instead of {share}");
            }
        }

        #[test]
        fn lots_are_drawn_by_weight_and_take_nobodys_turn(
            weights in prop::collection::vec((0_u32..10, prop::bool::weighted(0.8)), 1..6),
            seed in any::<u64>(),
        ) {
            let new = || RoundRobin::new(weights.iter().map(|(weight, _)| *weight), seed);
            let (mut balancer, mut undisturbed) = (new(), new());
            let (mut lots, mut seen) = (fastrand::Rng::with_seed(seed), vec![0_u32; weights.len()]);
            for _ in 0..4_000 {
                if let Some(position) = balancer.pick_out_of_turn(lots.u64(..), |position| weights[position].1) {
                    seen[position] += 1;
                }
                prop_assert_eq!(balancer.pick(|_| true), undisturbed.pick(|_| true));
            }
            let due = |position: usize| if weights[position].1 { f64::from(weights[position].0) } else { 0.0 };
            let total: f64 = (0..weights.len()).map(due).sum();
            for (position, seen) in seen.iter().enumerate() {
                let expected = if total > 0.0 { due(position) / total } else { 0.0 };
                prop_assert!((f64::from(*seen) / 4_000.0 - expected).abs() < 0.06, "{position}: {seen} of {weights:?}");
            }
        }

        #[test]
        fn what_is_picked_was_usable(
            weights in prop::collection::vec(0_u32..5, 1..8),
            usable in prop::collection::vec(any::<u8>(), 1..60),
        ) {
            let mut balancer = RoundRobin::new(weights.iter().copied(), 3);
            for mask in usable {
                let fit = |position: usize| mask >> position & 1 == 1;
                let picked = balancer.pick(fit);
                match picked {
                    Some(position) => prop_assert!(fit(position) && weights[position] > 0),
                    None => prop_assert!(!(0..weights.len()).any(|position| fit(position) && weights[position] > 0)),
                }
            }
        }
    }
}
