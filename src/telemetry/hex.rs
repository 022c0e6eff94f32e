//! Words as lower-case hexadecimal text and back, eight digits at a time: every request has several ids.

/// One in each of eight bytes.
const ONES: u64 = 0x0101_0101_0101_0101;

/// 16 lower-case digits.
pub(super) fn encode(value: u64) -> [u8; 16] {
    let mut text = [0; 16];
    text[..8].copy_from_slice(&digits((value >> 32) as u32));
    text[8..].copy_from_slice(&digits(value as u32));
    text
}

/// What 16 lower-case digits say. Anything else says something arbitrary.
pub(super) fn decode(text: &[u8; 16]) -> u64 {
    let word = u128::from_be_bytes(*text);
    u64::from(value((word >> 64) as u64)) << 32 | u64::from(value(word as u64))
}

/// Each nibble becomes a byte, the highest first; then `0` is added, and to those above 9 the way from `:` to `a`.
fn digits(value: u32) -> [u8; 8] {
    let mut nibbles = u64::from(value);
    nibbles = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles | nibbles << 4) & (0x0f * ONES);
    let letters = ((nibbles + 6 * ONES) >> 4) & ONES;
    (nibbles + u64::from(b'0') * ONES + letters * u64::from(b'a' - b':')).to_be_bytes()
}

/// The way back: letters have bit 6, and their lower bits count from 1 where `a` means 10.
fn value(digits: u64) -> u32 {
    let letters = (digits >> 6) & ONES;
    let mut nibbles = (digits & (0x0f * ONES)) + letters * 9;
    nibbles &= 0x0f * ONES;
    nibbles = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles | nibbles >> 8) & 0x0000_ffff_0000_ffff;
    (nibbles | nibbles >> 16) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_what_the_standard_library_writes(value: u64) {
            let text = encode(value);
            prop_assert_eq!(std::str::from_utf8(&text).unwrap(), format!("{value:016x}"));
            prop_assert_eq!(decode(&text), value);
        }

        #[test]
        fn other_bytes_do_no_harm(text: [u8; 16]) {
            decode(&text);
        }
    }

    #[test]
    fn is_written_from_the_left() {
        assert_eq!(&encode(0x0123_4567_89ab_cdef), b"0123456789abcdef");
        assert_eq!((&encode(0), decode(b"ffffffffffffffff")), (b"0000000000000000", u64::MAX));
    }
}
