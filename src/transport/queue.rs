//! Who waits for a connection of HTTP/2 to one endpoint, in the order in which they came, and what for.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Mutex;

use super::http1::Http1Connection;
use super::http2::Http2Connection;
use crate::upstream::limit::Permit;

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Held while a connection is made, so that a hundred first requests make one. Those that wait for it have it in turn.
    pub(super) turn: Mutex<()>,
    length: Cell<usize>,
    /// Whoever has the turn waits for a stream to end: no newcomer is to take it from the queue.
    for_stream: Cell<bool>,
}

impl Queue {
    pub(super) fn join(self: Rc<Self>) -> Queued {
        self.length.set(self.length.get() + 1);
        Queued(self)
    }

    /// Whether whoever has the turn waits for a stream to end.
    pub(super) fn set_for_stream(&self, is: bool) {
        self.for_stream.set(is);
    }

    /// True where a newcomer has to wait its turn.
    pub(super) fn is_for_stream(&self) -> bool {
        self.for_stream.get()
    }
}

/// What a request gets that waits at the upstream's bound.
pub(super) enum Waited {
    Connection(Box<Http1Connection>),
    Permit(Permit),
}

/// The same where a stream is enough.
pub(super) enum Either {
    /// This connection takes another stream.
    Room(Rc<Http2Connection>),
    Waited(Waited),
}

/// A place in it.
pub(super) struct Queued(Rc<Queue>);

impl std::ops::Deref for Queued {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.0
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.length.set(self.length.get() - 1);
        if self.length.get() == 0 {
            self.for_stream.set(false);
        }
    }
}
