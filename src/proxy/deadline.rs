//! Until when: the patience of the request's route, and what is left of it told to the endpoint.
//!
//! gRPC says it in `grpc-timeout`: at most eight digits and one of `H M S m u n`. HTTP has no such header; where
//! `timeouts.deadline_header` names one, it holds milliseconds.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::record::Record;
use crate::error::{Error, Reason};
use crate::snapshot::Target;
use crate::transport::Deadlines;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Digits that a value may have.
const DIGITS: usize = 8;
/// The first number with more of them.
const TOO_MANY: u128 = 100_000_000;
/// Milliseconds of a year: more is no deadline, and could not be added to a time.
const LONGEST: u64 = 365 * 24 * 3_600 * 1_000;

/// The patience of the request's route, or the client's where that is less.
///
/// # Errors
/// `deadline_exceeded` where the client's is over: nobody waits for an answer any more.
pub(super) fn of_request(target: &Target, record: &Record, headers: &HeaderMap) -> Result<Deadlines, Error> {
    let timeouts = target.timeouts.timeouts;
    let grpc = record.grpc;
    let mut deadlines = Deadlines {
        connect: timeouts.connect,
        response: target.timeouts.response(grpc),
        per_try: None,
        idle: target.timeouts.idle(grpc),
        stream_idle: target.timeouts.stream_idle,
        request: timeouts.request.map(|bound| record.received + bound),
        request_reason: Reason::RequestTimeout,
        tunnel_idle: timeouts.tunnel_idle,
    };
    if let Some(timeout) = of_client(target, headers, grpc) {
        let deadline = record.received + timeout;
        if deadline <= Instant::now() {
            return Err(Error::local(Reason::DeadlineExceeded));
        }
        if deadlines.request.is_none_or(|own| deadline < own) {
            deadlines.request = Some(deadline);
            deadlines.request_reason = Reason::DeadlineExceeded;
        }
    }
    Ok(deadlines)
}

/// How long the client says that it waits.
pub(crate) fn of_client(target: &Target, headers: &HeaderMap, grpc: bool) -> Option<Duration> {
    let said = if grpc { receive(headers) } else { None };
    said.or_else(|| receive_millis(headers, target.deadline_header.as_ref()?))
}

/// What the client says; `None` where it says nothing, or nothing that can be understood.
fn receive(headers: &HeaderMap) -> Option<Duration> {
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

/// The patience of a copy that nobody waits for; never without end.
pub(super) fn of_copy(target: &Target, grpc: bool, began: Instant, longest: Duration) -> Deadlines {
    let timeouts = target.timeouts.timeouts;
    Deadlines {
        connect: timeouts.connect,
        response: target.timeouts.response(grpc),
        per_try: timeouts.per_try.map(|bound| began + bound),
        idle: timeouts.idle,
        stream_idle: target.timeouts.stream_idle,
        request: Some(began + timeouts.request.unwrap_or(longest)),
        request_reason: Reason::RequestTimeout,
        tunnel_idle: timeouts.tunnel_idle,
    }
}

/// Milliseconds; `None` where it holds nothing that can be understood. What is negative is over.
fn receive_millis(headers: &HeaderMap, header: &HeaderName) -> Option<Duration> {
    let millis = headers.get(header)?.to_str().ok()?.trim().parse::<i64>().ok()?;
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0).min(LONGEST)))
}

/// Tells the endpoint what is left, rounded down: never more than there is.
pub(super) fn send(headers: &mut HeaderMap, left: Duration, grpc: bool, header: Option<&HeaderName>) {
    if grpc {
        send_grpc(headers, left);
    }
    if let Some(header) = header {
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        headers.insert(header, HeaderValue::from(millis));
    }
}

/// In the finest unit that holds it.
fn send_grpc(headers: &mut HeaderMap, left: Duration) {
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
            let header = HeaderName::from_static("x-left");
            send(&mut headers, left, true, Some(&header));
            let millis = receive_millis(&headers, &header).unwrap();
            proptest::prop_assert!(millis <= left && left.min(Duration::from_millis(LONGEST)) - millis < Duration::from_millis(1));
            let passed_on = receive(&headers).unwrap();
            proptest::prop_assert!(passed_on <= left);
            proptest::prop_assert!(left - passed_on <= left / 1000 + Duration::from_nanos(1));
        }
    }
}
