//! Where a request goes: an upstream of the configuration, or a service that its host names.
//!
//! A service is found once for all workers, under a lock; each worker then remembers it by the host as it was written,
//! so that the next request to it takes none.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use http::Request;
use tokio::time::Instant;

use super::decisions::host;
use super::record::Record;
use super::worker::Generation;
use crate::body::Body;
use crate::config::model::UpstreamIndex;
use crate::error::{Error, Reason};
use crate::route::service::{Refused, called};
use crate::snapshot::{OnDemand, Target, Upstream};
use crate::upstream::services::Service;
use crate::upstream::turns::Turns;

/// A service can be written in several ways: with a port, in capitals. A worker that remembers more than so many hosts
/// for each service that there may be forgets them all, and asks for each once more.
const HOSTS_PER_SERVICE: usize = 4;
/// A name, its final dot and a port. What is longer, by zeros before its port, is looked for each time.
const LONGEST_HOST: usize = 253 + 1 + ":65535".len();

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    Written(UpstreamIndex),
    Found(Rc<Found>),
}

/// A service that was found, as one worker has it.
#[derive(Debug)]
pub(crate) struct Found {
    service: Arc<Service>,
    pub(super) upstream: Upstream,
    pub(super) turns: Rc<RefCell<Turns>>,
}

/// What one worker has found for one route, by the host as it was written.
#[derive(Debug, Default)]
pub(super) struct Hosts(RefCell<HashMap<Box<str>, Rc<Found>>>);

impl Destination {
    /// Where `target` leads this request.
    pub(super) fn of(
        record: &mut Record,
        generation: &Generation,
        target: &Target,
        request: &Request<Body>,
    ) -> Result<Self, Error> {
        let written = Destination::Written(target.upstream);
        record.send_to(&written);
        let upstream = generation.snapshot.upstream(target.upstream);
        let Some(on_demand) = &upstream.on_demand else { return Ok(written) };
        let found = Destination::Found(generation.find(upstream, on_demand, host(request), record.received)?);
        record.send_to(&found);
        Ok(found)
    }
}

impl Hosts {
    pub(super) fn get(&self, host: &str, now: Instant) -> Option<Rc<Found>> {
        let hosts = self.0.borrow();
        hosts.get(host).filter(|found| found.service.call(now.into())).cloned()
    }

    /// Finds the service that the host names, and remembers it.
    pub(super) fn find(
        &self,
        upstream: &Upstream,
        on_demand: &OnDemand,
        host: &str,
        now: Instant,
        turns: impl FnOnce(&Upstream) -> Rc<RefCell<Turns>>,
    ) -> Result<Rc<Found>, Error> {
        let called = called(host, &on_demand.rules).map_err(|refused| match refused {
            Refused::NoName => Error::local(Reason::NoRoute).because("the host is the name of no service"),
            Refused::Denied => Error::local(Reason::Denied).because("the route may not look for this service"),
        })?;
        let service = on_demand.find(called, now.into()).ok_or_else(|| Error::local(Reason::Overflow))?;
        let upstream = upstream.serving(&service);
        let found = Rc::new(Found { turns: turns(&upstream), service, upstream });
        if host.len() > LONGEST_HOST {
            return Ok(found);
        }
        let mut hosts = self.0.borrow_mut();
        if hosts.len() >= on_demand.rules.max.saturating_mul(HOSTS_PER_SERVICE) {
            hosts.clear();
        }
        hosts.insert(host.into(), found.clone());
        Ok(found)
    }

    /// Lets go of what has been forgotten.
    pub(super) fn refresh(&self) {
        self.0.borrow_mut().retain(|_, found| !found.service.is_forgotten());
    }

    /// Lets go of everything.
    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}
