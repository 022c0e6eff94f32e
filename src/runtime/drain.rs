//! How far the end has come, of the proxy or of one bound address, and how each connection hears of it.
//!
//! Connections look at [`LocalDrain::phase`] whenever they decide something, which costs nothing; those that wait are
//! woken through the waker that they left once, when they began.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Waker;

/// How far the end has come. Only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Phase {
    /// Serving.
    #[default]
    Serving,
    /// Unready, but still accepting: those who ask whether we are ready need time to hear of it.
    Announced,
    /// Connections end with their current request; nothing new is accepted.
    Draining,
    /// Connections that wait for a request are closed.
    ClosingIdle,
    /// What is still open is cut.
    Forced,
}

/// One worker's view of how far the end of a bound address has come.
#[derive(Debug, Default)]
pub(crate) struct LocalDrain {
    phase: Cell<Phase>,
    /// By a number that counts up. A tree, and not a table: it shrinks as connections leave, and each of its nodes is small.
    /// What a table was after thousands of connections stays in one piece, and keeps megabytes around it from the kernel.
    wakers: RefCell<BTreeMap<u64, Waker>>,
    joined: Cell<u64>,
}

impl LocalDrain {
    /// Begins at this phase.
    pub(crate) fn at(phase: Phase) -> Rc<Self> {
        Rc::new(LocalDrain { phase: Cell::new(phase), ..LocalDrain::default() })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Moves on and wakes every connection.
    pub(crate) fn enter(&self, phase: Phase) {
        if phase <= self.phase.get() {
            return;
        }
        self.phase.set(phase);
        self.wake();
    }

    /// Wakes every connection, for something else than the next phase.
    pub(crate) fn wake(&self) {
        for waker in self.wakers.borrow().values() {
            waker.wake_by_ref();
        }
    }

    /// A place in the list of those to be woken.
    pub(crate) fn join(self: &Rc<Self>) -> Ticket {
        Ticket { drain: self.clone(), place: None }
    }
}

/// A connection's place in the list; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    drain: Rc<LocalDrain>,
    place: Option<u64>,
}

impl Ticket {
    /// The phase now; `waker` (the task's, the same for its whole life) will hear of the next.
    pub(crate) fn watch(&mut self, waker: &Waker) -> Phase {
        if self.place.is_none() {
            let place = self.drain.joined.get();
            self.drain.joined.set(place + 1);
            self.drain.wakers.borrow_mut().insert(place, waker.clone());
            self.place = Some(place);
        }
        self.drain.phase()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.drain.phase()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.drain.wakers.borrow_mut().remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_move_on_and_who_left_leaves_no_place() {
        let drain = LocalDrain::at(Phase::Serving);
        let mut first = drain.join();
        assert_eq!(first.watch(Waker::noop()), Phase::Serving);
        drop(first);
        let mut second = drain.join();
        second.watch(Waker::noop());
        assert_eq!(drain.wakers.borrow().len(), 1);
        drain.enter(Phase::Forced);
        drain.enter(Phase::Draining);
        assert_eq!(second.phase(), Phase::Forced);
    }
}
