//! Those who listen to a stream of events. Whoever does not keep up misses events, and holds nobody up.

use std::cell::RefCell;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Events that wait for one listener; what comes then, it misses.
const WAITING: usize = 8;
/// Listeners at a time: less than a door has connections, so that probes come in beside them.
const LISTENERS: usize = 16;
/// Whoever misses this many events in a row is gone, or might as well be.
const MISSED: u32 = 60;

/// The listeners of one stream.
#[derive(Debug, Default)]
pub(super) struct Audience(RefCell<Vec<Listener>>);

#[derive(Debug)]
struct Listener {
    events: mpsc::Sender<Bytes>,
    missed: u32,
}

impl Audience {
    /// One more listener; `None` where there are enough.
    pub(super) fn join(&self) -> Option<mpsc::Receiver<Bytes>> {
        let mut listeners = self.0.borrow_mut();
        listeners.retain(|listener| !listener.events.is_closed());
        if listeners.len() >= LISTENERS {
            return None;
        }
        let (events, receiver) = mpsc::channel(WAITING);
        listeners.push(Listener { events, missed: 0 });
        Some(receiver)
    }

    /// Gives everybody an event, in the form of server-sent events.
    pub(super) fn tell(&self, json: &str) {
        let event = Bytes::from(format!("data: {json}\n\n"));
        self.0.borrow_mut().retain_mut(|listener| match listener.events.try_send(event.clone()) {
            Ok(()) => {
                listener.missed = 0;
                true
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                listener.missed += 1;
                listener.missed < MISSED
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    /// True where nobody is left.
    pub(super) fn is_gone(&self) -> bool {
        self.0.borrow().iter().all(|listener| listener.events.is_closed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_keep_up_misses_events_and_is_let_go_in_the_end() {
        let audience = Audience::default();
        let (mut quick, slow) = (audience.join().unwrap(), audience.join().unwrap());
        for _ in 0..WAITING + MISSED as usize {
            audience.tell("1");
            assert_eq!(quick.try_recv().unwrap(), "data: 1\n\n");
        }
        assert_eq!(slow.len(), WAITING);
        assert_eq!(audience.0.borrow().len(), 1, "the slow one is let go");
        drop(quick);
        assert!(audience.is_gone());
    }

    #[test]
    fn listeners_are_bounded() {
        let audience = Audience::default();
        let held: Vec<_> = (0..LISTENERS).map(|_| audience.join().unwrap()).collect();
        assert!(audience.join().is_none());
        drop(held);
        assert!(audience.join().is_some());
    }
}
