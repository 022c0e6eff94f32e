//! Services that are found when first called: which of them are known now, bounded, the unused ones forgotten.
//!
//! They outlive a configuration as upstreams do: a generation that has the same route finds them here again.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::counted::Counted;
use super::endpoints::Endpoints;
use super::moment::{Moment, micros};
use super::state::UpstreamState;
use crate::config::model::EndpointSource;

/// An unknown service is remembered for this long after it was last called. Whoever was called more recently is not
/// pushed out either: so a caller that makes up names has no more than `max` of them looked up in this time.
const MOMENT: Duration = Duration::from_secs(5);
/// When a service was last called is known to within this; a note for each request would go to and fro between cores.
const NOTE_EVERY: Duration = Duration::from_millis(100);

/// A service that somebody has called.
#[derive(Debug)]
pub(crate) struct Service {
    /// One for all spellings.
    pub(crate) name: String,
    pub(crate) source: EndpointSource,
    pub(crate) state: Arc<UpstreamState>,
    pub(crate) endpoints: Arc<Endpoints>,
    /// When it was last called.
    called: AtomicU64,
    /// It has been forgotten: whoever still holds it lets it go.
    forgotten: AtomicBool,
}

impl Service {
    /// It is called. False where it has been forgotten, and has to be found anew.
    pub(crate) fn call(&self, now: Moment) -> bool {
        let called = self.called.load(Relaxed);
        if now.micros().saturating_sub(called) > micros(NOTE_EVERY) {
            self.called.store(now.micros(), Relaxed);
        }
        !self.forgotten.load(Relaxed)
    }

    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Relaxed)
    }

    fn idle(&self, now: Moment) -> Duration {
        now.since(Moment::from_micros(self.called.load(Relaxed)))
    }

    fn is_busy(&self) -> bool {
        self.state.requests.used() > 0
    }

    fn is_known(&self) -> bool {
        !self.endpoints.load().members.is_empty()
    }
}

/// The services of one route.
#[derive(Debug, Default)]
pub(crate) struct Services(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    known: HashMap<String, Arc<Service>>,
    /// Forgotten, and still held by somebody. They wait here so that the last to let go is never a worker.
    leaving: Vec<Arc<Service>>,
    /// What those had counted that are gone.
    past: Counted,
}

impl Services {
    /// The service of this name, made where it is not known. `None` where there are `max`, all of them in use.
    pub(crate) fn find(
        &self,
        name: &str,
        max: usize,
        now: Moment,
        make: impl FnOnce() -> (EndpointSource, Arc<UpstreamState>, Arc<Endpoints>),
    ) -> Option<Arc<Service>> {
        let mut shelf = self.shelf();
        if let Some(service) = shelf.known.get(name) {
            service.call(now);
            return Some(service.clone());
        }
        if shelf.known.len() >= max && !shelf.make_room(now) {
            return None;
        }
        let service = match shelf.leaving.iter().position(|service| service.name == name) {
            Some(position) => shelf.leaving.swap_remove(position),
            None => {
                let (source, state, endpoints) = make();
                let (called, forgotten) = (AtomicU64::new(0), AtomicBool::new(false));
                Arc::new(Service { name: name.to_owned(), source, state, endpoints, called, forgotten })
            }
        };
        service.called.store(now.micros(), Relaxed);
        service.forgotten.store(false, Relaxed);
        shelf.known.insert(name.to_owned(), service.clone());
        Some(service)
    }

    /// Forgets whom nobody has called for so long.
    pub(crate) fn tidy(&self, idle: Duration, now: Moment) {
        let mut shelf = self.shelf();
        let mut over = Vec::new();
        for service in shelf.known.values() {
            if service.is_busy() {
                service.call(now);
            } else if service.idle(now) >= if service.is_known() { idle } else { idle.min(MOMENT) } {
                over.push(service.name.clone());
            }
        }
        over.iter().for_each(|name| shelf.forget(name));
        let Shelf { leaving, past, .. } = &mut *shelf;
        leaving.retain(|service| {
            let held = Arc::strong_count(service) > 1;
            if !held {
                *past += Counted::of(&service.state, &service.endpoints);
            }
            held
        });
    }

    /// All that are known now, by name.
    pub(crate) fn known(&self) -> Vec<Arc<Service>> {
        let mut known: Vec<_> = self.shelf().known.values().cloned().collect();
        known.sort_by(|one, other| one.name.cmp(&other.name));
        known
    }

    /// All that somebody may still call, those that leave included.
    pub(crate) fn held(&self) -> Vec<Arc<Service>> {
        let shelf = self.shelf();
        shelf.known.values().chain(&shelf.leaving).cloned().collect()
    }

    /// What all of them have counted, those that are gone included.
    pub(crate) fn counted(&self) -> Counted {
        let shelf = self.shelf();
        let all = shelf.known.values().chain(&shelf.leaving);
        all.fold(shelf.past, |sum, service| sum + Counted::of(&service.state, &service.endpoints))
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// Forgets whom nobody has called for longest, the unknown first. False where all are in use.
    fn make_room(&mut self, now: Moment) -> bool {
        let unused = self.known.values().filter(|service| !service.is_busy() && service.idle(now) >= MOMENT);
        let first = unused.min_by_key(|service| (service.is_known(), service.called.load(Relaxed)));
        let Some(name) = first.map(|service| service.name.clone()) else { return false };
        self.forget(&name);
        true
    }

    fn forget(&mut self, name: &str) {
        if let Some(service) = self.known.remove(name) {
            service.forgotten.store(true, Relaxed);
            self.leaving.push(service);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::super::endpoints::Discovered;
    use super::*;
    use crate::config::model::{EndpointAddress, OnEmpty, UpstreamLimits};

    const IDLE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(1 + seconds * 1_000_000)
    }

    fn parts(name: &str) -> (EndpointSource, Arc<UpstreamState>, Arc<Endpoints>) {
        let limits = UpstreamLimits { connections: 9, requests: 9, waiting: 9, retries: 9 };
        let state = Arc::new(UpstreamState::new(name, limits));
        let endpoints = Arc::new(Endpoints::awaited(state.clone(), OnEmpty::Drop));
        (EndpointSource::Original, state, endpoints)
    }

    fn publish(service: &Service) {
        let address = EndpointAddress::Tcp(([127, 0, 0, 1], 1).into());
        service
            .endpoints
            .publish(vec![Discovered { address, weight: 1, priority: 0, zone: None, protocol: None }], Instant::now());
    }

    fn find(services: &Services, name: &str, max: usize, seconds: u64) -> Option<Arc<Service>> {
        services.find(name, max, at(seconds), || parts(name))
    }

    fn names(services: &Services) -> Vec<String> {
        services.known().iter().map(|service| service.name.clone()).collect()
    }

    #[test]
    fn one_name_is_one_service() {
        let services = Services::default();
        let one = find(&services, "a", 9, 0).unwrap();
        assert!(Arc::ptr_eq(&one, &find(&services, "a", 9, 1).unwrap()));
        assert!(!Arc::ptr_eq(&one, &find(&services, "b", 9, 1).unwrap()));
    }

    #[test]
    fn the_longest_unused_makes_room_the_unknown_first_and_whoever_is_in_use_never() {
        let services = Services::default();
        for (seconds, name) in ["a", "b", "c"].into_iter().enumerate() {
            publish(&find(&services, name, 3, seconds as u64).unwrap());
        }
        assert!(find(&services, "d", 3, 4).is_none(), "all were called a moment ago");
        let busy = services.known()[0].state.requests.try_acquire();
        assert!(find(&services, "d", 3, 7).is_some());
        assert_eq!(names(&services), ["a", "c", "d"], "a has something in flight");
        drop(busy);
        find(&services, "a", 3, 12).unwrap();
        find(&services, "c", 3, 13).unwrap();
        assert!(find(&services, "e", 3, 13).is_some());
        assert_eq!(names(&services), ["a", "c", "e"], "d is unknown");
    }

    #[test]
    fn the_unused_are_forgotten_and_the_unknown_sooner() {
        let services = Services::default();
        let known = find(&services, "a", 9, 0).unwrap();
        publish(&known);
        let busy = find(&services, "b", 9, 0).unwrap();
        let permit = busy.state.requests.try_acquire();
        let unknown = find(&services, "c", 9, 0).unwrap();
        services.tidy(IDLE, at(4));
        assert_eq!(names(&services), ["a", "b", "c"]);
        services.tidy(IDLE, at(5));
        assert_eq!(names(&services), ["a", "b"]);
        assert!(unknown.is_forgotten() && !unknown.call(at(5)));
        services.tidy(IDLE, at(60));
        assert_eq!(names(&services), ["b"]);
        drop(permit);
        services.tidy(IDLE, at(64));
        assert_eq!(names(&services), ["b"], "it was in use a moment ago");
        services.tidy(IDLE, at(65));
        assert!(names(&services).is_empty());
    }

    #[test]
    fn whoever_comes_back_before_all_have_let_go_is_the_same() {
        let services = Services::default();
        let held = find(&services, "a", 9, 0).unwrap();
        services.tidy(IDLE, at(5));
        assert!(held.is_forgotten());
        assert!(Arc::ptr_eq(&held, &find(&services, "a", 9, 6).unwrap()) && !held.is_forgotten());
    }

    #[test]
    fn what_was_counted_is_never_taken_back() {
        let services = Services::default();
        find(&services, "a", 9, 0).unwrap().endpoints.failed("away".to_owned(), false);
        let held = find(&services, "b", 9, 0).unwrap();
        held.endpoints.failed("away".to_owned(), false);
        assert_eq!(services.counted().failures, 2);
        services.tidy(IDLE, at(5));
        held.endpoints.failed("away".to_owned(), false);
        assert_eq!(services.counted().failures, 3);
        drop(held);
        services.tidy(IDLE, at(5));
        assert_eq!(services.counted().failures, 3);
        assert!(services.shelf().leaving.is_empty());
    }

    proptest! {
        /// Whoever calls what and when: there are never more than may be, and nobody is pushed out who was called a moment
        /// ago.
        #[test]
        fn the_bound_holds(calls in prop::collection::vec((0_u64..4, 0_u8..12, any::<bool>()), 1..80), max in 1_usize..5) {
            let services = Services::default();
            let (mut now, mut last) = (0, HashMap::new());
            for (passed, name, known) in calls {
                now += passed;
                let name = name.to_string();
                if let Some(service) = find(&services, &name, max, now) {
                    if known { publish(&service) }
                    last.insert(name, now);
                }
                let there = names(&services);
                prop_assert!(there.len() <= max);
                for (name, called) in &last {
                    prop_assert!(now - called >= MOMENT.as_secs() || there.contains(name));
                }
            }
        }
    }
}
