//! Where endpoints come from: sources that follow a registry, each a task on the control thread.
//!
//! To add a source: an arm of [`EndpointSource`] in the configuration's model, a file here with a type that is a
//! [`Source`], and its arm in [`Discovery::start`]. A source tells its [`Sink`] answers and failures, and nothing else:
//! that an answer keeps what it does not change, that a failure keeps all, and what an empty answer is worth, is decided
//! behind it, the same for all.

mod consul;
mod dns;
mod patience;
mod sink;

use std::sync::Arc;

use crate::config::model::{Config, DiscoverFrom, EndpointSource};
use crate::upstream::endpoints::Endpoints;
pub(crate) use sink::Sink;

/// Something that knows the endpoints of an upstream.
pub(crate) trait Source: 'static {
    /// Follows them for as long as it is let; it is dropped when nobody needs its answers any more. Never returns on an
    /// error: it says so and tries again.
    fn run(self, sink: Sink) -> impl Future<Output = ()>;
}

/// Whether every source of this configuration can be followed in this environment.
///
/// # Errors
/// A sentence, where the environment says something that cannot be used.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    for upstream in &config.upstreams {
        match &upstream.source {
            EndpointSource::Static(_) | EndpointSource::Original | EndpointSource::Dns(_) => {}
            EndpointSource::Consul(source) => consul::check(&source.agents)?,
            EndpointSource::OnDemand(rules) => match &rules.from {
                DiscoverFrom::Consul(agents) => consul::check(agents)?,
                DiscoverFrom::Dns { .. } => {}
            },
        }
    }
    Ok(())
}

/// Starts sources, and holds what they share. Belongs to one thread: they run on it.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    dns: dns::Shared,
}

impl Discovery {
    /// Follows the source of these endpoints, unless somebody does. `is_written`: the file names it, and not a caller.
    pub(crate) fn start(&self, source: &EndpointSource, endpoints: &Arc<Endpoints>, is_written: bool) {
        if !endpoints.begin_following() {
            return;
        }
        let sink = Sink::new(endpoints, is_written, matches!(source, EndpointSource::Consul(_)));
        match source {
            // Written in the file: the registry has published them.
            EndpointSource::Static(_) => {}
            // Each connection brings its own.
            EndpointSource::Original => {}
            // Each service that is called has a source of its own.
            EndpointSource::OnDemand(_) => {}
            EndpointSource::Consul(source) => match consul::Service::new(source) {
                Ok(service) => follow(service, sink, endpoints),
                Err(error) => sink.failed(&error),
            },
            EndpointSource::Dns(source) => follow(self.dns.source(source), sink, endpoints),
        }
    }
}

fn follow(source: impl Source, sink: Sink, endpoints: &Arc<Endpoints>) {
    let mut needed = endpoints.watch();
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = source.run(sink) => {}
            () = async { while needed.changed().await.is_ok() {} } => {}
        }
    });
}
