//! One bound address, as all workers share it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

use crate::proxy::entry::Entry;
use crate::proxy::worker::Worker;
use crate::runtime::drain::Phase;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::ListenerId;
use crate::upstream::limit::Limit;

/// One bound address. A listener whose address changes has two of them for a while.
#[derive(Debug)]
pub(crate) struct Entrance {
    id: u64,
    name: Arc<str>,
    pub(crate) listener: ListenerId,
    /// `limits.connections`, all workers together.
    pub(crate) connections: Arc<Limit>,
    /// Only this machine can call here.
    pub(crate) local: bool,
    phase: watch::Sender<Phase>,
    /// Somebody else has the same sockets, and what waits there at the end is theirs.
    shared: AtomicBool,
}

impl Entrance {
    /// `shared`: see [`Entrance::share`].
    pub(crate) fn new(
        name: Arc<str>,
        listener: ListenerId,
        connections: Arc<Limit>,
        local: bool,
        shared: bool,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Entrance {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name,
            listener,
            connections,
            local,
            phase: watch::Sender::new(Phase::Serving),
            shared: AtomicBool::new(shared),
        })
    }

    /// Moves on; never back. From [`Phase::Draining`] on, nothing new is taken in.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let forward = phase > *current;
            *current = phase.max(*current);
            forward
        });
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Somebody else has the same sockets, too, and goes on accepting, now or later: at this entrance's end they stay
    /// open, and what waits there is left to them.
    pub(crate) fn share(&self, shared: bool) {
        self.shared.store(shared, Ordering::Relaxed);
    }

    /// The end of an entrance whose sockets somebody else goes on accepting from.
    pub(crate) fn pass_on(&self) {
        self.share(true);
        self.enter(Phase::Draining);
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    pub(super) async fn closed(&self) {
        // The sender is ours, so that it cannot have gone.
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= Phase::Draining).await;
    }

    /// What the worker knows of this entrance, from now on if it knew nothing. `None` where neither `opened_in` nor what
    /// is in force has the listener.
    pub(crate) fn on(self: &Arc<Self>, worker: &Rc<Worker>, opened_in: Option<Arc<Snapshot>>) -> Option<Rc<Entry>> {
        if let Some(entry) = worker.entry(self.id) {
            return Some(entry);
        }
        let entry = Entry::new(worker, self.name.clone(), self.listener, self.local, self.phase(), opened_in)?;
        worker.add_entry(self.id, &entry);
        let (mut phase, drain) = (self.phase.subscribe(), Rc::downgrade(&entry.drain));
        tokio::task::spawn_local(async move {
            while let Some(drain) = drain.upgrade() {
                drain.enter(*phase.borrow_and_update());
                drop(drain);
                if phase.changed().await.is_err() {
                    return;
                }
            }
        });
        Some(entry)
    }
}
