//! Where a source's answers go: into the upstream's endpoints, after what an empty answer is worth has been decided.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::patience::{Patience, Verdict};
use crate::upstream::endpoints::{Discovered, Endpoints};

/// A failure that lasts is logged again after this long.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// What a source says goes in here.
#[derive(Debug)]
pub(crate) struct Sink {
    endpoints: Weak<Endpoints>,
    patience: RefCell<Patience>,
    /// Takes an empty answer when the time to keep the endpoints known last is over.
    dropping: RefCell<Option<AbortHandle>>,
    /// When a failure was last logged, while look-ups fail.
    complained: Cell<Option<Instant>>,
    /// The source names nobody, and that has been logged.
    missed: Rc<Cell<bool>>,
    /// The file names the source, and not whoever calls it.
    is_written: bool,
}

impl Sink {
    pub(super) fn new(endpoints: &Arc<Endpoints>, is_written: bool) -> Self {
        Sink {
            endpoints: Arc::downgrade(endpoints),
            patience: RefCell::new(Patience::new()),
            dropping: RefCell::new(None),
            complained: Cell::new(None),
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

    /// Look-ups have failed for longer than their last answer may be used.
    pub(crate) fn expire(&self) {
        let Some(endpoints) = self.endpoints.upgrade() else { return };
        tracing::warn!(upstream = endpoints.upstream(), "its endpoints were looked up too long ago to be used still");
        endpoints.expire();
    }

    fn relieved(&self) {
        let Some(endpoints) = self.endpoints.upgrade() else { return };
        if self.complained.take().is_some() {
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
                if self.dropping.borrow().is_none() {
                    let seconds = (until - now).as_secs();
                    tracing::warn!(
                        upstream,
                        known,
                        seconds,
                        why,
                        "its source names no endpoint; those known last are kept for now"
                    );
                    self.drop_at(until);
                }
                endpoints.keep(now, until);
            }
            Verdict::Take => {
                self.keep_no_longer();
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
        let now = Instant::now();
        endpoints.failed(error.to_owned(), partly);
        if self.complained.get().is_none_or(|complained| now.duration_since(complained) >= REMIND_EVERY) {
            self.complained.set(Some(now));
            let kept = endpoints.load().members.len();
            let what = if partly { "some of its look-ups fail" } else { "its endpoints cannot be looked up" };
            tracing::warn!(upstream = endpoints.upstream(), kept, "{what}: {error}");
        }
    }

    /// The registry that is followed is not the one it was, or has lost its memory.
    pub(crate) fn reset(&self) {
        self.patience.borrow_mut().reset(Instant::now());
    }

    fn drop_at(&self, until: Instant) {
        let (endpoints, missed) = (self.endpoints.clone(), self.missed.clone());
        let dropping = tokio::task::spawn_local(async move {
            tokio::time::sleep_until(until).await;
            if let Some(endpoints) = endpoints.upgrade() {
                tracing::warn!(
                    upstream = endpoints.upstream(),
                    "its source still names no endpoint; it has none any more"
                );
                endpoints.publish(Vec::new(), Instant::now());
                missed.set(true);
            }
        });
        *self.dropping.borrow_mut() = Some(dropping.abort_handle());
    }

    fn keep_no_longer(&self) {
        if let Some(dropping) = self.dropping.borrow_mut().take() {
            dropping.abort();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.keep_no_longer();
    }
}
