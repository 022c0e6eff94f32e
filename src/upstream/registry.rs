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
    services: Mutex<HashMap<String, OfRoute>>,
    /// Sources that are to be followed from now on, for the control side. As many as services are found: see there.
    found: mpsc::UnboundedSender<Found>,
}

/// Endpoints that somebody waits for.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) source: EndpointSource,
    pub(crate) endpoints: Arc<Endpoints>,
}

/// The services that a route has found.
#[derive(Debug)]
struct OfRoute {
    /// What each of them is like, as the generation in force says.
    template: Upstream,
    from: DiscoverFrom,
    services: Weak<Services>,
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

    /// The upstream's memory, new where it has none; and its endpoints. Those are the same as long as their source is.
    /// Nothing changes by this: until a generation is put in force, another may be, or it may be refused.
    pub(crate) fn upstream(&self, upstream: &Upstream) -> (Arc<UpstreamState>, Arc<Endpoints>) {
        let upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        let known = upstreams.get(&upstream.name);
        let state = known.and_then(|known| known.state.upgrade());
        let state = state.unwrap_or_else(|| Arc::new(UpstreamState::new(&upstream.name, upstream.limits)));
        let same = known.filter(|known| known.source == upstream.source);
        let endpoints = same.and_then(|known| known.endpoints.upgrade());
        let endpoints = endpoints.unwrap_or_else(|| Arc::new(Endpoints::awaited(state.clone(), upstream.on_empty)));
        (state, endpoints)
    }

    /// The services that the upstream of this name has found, as long as the same registry knows them. Changes nothing.
    pub(crate) fn services(&self, template: &Upstream, from: &DiscoverFrom) -> Arc<Services> {
        let all = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let same = all.get(&template.name).filter(|known| known.from == *from);
        same.and_then(|known| known.services.upgrade()).unwrap_or_default()
    }

    /// The limits of a listener or route, with what those in force remember; `None` where there are none. Changes nothing.
    pub(crate) fn admission(&self, listener: &str, route: Option<&str>, terms: Terms) -> Option<Arc<Admission>> {
        if terms.is_empty() {
            return None;
        }
        let admissions = self.admissions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = admissions.get(&place(listener, route)).and_then(Weak::upgrade);
        let same = known.clone().filter(|known| *known.terms() == terms);
        Some(same.unwrap_or_else(|| Arc::new(Admission::new(terms, known.as_deref(), Instant::now()))))
    }

    /// A generation with these is in force from now on: they are held to its terms, and the next one finds them. What
    /// the file itself names as endpoints is there at once; what a registry names is followed by whoever asks it.
    pub(crate) fn put_in_force<'a>(
        &self,
        upstreams: impl Iterator<Item = (&'a Upstream, &'a Arc<UpstreamState>, &'a Arc<Endpoints>)>,
        services: impl Iterator<Item = (&'a Upstream, &'a DiscoverFrom, &'a Arc<Services>)>,
        admissions: impl Iterator<Item = (&'a str, Option<&'a str>, &'a Arc<Admission>)>,
    ) {
        let services: Vec<_> = services.collect();
        let mut all = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, known| known.services.strong_count() > 0);
        for (template, from, services) in &services {
            let (template, from, services) = ((*template).clone(), (*from).clone(), Arc::downgrade(services));
            all.insert(template.name.clone(), OfRoute { template, from, services });
        }
        drop(all);
        // Not before: what is found from now on is like the new template. And before anything is locked here: who calls
        // a service for the first time locks its route's services, and then the others, one at a time.
        let services: Vec<_> =
            services.into_iter().map(|(template, _, services)| (template, services.held())).collect();
        let mut known = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| known.state.strong_count() > 0);
        upstreams.for_each(|(upstream, state, endpoints)| remember(&mut known, upstream, state, endpoints));
        for (template, held) in services {
            // Each goes on under what the template says now.
            for service in held {
                let upstream = of_service(template, &service.name, service.source.clone());
                remember(&mut known, &upstream, &service.state, &service.endpoints);
            }
        }
        drop(known);
        let mut known = self.admissions.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| known.strong_count() > 0);
        known
            .extend(admissions.map(|(listener, route, admission)| (place(listener, route), Arc::downgrade(admission))));
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
            let upstream = self.of_service(services, template, name, source.clone());
            let (state, endpoints) = self.upstream(&upstream);
            let mut known = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, known| known.state.strong_count() > 0);
            remember(&mut known, &upstream, &state, &endpoints);
            // Nobody hears of it only where the proxy ends.
            let _ = self.found.send(Found { source: source.clone(), endpoints: endpoints.clone() });
            (source, state, endpoints)
        })
    }

    /// As the generation in force has it: the caller's may be bygone.
    fn of_service(&self, services: &Services, template: &Upstream, name: &str, source: EndpointSource) -> Upstream {
        let all = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&template.name).filter(|known| std::ptr::eq(known.services.as_ptr(), services));
        of_service(known.map_or(template, |known| &known.template), name, source)
    }
}

/// Holds an upstream to its terms, and lets it be found again.
fn remember(
    all: &mut HashMap<String, Known>,
    upstream: &Upstream,
    state: &Arc<UpstreamState>,
    endpoints: &Arc<Endpoints>,
) {
    hold_to_terms(upstream, state, endpoints);
    let before = all.get(&upstream.name).and_then(|known| known.endpoints.upgrade());
    if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, endpoints)) {
        return;
    }
    if let Some(before) = before.filter(|_| !endpoints.is_answered()) {
        endpoints.succeed(&before);
    }
    let (state, source) = (Arc::downgrade(state), upstream.source.clone());
    all.insert(upstream.name.clone(), Known { state, source, endpoints: Arc::downgrade(endpoints) });
}

fn hold_to_terms(upstream: &Upstream, state: &UpstreamState, endpoints: &Endpoints) {
    state.set_limits(upstream.limits);
    state.set_slow_start(upstream.balancing.slow_start);
    state.budget.set(upstream.retry_budget);
    let initially_down = upstream.health.as_ref().is_some_and(|health| !health.initially_up);
    if state.set_initially_down(initially_down) && upstream.health.is_none() {
        // Who waits for its first check would wait for ever.
        endpoints.load().members.iter().for_each(|member| state.unchecked(&member.state));
    }
    endpoints.set_on_empty(upstream.on_empty);
    if let EndpointSource::Static(written) = &upstream.source
        && !endpoints.is_answered()
    {
        endpoints.publish(written.iter().map(discovered).collect(), Instant::now());
    }
}

fn place(listener: &str, route: Option<&str>) -> Place {
    (listener.to_owned(), route.map(str::to_owned))
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
    use crate::config::model::{Concurrency, EndpointAddress, HealthCheck, OnEmpty, Probe};
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

    /// As a generation that has nothing but this upstream.
    fn put_in_force(registry: &Registry, upstream: &Upstream) -> (Arc<UpstreamState>, Arc<Endpoints>) {
        let (state, endpoints) = registry.upstream(upstream);
        let upstreams = [(upstream, &state, &endpoints)].into_iter();
        registry.put_in_force(upstreams, std::iter::empty(), std::iter::empty());
        (state, endpoints)
    }

    #[tokio::test]
    async fn the_same_source_has_the_same_endpoints() {
        let registry = registry();
        let (state, endpoints) = put_in_force(&registry, &upstream("\"127.0.0.1:1\""));
        let (same_state, same_endpoints) = put_in_force(&registry, &upstream("\"127.0.0.1:1\""));
        assert!(Arc::ptr_eq(&state, &same_state) && Arc::ptr_eq(&endpoints, &same_endpoints));
    }

    #[tokio::test]
    async fn what_an_empty_answer_is_worth_may_change() {
        let registry = registry();
        let mut upstream = upstream("\"127.0.0.1:1\"");
        let (_state, endpoints) = put_in_force(&registry, &upstream);
        assert_ne!(endpoints.on_empty(), OnEmpty::Drop);
        upstream.on_empty = OnEmpty::Drop;
        let (_state, same) = put_in_force(&registry, &upstream);
        assert!(Arc::ptr_eq(&endpoints, &same));
        assert_eq!(endpoints.on_empty(), OnEmpty::Drop);
    }

    #[tokio::test]
    async fn another_source_keeps_the_upstreams_and_the_endpoints_memory() {
        let registry = registry();
        let (state, endpoints) = put_in_force(&registry, &upstream("\"127.0.0.1:1\""));
        let (same_state, others) = put_in_force(&registry, &upstream("\"127.0.0.1:2\", \"127.0.0.1:1\""));
        assert!(Arc::ptr_eq(&state, &same_state) && !Arc::ptr_eq(&endpoints, &others));
        assert!(Arc::ptr_eq(&endpoints.load().members[0].state, &others.load().members[1].state));
        assert_eq!(endpoints.load().members.len(), 1, "the earlier generation has what it had");
    }

    #[test]
    fn a_swap_and_first_calls_do_not_wait_for_each_other() {
        let text = "listeners: { out: { address: 127.0.0.1:1, routes: [{ discover: consul }] } }";
        let document = Document { name: "test", bytes: text.as_bytes() };
        let config = load(document, &|_: &str| None, &LoadOptions::default()).unwrap().config;
        let template = &config.upstreams[0];
        let EndpointSource::OnDemand(rules) = &template.source else { panic!("{:?}", template.source) };
        let registry = registry();
        let services = registry.services(template, &rules.from);
        let source = looked_up("v1").source;
        std::thread::scope(|scope| {
            let first_calls = scope.spawn(|| {
                for number in 0..2_000_u32 {
                    let now = Moment::from_micros(u64::from(number) * 10_000_000);
                    let name = format!("service-{number}");
                    registry.find(&services, template, rules, &name, source.clone(), now).unwrap();
                }
            });
            while !first_calls.is_finished() {
                let services = [(template, &rules.from, &services)].into_iter();
                registry.put_in_force(std::iter::empty(), services, std::iter::empty());
            }
        });
    }

    #[test]
    fn what_a_bygone_generation_finds_is_like_what_the_one_in_force_says() {
        let text = "listeners: { out: { address: 127.0.0.1:1, routes: [{ discover: consul }] } }";
        let document = Document { name: "test", bytes: text.as_bytes() };
        let config = load(document, &|_: &str| None, &LoadOptions::default()).unwrap().config;
        let old = &config.upstreams[0];
        let EndpointSource::OnDemand(rules) = &old.source else { panic!("{:?}", old.source) };
        let registry = registry();
        let services = registry.services(old, &rules.from);
        let mut new = old.clone();
        new.limits.requests = 7;
        for template in [old, &new] {
            registry.put_in_force(
                std::iter::empty(),
                [(template, &rules.from, &services)].into_iter(),
                std::iter::empty(),
            );
        }
        let find = |services: &Services, name: &str| {
            registry.find(services, old, rules, name, looked_up(name).source, Moment::from_micros(1)).unwrap()
        };
        assert_eq!(find(&services, "a").state.requests.max(), 7);
        // That of another registry, which has other services, is not.
        assert_eq!(find(&Services::default(), "b").state.requests.max(), old.limits.requests);
    }

    #[tokio::test]
    async fn what_nobody_uses_is_forgotten() {
        let registry = registry();
        let endpoint = put_in_force(&registry, &upstream("\"127.0.0.1:1\"")).1.load().members[0].state.id;
        assert_ne!(put_in_force(&registry, &upstream("\"127.0.0.1:1\"")).1.load().members[0].state.id, endpoint);
    }

    #[tokio::test]
    async fn what_is_not_put_in_force_changes_nothing() {
        let registry = registry();
        let mut upstream = upstream("\"127.0.0.1:1\"");
        let (state, endpoints) = put_in_force(&registry, &upstream);
        let before = (state.requests.max(), state.slow_start(), endpoints.on_empty());
        let written = upstream.clone();
        upstream.limits.requests = 7;
        upstream.balancing.slow_start = Some(std::time::Duration::from_secs(7));
        upstream.on_empty = OnEmpty::Drop;
        let (refused, same) = registry.upstream(&upstream);
        assert!(Arc::ptr_eq(&refused, &state) && Arc::ptr_eq(&same, &endpoints));
        assert_eq!((state.requests.max(), state.slow_start(), endpoints.on_empty()), before);
        // Another source that was refused does not cost the one in force its endpoints.
        upstream.source = EndpointSource::Static(Vec::new());
        assert!(!Arc::ptr_eq(&registry.upstream(&upstream).1, &endpoints));
        assert!(Arc::ptr_eq(&put_in_force(&registry, &written).1, &endpoints));
    }

    #[tokio::test]
    async fn refused_limits_do_not_cost_those_in_force_their_memory() {
        let registry = registry();
        let terms = |max| Terms { rate_limit: None, concurrency: Some(Concurrency { max: Some(max), shadow: false }) };
        let first = registry.admission("a", None, terms(1)).unwrap();
        let admissions = [("a", None, &first)].into_iter();
        registry.put_in_force(std::iter::empty(), std::iter::empty(), admissions);
        let _busy = first.admit(b"", Instant::now()).unwrap();
        assert_eq!(registry.admission("a", None, terms(2)).unwrap().concurrency(), Some((1, 2)));
        assert!(Arc::ptr_eq(&registry.admission("a", None, terms(1)).unwrap(), &first));
        assert!(registry.admission("a", None, Terms { rate_limit: None, concurrency: None }).is_none());
    }

    /// As a registry names them.
    fn looked_up(tag: &str) -> Upstream {
        let text = format!(
            "listeners: {{ a: {{ address: \"127.0.0.1:1\", upstream: a }} }}\nupstreams: {{ a: \"consul://web?tag={tag}\" }}"
        );
        let document = Document { name: "test", bytes: text.as_bytes() };
        load(document, &|_: &str| None, &LoadOptions::default()).unwrap().config.upstreams.remove(0)
    }

    #[tokio::test]
    async fn whom_another_look_up_names_again_is_remembered_although_the_first_is_gone() {
        let registry = registry();
        let named = || {
            vec![discovered(&Endpoint {
                address: "127.0.0.1:1".parse().map(EndpointAddress::Tcp).unwrap(),
                weight: 1,
                zone: None,
            })]
        };
        let (_state, endpoints) = put_in_force(&registry, &looked_up("v1"));
        endpoints.publish(named(), Instant::now());
        let id = endpoints.load().members[0].state.id;
        let (_state, others) = put_in_force(&registry, &looked_up("v2"));
        assert!(!Arc::ptr_eq(&endpoints, &others));
        drop(endpoints);
        assert!(others.load().members.is_empty(), "nobody is sent where only the other look-up led");
        others.publish(named(), Instant::now());
        assert_eq!(others.load().members[0].state.id, id);
        // Whom it does not name is let go.
        others.publish(Vec::new(), Instant::now());
        others.publish(named(), Instant::now());
        assert_ne!(others.load().members[0].state.id, id);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_check_that_will_not_come() {
        let registry = registry();
        let mut upstream = upstream("\"127.0.0.1:1\"");
        upstream.health = Some(HealthCheck {
            probe: Probe::Tcp,
            port: None,
            every: std::time::Duration::from_secs(5),
            timeout: std::time::Duration::from_secs(1),
            up: 1,
            down: 1,
            initially_up: false,
        });
        let (_state, endpoints) = put_in_force(&registry, &upstream);
        assert_eq!(endpoints.load().members[0].state.word(), "down");
        upstream.health = None;
        let (_state, same) = put_in_force(&registry, &upstream);
        assert_eq!(same.load().members[0].state.word(), "ready");
    }
}
