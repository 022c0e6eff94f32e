//! Which traces are recorded, where they begin here.

use super::super::hex;
use crate::config::model::Propagation;

/// How a proxy that exports spans takes part in traces.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Which of the traces that begin here are recorded.
    pub sampling: Ratio,
    /// Headers to read and write.
    pub propagation: Propagation,
}

/// A share of all traces, chosen by their ids, so that all who use the same share choose the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio(u64);

impl Ratio {
    /// No trace.
    pub const NONE: Ratio = Ratio(0);

    /// `share` is 0 to 1.
    pub fn new(share: f64) -> Self {
        // As the SDKs of OpenTelemetry do: 63 bits of the id's lower half below the share of all that there are.
        Ratio((share.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64)
    }

    /// For atomics.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Ratio(bits)
    }

    pub(super) fn takes(self, trace_id: &[u8; 32]) -> bool {
        let Some(lower) = trace_id.last_chunk() else { return false };
        hex::decode(lower) >> 1 < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ids::Ids;
    use super::*;

    #[test]
    fn a_share_of_all_traces_is_taken() {
        let mut ids = Ids::seeded(1, 2);
        let ids: Vec<[u8; 32]> = (0..10_000).map(|_| ids.trace_id()).collect();
        let taken = |share| ids.iter().filter(|id| Ratio::new(share).takes(id)).count();
        assert_eq!((taken(0.0), taken(1.0), taken(-1.0), taken(7.0)), (0, 10_000, 0, 10_000));
        assert!((2_300..2_700).contains(&taken(0.25)), "{}", taken(0.25));
        let smaller = |id: &&[u8; 32]| Ratio::new(0.1).takes(id);
        assert!(ids.iter().filter(smaller).all(|id| Ratio::new(0.2).takes(id)), "a larger share has all of a smaller");
    }

    /// The same choice as the SDKs of OpenTelemetry make: 63 bits of the lower half, in the order of the text.
    #[test]
    fn the_lower_half_decides() {
        let id = |lower: &str| <[u8; 32]>::try_from(format!("ffffffffffffffff{lower}").as_bytes()).unwrap();
        assert!(Ratio::new(0.5).takes(&id("7fffffffffffffff")));
        assert!(!Ratio::new(0.5).takes(&id("8000000000000000")));
        assert!(Ratio::new(0.75).takes(&id("bfffffffffffffff")));
        assert!(!Ratio::new(0.75).takes(&id("c0000000000000ab")));
    }
}
