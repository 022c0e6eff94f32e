//! `rate_limit:`, `concurrency:`, `mirror:` and `fault:`

use http::StatusCode;

use super::Validator;
use crate::config::builtin;
use crate::config::findings::Finding;
use crate::config::given::{Given, Spanned};
use crate::config::model::{Concurrency, Fault, Mirror, RateLimit, RateLimitKey, UpstreamIndex};
use crate::config::raw::overload as raw;
use crate::config::units::Text;

impl<'a> Validator<'a> {
    pub(super) fn rate_limit(&mut self, given: &Given<raw::RateLimit>) -> Option<RateLimit> {
        let spanned = given.spanned()?;
        let limit = &spanned.value;
        if limit.per_second.is_absent() {
            self.missing(
                spanned.node,
                "this limit has no `per_second`",
                "write it as in `{ per_second: 100, burst: 200 }`",
            );
        }
        let key = limit.key.spanned().and_then(|key| self.rate_limit_key(key));
        if let (Some(keys), true) = (limit.keys.node(), limit.key.is_absent()) {
            let reason = "without `key`, all requests share one bucket";
            self.push(Finding::warning("no-effect", keys, reason).hint("write `key`, or remove it"));
        }
        let per_second = limit.per_second.get()?.0;
        Some(RateLimit {
            per_second,
            burst: limit.burst.get().map_or(per_second, |burst| burst.0),
            key,
            keys: limit.keys.get().map_or(builtin::RATE_LIMIT_KEYS, |keys| keys.0),
            shadow: limit.shadow.get().is_some_and(|shadow| shadow.0),
        })
    }

    fn rate_limit_key(&mut self, key: &Spanned<Text>) -> Option<RateLimitKey> {
        if key.value.0 == "client" {
            return Some(RateLimitKey::Client);
        }
        match key.value.0.strip_prefix("header:") {
            Some(name) => self.header_name(name, key.node).map(RateLimitKey::Header),
            None => {
                let reason = format!("{} does not tell clients apart", self.shown(key.node));
                self.error("invalid-value", key.node, reason, "it can be `client`, or a header as in `header:x-user`");
                None
            }
        }
    }

    pub(super) fn concurrency(&mut self, given: &Given<raw::Concurrency>) -> Option<Concurrency> {
        let spanned = given.spanned()?;
        let long = match &spanned.value {
            raw::Concurrency::Word(_) => return Some(Concurrency { max: None, shadow: false }),
            raw::Concurrency::Long(long) => long,
        };
        if long.max.is_absent() {
            self.missing(
                spanned.node,
                "this limit has no `max`",
                "write it as in `{ max: 500 }` or `{ max: adaptive }`",
            );
        }
        let shadow = long.shadow.get().is_some_and(|shadow| shadow.0);
        Some(Concurrency { max: long.max.get()?.0, shadow })
    }

    pub(super) fn mirror(&mut self, given: &'a Given<raw::Mirror>, sent_to: &[UpstreamIndex]) -> Option<Mirror> {
        let spanned = given.spanned()?;
        if spanned.value.upstream.is_absent() {
            self.missing(
                spanned.node,
                "this mirror leads nowhere",
                "write it as in `{ upstream: shadow, ratio: 0.01 }`",
            );
        }
        let name = spanned.value.upstream.spanned()?;
        let upstream = self.resolve(&name.value.0, name.node)?;
        if sent_to.contains(&upstream) {
            let reason = format!("{} gets these requests already", self.shown(name.node));
            self.error("conflict", name.node, reason, "copies go to another upstream");
        }
        Some(Mirror { upstream, ratio: spanned.value.ratio.get().map_or(1.0, |ratio| ratio.0) })
    }

    pub(super) fn fault(&mut self, given: &'a Given<raw::Fault>) -> Option<Fault> {
        let spanned = given.spanned()?;
        let fault = &spanned.value;
        if fault.delay.is_absent() && fault.abort.is_absent() {
            self.missing(spanned.node, "this fault does nothing", "write `delay: 100ms`, `abort: 503` or both");
        }
        let status = fault.abort.get().and_then(|status| u16::try_from(status.0).ok());
        Some(Fault {
            delay: fault.delay.get().map(|delay| delay.0),
            abort: status.and_then(|status| StatusCode::from_u16(status).ok()),
            ratio: fault.ratio.get().map_or(1.0, |ratio| ratio.0),
            headers: self.header_tests(&fault.headers, &mut true),
        })
    }
}
