//! `grpc-timeout`: how long a gRPC client still waits, and what of it is left for the endpoint.
//!
//! The format is that of gRPC over HTTP/2: at most eight digits and one of `H M S m u n`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Digits that a value may have.
const DIGITS: usize = 8;
/// The first number with more of them.
const TOO_MANY: u128 = 100_000_000;

/// What the client says; `None` where it says nothing, or nothing that can be understood.
pub(super) fn receive(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Tells the endpoint what is left, in the finest unit that holds it and rounded down: never more than there is.
pub(super) fn send(headers: &mut HeaderMap, left: Duration) {
    let units = [(left.as_nanos(), b'n'), (left.as_micros(), b'u'), (left.as_millis(), b'm')];
    let seconds = u128::from(left.as_secs()).min(TOO_MANY - 1);
    let (amount, unit) = units.into_iter().find(|(amount, _)| *amount < TOO_MANY).unwrap_or((seconds, b'S'));
    let mut value = itoa::Buffer::new().format(amount).as_bytes().to_vec();
    value.push(unit);
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(value: &'static str) -> Option<Duration> {
        receive(&HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(value))]))
    }

    #[test]
    fn what_is_not_in_the_format_is_no_deadline() {
        assert_eq!(received("300m"), Some(Duration::from_millis(300)));
        assert_eq!(received("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for value in ["", "m", "300", "300s", "-1m", "123456789m", "1.5S"] {
            assert_eq!(received(value), None, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_more_is_passed_on_than_is_left(nanos in 0..100_000_000_000_000_000_u64) {
            let left = Duration::from_nanos(nanos);
            let mut headers = HeaderMap::new();
            send(&mut headers, left);
            let passed_on = receive(&headers).unwrap();
            proptest::prop_assert!(passed_on <= left);
            proptest::prop_assert!(left - passed_on <= left / 1000 + Duration::from_nanos(1));
        }
    }
}
