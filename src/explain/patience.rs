//! Timeouts as they would hold, and who has said them.

use std::time::Duration;

use http::HeaderMap;

use super::report::{Origin, Timeout};
use crate::config::builtin;
use crate::config::model::{Config, TimeoutOverrides, Timeouts};
use crate::config::write_duration;
use crate::proxy::deadline;
use crate::snapshot::Target;

/// In the order of the request's way.
pub(super) fn timeouts(
    target: &Target,
    route: &TimeoutOverrides,
    config: &Config,
    grpc: bool,
    headers: &HeaderMap,
) -> Vec<Timeout> {
    let own = &config.upstreams[target.upstream.0].timeouts;
    let patience = &target.timeouts;
    let from = |of_route: Option<Option<Duration>>, key: fn(&Timeouts) -> Option<Duration>| match () {
        () if of_route.is_some() => Origin::Route,
        () if key(own) != key(&config.timeouts) => Origin::Upstream,
        () if key(own) != key(&builtin::TIMEOUTS) => Origin::Defaults,
        () => Origin::BuiltIn,
    };
    let request = patience.timeouts.request;
    // The client's holds where it is the shorter one.
    let said = deadline::of_client(target, headers, grpc).filter(|said| request.is_none_or(|own| *said < own));
    let request_from = if said.is_some() { Origin::Client } else { from(route.request, |timeouts| timeouts.request) };
    let all = [
        ("connect", patience.timeouts.connect, from(route.connect, |timeouts| timeouts.connect)),
        ("response", patience.response(grpc), from(route.response, |timeouts| timeouts.response)),
        ("per_try", patience.timeouts.per_try, from(route.per_try, |timeouts| timeouts.per_try)),
        ("idle", patience.idle(grpc), from(route.idle, |timeouts| timeouts.idle)),
        ("request", said.or(request), request_from),
        ("tunnel_idle", patience.timeouts.tunnel_idle, from(route.tunnel_idle, |timeouts| timeouts.tunnel_idle)),
    ];
    let told = all.into_iter().map(|(name, value, from)| Timeout {
        name: name.to_owned(),
        value: value.map_or_else(|| "none".to_owned(), write_duration),
        from,
    });
    told.collect()
}
