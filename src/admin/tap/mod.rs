//! `GET /tap`: requests as they pass, each as a server-sent event, to each listener those that it wants to see.

mod filter;
mod show;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

use crate::snapshot::Snapshot;
use crate::telemetry::tap::{Tap, TapSwitch, Tapped};
use filter::Filter;

/// Events that wait for one listener; what comes then, it misses, and is told how much that was.
const WAITING: usize = 256;
/// Listeners at a time: less than a door has connections, so that probes come in beside them.
const LISTENERS: usize = 8;

/// Between two looks at who is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The listeners.
#[derive(Debug)]
pub(crate) struct Taps {
    switch: TapSwitch,
    listeners: RefCell<Vec<Listener>>,
}

#[derive(Debug)]
struct Listener {
    filter: Filter,
    events: mpsc::Sender<Bytes>,
    missed: u64,
}

impl Taps {
    /// Shows what comes through `tap`, from now on, on this thread.
    pub(crate) fn start(tap: Tap, switch: TapSwitch) -> Rc<Self> {
        let taps = Rc::new(Taps { switch, listeners: RefCell::default() });
        tokio::task::spawn_local(taps.clone().run(tap));
        taps
    }

    /// One more listener, who is told in a comment what it may wait for in vain. `Ok(None)` where there are enough.
    ///
    /// # Errors
    /// A sentence, where the query cannot be understood.
    pub(super) fn listen(&self, query: &str, snapshot: &Snapshot) -> Result<Option<mpsc::Receiver<Bytes>>, String> {
        let filter = Filter::parse(query)?;
        self.turn();
        if self.listeners.borrow().len() >= LISTENERS {
            return Ok(None);
        }
        let (events, receiver) = mpsc::channel(WAITING);
        for miss in filter.misses(snapshot) {
            let _ = events.try_send(Bytes::from(format!(": {miss}\n\n")));
        }
        self.listeners.borrow_mut().push(Listener { filter, events, missed: 0 });
        self.turn();
        Ok(Some(receiver))
    }

    async fn run(self: Rc<Self>, mut tap: Tap) {
        loop {
            let watched = !self.listeners.borrow().is_empty();
            tokio::select! {
                request = tap.next() => match request {
                    Some(request) => self.show(&request),
                    None => return,
                },
                () = tokio::time::sleep(LOOK_EVERY), if watched => {}
            }
            self.turn();
        }
    }

    fn show(&self, request: &Tapped) {
        let lost = self.switch.missed();
        for listener in self.listeners.borrow_mut().iter_mut() {
            listener.missed += lost;
            let filter = &listener.filter;
            if !filter.wants(request) || (filter.sample < 1.0 && fastrand::f64() >= filter.sample) {
                continue;
            }
            let mut shown = show::show(request, filter);
            if listener.missed > 0
                && let Some(fields) = shown.as_object_mut()
            {
                fields.insert("missed".to_owned(), json!(listener.missed));
            }
            match listener.events.try_send(Bytes::from(format!("data: {shown}\n\n"))) {
                Ok(()) => listener.missed = 0,
                Err(_) => listener.missed += 1,
            }
        }
    }

    /// Forgets who has left, and tells the workers whether anybody is there.
    fn turn(&self) {
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|listener| !listener.events.is_closed());
        let body_bytes = listeners.iter().map(|listener| listener.filter.body_bytes).max().unwrap_or(0);
        self.switch.turn(!listeners.is_empty(), body_bytes);
    }
}
