//! One bound address of a listener, as one worker and the connections that came in there see it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::worker::{Generation, Worker};
use crate::runtime::drain::{LocalDrain, Phase};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::ListenerId;

/// One bound address of a listener.
#[derive(Debug)]
pub(crate) struct Entry {
    name: Arc<str>,
    pub(crate) listener: ListenerId,
    /// Only this machine can call here.
    pub(crate) local: bool,
    /// How far its end has come.
    pub(crate) drain: Rc<LocalDrain>,
    /// The newest generation that has the listener, and the listener's position there. Connections of a listener that
    /// is gone are served by the last one that had it.
    at: RefCell<(Rc<Generation>, usize)>,
}

impl Entry {
    /// `None` where neither `opened_in` nor the generation in force has the listener.
    pub(crate) fn new(
        worker: &Worker,
        name: Arc<str>,
        listener: ListenerId,
        local: bool,
        phase: Phase,
        opened_in: Option<Arc<Snapshot>>,
    ) -> Option<Rc<Self>> {
        let current = worker.generation();
        let at = match (current.snapshot.position_of(&name), opened_in) {
            (Some(position), _) => (current, position),
            // Opened and removed again before this worker heard of either.
            (None, Some(snapshot)) => {
                let position = snapshot.position_of(&name)?;
                (worker.bygone(snapshot), position)
            }
            (None, None) => return None,
        };
        let drain = LocalDrain::at(phase);
        Some(Rc::new(Entry { name, listener, local, drain, at: RefCell::new(at) }))
    }

    /// The generation that serves the next request, and the listener's position in it.
    pub(crate) fn at(&self) -> (Rc<Generation>, usize) {
        self.at.borrow().clone()
    }

    /// Goes on to a newer generation, if that has the listener.
    pub(super) fn follow(&self, generation: &Rc<Generation>) {
        if let Some(position) = generation.snapshot.position_of(&self.name) {
            *self.at.borrow_mut() = (generation.clone(), position);
        }
    }
}
