//! What spans say of a request that nothing else does. There is none where its trace is not recorded.

use std::net::SocketAddr;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Version};
use tokio::time::Instant;

use super::forwarded::Client;
use crate::body::Body;
use crate::config::model::EndpointAddress;
use crate::outcome::Outcome;
use crate::telemetry::clock::Clock;
use crate::telemetry::ids::Ids;
use crate::telemetry::trace_context::TRACESTATE;
use crate::telemetry::traces::AttemptSpan;
use crate::upstream::state::EndpointState;

/// Collected while the request goes its way.
pub(super) struct Spans {
    pub(super) id: [u8; 16],
    pub(super) tracestate: Option<HeaderValue>,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) client: Option<Client>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) attempts: Vec<AttemptSpan>,
}

/// An attempt that has ended: there is an answer's head, or none will come.
pub(crate) struct AttemptEnd<'a> {
    /// What the endpoint got as its parent.
    pub(crate) id: [u8; 16],
    /// Counted from 0.
    pub(crate) number: u32,
    pub(crate) endpoint: &'a EndpointState,
    pub(crate) scheme: &'static str,
    pub(crate) head: &'a Request<Body>,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) outcome: Outcome,
    /// What the endpoint spoke, where it answered.
    pub(crate) version: Option<Version>,
}

impl Spans {
    pub(super) fn begin(headers: &HeaderMap, ids: &mut Ids) -> Box<Self> {
        Box::new(Spans {
            id: ids.span_id(),
            tracestate: headers.get(TRACESTATE).cloned(),
            user_agent: headers.get(USER_AGENT).cloned(),
            client: None,
            peer: None,
            attempts: Vec::with_capacity(1),
        })
    }

    /// Of a request that nobody was to hear of before it failed.
    pub(super) fn late(ids: &mut Ids) -> Box<Self> {
        Self::begin(&HeaderMap::new(), ids)
    }

    pub(super) fn attempt(&mut self, attempt: &AttemptEnd<'_>, clock: &Clock) {
        self.attempts.push(AttemptSpan {
            id: attempt.id,
            number: attempt.number,
            began: clock.unix(attempt.began.into_std()),
            ended: clock.unix(attempt.ended.into_std()),
            endpoint: attempt.endpoint.label.clone(),
            address: match attempt.endpoint.address {
                EndpointAddress::Tcp(address) => Some(address),
                EndpointAddress::Unix(_) => None,
            },
            scheme: attempt.scheme,
            uri: attempt.head.uri().clone(),
            host: attempt.head.headers().get(HOST).cloned(),
            version: attempt.version,
            outcome: attempt.outcome,
            broke: None,
        });
    }
}
