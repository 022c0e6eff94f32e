//! `split:` which of several upstreams gets a request.

use super::RoundRobin;
use crate::config::model::UpstreamIndex;

/// Upstreams with weights. Owned by one worker; as smooth as [`RoundRobin`], whose rule it is.
#[derive(Debug)]
pub struct Split {
    upstreams: Box<[UpstreamIndex]>,
    order: RoundRobin,
}

impl Split {
    /// See [`RoundRobin::new`].
    pub fn new(weighted: &[(UpstreamIndex, u32)], seed: u64) -> Self {
        let upstreams = weighted.iter().map(|(upstream, _)| *upstream).collect();
        Split { upstreams, order: RoundRobin::new(weighted.iter().map(|(_, weight)| *weight), seed) }
    }

    /// The next upstream; `None` only where every weight is zero, which the configuration does not let through.
    pub fn pick(&mut self) -> Option<UpstreamIndex> {
        self.order.pick(|_| true).map(|position| self.upstreams[position])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_weights() {
        let mut split = Split::new(&[(UpstreamIndex(7), 95), (UpstreamIndex(3), 5), (UpstreamIndex(1), 0)], 42);
        let picks: Vec<_> = (0..200).map(|_| split.pick().unwrap().0).collect();
        assert_eq!(picks.iter().filter(|upstream| **upstream == 3).count(), 10);
        assert_eq!(picks.iter().filter(|upstream| **upstream == 7).count(), 190);
    }
}
