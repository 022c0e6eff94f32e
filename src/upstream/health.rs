//! What checks have found, as it is kept with an endpoint.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::moment::Moment;
use super::standing::Objection;
use super::state::{EndpointState, UpstreamState};

const UNCHECKED: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// The latest of an endpoint's checks. Only the control side looks at it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    state: AtomicU8,
    error: Mutex<Option<String>>,
}

impl Health {
    /// The word in `/upstreams`.
    pub(crate) fn as_str(&self) -> &'static str {
        match self.state.load(Relaxed) {
            UP => "up",
            DOWN => "down",
            _ => "unchecked",
        }
    }

    /// Why the latest check has failed, if it has.
    pub(crate) fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: u8, error: Option<String>) {
        self.state.store(state, Relaxed);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

impl UpstreamState {
    /// A check has ended, well or with an error; all of them taken together, the endpoint is up or not.
    pub(crate) fn checked(&self, endpoint: &EndpointState, up: bool, error: Option<String>, now: Moment) {
        let count = if error.is_none() { &self.checks.0 } else { &self.checks.1 };
        count.fetch_add(1, Relaxed);
        let (upstream, label) = (&*self.name, &*endpoint.label);
        if !up && self.raise(endpoint, Objection::Down) {
            let error = error.as_deref().unwrap_or_default();
            tracing::warn!(upstream, endpoint = label, error, "an endpoint is down: it fails its health check");
        } else if up && self.drop(endpoint, Objection::Down) {
            if let Some(over) = self.slow_start() {
                endpoint.warm_up(over, now);
            }
            tracing::info!(upstream, endpoint = label, "an endpoint is up: it passes its health check");
        }
        endpoint.health.set(if up { UP } else { DOWN }, error);
    }

    /// The endpoint is checked no more, or by another check that has not ended yet.
    pub(crate) fn unchecked(&self, endpoint: &EndpointState) {
        self.drop(endpoint, Objection::Down);
        endpoint.health.set(UNCHECKED, None);
    }
}
