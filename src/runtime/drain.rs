//! How far the end has come, of the proxy or of one bound address, and how each connection hears of it.
//!
//! Connections look at [`LocalDrain::phase`] whenever they decide something, which costs nothing; those that wait are
//! woken through the waker that they left once, when they began.

use std::cell::{Cell, RefCell};
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
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
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
        for waker in self.wakers.borrow().iter().flatten() {
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
    place: Option<usize>,
}

impl Ticket {
    /// The phase now; `waker` (the task's, the same for its whole life) will hear of the next.
    pub(crate) fn watch(&mut self, waker: &Waker) -> Phase {
        if self.place.is_none() {
            let mut wakers = self.drain.wakers.borrow_mut();
            let place = match self.drain.free.borrow_mut().pop() {
                Some(place) => {
                    wakers[place] = Some(waker.clone());
                    place
                }
                None => {
                    wakers.push(Some(waker.clone()));
                    wakers.len() - 1
                }
            };
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
            self.drain.wakers.borrow_mut()[place] = None;
            self.drain.free.borrow_mut().push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_move_on_and_places_are_reused() {
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
