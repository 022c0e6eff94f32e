//! A closed row of positions, walked from wherever a key begins.

use smallvec::{SmallVec, smallvec};

/// Positions in the order in which keys try them.
#[derive(Debug)]
pub(super) struct Circle(pub(super) Box<[u32]>);

impl Circle {
    /// The first usable position from `start` on; `None` where there is none. Asks about each position at most once:
    /// keys of one that is not usable go to whoever comes next, and those of all others stay where they are.
    pub(super) fn walk(&self, start: usize, endpoints: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let first = *self.0.get(start)? as usize;
        if usable(first) {
            return Some(first);
        }
        let mut refused: SmallVec<[u64; 4]> = smallvec![0; endpoints.div_ceil(64)];
        let mut left = endpoints;
        let rest = self.0[start..].iter().chain(&self.0[..start]);
        for position in rest.map(|position| *position as usize) {
            let (word, bit) = (refused.get_mut(position / 64)?, 1 << (position % 64));
            if *word & bit != 0 {
                continue;
            }
            if position != first && usable(position) {
                return Some(position);
            }
            *word |= bit;
            left -= 1;
            if left == 0 {
                return None;
            }
        }
        None
    }
}
