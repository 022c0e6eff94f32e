//! Endpoints by DNS: every address of a name, or the instances that SRV records name.
//!
//! [`crate::dns`] asks the nameservers; `book` remembers what they said and when each question is due again; `walk` makes
//! endpoints of what is known, or says what has to be asked first: every rule of judgement is there, and both are pure.
//! `follow` goes round. What is published are the endpoints that `routes` leaves.

mod book;
mod follow;
mod routes;
mod walk;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::{Rc, Weak};

use self::book::Terms;
use self::follow::{News, Target, follow};
use super::{Sink, Source};
use crate::config::model::{DnsSource, DnsTarget, EndpointAddress};
use crate::dns::nameservers::Nameservers;
use crate::upstream::endpoints::Discovered;

/// The machine's nameservers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Nameservers that sources share, by how they are written; none written are the machine's.
#[derive(Debug, Default)]
pub(super) struct Shared(RefCell<HashMap<Vec<SocketAddr>, Weak<Nameservers>>>);

impl Shared {
    /// A source of endpoints. Has to be called on the runtime that is to run it.
    pub(super) fn source(&self, source: &DnsSource) -> Dns {
        let mut known = self.0.borrow_mut();
        let servers = &source.resolver.servers;
        if let Some(nameservers) = known.get(servers).and_then(Weak::upgrade) {
            return Dns { source: source.clone(), nameservers };
        }
        known.retain(|_, nameservers| nameservers.strong_count() > 0);
        let nameservers = match servers.as_slice() {
            [] => Nameservers::of_machine(Path::new(RESOLV_CONF).to_owned()),
            servers => Nameservers::written(servers),
        };
        known.insert(servers.clone(), Rc::downgrade(&nameservers));
        Dns { source: source.clone(), nameservers }
    }
}

/// Follows one name.
#[derive(Debug)]
pub(super) struct Dns {
    source: DnsSource,
    nameservers: Rc<Nameservers>,
}

impl Source for Dns {
    async fn run(self, sink: Sink) {
        let resolver = &self.source.resolver;
        let terms = Terms { min_ttl: resolver.min_ttl, max_ttl: resolver.max_ttl, stale: resolver.stale };
        let target = match &self.source.target {
            DnsTarget::Address { name, port } => Target::Addresses { name: name.clone(), port: *port },
            DnsTarget::Service { name } => Target::Services { name: name.clone() },
        };
        let tell = |news| match news {
            News::Endpoints(endpoints, failure) => {
                let discovered = routes::reachable(endpoints).into_iter().map(|endpoint| Discovered {
                    address: EndpointAddress::Tcp(endpoint.address),
                    weight: endpoint.weight,
                    priority: endpoint.priority,
                    zone: None,
                    protocol: None,
                });
                match failure {
                    None => sink.publish(discovered.collect()),
                    Some(failure) => sink.publish_partly(discovered.collect(), &failure),
                }
            }
            News::Empty(why) => sink.publish_none(&why),
            News::PartlyFailed(error) => sink.failed_partly(&error),
            News::Failed(error) => sink.failed(&error),
            News::Expired => sink.expire(),
        };
        follow(&target, terms, self.nameservers.subscribe(), tell).await;
    }
}
