//! What outlives a configuration: every upstream's memory and endpoints, found again by each generation that names them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::endpoints::{Discovered, Endpoints};
use super::moment::Moment;
use super::services::{Service, Services};
use super::state::UpstreamState;
use crate::admission::{Admission, Terms};
use crate::config::model::{DiscoverFrom, Endpoint, EndpointSource, OnDemand, Upstream};

/// A listener, and one of its routes.
type Place = (String, Option<String>);

/// Holds nothing alive: what no generation uses goes away by itself.
#[derive(Debug)]
pub(crate) struct Registry {
    upstreams: Mutex<HashMap<String, Known>>,
    admissions: Mutex<HashMap<Place, Weak<Admission>>>,
    services: Mutex<HashMap<String, (DiscoverFrom, Weak<Services>)>>,
    /// Sources that are to be followed from now on, for the control side. As many as services are found: see there.
    found: mpsc::UnboundedSender<Found>,
}

/// Endpoints that somebody waits for.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) source: EndpointSource,
    pub(crate) endpoints: Arc<Endpoints>,
}

#[derive(Debug)]
struct Known {
    state: Weak<UpstreamState>,
    source: EndpointSource,
    endpoints: Weak<Endpoints>,
}

impl Registry {
    /// An empty one. `found` hears of sources that are to be followed for services which are called.
    pub(crate) fn new(found: mpsc::UnboundedSender<Found>) -> Self {
        let (upstreams, admissions, services) = Default::default();
        Registry { upstreams, admissions, services, found }
    }

    /// The upstream's memory, new where it has none, under these limits; and its endpoints. Those are the same as long
    /// as their source is; a new source's are followed from then on, unless the file itself names them.
    pub(crate) fn upstream(&self, upstream: &Upstream) -> (Arc<UpstreamState>, Arc<Endpoints>) {
        let mut upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        let known = upstreams.get(&upstream.name);
        let state = match known.and_then(|known| known.state.upgrade()) {
            Some(state) => {
                state.set_limits(upstream.limits);
                state
            }
            None => Arc::new(UpstreamState::new(&upstream.name, upstream.limits)),
        };
        state.set_slow_start(upstream.balancing.slow_start);
        state.budget.set(upstream.retry_budget);
        state.set_initially_down(upstream.health.as_ref().is_some_and(|health| !health.initially_up));
        let same = known.filter(|known| known.source == upstream.source);
        if let Some(endpoints) = same.and_then(|known| known.endpoints.upgrade()) {
            endpoints.set_on_empty(upstream.on_empty);
            return (state, endpoints);
        }
        let endpoints = Arc::new(Endpoints::awaited(state.clone(), upstream.on_empty));
        if let EndpointSource::Static(written) = &upstream.source {
            endpoints.publish(written.iter().map(discovered).collect(), Instant::now());
        }
        upstreams.retain(|_, known| known.state.strong_count() > 0);
        let known = Known {
            state: Arc::downgrade(&state),
            source: upstream.source.clone(),
            endpoints: Arc::downgrade(&endpoints),
        };
        upstreams.insert(upstream.name.clone(), known);
        (state, endpoints)
    }
}

impl Registry {
    /// The services that the upstream of this template has found, as long as the same registry knows them. Each goes on
    /// under what the template says now.
    pub(crate) fn services(&self, template: &Upstream, from: &DiscoverFrom) -> Arc<Services> {
        let mut all = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let same = all.get(&template.name).filter(|(known, _)| known == from);
        if let Some(services) = same.and_then(|(_, services)| services.upgrade()) {
            for service in services.known() {
                self.upstream(&of_service(template, &service.name, service.source.clone()));
            }
            return services;
        }
        all.retain(|_, (_, services)| services.strong_count() > 0);
        let services = Arc::new(Services::default());
        all.insert(template.name.clone(), (from.clone(), Arc::downgrade(&services)));
        services
    }

    /// The service of this name, followed from now on where it is new. `None` where there are too many.
    pub(crate) fn find(
        &self,
        services: &Services,
        template: &Upstream,
        rules: &OnDemand,
        name: &str,
        source: EndpointSource,
        now: Moment,
    ) -> Option<Arc<Service>> {
        services.find(name, rules.max, now, || {
            let (state, endpoints) = self.upstream(&of_service(template, name, source.clone()));
            // Nobody hears of it only where the proxy ends.
            let _ = self.found.send(Found { source: source.clone(), endpoints: endpoints.clone() });
            (source, state, endpoints)
        })
    }

    /// The limits of a listener or route, with what they remember where the terms are the same.
    pub(crate) fn admission(&self, listener: &str, route: Option<&str>, terms: Terms) -> Option<Arc<Admission>> {
        let mut admissions = self.admissions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (listener.to_owned(), route.map(str::to_owned));
        if let Some(known) = admissions.get(&key).and_then(Weak::upgrade)
            && *known.terms() == terms
        {
            return Some(known);
        }
        let admission = Arc::new(Admission::new(terms, Instant::now())?);
        admissions.retain(|_, known| known.strong_count() > 0);
        admissions.insert(key, Arc::downgrade(&admission));
        Some(admission)
    }
}

/// A service as an upstream of its own. The name cannot be that of another: no written one holds a slash.
fn of_service(template: &Upstream, name: &str, source: EndpointSource) -> Upstream {
    Upstream { name: format!("{}/{name}", template.name), source, ..template.clone() }
}

fn discovered(written: &Endpoint) -> Discovered {
    let zone = written.zone.as_deref().map(Arc::from);
    Discovered {
        address: written.address.clone(),
        weight: u32::from(written.weight),
        priority: 0,
        zone,
        protocol: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::OnEmpty;
    use crate::config::{Document, LoadOptions, load};

    fn registry() -> Registry {
        Registry::new(mpsc::unbounded_channel().0)
    }

    fn upstream(endpoints: &str) -> Upstream {
        let text = format!(
            "listeners: {{ a: {{ address: \"127.0.0.1:1\", upstream: a }} }}\nupstreams: {{ a: {{ static: [{endpoints}] }} }}"
        );
        let document = Document { name: "test", bytes: text.as_bytes() };
        load(document, &|_: &str| None, &LoadOptions::default()).unwrap().config.upstreams.remove(0)
    }

    #[tokio::test]
    async fn the_same_source_has_the_same_endpoints() {
        let registry = registry();
        let (state, endpoints) = registry.upstream(&upstream("\"127.0.0.1:1\""));
        let (same_state, same_endpoints) = registry.upstream(&upstream("\"127.0.0.1:1\""));
        assert!(Arc::ptr_eq(&state, &same_state) && Arc::ptr_eq(&endpoints, &same_endpoints));
    }

    #[tokio::test]
    async fn what_an_empty_answer_is_worth_may_change() {
        let registry = registry();
        let mut upstream = upstream("\"127.0.0.1:1\"");
        let (_state, endpoints) = registry.upstream(&upstream);
        assert_ne!(endpoints.on_empty(), OnEmpty::Drop);
        upstream.on_empty = OnEmpty::Drop;
        let (_state, same) = registry.upstream(&upstream);
        assert!(Arc::ptr_eq(&endpoints, &same));
        assert_eq!(endpoints.on_empty(), OnEmpty::Drop);
    }

    #[tokio::test]
    async fn another_source_keeps_the_upstreams_and_the_endpoints_memory() {
        let registry = registry();
        let (state, endpoints) = registry.upstream(&upstream("\"127.0.0.1:1\""));
        let (same_state, others) = registry.upstream(&upstream("\"127.0.0.1:2\", \"127.0.0.1:1\""));
        assert!(Arc::ptr_eq(&state, &same_state) && !Arc::ptr_eq(&endpoints, &others));
        assert!(Arc::ptr_eq(&endpoints.load().members[0].state, &others.load().members[1].state));
        assert_eq!(endpoints.load().members.len(), 1, "the earlier generation has what it had");
    }

    #[tokio::test]
    async fn what_nobody_uses_is_forgotten() {
        let registry = registry();
        let endpoint = registry.upstream(&upstream("\"127.0.0.1:1\"")).1.load().members[0].state.id;
        assert_ne!(registry.upstream(&upstream("\"127.0.0.1:1\"")).1.load().members[0].state.id, endpoint);
    }
}
