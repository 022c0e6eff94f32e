//! Balancers that send the same key to the same endpoint, and what they have in common.
//!
//! The hash is written down here and never changes: all proxies, of all versions, have to send a key to the same place.

pub(crate) mod circle;
pub(crate) mod maglev;
pub(crate) mod ring;

/// FNV-1a, then the last step of MurmurHash3, which spreads what FNV leaves close together. Not for secrets: whoever
/// chooses keys can choose them for one endpoint, as with every hash that proxies agree on.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash)
}

/// The last step of MurmurHash3's 64 bits: each bit of the input changes half of the output's.
pub(crate) fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_same_for_ever() {
        assert_eq!(hash(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash(b"user-1"), 4_729_620_347_622_785_477);
        assert_ne!(hash(b"user-1"), hash(b"user-2"));
    }

    #[test]
    fn neighbours_are_far_apart() {
        let mut buckets = [0u32; 16];
        for number in 0..16_000 {
            buckets[(hash(format!("user-{number}").as_bytes()) >> 60) as usize] += 1;
        }
        assert!(buckets.iter().all(|count| (850..1_150).contains(count)), "{buckets:?}");
    }
}
