//! Random identifiers: trace, span and request ids. Unique, not secret.

use std::hash::{BuildHasher, RandomState};

use super::hex;

/// A worker's source of identifiers.
///
/// Two generators, because a trace id has 128 bits and one generator's 64 bits of state would make two pods of a large
/// fleet meet in the same stream.
#[derive(Debug)]
pub struct Ids {
    high: fastrand::Rng,
    low: fastrand::Rng,
}

impl Ids {
    /// Seeded by the operating system (through the standard library's hash keys).
    pub fn new() -> Self {
        let entropy = || RandomState::new().hash_one(std::process::id());
        // `RandomState` draws its keys once a thread and then counts: hashing makes that unrelated words, and
        // fastrand's own seed adds the thread and the time.
        Self::seeded(entropy() ^ fastrand::u64(..), entropy() ^ fastrand::u64(..))
    }

    /// The same identifiers at each run, for tests.
    pub fn seeded(high: u64, low: u64) -> Self {
        Ids { high: fastrand::Rng::with_seed(high), low: fastrand::Rng::with_seed(low) }
    }

    /// 32 lower-case hexadecimal digits, never all zero.
    pub fn trace_id(&mut self) -> [u8; 32] {
        let mut text = [b'0'; 32];
        text[..16].copy_from_slice(&hex::encode(self.high.u64(..)));
        text[16..].copy_from_slice(&hex::encode(self.low.u64(1..)));
        text
    }

    /// 16 lower-case hexadecimal digits, never all zero.
    pub fn span_id(&mut self) -> [u8; 16] {
        hex::encode(self.low.u64(1..))
    }

    /// A UUID of version 4 (RFC 9562, section 5.4) as text.
    pub fn uuid(&mut self) -> [u8; 36] {
        let high = (self.high.u64(..) & !0xf000) | 0x4000;
        let low = (self.low.u64(..) & !(0b11 << 62)) | (0b10 << 62);
        let (high, low) = (hex::encode(high), hex::encode(low));
        let mut text = [b'-'; 36];
        text[..8].copy_from_slice(&high[..8]);
        text[9..13].copy_from_slice(&high[8..12]);
        text[14..18].copy_from_slice(&high[12..]);
        text[19..23].copy_from_slice(&low[..4]);
        text[24..].copy_from_slice(&low[4..]);
        text
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &[u8; 16] = b"0123456789abcdef";

    #[test]
    fn ids_are_lower_case_hex_and_differ() {
        let mut ids = Ids::new();
        let (first, second) = (ids.trace_id(), ids.trace_id());
        assert_ne!(first, second);
        assert!(first.iter().chain(&ids.span_id()).all(|byte| HEX.contains(byte)));
        let (one, other) = (Ids::new().trace_id(), Ids::new().trace_id());
        assert_ne!(one[..16], other[..16]);
        assert_ne!(one[16..], other[16..]);
    }

    #[test]
    fn a_uuid_has_its_version_and_variant() {
        let mut ids = Ids::seeded(1, 2);
        for _ in 0..100 {
            let text = String::from_utf8(ids.uuid().to_vec()).unwrap();
            let groups: Vec<usize> = text.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12]);
            assert_eq!(&text[14..15], "4");
            assert!("89ab".contains(&text[19..20]), "{text}");
        }
    }
}
