//! What the proxy remembers of upstreams and endpoints, whatever the configuration says meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::limit::Limit;
use crate::config::model::{EndpointAddress, UpstreamLimits, UpstreamProtocol};

/// An upstream's memory, kept under its name.
#[derive(Debug)]
pub(crate) struct UpstreamState {
    pub(crate) name: Arc<str>,
    /// Open connections.
    pub(crate) connections: Arc<Limit>,
    /// Requests in flight.
    pub(crate) requests: Arc<Limit>,
    /// Requests that wait for a connection.
    pub(crate) waiting: Arc<Limit>,
    known: Mutex<HashMap<EndpointAddress, Weak<EndpointState>>>,
}

/// An endpoint's memory, kept under its upstream and address.
#[derive(Debug)]
pub(crate) struct EndpointState {
    /// Never used twice: keys of pools.
    pub(crate) id: u64,
    pub(crate) address: EndpointAddress,
    /// The address as logs show it.
    pub(crate) label: Arc<str>,
    in_flight: AtomicU32,
    requests: AtomicU64,
    failures: AtomicU64,
    /// What the source of the endpoint says that it speaks: 1 is HTTP/1.1, 2 is HTTP/2, 0 is nothing said.
    protocol: AtomicU8,
}

impl EndpointState {
    fn new(address: EndpointAddress) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        EndpointState {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            label: address.to_string().into(),
            address,
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            protocol: AtomicU8::new(0),
        }
    }

    /// Counts an attempt for as long as the guard lives.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What its source says that it speaks; [`UpstreamProtocol::Auto`] where it says nothing.
    pub(crate) fn protocol(&self) -> UpstreamProtocol {
        match self.protocol.load(Ordering::Relaxed) {
            1 => UpstreamProtocol::Http1,
            2 => UpstreamProtocol::Http2,
            _ => UpstreamProtocol::Auto,
        }
    }

    pub(super) fn speaks(&self, protocol: Option<UpstreamProtocol>) {
        let number = match protocol {
            None | Some(UpstreamProtocol::Auto) => 0,
            Some(UpstreamProtocol::Http1) => 1,
            Some(UpstreamProtocol::Http2) => 2,
        };
        self.protocol.store(number, Ordering::Relaxed);
    }

    /// Attempts since the endpoint is known.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Attempts that got no response.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// An attempt in flight.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<EndpointState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl UpstreamState {
    pub(super) fn new(name: &str, limits: UpstreamLimits) -> Self {
        UpstreamState {
            name: name.into(),
            connections: Limit::new(limits.connections),
            requests: Limit::new(limits.requests),
            waiting: Limit::new(limits.waiting),
            known: Mutex::default(),
        }
    }

    /// New bounds; what exists above them stays until it ends by itself.
    pub(super) fn set_limits(&self, limits: UpstreamLimits) {
        self.connections.set_max(limits.connections);
        self.requests.set_max(limits.requests);
        self.waiting.set_max(limits.waiting);
    }

    /// The memory of each of these endpoints, new where there is none.
    pub(super) fn endpoints<'a>(
        &self,
        addresses: impl Iterator<Item = &'a EndpointAddress>,
    ) -> Vec<Arc<EndpointState>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, state| state.strong_count() > 0);
        let remembered = addresses.map(|address| {
            if let Some(state) = known.get(address).and_then(Weak::upgrade) {
                return state;
            }
            let state = Arc::new(EndpointState::new(address.clone()));
            known.insert(address.clone(), Arc::downgrade(&state));
            state
        });
        remembered.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_lasts_as_long_as_somebody_uses_it() {
        let upstream = UpstreamState::new("a", UpstreamLimits { connections: 1, requests: 1, waiting: 1 });
        let address = EndpointAddress::Tcp("127.0.0.1:1".parse().unwrap());
        let endpoint = || upstream.endpoints([&address].into_iter()).remove(0);
        let first = endpoint();
        let running = first.begin();
        assert_eq!(endpoint().in_flight(), 1);
        let id = first.id;
        drop((first, running));
        assert_ne!(endpoint().id, id);
    }
}
