//! What hops and endpoints tell each other of attempts.

use std::num::IntErrorKind;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The number of an attempt over all hops, told to whoever gets one that is not the first.
pub(super) const X_OUTRIGGER_ATTEMPT: HeaderName = HeaderName::from_static("x-outrigger-attempt");
/// Why a hop behind did not retry (again).
pub(super) const X_OUTRIGGER_RETRY_REFUSED: HeaderName = HeaderName::from_static("x-outrigger-retry-refused");
/// How often a gRPC client has sent the call before (gRFC A6).
const GRPC_PREVIOUS_RPC_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
/// When a gRPC server wants to see the call again (gRFC A6).
const GRPC_RETRY_PUSHBACK_MS: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// Numbers of attempts beyond this are nobody's.
const MOST_ATTEMPTS: u32 = 1_000;

/// What the endpoint says of the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Unsaid,
    AtLeast(Duration),
    Exactly(Duration),
    Never,
}

/// How often others have sent the request.
pub(super) fn attempts_before(headers: &HeaderMap, grpc: bool) -> u32 {
    let number = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let ours = number(X_OUTRIGGER_ATTEMPT).map_or(0, |attempt| attempt.saturating_sub(1));
    let of_grpc = if grpc { number(GRPC_PREVIOUS_RPC_ATTEMPTS).unwrap_or(0) } else { 0 };
    ours.max(of_grpc).min(MOST_ATTEMPTS)
}

/// What is said to whoever gets an attempt that is not the first.
pub(super) fn announce(headers: &mut HeaderMap, before: u32, grpc: bool) {
    headers.insert(X_OUTRIGGER_ATTEMPT, HeaderValue::from(before + 1));
    if grpc {
        headers.insert(GRPC_PREVIOUS_RPC_ATTEMPTS, HeaderValue::from(before));
    }
}

/// What a response's headers say of the next attempt. `unix`: now, for dates.
pub(super) fn wait(headers: &HeaderMap, grpc: bool, unix: impl Fn() -> Duration) -> Wait {
    match headers.get(GRPC_RETRY_PUSHBACK_MS).filter(|_| grpc) {
        Some(value) => pushback(value),
        None => headers.get(http::header::RETRY_AFTER).map_or(Wait::Unsaid, |value| retry_after(value, unix)),
    }
}

/// Milliseconds, to the letter; what is no such number means never.
fn pushback(value: &HeaderValue) -> Wait {
    match value.to_str().ok().and_then(|text| text.parse::<u32>().ok()) {
        Some(millis) => Wait::Exactly(Duration::from_millis(millis.into())),
        None => Wait::Never,
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &HeaderValue, unix: impl Fn() -> Duration) -> Wait {
    let Ok(text) = value.to_str() else { return Wait::Unsaid };
    let seconds = match text.parse::<u32>() {
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Ok(u32::MAX),
        seconds => seconds,
    };
    if let Ok(seconds) = seconds {
        return Wait::AtLeast(Duration::from_secs(seconds.into()));
    }
    match httpdate::parse_http_date(text).ok().and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok()) {
        Some(date) => Wait::AtLeast(date.saturating_sub(unix())),
        None => Wait::Unsaid,
    }
}
