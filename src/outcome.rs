//! What an attempt's end means. One classification for everybody who asks: retries, metrics, the circuit breaker and
//! the ejection of endpoints.
//!
//! HTTP says it with the status. gRPC says 200 and means what stands in `grpc-status`: in the headers of an answer
//! without messages, else in the trailers. What no endpoint answered has a [`Reason`].

use crate::error::Reason;

/// gRPC statuses that are the endpoint's failure; the others are answers to what was asked for.
mod grpc {
    pub(super) const OK: u8 = 0;
    /// What servers make of an exception.
    pub(super) const UNKNOWN: u8 = 2;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const DATA_LOSS: u8 = 15;
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered: the HTTP status, and the gRPC status as far as it is known yet.
    Answered {
        /// HTTP's.
        status: u16,
        /// gRPC's, from headers or trailers.
        grpc: Option<u8>,
    },
    /// It did not, or not to the end.
    Failed(Reason),
}

/// What that says of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It works; what it answered may still be bad news for the client.
    Success,
    /// It answered that it is broken: 5xx, and gRPC's `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL` and `DATA_LOSS`.
    ServerError,
    /// It answered that nobody is there behind it, or that it cannot now: 502, 503, 504, and gRPC's `UNAVAILABLE`.
    GatewayError,
    /// No connection came about.
    ConnectFailure,
    /// It refused a stream before doing anything with it.
    Refused,
    /// It ended the connection or stream before its answer was complete, or answered nonsense.
    Reset,
    /// It answered too late, or not at all.
    Timeout,
    /// It has nothing to do with the endpoint: the client left, or this proxy refused.
    Nothing,
}

impl Outcome {
    /// An answer with this status.
    pub const fn answered(status: u16) -> Self {
        Outcome::Answered { status, grpc: None }
    }

    /// The classification.
    pub const fn class(self) -> Class {
        match self {
            Outcome::Answered { status: 502..=504, .. } => Class::GatewayError,
            Outcome::Answered { status: 500.., .. } => Class::ServerError,
            Outcome::Answered { grpc: Some(code), .. } => match code {
                grpc::UNAVAILABLE => Class::GatewayError,
                grpc::UNKNOWN | grpc::DEADLINE_EXCEEDED | grpc::INTERNAL | grpc::DATA_LOSS => Class::ServerError,
                _ => Class::Success,
            },
            Outcome::Answered { .. } => Class::Success,
            Outcome::Failed(reason) => match reason {
                Reason::ConnectFailure | Reason::ConnectTimeout | Reason::TlsError => Class::ConnectFailure,
                Reason::RefusedStream => Class::Refused,
                Reason::UpstreamReset | Reason::UpstreamClosedIdle | Reason::UpstreamProtocolError => Class::Reset,
                // The client's and the route's deadlines are as long as they were made: an endpoint that is given
                // 1 ms is not broken. `idle_timeout` can be the client's silence, and is then told of as the client's.
                Reason::ResponseTimeout | Reason::PerTryTimeout | Reason::IdleTimeout => Class::Timeout,
                _ => Class::Nothing,
            },
        }
    }

    /// A word of few: those of `retries.when` for answers, the reason for failures.
    pub const fn label(self) -> &'static str {
        match (self, self.class()) {
            (Outcome::Failed(reason), _) => reason.as_str(),
            (_, Class::GatewayError) => "gateway_error",
            (Outcome::Answered { status: 500.., .. }, _) => "5xx",
            (Outcome::Answered { grpc: None | Some(grpc::OK), .. }, _) => "success",
            (_, Class::ServerError) => "grpc_error",
            (..) => "success",
        }
    }
}

impl Class {
    /// True where the endpoint failed, false where it did not, `None` where nothing is known of it.
    pub const fn is_failure(self) -> Option<bool> {
        match self {
            Class::Success => Some(false),
            // Refused before it was processed, by an endpoint that ends or is full: it asks to go elsewhere, and gets it.
            Class::Refused | Class::Nothing => None,
            Class::ServerError | Class::GatewayError | Class::ConnectFailure | Class::Reset | Class::Timeout => {
                Some(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_classified_by_status_and_grpc_by_its_own() {
        for (status, grpc, class, label) in [
            (200, None, Class::Success, "success"),
            (404, None, Class::Success, "success"),
            (429, None, Class::Success, "success"),
            (500, None, Class::ServerError, "5xx"),
            (501, None, Class::ServerError, "5xx"),
            (502, None, Class::GatewayError, "gateway_error"),
            (504, None, Class::GatewayError, "gateway_error"),
            (505, None, Class::ServerError, "5xx"),
            (200, Some(0), Class::Success, "success"),
            (200, Some(5), Class::Success, "success"),
            (200, Some(8), Class::Success, "success"),
            (200, Some(13), Class::ServerError, "grpc_error"),
            (200, Some(14), Class::GatewayError, "gateway_error"),
            (503, Some(0), Class::GatewayError, "gateway_error"),
        ] {
            let outcome = Outcome::Answered { status, grpc };
            assert_eq!((outcome.class(), outcome.label()), (class, label), "{outcome:?}");
        }
    }

    #[test]
    fn nobody_blames_the_endpoint_for_what_the_client_or_the_proxy_did() {
        for reason in Reason::ALL {
            let outcome = Outcome::Failed(reason);
            assert_eq!(outcome.label(), reason.as_str());
            let blamed = outcome.class().is_failure() == Some(true);
            let gateway = matches!(reason.status().as_u16(), 502..=504);
            assert!(!blamed || gateway, "{reason} is blamed");
        }
        for reason in [Reason::ClientCancelled, Reason::Overflow, Reason::DeadlineExceeded, Reason::RequestTimeout] {
            assert_eq!(Outcome::Failed(reason).class(), Class::Nothing);
        }
    }
}
