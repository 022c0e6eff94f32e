//! Pieces of JSON, written by hand: a general serializer costs several times a line's budget.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

/// Longer strings are cut: container runtimes split lines at 16 KiB.
const MAX_STRING: usize = 4096;

/// What stands at the end of a string that was cut.
const CUT: &str = "\u{2026}";

/// A string in quotes. Bytes that are no UTF-8 become U+FFFD.
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() <= MAX_STRING && is_plain(text) {
        plain(out, text);
    } else {
        escaped(out, text);
    }
}

/// A string in quotes that is known to hold nothing to escape.
pub(super) fn plain(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

/// A string in quotes, or `null`.
pub(super) fn string_or_null(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// An address in quotes.
pub(super) fn address(out: &mut Vec<u8>, address: IpAddr) {
    out.push(b'"');
    bare_address(out, address);
    out.push(b'"');
}

/// An address.
pub(super) fn bare_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (position, part) in address.octets().into_iter().enumerate() {
                if position > 0 {
                    out.push(b'.');
                }
                integer(out, part.into());
            }
        }
        // Writing to memory does not fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// An integer.
#[inline]
pub(super) fn integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds with three significant digits and at most three decimals: `0.042`, `4.1`, `15.2`, `1204`.
pub(super) fn milliseconds(out: &mut Vec<u8>, duration: Duration) {
    let micros = duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros().into());
    let step = match micros {
        0..10_000 if micros < 1_000 => 1,
        0..10_000 => 10,
        10_000..100_000 => 100,
        _ => 1_000,
    };
    let rounded = micros.saturating_add(step / 2) / step * step;
    integer(out, rounded / 1_000);
    let decimals = (rounded % 1_000) as u16;
    if decimals > 0 {
        let digits = [b'.', digit(decimals / 100), digit(decimals / 10 % 10), digit(decimals % 10)];
        let length = match (decimals % 100, decimals % 10) {
            (0, _) => 2,
            (_, 0) => 3,
            _ => 4,
        };
        out.extend_from_slice(&digits[..length]);
    }
}

fn digit(value: u16) -> u8 {
    b'0' + value as u8
}

/// No early exit, so that the compiler can look at many bytes at once.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, byte| plain & (*byte >= b' ') & (*byte < 0x7f) & (*byte != b'"') & (*byte != b'\\'))
}

#[cold]
fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let cut = &text[..text.len().min(MAX_STRING)];
    for chunk in cut.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0..b' ' | 0x7f => {
                    let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 0xf)]);
                }
                _ => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if cut.len() < text.len() {
        out.extend_from_slice(CUT.as_bytes());
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped() {
        let cases: [(&[u8], &str); 6] = [
            (b"/v1/x", r#""/v1/x""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\x00\x1f\x7f\n\r\t", r#""\u0000\u001f\u007f\n\r\t""#),
            ("gr\u{fc}n".as_bytes(), "\"gr\u{fc}n\""),
            (b"a\xffb\xc3", "\"a\u{fffd}b\u{fffd}\""),
            (b"", "\"\""),
        ];
        for (text, expected) in cases {
            assert_eq!(written(|out| string(out, text)), expected);
        }
        assert_eq!(written(|out| string_or_null(out, None)), "null");
    }

    #[test]
    fn long_strings_are_cut() {
        let long = written(|out| string(out, &[b'x'; MAX_STRING + 1]));
        assert_eq!(long.len(), MAX_STRING + CUT.len() + 2);
        assert!(long.ends_with("x\u{2026}\""));
    }

    #[test]
    fn milliseconds_have_three_digits() {
        let cases = [
            (0, "0"),
            (42, "0.042"),
            (300, "0.3"),
            (999, "0.999"),
            (4_100, "4.1"),
            (4_126, "4.13"),
            (9_999, "10"),
            (15_249, "15.2"),
            (99_960, "100"),
            (1_204_400, "1204"),
            (3_600_000_000, "3600000"),
        ];
        for (micros, expected) in cases {
            assert_eq!(written(|out| milliseconds(out, Duration::from_micros(micros))), expected);
        }
        written(|out| milliseconds(out, Duration::MAX));
    }

    proptest! {
        #[test]
        fn every_string_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = written(|out| string(out, &bytes));
            let read: String = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
            prop_assert!(text.bytes().all(|byte| byte >= b' ' && byte != 0x7f), "one line, nothing for terminals");
        }
    }
}
