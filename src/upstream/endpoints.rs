//! An upstream's endpoints as their source last named them: read by the workers, written by discovery.
//!
//! A set never changes; a new one takes its place. What the proxy remembers of an endpoint is not in the set but in its
//! [`EndpointState`], which the next set shares where the address is still there.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio::time::Instant;

use super::balancer::Tables;
use super::state::{EndpointState, UpstreamState};
use crate::config::model::{EndpointAddress, OnEmpty, UpstreamProtocol};

/// What a source says of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Discovered {
    pub(crate) address: EndpointAddress,
    /// Share of the requests; 0: none.
    pub(crate) weight: u32,
    /// Those of a higher number get requests where nobody of a lower one can take them.
    pub(crate) priority: u16,
    /// Where it stands: a zone or a datacenter.
    pub(crate) zone: Option<Arc<str>>,
    /// What it says that it speaks.
    pub(crate) protocol: Option<UpstreamProtocol>,
}

/// One endpoint of a set.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) state: Arc<EndpointState>,
    pub(crate) weight: u32,
    pub(crate) priority: u16,
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) protocol: Option<UpstreamProtocol>,
}

impl Member {
    /// As the source named it.
    pub(crate) fn discovered(&self) -> Discovered {
        Discovered {
            address: self.state.address.clone(),
            weight: self.weight,
            priority: self.priority,
            zone: self.zone.clone(),
            protocol: self.protocol,
        }
    }
}

/// Endpoints at one time. Addresses are unique.
#[derive(Debug)]
pub(crate) struct EndpointSet {
    pub(crate) members: Vec<Member>,
    /// Each that a member has, the lowest first.
    pub(super) priorities: Vec<u16>,
    /// What hashing balancers look keys up in.
    pub(super) tables: Tables,
}

impl EndpointSet {
    fn new(members: Vec<Member>) -> Self {
        let mut priorities: Vec<u16> = members.iter().map(|member| member.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        EndpointSet { members, priorities, tables: Tables::default() }
    }

    fn is(&self, discovered: &[Discovered]) -> bool {
        self.members.len() == discovered.len()
            && self.members.iter().zip(discovered).all(|(member, discovered)| {
                member.state.address == discovered.address
                    && member.weight == discovered.weight
                    && member.priority == discovered.priority
                    && member.zone == discovered.zone
                    && member.protocol == discovered.protocol
            })
    }
}

/// What is known of a source. Ages are counted from these.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// The last answer that could be understood, whatever was in it.
    pub(crate) succeeded: Option<Instant>,
    /// What went wrong since.
    pub(crate) error: Option<String>,
    /// It concerns a part only: all else is as good as ever.
    pub(crate) partly: bool,
    /// Where that answer was that there is nobody, or only some of those known before: until when these are kept.
    pub(crate) kept_until: Option<Instant>,
    /// How many are then kept that it did not name.
    pub(crate) kept: usize,
    /// Answers that changed the set.
    pub(crate) updates: u64,
    /// Look-ups that failed.
    pub(crate) failures: u64,
}

/// An upstream's endpoints, whatever becomes of them. Lives as long as a generation uses it; its source ends with it.
#[derive(Debug)]
pub(crate) struct Endpoints {
    /// Never used twice: what workers keep their balancers under.
    pub(crate) id: u64,
    pub(super) upstream: Arc<UpstreamState>,
    current: ArcSwap<EndpointSet>,
    /// Sets that some worker may still use. They are kept so that the last to let go, and to give the memory of ten
    /// thousand back, is never a worker.
    bygone: Mutex<Vec<Arc<EndpointSet>>>,
    status: Mutex<Status>,
    answered: watch::Sender<bool>,
    /// Its source is followed.
    followed: AtomicBool,
    /// What an answer without endpoints is worth; a swap may change it.
    on_empty: Mutex<OnEmpty>,
    /// What another source named before this one, until this one has answered: nobody is sent there, but whoever is named
    /// again still has its connections.
    before: Mutex<Option<Arc<EndpointSet>>>,
}

impl Endpoints {
    /// No endpoints, and nothing heard of them yet.
    pub(super) fn awaited(upstream: Arc<UpstreamState>, on_empty: OnEmpty) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Endpoints {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            upstream,
            current: ArcSwap::from_pointee(EndpointSet::new(Vec::new())),
            bygone: Mutex::default(),
            status: Mutex::default(),
            answered: watch::Sender::new(false),
            followed: AtomicBool::new(false),
            on_empty: Mutex::new(on_empty),
            before: Mutex::default(),
        }
    }

    /// True the first time: whoever asks follows its source from now on.
    pub(crate) fn begin_following(&self) -> bool {
        !self.followed.swap(true, Ordering::Relaxed)
    }

    /// This takes the place of another source's.
    pub(super) fn succeed(&self, other: &Endpoints) {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(other.load().clone());
    }

    /// The upstream's name.
    pub(crate) fn upstream(&self) -> &str {
        &self.upstream.name
    }

    /// What becomes of the endpoints when their source says that there are none.
    pub(crate) fn on_empty(&self) -> OnEmpty {
        *self.on_empty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_on_empty(&self, on_empty: OnEmpty) {
        *self.on_empty.lock().unwrap_or_else(PoisonError::into_inner) = on_empty;
    }

    /// The set in force. Costs a load and no count; not to be held across an `await`.
    pub(crate) fn load(&self) -> Guard<Arc<EndpointSet>> {
        self.current.load()
    }

    /// Takes an answer of the source: what is still there keeps its memory, what is gone drains. True where it changed
    /// anything. Of an address that is there twice, the first holds.
    pub(crate) fn publish(&self, mut discovered: Vec<Discovered>, now: Instant) -> bool {
        let mut changed = !self.load().is(&discovered);
        if changed {
            let mut seen = HashSet::with_capacity(discovered.len());
            discovered.retain(|endpoint| seen.insert(endpoint.address.clone()));
            changed = !self.load().is(&discovered);
        }
        if changed {
            self.let_go();
            let states = self.upstream.endpoints(discovered.iter().map(|endpoint| &endpoint.address), now.into());
            let members = states.into_iter().zip(discovered).map(|(state, discovered)| {
                state.speaks(discovered.protocol);
                let Discovered { weight, priority, zone, protocol, .. } = discovered;
                Member { state, weight, priority, zone, protocol }
            });
            self.replace(EndpointSet::new(members.collect()));
        }
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.succeeded = Some(now);
        status.error = None;
        status.kept_until = None;
        status.updates += u64::from(changed);
        drop(status);
        self.before.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.answered.send_replace(true);
        changed
    }

    /// The source does not name `kept` of the set, and is not believed before `until`; the set stays as it is.
    pub(crate) fn keep(&self, now: Instant, until: Instant, kept: usize) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.succeeded = Some(now);
        status.error = None;
        status.kept_until = Some(until);
        status.kept = kept;
    }

    /// The set is what the source said, of which a part can still not be looked up.
    pub(crate) fn still_failing(&self, error: String) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.error = Some(error);
        status.partly = true;
    }

    /// A look-up failed; the set stays as it is. `partly`: what is in it could be looked up.
    pub(crate) fn failed(&self, error: String, partly: bool) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.failures += 1;
        // What is said of the set itself still holds.
        status.kept_until = status.kept_until.filter(|_| partly);
        status.error = Some(error);
        status.partly = partly;
    }

    /// What is known is too old to be used. Who asks is told that look-ups fail, not that there is nobody.
    pub(crate) fn expire(&self) {
        self.replace(EndpointSet::new(Vec::new()));
    }

    fn replace(&self, set: EndpointSet) {
        let old = self.current.swap(Arc::new(set));
        self.bygone.lock().unwrap_or_else(PoisonError::into_inner).push(old);
    }

    /// Lets go of sets that no worker uses any more. To be called now and then.
    pub(crate) fn let_go(&self) {
        let mut bygone = self.bygone.lock().unwrap_or_else(PoisonError::into_inner);
        bygone.retain(|set| Arc::strong_count(set) > 1);
    }

    pub(crate) fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True while the source cannot be asked, or has not answered yet.
    pub(crate) fn is_failing(&self) -> bool {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.error.is_some() || status.succeeded.is_none()
    }

    /// True once the source has answered, be it that there is nobody.
    pub(crate) fn is_answered(&self) -> bool {
        *self.answered.borrow()
    }

    /// Waits for the source's first answer, at most for `bound`. False where it has not come.
    pub(crate) async fn answered_within(&self, bound: Option<Duration>) -> bool {
        let mut answered = self.answered.subscribe();
        let answer = answered.wait_for(|answered| *answered);
        match bound {
            None => answer.await.is_ok(),
            Some(bound) => tokio::time::timeout(bound, answer).await.is_ok_and(|answer| answer.is_ok()),
        }
    }

    /// Tells its end without keeping it alive.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.answered.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::UpstreamLimits;

    fn discovered(port: u16, weight: u32) -> Discovered {
        let address = EndpointAddress::Tcp(([127, 0, 0, 1], port).into());
        Discovered { address, weight, priority: 0, zone: None, protocol: None }
    }

    fn awaited() -> Endpoints {
        let limits = UpstreamLimits { connections: 1, requests: 1, waiting: 1, retries: 1 };
        Endpoints::awaited(Arc::new(UpstreamState::new("a", limits)), OnEmpty::Drop)
    }

    #[tokio::test]
    async fn what_is_still_there_keeps_its_memory() {
        let endpoints = awaited();
        assert!(endpoints.publish(vec![discovered(1, 1), discovered(2, 1)], Instant::now()));
        let id = |position: usize| endpoints.load().members[position].state.id;
        let (first, second) = (id(0), id(1));
        assert!(endpoints.publish(vec![discovered(3, 1), discovered(2, 7)], Instant::now()));
        assert_eq!(id(1), second);
        assert!(endpoints.publish(vec![discovered(1, 1)], Instant::now()));
        assert_ne!(id(0), first, "it was gone in between");
    }

    #[tokio::test]
    async fn the_same_answer_changes_nothing() {
        let endpoints = awaited();
        assert!(endpoints.publish(vec![discovered(1, 1), discovered(1, 5)], Instant::now()));
        let before = endpoints.load().clone();
        assert!(!endpoints.publish(vec![discovered(1, 1)], Instant::now()));
        assert!(Arc::ptr_eq(&before, &endpoints.load()));
        assert_eq!(endpoints.status().updates, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_can_be_waited_for() {
        let endpoints = Arc::new(awaited());
        assert!(!endpoints.answered_within(Some(Duration::from_secs(1))).await);
        endpoints.failed("no route to host".to_owned(), false);
        assert!(!endpoints.is_answered());
        let waiting = tokio::spawn({
            let endpoints = endpoints.clone();
            async move { endpoints.answered_within(None).await }
        });
        tokio::task::yield_now().await;
        endpoints.publish(Vec::new(), Instant::now());
        assert!(waiting.await.unwrap());
        assert!(endpoints.is_answered());
        assert_eq!((endpoints.status().failures, endpoints.status().error), (1, None));
    }
}
