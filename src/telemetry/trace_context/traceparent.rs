//! The `traceparent` header (level 1, section 3.2).

use http::{HeaderMap, HeaderValue};

use super::TRACEPARENT;

/// The request is recorded by the caller.
pub(super) const SAMPLED: u8 = 0b01;

/// The trace id's last seven bytes are random (level 2).
pub(super) const RANDOM: u8 = 0b10;

/// `00-` trace id `-` parent id `-` flags.
const LENGTH: usize = 55;

/// What a valid `traceparent` says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traceparent {
    pub(super) trace_id: [u8; 32],
    pub(super) parent_id: [u8; 16],
    /// [`SAMPLED`] and [`RANDOM`]; flags that no version knows are zeroed.
    pub(super) flags: u8,
}

impl Traceparent {
    /// Two of them contradict each other, so they count as none.
    pub(super) fn receive(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        Self::parse(value.as_bytes())
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.trim_ascii().split_at_checked(LENGTH)?;
        let version = hex_byte(known[0], known[1]).filter(|version| *version != 0xff)?;
        // A later version may go on, but only after another dash.
        if !rest.is_empty() && (version == 0 || rest[0] != b'-') {
            return None;
        }
        if [known[2], known[35], known[52]] != [b'-'; 3] {
            return None;
        }
        let flags = hex_byte(known[53], known[54])? & (SAMPLED | RANDOM);
        Some(Traceparent { trace_id: id(&known[3..35])?, parent_id: id(&known[36..52])?, flags })
    }

    /// As version 00, which every receiver of a later one reads too.
    pub(super) fn to_value(self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&self.trace_id);
        text[36..52].copy_from_slice(&self.parent_id);
        text[54] = b'0' + (self.flags & (SAMPLED | RANDOM));
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Lower-case hexadecimal digits, not all zero. No early exit, so that the compiler can look at many at once.
pub(super) fn id<const LENGTH: usize>(text: &[u8]) -> Option<[u8; LENGTH]> {
    let text: [u8; LENGTH] = text.try_into().ok()?;
    let (is_hex, bits) = text.iter().fold((true, 0), |(is_hex, bits), digit| {
        let is_digit = digit.wrapping_sub(b'0') < 10;
        let is_letter = digit.wrapping_sub(b'a') < 6;
        (is_hex & (is_digit | is_letter), bits | (digit ^ b'0'))
    });
    (is_hex && bits != 0).then_some(text)
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    Some(hex_digit(high)? << 4 | hex_digit(low)?)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
