//! What is counted for each listener and each upstream.
//!
//! To count one more thing: a variant here, its row, and (for a metric of its own) an entry in [`super::family`].

use super::family::{self, Family};
use super::histogram::Histogram;
use crate::config::model::TlsVersion;
use crate::error::Reason;

/// Things of a listener that rise and fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerGauge {
    /// Requests that have begun and not ended.
    RequestsInFlight,
    /// Open HTTP/1 connections from clients.
    Http1Connections,
    /// Open HTTP/2 connections from clients.
    Http2Connections,
    /// Open connections whose bytes are passed on as they are.
    TcpConnections,
}

/// Things that happen at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerCounter {
    /// An HTTP/1 connection.
    Http1Connections,
    /// An HTTP/2 connection.
    Http2Connections,
    /// A connection whose bytes are passed on as they are.
    TcpConnections,
    /// `limits.connections` was reached.
    RejectedConnectionLimit,
    /// The first request's headers did not arrive within `limits.header_timeout`.
    RejectedHeaderTimeout,
    /// No file descriptor was left.
    RejectedNoDescriptor,
    /// Its client floods HTTP/2.
    RejectedHttp2Flood,
    /// A request that somebody before had sent already.
    RetriedRequests,
    /// `rate_limit` would have refused a request.
    ShadowRateLimited,
    /// `concurrency` would have.
    ShadowConcurrencyLimited,
    /// A connection of TLS 1.2.
    Tls1_2,
    /// A connection of TLS 1.3.
    Tls1_3,
    /// A connection in the clear, where TLS is spoken too.
    TlsNone,
    /// A handshake that came to its end.
    TlsHandshakes,
    /// One that took longer than `limits.header_timeout`.
    TlsTimeout,
    /// The client left before its end.
    TlsClosed,
    /// The client did not speak TLS.
    TlsNotTls,
    /// The client showed no certificate, and has to.
    TlsNoCertificate,
    /// The client's certificate is not to be trusted.
    TlsBadCertificate,
    /// The client ended it, because it does not trust us or wants another version.
    TlsRefusedByClient,
    /// There is no version, cipher suite or protocol that both speak.
    TlsIncompatible,
    /// Bytes that are none of TLS, or wrong.
    TlsBroken,
}

/// Things that happen at an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamCounter {
    /// A connection was made.
    Connected,
    /// No connection was made.
    ConnectFailure,
    /// No connection was made in time.
    ConnectTimeout,
    /// The endpoint was not who it should be.
    TlsError,
    /// Body bytes to endpoints.
    SentBytes,
    /// Body bytes from endpoints.
    ReceivedBytes,
    /// A request went out again on a fresh connection because its idle one had died.
    StaleConnectionReplays,
    /// A retry that the endpoint answered well.
    RetrySuccess,
    /// A retry that failed as well.
    RetryFailure,
    /// No retry: there were as many as there may be.
    RetryRefusedMax,
    /// No retry: the budget was spent.
    RetryRefusedBudget,
    /// No retry: the body was not kept.
    RetryRefusedBodyTooLarge,
    /// No retry: no time was left.
    RetryRefusedDeadline,
    /// No retry: it might have been processed twice.
    RetryRefusedNotIdempotent,
    /// A second attempt that ran beside the first answered.
    HedgeWon,
    /// The first did.
    HedgeLost,
    /// A copy of a request was sent.
    MirrorSent,
    /// A copy was not: its body was too long or not there, or too many were on their way.
    MirrorSkipped,
}

/// A metric and the value of its second label, where it has one.
pub(super) type Row = (&'static Family, Option<&'static str>);

impl ListenerGauge {
    pub(super) const ALL: [Self; 4] =
        [Self::RequestsInFlight, Self::Http1Connections, Self::Http2Connections, Self::TcpConnections];

    pub(super) const fn row(self) -> Row {
        match self {
            Self::RequestsInFlight => (&family::REQUESTS_IN_FLIGHT, None),
            Self::Http1Connections => (&family::DOWNSTREAM_CONNECTIONS_OPEN, Some("h1")),
            Self::Http2Connections => (&family::DOWNSTREAM_CONNECTIONS_OPEN, Some("h2")),
            Self::TcpConnections => (&family::DOWNSTREAM_CONNECTIONS_OPEN, Some("tcp")),
        }
    }
}

impl ListenerCounter {
    /// A connection of this version of TLS.
    pub const fn of_tls(version: TlsVersion) -> Self {
        match version {
            TlsVersion::V1_2 => Self::Tls1_2,
            TlsVersion::V1_3 => Self::Tls1_3,
        }
    }

    /// True for what only listeners have that speak TLS.
    pub(super) const fn is_of_tls(self) -> bool {
        self as usize >= Self::Tls1_2 as usize
    }

    pub(super) const ALL: [Self; 22] = [
        Self::Http1Connections,
        Self::Http2Connections,
        Self::TcpConnections,
        Self::RejectedConnectionLimit,
        Self::RejectedHeaderTimeout,
        Self::RejectedNoDescriptor,
        Self::RejectedHttp2Flood,
        Self::RetriedRequests,
        Self::ShadowRateLimited,
        Self::ShadowConcurrencyLimited,
        Self::Tls1_2,
        Self::Tls1_3,
        Self::TlsNone,
        Self::TlsHandshakes,
        Self::TlsTimeout,
        Self::TlsClosed,
        Self::TlsNotTls,
        Self::TlsNoCertificate,
        Self::TlsBadCertificate,
        Self::TlsRefusedByClient,
        Self::TlsIncompatible,
        Self::TlsBroken,
    ];

    pub(super) const fn row(self) -> Row {
        match self {
            Self::Http1Connections => (&family::DOWNSTREAM_CONNECTIONS, Some("h1")),
            Self::Http2Connections => (&family::DOWNSTREAM_CONNECTIONS, Some("h2")),
            Self::TcpConnections => (&family::DOWNSTREAM_CONNECTIONS, Some("tcp")),
            Self::RejectedConnectionLimit => (&family::DOWNSTREAM_REJECTS, Some("connection_limit")),
            Self::RejectedHeaderTimeout => (&family::DOWNSTREAM_REJECTS, Some("header_timeout")),
            Self::RejectedNoDescriptor => (&family::DOWNSTREAM_REJECTS, Some("no_descriptor")),
            Self::RejectedHttp2Flood => (&family::DOWNSTREAM_REJECTS, Some("http2_flood")),
            Self::RetriedRequests => (&family::RETRIED_REQUESTS, None),
            Self::ShadowRateLimited => (&family::SHADOW_REFUSALS, Some(Reason::RateLimited.as_str())),
            Self::ShadowConcurrencyLimited => (&family::SHADOW_REFUSALS, Some(Reason::ConcurrencyLimited.as_str())),
            Self::Tls1_2 => (&family::TLS_CONNECTIONS, Some("1.2")),
            Self::Tls1_3 => (&family::TLS_CONNECTIONS, Some("1.3")),
            Self::TlsNone => (&family::TLS_CONNECTIONS, Some("none")),
            Self::TlsHandshakes => (&family::TLS_HANDSHAKES, Some("success")),
            Self::TlsTimeout => (&family::TLS_HANDSHAKES, Some("timeout")),
            Self::TlsClosed => (&family::TLS_HANDSHAKES, Some("closed")),
            Self::TlsNotTls => (&family::TLS_HANDSHAKES, Some("not_tls")),
            Self::TlsNoCertificate => (&family::TLS_HANDSHAKES, Some("no_certificate")),
            Self::TlsBadCertificate => (&family::TLS_HANDSHAKES, Some("bad_certificate")),
            Self::TlsRefusedByClient => (&family::TLS_HANDSHAKES, Some("refused_by_client")),
            Self::TlsIncompatible => (&family::TLS_HANDSHAKES, Some("incompatible")),
            Self::TlsBroken => (&family::TLS_HANDSHAKES, Some("broken")),
        }
    }
}

impl UpstreamCounter {
    pub(super) const ALL: [Self; 18] = [
        Self::Connected,
        Self::ConnectFailure,
        Self::ConnectTimeout,
        Self::TlsError,
        Self::SentBytes,
        Self::ReceivedBytes,
        Self::StaleConnectionReplays,
        Self::RetrySuccess,
        Self::RetryFailure,
        Self::RetryRefusedMax,
        Self::RetryRefusedBudget,
        Self::RetryRefusedBodyTooLarge,
        Self::RetryRefusedDeadline,
        Self::RetryRefusedNotIdempotent,
        Self::HedgeWon,
        Self::HedgeLost,
        Self::MirrorSent,
        Self::MirrorSkipped,
    ];

    pub(super) const fn row(self) -> Row {
        match self {
            Self::Connected => (&family::UPSTREAM_CONNECTS, Some("success")),
            Self::ConnectFailure => (&family::UPSTREAM_CONNECTS, Some(Reason::ConnectFailure.as_str())),
            Self::ConnectTimeout => (&family::UPSTREAM_CONNECTS, Some(Reason::ConnectTimeout.as_str())),
            Self::TlsError => (&family::UPSTREAM_CONNECTS, Some(Reason::TlsError.as_str())),
            Self::SentBytes => (&family::UPSTREAM_SENT_BYTES, None),
            Self::ReceivedBytes => (&family::UPSTREAM_RECEIVED_BYTES, None),
            Self::StaleConnectionReplays => (&family::STALE_CONNECTION_REPLAYS, None),
            Self::RetrySuccess => (&family::RETRIES, Some("success")),
            Self::RetryFailure => (&family::RETRIES, Some("failure")),
            Self::RetryRefusedMax => (&family::RETRIES, Some("max")),
            Self::RetryRefusedBudget => (&family::RETRIES, Some("budget")),
            Self::RetryRefusedBodyTooLarge => (&family::RETRIES, Some("body_too_large")),
            Self::RetryRefusedDeadline => (&family::RETRIES, Some("deadline")),
            Self::RetryRefusedNotIdempotent => (&family::RETRIES, Some("not_idempotent")),
            Self::HedgeWon => (&family::HEDGES, Some("won")),
            Self::HedgeLost => (&family::HEDGES, Some("lost")),
            Self::MirrorSent => (&family::MIRRORED_REQUESTS, Some("sent")),
            Self::MirrorSkipped => (&family::MIRRORED_REQUESTS, Some("skipped")),
        }
    }
}

/// The numbers of one listener in one worker.
#[derive(Debug, Clone, Default)]
pub(super) struct ListenerCells {
    pub(super) gauges: [i64; ListenerGauge::ALL.len()],
    pub(super) counters: [u64; ListenerCounter::ALL.len()],
}

/// The numbers of one upstream in one worker.
#[derive(Debug, Clone, Default)]
pub(super) struct UpstreamCells {
    pub(super) counters: [u64; UpstreamCounter::ALL.len()],
    /// By the outcome's word; there are few, so a search beats a table. Bounded by the words there are.
    pub(super) attempts: Vec<(&'static str, Histogram)>,
}

impl ListenerCells {
    pub(super) fn add(&mut self, other: &Self) {
        add(&mut self.gauges, &other.gauges);
        add(&mut self.counters, &other.counters);
    }
}

impl UpstreamCells {
    pub(super) fn add(&mut self, other: &Self) {
        add(&mut self.counters, &other.counters);
        for (outcome, histogram) in &other.attempts {
            self.attempts(outcome).add(histogram);
        }
    }

    pub(super) fn attempts(&mut self, outcome: &'static str) -> &mut Histogram {
        // The compiler cannot return from inside the search (rust-lang/rust#51545), so position comes first.
        let index = self.attempts.iter().position(|(known, _)| *known == outcome).unwrap_or_else(|| {
            self.attempts.push((outcome, Histogram::default()));
            self.attempts.len() - 1
        });
        &mut self.attempts[index].1
    }
}

fn add<T: std::ops::AddAssign + Copy>(sums: &mut [T], more: &[T]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += *more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_the_order_of_the_enums() {
        assert!(ListenerGauge::ALL.iter().enumerate().all(|(index, item)| *item as usize == index));
        assert!(ListenerCounter::ALL.iter().enumerate().all(|(index, item)| *item as usize == index));
        assert!(UpstreamCounter::ALL.iter().enumerate().all(|(index, item)| *item as usize == index));
    }
}
