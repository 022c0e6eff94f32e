//! A request's labels in one word.

use http::Method;

use super::names::{OTHER, RouteId, UpstreamId};
use crate::error::Reason;

/// What a request's counters are kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey {
    /// The listener's route that it took, or the listener's number for none.
    pub route: RouteId,
    /// Where it went; `None` where it was answered here.
    pub upstream: Option<UpstreamId>,
    /// How it asked.
    pub method: MethodLabel,
    /// The status that the client got (499 where it had left).
    pub code: u16,
    /// The gRPC status, where the request was gRPC.
    pub grpc: Option<u8>,
    /// Why it failed, where it did.
    pub reason: Option<Reason>,
}

/// A method as a label: one of those that RFC 9110 and RFC 5789 define, or `_OTHER`, as OpenTelemetry has it, so that
/// clients cannot make series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodLabel(u8);

const METHODS: [&str; 10] = ["_OTHER", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];

impl From<&Method> for MethodLabel {
    fn from(method: &Method) -> Self {
        MethodLabel(match *method {
            Method::GET => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::DELETE => 4,
            Method::HEAD => 5,
            Method::OPTIONS => 6,
            Method::PATCH => 7,
            Method::CONNECT => 8,
            Method::TRACE => 9,
            _ => 0,
        })
    }
}

impl MethodLabel {
    /// For requests that were no HTTP, so that they had no method.
    pub const UNKNOWN: MethodLabel = MethodLabel(0);

    /// The word in metrics and spans; `_OTHER` where a stranger has thought it up.
    pub fn as_str(self) -> &'static str {
        METHODS.get(usize::from(self.0)).copied().unwrap_or(METHODS[0])
    }
}

/// A [`RequestKey`] as a number: route 16 bits, upstream 16 (0: none), then code 10, method 4, gRPC status 5 (0: none),
/// reason 6 (0: none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PackedKey(u64);

/// The part of a [`PackedKey`] that durations and bytes are kept by: route, upstream, class of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DurationKey(u64);

/// Known gRPC statuses end at 16 (unauthenticated).
const LAST_GRPC: u8 = 16;

impl PackedKey {
    /// Stand for every key beyond the bound, errors and others. No route has the number that they hold.
    pub(super) const OTHER_ERRORS: PackedKey = PackedKey(u64::MAX);
    pub(super) const OTHER: PackedKey = PackedKey(u64::MAX - 1);

    #[inline]
    pub(super) fn new(key: &RequestKey) -> Self {
        let upstream = key.upstream.map_or(0, |id| u64::from(id.0) + 1);
        let grpc = key.grpc.map_or(0, |code| u64::from(code.min(LAST_GRPC + 1)) + 1);
        let reason = key.reason.map_or(0, |reason| reason as u64 + 1);
        let code = u64::from(key.code.min(999));
        PackedKey(
            u64::from(key.route.0) << 48
                | upstream << 32
                | code << 15
                | u64::from(key.method.0) << 11
                | grpc << 6
                | reason,
        )
    }

    /// What durations of such requests are kept by.
    pub(super) fn duration_key(self) -> DurationKey {
        DurationKey(self.0 >> 32 << 8 | (self.code() / 100))
    }

    /// A reason, a status of 500 or more, or a failing gRPC status.
    pub(super) fn is_error(self) -> bool {
        self != Self::OTHER && (self.reason().is_some() || self.code() >= 500 || self.0 >> 6 & 0x1f > 1)
    }

    pub(super) fn is_other(self) -> bool {
        self.0 >= Self::OTHER.0
    }

    /// A reason that is not the client's; where there is none, a status of 500 or more, or a gRPC status that stands for
    /// one: unknown, deadline exceeded, internal, unavailable, data loss.
    pub(super) fn is_failure(self) -> bool {
        match self.reason() {
            Some(reason) => !reason.is_no_ones_fault(),
            None => self.code() >= 500 || [2, 4, 13, 14, 15].map(|code| code + 1).contains(&(self.0 >> 6 & 0x1f)),
        }
    }

    pub(super) fn reason(self) -> Option<Reason> {
        if self.is_other() {
            return None;
        }
        (self.0 & 0x3f).checked_sub(1).and_then(|index| Reason::ALL.get(index as usize)).copied()
    }

    fn code(self) -> u64 {
        self.0 >> 15 & 0x3ff
    }

    pub(super) fn route(self) -> RouteId {
        RouteId((self.0 >> 48) as u16)
    }

    pub(super) fn upstream(self) -> Option<UpstreamId> {
        upstream((self.0 >> 32) as u16)
    }

    /// Label values of method, code, gRPC code and reason.
    pub(super) fn labels(self) -> [String; 4] {
        if self.is_other() {
            return [OTHER, OTHER, OTHER, if self.is_error() { OTHER } else { "" }].map(str::to_owned);
        }
        let method = MethodLabel((self.0 >> 11 & 0xf) as u8).as_str().to_owned();
        let grpc = match self.0 >> 6 & 0x1f {
            0 => String::new(),
            code if code <= u64::from(LAST_GRPC) + 1 => (code - 1).to_string(),
            _ => OTHER.to_owned(),
        };
        let reason = self.reason().map_or("", Reason::as_str).to_owned();
        [method, self.code().to_string(), grpc, reason]
    }
}

impl DurationKey {
    /// Stands for every key beyond the bound.
    pub(super) const OTHER: DurationKey = DurationKey(u64::MAX);

    pub(super) fn route(self) -> RouteId {
        RouteId((self.0 >> 24) as u16)
    }

    pub(super) fn upstream(self) -> Option<UpstreamId> {
        upstream((self.0 >> 8) as u16)
    }

    pub(super) fn class(self) -> &'static str {
        match self.0 & 0xff {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => OTHER,
        }
    }
}

fn upstream(packed: u16) -> Option<UpstreamId> {
    packed.checked_sub(1).map(UpstreamId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> RequestKey {
        RequestKey {
            route: RouteId(65_000),
            upstream: Some(UpstreamId(64_000)),
            method: MethodLabel::from(&Method::TRACE),
            code: 599,
            grpc: Some(16),
            reason: Some(Reason::Internal),
        }
    }

    #[test]
    fn packing_keeps_every_label() {
        let packed = PackedKey::new(&key());
        assert_eq!((packed.route(), packed.upstream()), (RouteId(65_000), Some(UpstreamId(64_000))));
        assert_eq!(packed.labels(), ["TRACE", "599", "16", "internal"]);
        let duration = packed.duration_key();
        assert_eq!((duration.route(), duration.upstream()), (RouteId(65_000), Some(UpstreamId(64_000))));
        assert_eq!(duration.class(), "5xx");
    }

    #[test]
    fn what_is_not_there_is_empty() {
        let packed = PackedKey::new(&RequestKey { upstream: None, grpc: None, reason: None, code: 204, ..key() });
        assert_eq!(packed.upstream(), None);
        assert_eq!(packed.labels(), ["TRACE", "204", "", ""]);
        assert_eq!(packed.duration_key().upstream(), None);
    }

    #[test]
    fn labels_that_peers_choose_are_bounded() {
        let odd = Method::from_bytes(b"BREW").unwrap();
        let packed = PackedKey::new(&RequestKey { method: (&odd).into(), grpc: Some(255), code: u16::MAX, ..key() });
        assert_eq!(packed.labels()[..3], ["_OTHER", "999", "other"]);
        assert_eq!(packed.duration_key().class(), "other");
        assert_eq!(PackedKey::OTHER_ERRORS.labels(), ["other"; 4]);
        assert_eq!(PackedKey::OTHER.labels(), ["other", "other", "other", ""]);
    }

    #[test]
    fn every_method_and_reason_has_its_own_word() {
        for (index, word) in METHODS.iter().enumerate().skip(1) {
            let method = Method::from_bytes(word.as_bytes()).unwrap();
            assert_eq!(MethodLabel::from(&method), MethodLabel(index as u8), "{word}");
        }
        for reason in Reason::ALL {
            let packed = PackedKey::new(&RequestKey { reason: Some(reason), ..key() });
            assert_eq!(packed.labels()[3], reason.as_str());
        }
        assert!(Reason::ALL.len() < 1 << 6, "reasons fit their bits");
    }
}
