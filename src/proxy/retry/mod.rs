//! Whether a request is sent again, and when: everything that is decided between two attempts.
//!
//! A request is sent again where all of this holds, asked in this order:
//! 1. what happened is among the route's conditions;
//! 2. nobody before this proxy repeats the request already, and nobody behind it did: two hops that retry multiply;
//! 3. it has retries left;
//! 4. it was not processed, or may be processed twice;
//! 5. its body is still there;
//! 6. the pause before the next attempt ends in time;
//! 7. the upstream's budget pays for it, before the pause: who waits has been counted.

mod said;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use self::said::{Wait, X_OUTRIGGER_RETRY_REFUSED};
use super::answer::grpc_status;
use super::replay::Replay;
use crate::config::model::{Backoff, Retries, RetryConditions};
use crate::error::{Error, Reason};
use crate::outcome::{Class, Outcome};
use crate::telemetry::metrics::UpstreamCounter;
use crate::transport::Deadlines;

/// Where there is no bound of any kind.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What stopped further retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There were as many as there may be, in this hop or another.
    Max,
    /// The budget was spent, in this hop or one behind it.
    Budget,
    /// The body was longer than what is kept.
    BodyTooLarge,
    /// There was no time left.
    Deadline,
    /// It may have been processed, and must not be twice.
    NotIdempotent,
}

impl Refused {
    const ALL: [Refused; 5] =
        [Refused::Max, Refused::Budget, Refused::BodyTooLarge, Refused::Deadline, Refused::NotIdempotent];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Refused::Max => "max",
            Refused::Budget => "budget",
            Refused::BodyTooLarge => "body_too_large",
            Refused::Deadline => "deadline",
            Refused::NotIdempotent => "not_idempotent",
        }
    }

    pub(super) const fn counter(self) -> UpstreamCounter {
        match self {
            Refused::Max => UpstreamCounter::RetryRefusedMax,
            Refused::Budget => UpstreamCounter::RetryRefusedBudget,
            Refused::BodyTooLarge => UpstreamCounter::RetryRefusedBodyTooLarge,
            Refused::Deadline => UpstreamCounter::RetryRefusedDeadline,
            Refused::NotIdempotent => UpstreamCounter::RetryRefusedNotIdempotent,
        }
    }

    /// Tells the hop before, which might retry otherwise.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        headers.insert(X_OUTRIGGER_RETRY_REFUSED, HeaderValue::from_static(self.as_str()));
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        Refused::ALL.into_iter().find(|refused| refused.as_str().as_bytes() == value.as_bytes())
    }
}

/// What comes after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This is the answer.
    Final,
    /// It would be sent again, but for this.
    Refused(Refused),
    /// Once more, after a pause.
    Again(Duration),
}

/// How an attempt ended, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    outcome: Outcome,
    /// What the client would get.
    status: u16,
    grpc: Option<u8>,
    /// The endpoint's application has seen nothing of it.
    unsent: bool,
    wait: Wait,
    behind: Option<Refused>,
}

impl Ended {
    /// An answer whose headers are there. `unix`: now, for dates.
    pub(super) fn answered(status: u16, headers: &HeaderMap, is_grpc: bool, unix: impl Fn() -> Duration) -> Self {
        let grpc = if is_grpc { grpc_status(headers) } else { None };
        let wait = said::wait(headers, is_grpc, unix);
        let behind = headers.get(X_OUTRIGGER_RETRY_REFUSED).and_then(Refused::parse);
        Ended { outcome: Outcome::Answered { status, grpc }, status, grpc, unsent: false, wait, behind }
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// No answer.
    pub(super) fn failed(error: &Error, is_grpc: bool) -> Self {
        Ended {
            outcome: Outcome::Failed(error.reason),
            status: error.reason.status().as_u16(),
            grpc: is_grpc.then(|| error.reason.grpc_status()),
            unsent: error.unsent,
            wait: Wait::Unsaid,
            behind: None,
        }
    }
}

/// A request between its attempts.
#[derive(Debug)]
pub(crate) struct Retrying<'a> {
    terms: &'a Retries,
    /// May be processed twice.
    repeatable: bool,
    /// Attempts of others, before the first of ours.
    before: u32,
    /// Of ours.
    retries: u32,
}

impl<'a> Retrying<'a> {
    pub(crate) fn new(terms: &'a Retries, method: &Method, headers: &HeaderMap, grpc: bool, edge: bool) -> Self {
        let repeatable = terms.idempotent || method.is_idempotent() || headers.contains_key(IDEMPOTENCY_KEY);
        let before = if edge { 0 } else { said::attempts_before(headers, grpc) };
        Retrying { terms, repeatable, before, retries: 0 }
    }

    /// True where a second attempt can come to pass at all.
    pub(crate) fn is_possible(&self) -> bool {
        self.terms.max > 0 && (self.before == 0 || self.terms.nested)
    }

    pub(crate) fn may_repeat(&self) -> bool {
        self.repeatable
    }

    /// True where one more attempt may run beside this one.
    pub(crate) fn may_hedge(&self) -> bool {
        self.is_possible() && self.repeatable && self.retries < self.terms.max
    }

    /// It does.
    pub(super) fn hedged(&mut self) {
        self.retries += 1;
    }

    /// True where somebody else says that it has sent this request before.
    pub(crate) fn is_somebodys_retry(&self) -> bool {
        self.before > 0
    }

    /// What comes next. `pay` is asked last.
    pub(super) fn after(
        &mut self,
        ended: &Ended,
        body: BodyLeft,
        now: Instant,
        deadlines: &Deadlines,
        random: f64,
        pay: impl FnOnce() -> bool,
    ) -> Verdict {
        if !matches(&self.terms.when, ended) || self.terms.max == 0 {
            return Verdict::Final;
        }
        if !self.terms.nested {
            if self.before > 0 {
                return Verdict::Refused(Refused::Max);
            }
            if let Some(refused @ (Refused::Max | Refused::Budget)) = ended.behind {
                return Verdict::Refused(refused);
            }
        }
        if self.retries >= self.terms.max || ended.wait == Wait::Never {
            return Verdict::Refused(Refused::Max);
        }
        if !ended.unsent && !self.repeatable {
            return Verdict::Refused(Refused::NotIdempotent);
        }
        match body {
            BodyLeft::Whole => {}
            BodyLeft::TooLarge => return Verdict::Refused(Refused::BodyTooLarge),
            BodyLeft::Gone => return Verdict::Refused(Refused::NotIdempotent),
        }
        let pause = match ended.wait {
            Wait::Exactly(pause) => pause,
            Wait::AtLeast(pause) => pause.max(pause_before(self.terms.backoff, self.retries + 1, random)),
            Wait::Unsaid | Wait::Never => pause_before(self.terms.backoff, self.retries + 1, random),
        };
        // Where nobody said how long the whole may take, no pause is longer than an answer might have been waited for.
        let longest = deadlines.response.unwrap_or(LONGEST_PAUSE);
        if deadlines.request.map_or(pause > longest, |deadline| now + pause >= deadline) {
            return Verdict::Refused(Refused::Deadline);
        }
        if !pay() {
            return Verdict::Refused(Refused::Budget);
        }
        self.retries += 1;
        Verdict::Again(pause)
    }

    /// The same for an attempt that runs beside this one.
    pub(super) fn announce_next(&self, headers: &mut HeaderMap, grpc: bool) {
        said::announce(headers, self.before + self.retries + 1, grpc);
    }

    /// Tells whoever gets the next attempt that it is not the first.
    pub(super) fn announce(&self, headers: &mut HeaderMap, grpc: bool) {
        said::announce(headers, self.before + self.retries, grpc);
    }
}

/// What there is of a body for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLeft {
    Whole,
    /// Longer than what is kept.
    TooLarge,
    /// Sent, and not kept because it must not be sent twice.
    Gone,
}

impl BodyLeft {
    pub(super) fn of(body: &Replay) -> Self {
        match (body.is_repeatable(), body.is_too_large()) {
            (true, _) => BodyLeft::Whole,
            (false, true) => BodyLeft::TooLarge,
            (false, false) => BodyLeft::Gone,
        }
    }
}

/// Conditions that are words of what happened look at that; the others at what the client would get, whoever says it.
fn matches(when: &RetryConditions, ended: &Ended) -> bool {
    let class = ended.outcome.class();
    let word = match ended.outcome {
        Outcome::Failed(Reason::PerTryTimeout) => when.per_try_timeout,
        Outcome::Failed(Reason::ResponseTimeout) => when.response_timeout,
        Outcome::Failed(_) => match class {
            Class::ConnectFailure => when.connect_failure,
            Class::Refused => when.refused_stream,
            Class::Reset => when.upstream_reset,
            _ => false,
        },
        Outcome::Answered { .. } => false,
    };
    // What the proxy or the client ended is nobody's to repeat.
    let ours = matches!(ended.outcome, Outcome::Failed(_)) && class == Class::Nothing;
    let by_grpc = ended.grpc.is_some_and(|code| code < 32 && when.grpc & (1 << code) != 0);
    let by_status = ended.grpc.is_none()
        && (when.gateway_error && matches!(ended.status, 502..=504)
            || when.server_error && ended.status >= 500
            || when.statuses.contains(&ended.status));
    let by_answer =
        matches!(ended.outcome, Outcome::Answered { .. }) && when.gateway_error && class == Class::GatewayError;
    word || !ours && (by_grpc || by_status || by_answer)
}

/// `base`, doubled with each retry, at most `max`; and a fifth more or less, so that those who failed together do not
/// come back together. `random` is from 0 to 1. The rule is gRPC's (gRFC A6).
fn pause_before(backoff: Backoff, retry: u32, random: f64) -> Duration {
    let doubled = backoff.base.saturating_mul(1_u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(backoff.max).mul_f64(0.8 + 0.4 * random)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(25), max: Duration::from_secs(1) };

    fn terms(max: u32) -> Retries {
        let when = RetryConditions {
            connect_failure: true,
            refused_stream: true,
            gateway_error: true,
            per_try_timeout: true,
            grpc: 1 << 8,
            ..RetryConditions::default()
        };
        Retries { max, when, idempotent: false, nested: false, backoff: BACKOFF, body_bytes: 0, hedge: None }
    }

    fn retrying<'a>(terms: &'a Retries, method: &Method, headers: &[(&'static str, &'static str)]) -> Retrying<'a> {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Retrying::new(terms, method, &headers.collect(), false, false)
    }

    fn answered(status: u16, headers: &[(&'static str, &'static str)]) -> Ended {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Ended::answered(status, &headers.collect(), false, || Duration::from_secs(784_111_777))
    }

    fn failed(reason: Reason, unsent: bool) -> Ended {
        let error = Error::upstream(reason);
        Ended::failed(&if unsent { error.unsent() } else { error }, false)
    }

    fn until(request: Option<Instant>) -> Deadlines {
        Deadlines {
            connect: None,
            response: Some(Duration::from_secs(15)),
            per_try: None,
            idle: None,
            stream_idle: None,
            request,
            request_reason: Reason::RequestTimeout,
            tunnel_idle: None,
        }
    }

    fn next(retrying: &mut Retrying<'_>, ended: Ended) -> Verdict {
        retrying.after(&ended, BodyLeft::Whole, Instant::now(), &until(None), 0.5, || true)
    }

    #[test]
    fn what_may_have_been_processed_needs_an_idempotent_request() {
        let terms = terms(5);
        let again = |method: &Method, headers: &[_], ended| {
            matches!(next(&mut retrying(&terms, method, headers), ended), Verdict::Again(_))
        };
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            assert!(again(&method, &[], answered(503, &[])), "{method}");
        }
        for method in [Method::POST, Method::PATCH] {
            assert!(!again(&method, &[], answered(503, &[])));
            assert!(!again(&method, &[], failed(Reason::PerTryTimeout, false)));
            assert!(again(&method, &[], failed(Reason::ConnectFailure, true)));
            assert!(again(&method, &[], failed(Reason::RefusedStream, true)));
            assert!(again(&method, &[("idempotency-key", "7")], answered(503, &[])));
        }
        let verdict = next(&mut retrying(&terms, &Method::POST, &[]), answered(502, &[]));
        assert_eq!(verdict, Verdict::Refused(Refused::NotIdempotent));
        let claimed = Retries { idempotent: true, ..terms.clone() };
        assert!(matches!(next(&mut retrying(&claimed, &Method::POST, &[]), answered(503, &[])), Verdict::Again(_)));
    }

    #[test]
    fn only_what_was_asked_for_is_retried() {
        let terms = terms(1);
        let mut get = retrying(&terms, &Method::GET, &[]);
        for ended in [
            answered(200, &[]),
            answered(500, &[]),
            answered(429, &[("retry-after", "1")]),
            failed(Reason::ClientCancelled, false),
            failed(Reason::Overflow, true),
            failed(Reason::RequestTimeout, false),
            failed(Reason::NoEndpoint, true),
        ] {
            assert_eq!(next(&mut get, ended), Verdict::Final, "{ended:?}");
        }
        // 502 is what the client would get for a reset.
        assert!(matches!(next(&mut get, failed(Reason::UpstreamReset, false)), Verdict::Again(_)));
        assert_eq!(next(&mut get, answered(503, &[])), Verdict::Refused(Refused::Max));
    }

    #[test]
    fn grpc_looks_at_its_own_status() {
        let terms = Retries { idempotent: true, ..terms(9) };
        let mut call = retrying(&terms, &Method::POST, &[]);
        let mut verdict = |headers: &[(&'static str, &'static str)]| {
            let headers =
                headers.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
            next(&mut call, Ended::answered(200, &headers, true, Duration::default))
        };
        assert_eq!(verdict(&[]), Verdict::Final);
        assert_eq!(verdict(&[("grpc-status", "0")]), Verdict::Final);
        assert_eq!(verdict(&[("grpc-status", "13")]), Verdict::Final);
        assert!(matches!(verdict(&[("grpc-status", "14")]), Verdict::Again(_)), "a gateway error");
        assert!(matches!(verdict(&[("grpc-status", "8")]), Verdict::Again(_)), "listed");
        let pushed_back = verdict(&[("grpc-status", "8"), ("grpc-retry-pushback-ms", "1234")]);
        assert_eq!(pushed_back, Verdict::Again(Duration::from_millis(1234)));
        for never in ["-1", "soon", ""] {
            let verdict = verdict(&[("grpc-status", "8"), ("grpc-retry-pushback-ms", never)]);
            assert_eq!(verdict, Verdict::Refused(Refused::Max), "{never}");
        }
    }

    #[test]
    fn hops_do_not_multiply() {
        let plain = terms(3);
        for header in [("x-outrigger-attempt", "2"), ("x-outrigger-attempt", "9999")] {
            let mut again = retrying(&plain, &Method::GET, &[header]);
            assert!(!again.is_possible() && again.is_somebodys_retry());
            assert_eq!(next(&mut again, answered(503, &[])), Verdict::Refused(Refused::Max));
        }
        for (header, verdict) in [("budget", Refused::Budget), ("max", Refused::Max)] {
            let mut first = retrying(&plain, &Method::GET, &[("x-outrigger-attempt", "1")]);
            let ended = answered(503, &[("x-outrigger-retry-refused", header)]);
            assert_eq!(next(&mut first, ended), Verdict::Refused(verdict));
        }
        // That the hop behind must not repeat it does not mean that we must not.
        let ended = answered(503, &[("x-outrigger-retry-refused", "not_idempotent")]);
        assert!(matches!(next(&mut retrying(&plain, &Method::GET, &[]), ended), Verdict::Again(_)));
        let nested = Retries { nested: true, ..terms(3) };
        let mut again = retrying(&nested, &Method::GET, &[("x-outrigger-attempt", "2")]);
        assert!(matches!(next(&mut again, answered(503, &[])), Verdict::Again(_)));
        let mut headers = HeaderMap::new();
        again.announce(&mut headers, true);
        assert_eq!(
            (headers["x-outrigger-attempt"].as_bytes(), headers["grpc-previous-rpc-attempts"].as_bytes()),
            (&b"3"[..], &b"2"[..])
        );
        let stranger = HeaderMap::from_iter([(said::X_OUTRIGGER_ATTEMPT, HeaderValue::from_static("5"))]);
        assert!(Retrying::new(&plain, &Method::GET, &stranger, false, true).is_possible(), "edge");
    }

    #[test]
    fn pauses_are_as_long_as_they_have_to_be_and_end_in_time() {
        let terms = terms(9);
        let mut get = retrying(&terms, &Method::GET, &[]);
        assert_eq!(next(&mut get, answered(503, &[("retry-after", "3")])), Verdict::Again(Duration::from_secs(3)));
        let date = [("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")];
        assert_eq!(next(&mut get, answered(503, &date)), Verdict::Again(Duration::from_secs(10)));
        let now = Instant::now();
        let ended = answered(503, &[("retry-after", "3")]);
        let mut paid = false;
        let verdict = get.after(&ended, BodyLeft::Whole, now, &until(Some(now + Duration::from_secs(3))), 0.0, || {
            paid = true;
            true
        });
        assert_eq!((verdict, paid), (Verdict::Refused(Refused::Deadline), false), "nothing is paid for nothing");
        let verdict = get.after(&ended, BodyLeft::TooLarge, now, &until(None), 0.0, || true);
        assert_eq!(verdict, Verdict::Refused(Refused::BodyTooLarge));
        let verdict = get.after(&ended, BodyLeft::Whole, now, &until(None), 0.0, || false);
        assert_eq!(verdict, Verdict::Refused(Refused::Budget));
        let ended = answered(503, &[("retry-after", "16")]);
        assert_eq!(next(&mut get, ended), Verdict::Refused(Refused::Deadline), "longer than timeouts.response");
        let ended = answered(503, &[("retry-after", "99999999999999999999999")]);
        assert_eq!(next(&mut get, ended), Verdict::Refused(Refused::Deadline), "longer than any number");
    }

    proptest! {
        #[test]
        fn pauses_double_up_to_their_bound(retry in 1_u32..100, random in 0.0_f64..1.0) {
            let exact = BACKOFF.base.as_secs_f64() * 2_f64.powi(retry as i32 - 1);
            let pause = pause_before(BACKOFF, retry, random).as_secs_f64();
            let exact = exact.min(BACKOFF.max.as_secs_f64());
            prop_assert!(pause >= exact * 0.8 - 1e-6 && pause <= exact * 1.2 + 1e-6, "{pause} for {exact}");
        }

        #[test]
        fn there_are_never_more_than_allowed(max in 0_u32..6, pay in prop::collection::vec(any::<bool>(), 20)) {
            let terms = terms(max);
            let mut get = retrying(&terms, &Method::GET, &[]);
            let again = pay.iter().filter(|pay| {
                let verdict = get.after(&answered(503, &[]), BodyLeft::Whole, Instant::now(), &until(None), 0.5, || **pay);
                matches!(verdict, Verdict::Again(_))
            });
            prop_assert_eq!(again.count(), (max as usize).min(pay.iter().filter(|pay| **pay).count()));
        }
    }
}
