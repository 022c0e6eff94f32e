//! Whose turn it is: one worker's balancer of one upstream.

use std::sync::Arc;

use super::RoundRobin;
use super::endpoints::{EndpointSet, Endpoints};
use super::state::EndpointState;

/// A balancer over the set that it was made for, and made anew when the source has named another.
#[derive(Debug)]
pub(crate) struct Turns {
    endpoints: Arc<Endpoints>,
    set: Arc<EndpointSet>,
    balancer: RoundRobin,
}

impl Turns {
    /// `seed` tells workers apart, so that they do not all begin with the same endpoint.
    pub(crate) fn new(endpoints: Arc<Endpoints>, seed: u64) -> Self {
        let set = Arc::clone(&endpoints.load());
        let balancer = RoundRobin::new(weights(&set), seed);
        Turns { endpoints, set, balancer }
    }

    /// The next endpoint, or `None` where there is none.
    pub(crate) fn pick(&mut self) -> Option<Arc<EndpointState>> {
        self.refresh();
        let position = self.balancer.pick(|_| true)?;
        Some(self.set.members[position].state.clone())
    }

    /// Lets go of a set that is not in force any more: what is gone from it can drain.
    pub(crate) fn refresh(&mut self) {
        let set = self.endpoints.load();
        if !Arc::ptr_eq(&set, &self.set) {
            self.set = Arc::clone(&set);
            self.balancer = RoundRobin::new(weights(&set), fastrand::u64(..));
        }
    }
}

fn weights(set: &EndpointSet) -> impl Iterator<Item = u32> {
    set.members.iter().map(|member| member.weight)
}
