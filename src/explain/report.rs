//! What is said of a request. The order of fields here is that of the JSON.

use serde::{Deserialize, Serialize};

use super::live::Now;

/// What would become of a request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Explanation {
    pub(super) method: String,
    pub(super) url: String,
    /// The one in force; `null` where no proxy was asked.
    pub(super) generation: Option<u64>,
    /// Those that could take it.
    pub(super) listeners: Vec<Listener>,
}

impl Explanation {
    /// True where some listener has a route for it.
    pub(crate) fn is_taken(&self) -> bool {
        self.listeners.iter().any(|listener| listener.route.is_some())
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) address: String,
    /// What speaks against its being asked so.
    pub(super) note: Option<String>,
    /// Who may call; empty: everybody.
    pub(super) callers: Vec<String>,
    /// Rate limit and concurrency.
    pub(super) limits: Vec<String>,
    pub(super) body_bytes: Option<u64>,
    /// How many it has.
    pub(super) routes: usize,
    /// Those before the one that matches.
    pub(super) skipped: Vec<Skipped>,
    /// Why it goes nowhere: the reason and a sentence.
    pub(super) refused: Option<String>,
    pub(super) route: Option<Route>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Skipped {
    pub(super) route: String,
    /// Counted from 1.
    pub(super) position: usize,
    pub(super) because: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Route {
    pub(super) name: String,
    /// Counted from 1.
    pub(super) position: usize,
    pub(super) callers: Vec<String>,
    pub(super) limits: Vec<String>,
    pub(super) fault: Option<String>,
    pub(super) mirror: Option<String>,
    pub(super) redirect: Option<Redirect>,
    pub(super) respond: Option<Respond>,
    pub(super) sends: Option<Sends>,
    /// More than one where the route splits.
    pub(super) upstreams: Vec<Upstream>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Redirect {
    pub(super) status: u16,
    pub(super) location: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Respond {
    pub(super) status: u16,
    pub(super) body: String,
}

/// What the upstream would see.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sends {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) host: String,
    /// Beside those that every request gets.
    pub(super) headers: Vec<Change>,
    /// Why it cannot be sent.
    pub(super) error: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) change: Kind,
    pub(super) name: String,
    /// `null` where it is removed.
    pub(super) value: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Set,
    Added,
    Removed,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Upstream {
    pub(super) name: String,
    /// Of the requests; `null` where all go there.
    pub(super) share: Option<f64>,
    pub(super) endpoints: String,
    pub(super) balancer: String,
    pub(super) protocol: String,
    pub(super) tls: Option<String>,
    pub(super) timeouts: Vec<Timeout>,
    pub(super) retries: Retries,
    pub(super) limits: Vec<String>,
    pub(super) circuit_breaker: Option<String>,
    pub(super) ejection: Option<String>,
    pub(super) health: Option<String>,
    /// `null` where no proxy was asked.
    pub(super) now: Option<Now>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timeout {
    pub(super) name: String,
    /// As in the file.
    pub(super) value: String,
    pub(super) from: Origin,
}

/// Who has said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// `grpc-timeout`, or the header of deadlines.
    Client,
    Route,
    Upstream,
    Defaults,
    BuiltIn,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Retries {
    /// At most so many.
    pub(super) max: u32,
    /// On what.
    pub(super) when: Vec<String>,
    /// Whether it may be sent again once an endpoint may have begun with it.
    pub(super) repeatable: bool,
    pub(super) verdict: String,
    /// What bounds them.
    pub(super) terms: String,
}
