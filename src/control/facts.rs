//! What a scrape says of upstreams that no worker counts by itself.
//!
//! Services that were found on demand are told together, under the upstream that stands for them: hosts that somebody
//! calls are no labels.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::snapshot::{Snapshot, Upstream};
use crate::telemetry::metrics::{BreakerFacts, ConcurrencyFacts, DiscoveryFacts, EndpointCount, UpstreamFacts};
use crate::transport::PoolCounts;
use crate::upstream::breaker::Phase;
use crate::upstream::counted::Counted;
use crate::upstream::ejection::Cause;
use crate::upstream::state::EndpointState;

/// An upstream of the configuration, and whom it consists of: itself, or the services that it stands for.
pub(super) struct Together<'s> {
    upstream: &'s Upstream,
    parts: Vec<Cow<'s, Upstream>>,
    counted: Counted,
}

impl<'s> Together<'s> {
    /// All upstreams there are now.
    pub(super) fn all(snapshot: &'s Snapshot) -> Vec<Self> {
        snapshot.upstreams.iter().map(Together::of).collect()
    }

    fn of(upstream: &'s Upstream) -> Self {
        match &upstream.on_demand {
            None => {
                let counted = Counted::of(&upstream.state, &upstream.endpoints);
                Together { upstream, parts: vec![Cow::Borrowed(upstream)], counted }
            }
            Some(on_demand) => {
                let parts = upstream.found().map(Cow::Owned).collect();
                Together { upstream, parts, counted: on_demand.services.counted() }
            }
        }
    }

    fn sum(&self, value: impl Fn(&Upstream) -> u64) -> u64 {
        self.parts.iter().map(|part| value(part)).sum()
    }

    pub(super) fn endpoints(&self) -> [EndpointCount; EndpointState::WORDS.len()] {
        EndpointState::WORDS.map(|state| {
            let count = self.sum(|part| {
                let set = part.endpoints.load();
                set.members.iter().filter(|member| member.state.word() == state).count() as u64
            });
            EndpointCount { upstream: self.upstream.id, state, count }
        })
    }

    pub(super) fn facts(&self, pools: &HashMap<Arc<str>, PoolCounts>, now: Instant) -> UpstreamFacts {
        UpstreamFacts {
            upstream: self.upstream.id,
            requests_in_flight: self.sum(|part| part.state.requests.used().into()),
            requests_waiting: self.sum(|part| part.state.waiting.used().into()),
            connections_open: self.sum(|part| part.state.connections.used().into()),
            connections_idle: self.sum(|part| pools.get(&part.state.name).map_or(0, |pool| pool.idle)),
            retries_in_flight: self.sum(|part| part.state.retries.used().into()),
            retry_budget_balance: self.parts.iter().map(|part| part.state.budget.balance(now)).sum(),
            amplification: self.parts.iter().map(|part| part.state.budget.amplification(now)).fold(1.0, f64::max),
            ejections: Cause::ALL.map(|cause| (cause.as_str(), self.counted.ejections[cause as usize])),
            health_checks: self.upstream.health.as_ref().map(|_| self.counted.checks),
            breaker: self.upstream.breaker.as_ref().map(|_| BreakerFacts {
                states: Phase::ALL
                    .map(|phase| (phase.as_str(), self.sum(|part| u64::from(part.state.breaker.phase() == phase)))),
                opened: self.counted.opened,
                refused: self.counted.refused,
            }),
        }
    }

    /// `None` where the endpoints stand in the file.
    pub(super) fn discovery(&self) -> Option<DiscoveryFacts> {
        (self.upstream.is_discovered || self.upstream.on_demand.is_some()).then(|| DiscoveryFacts {
            upstream: self.upstream.id,
            age: self.parts.iter().filter_map(|part| Some(part.endpoints.status().succeeded?.elapsed())).max(),
            errors: self.counted.failures,
            updates: self.counted.updates,
        })
    }
}

/// Limits of requests in flight, and where they stand now.
pub(super) fn concurrency(snapshot: &Snapshot) -> Vec<ConcurrencyFacts> {
    let mut facts = Vec::new();
    for listener in &snapshot.listeners {
        let own = listener.admission.as_ref().map(|admission| (Arc::<str>::from(""), admission));
        let routes = listener.routes.iter().filter_map(|route| Some((route.name.clone(), route.admission.as_ref()?)));
        for (route, admission) in own.into_iter().chain(routes) {
            if let Some((_, limit)) = admission.concurrency() {
                facts.push(ConcurrencyFacts { listener: listener.name.clone(), route, limit });
            }
        }
    }
    facts
}
