//! How an upstream stands in a running proxy.

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::model::{Trust, UpstreamIndex};
use crate::proxy::affinity;
use crate::proxy::forwarded::Client;
use crate::snapshot::{Fallback, Upstream};
use crate::upstream::breaker::Phase;
use crate::upstream::moment::Moment;
use crate::upstream::turns::foreseen;

/// At this moment.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Now {
    /// Requests in flight, and how many may be.
    pub(super) requests: u32,
    pub(super) requests_max: u32,
    /// `null` where there is no circuit breaker.
    pub(super) breaker: Option<Breaker>,
    pub(super) endpoints: Vec<Endpoint>,
    /// Who would get this request; `null` where that depends on the worker that takes it and on whom it sent others to, or
    /// where the breaker keeps it from all of them.
    pub(super) next: Option<String>,
    /// What becomes of it in place of that, where the breaker is open.
    pub(super) aside: Option<String>,
    /// What went wrong with the endpoints' source since its last answer.
    pub(super) discovery_error: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Breaker {
    pub(super) state: String,
    /// Until it lets probes through; `null` while it is closed.
    pub(super) seconds_left: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) weight: u32,
    /// Those of a higher number get requests where nobody of a lower one can take them.
    pub(super) priority: u16,
    pub(super) zone: Option<String>,
    pub(super) state: String,
    pub(super) in_flight: u32,
    pub(super) latency_ms: Option<f64>,
    /// Until it is back; `null` where it is not ejected.
    pub(super) ejected_seconds: Option<f64>,
    /// Why its latest check has failed.
    pub(super) check_error: Option<String>,
}

impl Now {
    /// `headers` are those that go out: they may decide who gets the request.
    pub(super) fn of(upstream: &Upstream, headers: &HeaderMap, name_of: impl Fn(UpstreamIndex) -> String) -> Self {
        let now = Moment::from(Instant::now());
        let nobody = Client::find(&Trust::Hops(0), None, headers);
        let key = affinity::key(&upstream.balancing.load_balancer, headers, &nobody);
        let next = foreseen(&upstream.endpoints, &upstream.balancing, key, now);
        let endpoints = upstream.endpoints.load();
        let endpoints = endpoints.members.iter().map(|member| {
            let state = &member.state;
            let word = state.word();
            Endpoint {
                address: state.label.to_string(),
                weight: member.weight,
                priority: member.priority,
                zone: member.zone.as_deref().map(str::to_owned),
                state: word.to_owned(),
                in_flight: state.in_flight(),
                latency_ms: state.latency.last().map(|latency| latency.as_secs_f64() * 1_000.0),
                ejected_seconds: (word == "ejected").then(|| state.ejection.until().since(now).as_secs_f64()),
                check_error: state.health.error(),
            }
        });
        let breaker = upstream.breaker.as_ref().map(|_| {
            let breaker = &upstream.state.breaker;
            let phase = breaker.phase();
            Breaker {
                state: phase.as_str().to_owned(),
                seconds_left: (phase != Phase::Closed).then(|| breaker.wait(now).as_secs_f64()),
            }
        });
        let aside = aside(upstream, now, name_of);
        Now {
            requests: upstream.state.requests.used(),
            requests_max: upstream.state.requests.max(),
            breaker,
            endpoints: endpoints.collect(),
            next: next.filter(|_| aside.is_none()).map(|state| state.label.to_string()),
            aside,
            discovery_error: upstream.endpoints.status().error,
        }
    }
}

/// Where an open breaker sends requests.
fn aside(upstream: &Upstream, now: Moment, name_of: impl Fn(UpstreamIndex) -> String) -> Option<String> {
    let (breaker, state) = (upstream.breaker.as_ref()?, &upstream.state.breaker);
    // Once its time is over, requests are its probes.
    let refuses = state.phase() == Phase::Open && !state.wait(now).is_zero() && !breaker.policy.shadow;
    refuses.then(|| match &breaker.fallback {
        Fallback::Refuse => "nobody: breaker_open".to_owned(),
        Fallback::Upstream(target) => format!("the fallback, {}", name_of(target.upstream)),
        Fallback::Respond(answer) => format!("the fallback, an answer of {}", answer.status.as_u16()),
    })
}
