//! Where a source's answers go: into the upstream's endpoints, after what an empty answer is worth has been decided.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::patience::{Patience, Verdict};
use crate::config::model::EndpointAddress;
use crate::runtime::complaints::Complaints;
use crate::upstream::endpoints::{Discovered, Endpoints, Member};

/// What a source says goes in here.
#[derive(Debug)]
pub(crate) struct Sink {
    endpoints: Weak<Endpoints>,
    patience: RefCell<Patience>,
    /// Those that have not been named since the registry lost its memory, and until when they are kept: that it loses it
    /// once more makes it no longer.
    unnamed: RefCell<HashMap<EndpointAddress, Instant>>,
    /// Takes an answer as it is when the time to keep the endpoints known last is over.
    dropping: RefCell<Option<Dropping>>,
    /// Of look-ups that fail.
    complaints: RefCell<Complaints>,
    /// The source names nobody, and that has been logged.
    missed: Rc<Cell<bool>>,
    /// The file names the source, and not whoever calls it.
    is_written: bool,
}

#[derive(Debug)]
struct Dropping {
    task: AbortHandle,
    /// The answer names nobody.
    all: bool,
}

impl Sink {
    /// `registers`: services register themselves where the source asks.
    pub(super) fn new(endpoints: &Arc<Endpoints>, is_written: bool, registers: bool) -> Self {
        Sink {
            endpoints: Arc::downgrade(endpoints),
            patience: RefCell::new(Patience::new(registers)),
            unnamed: RefCell::default(),
            dropping: RefCell::new(None),
            complaints: RefCell::default(),
            missed: Rc::default(),
            is_written,
        }
    }

    /// A whole answer: these endpoints, and no others.
    pub(crate) fn publish(&self, discovered: Vec<Discovered>) {
        self.relieved();
        self.take(discovered, "");
    }

    /// A whole answer: there is no endpoint; why, in words that an operator understands.
    pub(crate) fn publish_none(&self, why: &str) {
        self.relieved();
        self.take(Vec::new(), why);
    }

    /// These endpoints and no others, as far as could be learnt: something could not be looked up.
    pub(crate) fn publish_partly(&self, discovered: Vec<Discovered>, error: &str) {
        self.take(discovered, "");
        self.failed_partly(error);
    }

    /// A whole answer of the registry that is used, while another one cannot be asked, which has been told.
    pub(crate) fn publish_while_failing(&self, discovered: Vec<Discovered>, why: &str, error: &str) {
        self.take(discovered, why);
        if let Some(endpoints) = self.endpoints.upgrade() {
            endpoints.still_failing(error.to_owned());
        }
    }

    /// Look-ups have failed for longer than their last answer may be used.
    pub(crate) fn expire(&self) {
        let Some(endpoints) = self.endpoints.upgrade() else { return };
        tracing::warn!(upstream = endpoints.upstream(), "its endpoints were looked up too long ago to be used still");
        endpoints.expire();
    }

    fn relieved(&self) {
        let Some(endpoints) = self.endpoints.upgrade() else { return };
        if self.complaints.borrow_mut().end() {
            let upstream = endpoints.upstream();
            match endpoints.status().succeeded {
                Some(_) => tracing::info!(upstream, "its endpoints can be looked up again"),
                None => tracing::info!(upstream, "its endpoints can be looked up now"),
            }
        }
    }

    fn take(&self, discovered: Vec<Discovered>, why: &str) {
        let Some(endpoints) = self.endpoints.upgrade() else { return };
        let (now, upstream) = (Instant::now(), endpoints.upstream());
        let known = endpoints.load().members.len();
        let verdict = self.patience.borrow_mut().answered(endpoints.on_empty(), discovered.is_empty(), known > 0, now);
        match verdict {
            Verdict::KeepUntil(until) => {
                self.forget();
                if self.keep_otherwise(true) {
                    let seconds = (until - now).as_secs();
                    tracing::warn!(
                        upstream,
                        known,
                        seconds,
                        why,
                        "its source names no endpoint; those known last are kept for now"
                    );
                    let known = endpoints.load();
                    let all = known.members.iter().map(|member| (until, member.discovered()));
                    self.drop_others(Vec::new(), all.collect());
                }
                endpoints.keep(now, until, known);
            }
            Verdict::TakeAndKeep if let Some(until) = self.misses_until(&discovered, now) => {
                let others = self.others(&endpoints);
                let (named, kept) = (discovered.len(), others.len());
                if self.keep_otherwise(false) {
                    let seconds = (until - now).as_secs();
                    tracing::warn!(
                        upstream,
                        named,
                        kept,
                        seconds,
                        "its source has lost its memory and names only some again; the others are kept for now"
                    );
                }
                self.keep_no_longer();
                self.drop_others(discovered.clone(), others.clone());
                let others = others.into_iter().map(|(_, other)| other);
                endpoints.publish(discovered.into_iter().chain(others).collect(), now);
                endpoints.keep(now, until, kept);
            }
            Verdict::Take | Verdict::TakeAndKeep => {
                self.keep_no_longer();
                self.unnamed.borrow_mut().clear();
                let named = discovered.len();
                let (changed, missed) = (endpoints.publish(discovered, now), self.missed.replace(named == 0));
                match (known, named) {
                    // Nobody before, and nobody now: said once, and not for whatever name a caller may think of.
                    (0, 0) if !missed && self.is_written => {
                        tracing::warn!(upstream, why, "its source names no endpoint")
                    }
                    (0, 0) => {}
                    (_, 0) => tracing::warn!(upstream, before = known, why, "it has no endpoint any more"),
                    _ if changed => {
                        tracing::debug!(upstream, endpoints = named, before = known, "its endpoints have changed");
                    }
                    _ => {}
                }
            }
        }
    }

    /// A look-up that failed, in words that an operator understands.
    pub(crate) fn failed(&self, error: &str) {
        self.fail(error, false);
    }

    /// A look-up that failed beside others, from which the endpoints known last are.
    pub(crate) fn failed_partly(&self, error: &str) {
        self.fail(error, true);
    }

    /// A look-up that failed where others than the endpoints known last would have been. What is said of those stands,
    /// be it that there are none any more.
    pub(crate) fn failed_elsewhere(&self, error: &str) {
        if let Some(endpoints) = self.endpoints.upgrade() {
            self.complain(&endpoints, error, true);
        }
    }

    fn fail(&self, error: &str, partly: bool) {
        let Some(endpoints) = self.endpoints.upgrade() else { return };
        self.patience.borrow_mut().failed();
        self.keep_no_longer();
        self.complain(&endpoints, error, partly);
    }

    fn complain(&self, endpoints: &Endpoints, error: &str, partly: bool) {
        endpoints.failed(error.to_owned(), partly);
        if self.complaints.borrow_mut().is_news(error, Instant::now()) {
            let kept = endpoints.load().members.len();
            let what = if partly { "some of its look-ups fail" } else { "its endpoints cannot be looked up" };
            tracing::warn!(upstream = endpoints.upstream(), kept, "{what}: {error}");
        }
    }

    /// The registry that is followed is not the one it was, or has lost its memory.
    pub(crate) fn reset(&self) {
        self.patience.borrow_mut().reset(Instant::now());
        self.forget();
    }

    /// Whoever is known now has to be named again.
    fn forget(&self) {
        let Some(endpoints) = self.endpoints.upgrade() else { return };
        let Some(until) = self.patience.borrow().lost() else { return };
        let mut before = self.unnamed.borrow_mut();
        let known = endpoints.load();
        let known = known.members.iter().map(|member| {
            let address = member.state.address.clone();
            let until = before.get(&address).copied().unwrap_or(until);
            (address, until)
        });
        let unnamed = known.collect();
        *before = unnamed;
    }

    /// Until when somebody is kept who still has to be named again after this answer.
    fn misses_until(&self, discovered: &[Discovered], now: Instant) -> Option<Instant> {
        let mut unnamed = self.unnamed.borrow_mut();
        unnamed.retain(|_, until| now < *until);
        for named in discovered {
            unnamed.remove(&named.address);
        }
        unnamed.values().max().copied()
    }

    /// Those that have not been named again, as they were, and until when they are kept.
    fn others(&self, endpoints: &Endpoints) -> Vec<(Instant, Discovered)> {
        let unnamed = self.unnamed.borrow();
        let known = endpoints.load();
        let until = |member: &Member| Some((*unnamed.get(&member.state.address)?, member.discovered()));
        known.members.iter().filter_map(until).collect()
    }

    /// True where until now nobody is kept, or for another reason.
    fn keep_otherwise(&self, all: bool) -> bool {
        let otherwise = self.dropping.borrow().as_ref().is_none_or(|dropping| dropping.all != all);
        if otherwise {
            self.keep_no_longer();
        }
        otherwise
    }

    /// Each of the others goes when its own time is over.
    fn drop_others(&self, named: Vec<Discovered>, mut others: Vec<(Instant, Discovered)>) {
        let (endpoints, missed, all) = (self.endpoints.clone(), self.missed.clone(), named.is_empty());
        let dropping = tokio::task::spawn_local(async move {
            while let Some(until) = others.iter().map(|(until, _)| *until).min() {
                tokio::time::sleep_until(until).await;
                let (now, Some(endpoints)) = (Instant::now(), endpoints.upgrade()) else { return };
                others.retain(|(until, _)| now < *until);
                let kept = others.len();
                let what = if all {
                    "its source still names no endpoint; it has none any more"
                } else {
                    "its source has not named all endpoints again; who was kept for long enough is dropped"
                };
                tracing::warn!(upstream = endpoints.upstream(), kept, "{what}");
                endpoints.publish(named.iter().chain(others.iter().map(|(_, other)| other)).cloned().collect(), now);
                missed.set(all);
                if let Some(until) = others.iter().map(|(until, _)| *until).max() {
                    endpoints.keep(now, until, kept);
                }
            }
        });
        *self.dropping.borrow_mut() = Some(Dropping { task: dropping.abort_handle(), all });
    }

    fn keep_no_longer(&self) {
        if let Some(dropping) = self.dropping.borrow_mut().take() {
            dropping.task.abort();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.keep_no_longer();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::model::OnEmpty;
    use crate::config::{Document, LoadOptions, load};
    use crate::upstream::registry::Registry;

    fn endpoints() -> Arc<Endpoints> {
        let text = "listeners: { in: { address: 127.0.0.1:1, upstream: \"consul://web\" } }";
        let document = Document { name: "test", bytes: text.as_bytes() };
        let loaded = load(document, &|_: &str| None, &LoadOptions::default()).unwrap();
        let mut upstream = { loaded }.config.upstreams.remove(0);
        upstream.on_empty = OnEmpty::Keep(Duration::from_secs(30));
        Registry::new(mpsc::unbounded_channel().0).upstream(&upstream).1
    }

    fn named(ports: &BTreeSet<u16>) -> Vec<Discovered> {
        let address = |port: &u16| EndpointAddress::Tcp(([127, 0, 0, 1], *port).into());
        let endpoint = |port| Discovered { address: address(port), weight: 1, priority: 0, zone: None, protocol: None };
        ports.iter().map(endpoint).collect()
    }

    fn known(endpoints: &Endpoints) -> BTreeSet<u16> {
        let port = |member: &Member| match &member.state.address {
            EndpointAddress::Tcp(address) => address.port(),
            EndpointAddress::Unix(_) => 0,
        };
        endpoints.load().members.iter().map(port).collect()
    }

    #[derive(Debug, Clone)]
    enum Event {
        Answer(BTreeSet<u16>),
        Failure,
        Reset,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => prop::collection::btree_set(1_u16..6, 0..4).prop_map(Event::Answer),
            1 => Just(Event::Failure),
            1 => Just(Event::Reset),
        ]
    }

    /// Who has been missing for longer goes first, also where no other answer comes.
    #[tokio::test(start_paused = true)]
    async fn each_is_kept_for_its_own_time() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let endpoints = endpoints();
                let sink = Sink::new(&endpoints, true, true);
                let seconds = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
                sink.publish(named(&[1, 2, 3].into()));
                sink.reset();
                sink.publish(named(&[2, 3].into()));
                seconds(60).await;
                sink.reset();
                sink.publish(named(&[3].into()));
                assert_eq!(known(&endpoints), [1, 2, 3].into());
                seconds(4 * 60 + 1).await;
                assert_eq!(known(&endpoints), [2, 3].into());
                seconds(60).await;
                assert_eq!(known(&endpoints), [3].into());
            })
            .await;
    }

    proptest! {
        /// Whatever a registry says and forgets: who is named is there, nobody is there who never was named, and what
        /// has left for good is gone in the end, though the registry is lost again and again.
        #[test]
        fn what_has_left_for_good_is_not_kept_for_ever(
            events in prop::collection::vec((event(), 0_u64..90), 1..40),
            last in prop::collection::btree_set(1_u16..6, 1..4),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let endpoints = endpoints();
                let sink = Sink::new(&endpoints, true, true);
                let mut ever = BTreeSet::new();
                for (event, pause) in events {
                    match event {
                        Event::Answer(ports) => {
                            sink.publish(named(&ports));
                            prop_assert!(known(&endpoints).is_superset(&ports));
                            ever.extend(ports);
                        }
                        Event::Failure => sink.failed("no answer"),
                        Event::Reset => sink.reset(),
                    }
                    prop_assert!(known(&endpoints).is_subset(&ever));
                    tokio::time::sleep(Duration::from_secs(pause)).await;
                }
                // From here on, the registry names these and is lost once a minute.
                for _ in 0..11 {
                    sink.reset();
                    sink.publish(named(&last));
                    prop_assert!(known(&endpoints).is_superset(&last));
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                prop_assert_eq!(known(&endpoints), last);
                Ok(())
            })?;
        }
    }
}
