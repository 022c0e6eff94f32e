//! What an answer's head says, before anything is known of its body.

use http::{HeaderMap, Response, StatusCode};

use super::reply::X_OUTRIGGER_REASON;
use crate::body::Body;
use crate::error::Reason;
use crate::outcome::Outcome;

/// gRPC's status of somebody who is not there, or has no room.
const UNAVAILABLE: u8 = 14;

/// gRPC's status, in headers or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// True where the answer is bad news, so that it is worth a closer look.
pub(super) fn may_be_retried(response: &Response<Body>, grpc: bool) -> bool {
    response.status().as_u16() >= 400 || grpc && grpc_status(response.headers()).is_some_and(|code| code != 0)
}

/// What it says of the endpoint.
pub(super) fn outcome(response: &Response<Body>, grpc: bool) -> Outcome {
    let (status, headers) = (response.status(), response.headers());
    let grpc = if grpc { grpc_status(headers) } else { None };
    if (status == StatusCode::SERVICE_UNAVAILABLE || grpc == Some(UNAVAILABLE))
        && let Some(reason) = refused_before(headers)
    {
        return Outcome::Failed(reason);
    }
    Outcome::Answered { status: status.as_u16(), grpc }
}

/// The endpoint's own proxy had no room for the request, or is about to end: it has said so, and the endpoint nothing. Were
/// that a failure, load that is shed would get its pod ejected, and the rest of the load those that are left.
fn refused_before(headers: &HeaderMap) -> Option<Reason> {
    const REASONS: [Reason; 3] = [Reason::Overflow, Reason::ConcurrencyLimited, Reason::Draining];
    let said = headers.get(X_OUTRIGGER_REASON)?.to_str().ok()?.split(';').next()?;
    REASONS.into_iter().find(|reason| reason.as_str() == said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Class;

    fn class(status: u16, grpc: Option<&str>, reason: Option<&str>) -> Class {
        let mut response = Response::builder().status(status);
        for (name, value) in [("grpc-status", grpc), ("x-outrigger-reason", reason)] {
            if let Some(value) = value {
                response = response.header(name, value);
            }
        }
        outcome(&response.body(Body::empty()).unwrap(), grpc.is_some()).class()
    }

    #[test]
    fn load_that_is_shed_before_an_endpoint_is_not_its_failure() {
        for reason in ["overflow; hop=inbound", "concurrency_limited; hop=inbound", "draining"] {
            assert_eq!(class(503, None, Some(reason)), Class::Nothing, "{reason}");
            assert_eq!(class(200, Some("14"), Some(reason)), Class::Nothing, "{reason}");
        }
        for reason in [None, Some("connect_failure; hop=inbound"), Some("overflowing"), Some("")] {
            assert_eq!(class(503, None, reason), Class::GatewayError, "{reason:?}");
            assert_eq!(class(200, Some("14"), reason), Class::GatewayError, "{reason:?}");
        }
        assert_eq!(class(500, None, Some("overflow; hop=inbound")), Class::ServerError);
        assert_eq!(class(200, Some("13"), Some("overflow; hop=inbound")), Class::ServerError);
    }
}
