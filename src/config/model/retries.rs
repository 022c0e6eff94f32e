//! `retries:` as it holds.

use std::time::Duration;

use crate::config::grpc_word;

/// What is sent again, how often and when: route over upstream over defaults over built-in.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// Attempts after the first. Default 1; 0 where the only endpoint is a loopback address or Unix socket.
    pub max: u32,
    /// What for.
    pub when: RetryConditions,
    /// Every request may be repeated, whatever its method.
    pub idempotent: bool,
    /// Also what somebody else already repeats.
    pub nested: bool,
    /// The pause before a retry.
    pub backoff: Backoff,
    /// Bytes of a request's body that are kept to be sent again. Default 64 KiB.
    pub body_bytes: usize,
    /// A second attempt while the first is still out. Default none.
    pub hedge: Option<Hedge>,
}

/// When the second attempt begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Hedge {
    /// So long after the first.
    After(Duration),
    /// When this share of the answers would have come.
    Percentile(f64),
}

/// What a request is sent again for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryConditions {
    /// No connection came about.
    pub connect_failure: bool,
    /// A stream was refused before it was processed.
    pub refused_stream: bool,
    /// The connection or stream ended before the response's headers.
    pub upstream_reset: bool,
    /// `timeouts.per_try` was over.
    pub per_try_timeout: bool,
    /// `timeouts.response` was over.
    pub response_timeout: bool,
    /// The client would get 502, 503 or 504.
    pub gateway_error: bool,
    /// The client would get 500 or more.
    pub server_error: bool,
    /// The client would get one of these.
    pub statuses: Vec<u16>,
    /// A gRPC client would get one of these; bit N stands for the status N.
    pub grpc: u32,
}

impl RetryConditions {
    /// As the file says it.
    pub fn words(&self) -> Vec<String> {
        let flags = [
            (self.connect_failure, "connect_failure"),
            (self.refused_stream, "refused_stream"),
            (self.upstream_reset, "upstream_reset"),
            (self.per_try_timeout, "per_try_timeout"),
            (self.response_timeout, "response_timeout"),
            (self.gateway_error, "gateway_error"),
            (self.server_error, "5xx"),
        ];
        let words = flags.into_iter().filter(|(said, _)| *said).map(|(_, word)| word.to_owned());
        let statuses = self.statuses.iter().map(u16::to_string);
        let grpc = (0..32).filter(|code| self.grpc & (1 << code) != 0).filter_map(grpc_word);
        words.chain(statuses).chain(grpc.map(|word| format!("grpc {word}"))).collect()
    }

    /// True where an attempt that the endpoint's application has not seen is among them.
    pub fn asks_for_unsent(&self) -> bool {
        self.connect_failure || self.refused_stream
    }
}

/// The pause before a retry doubles with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first retry. Default 25 ms.
    pub base: Duration,
    /// At most. Default 1 s.
    pub max: Duration,
}

/// How many retries an upstream may get.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Per request. Default 0.2.
    pub ratio: f64,
    /// A second, besides. Default 1.
    pub min_per_second: u32,
    /// Over which both are counted. Default 10 s.
    pub window: Duration,
}

/// What a route says itself.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct RetryOverrides {
    pub max: Option<u32>,
    pub when: Option<RetryConditions>,
    pub idempotent: Option<bool>,
    pub nested: Option<bool>,
    pub backoff_base: Option<Duration>,
    pub backoff_max: Option<Duration>,
    pub body_bytes: Option<usize>,
    pub hedge: Option<Option<Hedge>>,
}

impl RetryOverrides {
    /// What holds where this lies over `under`.
    pub fn over(&self, under: Retries) -> Retries {
        Retries {
            max: self.max.unwrap_or(under.max),
            when: self.when.clone().unwrap_or(under.when),
            idempotent: self.idempotent.unwrap_or(under.idempotent),
            nested: self.nested.unwrap_or(under.nested),
            backoff: Backoff {
                base: self.backoff_base.unwrap_or(under.backoff.base),
                max: self.backoff_max.unwrap_or(under.backoff.max),
            },
            body_bytes: self.body_bytes.unwrap_or(under.body_bytes),
            hedge: self.hedge.unwrap_or(under.hedge),
        }
    }
}
