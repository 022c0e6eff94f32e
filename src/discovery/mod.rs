//! Where endpoints come from: sources that follow a registry, each a task on the control thread.
//!
//! To add a source: an arm of [`EndpointSource`] in the configuration's model, a file here with a type that is a
//! [`Source`], and its arm in [`start`]. A source tells its [`Sink`] whole answers and failures, and nothing else: that
//! an answer keeps what it does not change, that a failure keeps all, is the business of [`Endpoints`].

use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::model::EndpointSource;
use crate::upstream::endpoints::{Discovered, Endpoints};

/// Something that knows the endpoints of an upstream.
#[expect(dead_code, reason = "the sources that follow a registry come next")]
pub(crate) trait Source: 'static {
    /// Follows them for as long as it is let; it is dropped when nobody needs its answers any more. Never returns on an
    /// error: it says so and tries again.
    fn run(self, sink: Sink) -> impl Future<Output = ()>;
}

/// What a source says goes in here.
#[derive(Debug)]
pub(crate) struct Sink {
    endpoints: Weak<Endpoints>,
    alive: watch::Receiver<bool>,
}

#[expect(dead_code, reason = "the sources that follow a registry come next")]
impl Sink {
    fn new(endpoints: &Arc<Endpoints>) -> Self {
        Sink { endpoints: Arc::downgrade(endpoints), alive: endpoints.watch() }
    }

    /// A whole answer: these endpoints, and no others. True where it changed anything.
    pub(crate) fn publish(&self, discovered: Vec<Discovered>) -> bool {
        self.endpoints.upgrade().is_some_and(|endpoints| endpoints.publish(discovered, Instant::now()))
    }

    /// A look-up that failed, in words that an operator understands.
    pub(crate) fn failed(&self, error: String) {
        if let Some(endpoints) = self.endpoints.upgrade() {
            endpoints.failed(error);
        }
    }

    /// Returns when nobody needs the answers any more.
    async fn unneeded(&mut self) {
        while self.alive.changed().await.is_ok() {}
    }
}

/// Starts the source of endpoints that a new generation has brought, on the current thread.
pub(crate) fn start(source: &EndpointSource, _endpoints: &Arc<Endpoints>) {
    match source {
        // Written in the file: the registry has published them.
        EndpointSource::Static(_) => {}
    }
}
