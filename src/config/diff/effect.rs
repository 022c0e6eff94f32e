//! What a change of a key does to the proxy that runs.

use serde::Serialize;

use super::Part;

/// What becomes of the state behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Holds from the next request on; everything is kept.
    InPlace,
    /// Holds for new connections; open ones go on as they began.
    NewConnections,
    /// What the proxy remembers of this begins anew.
    Resets,
    /// Takes nothing new in, and ends with its last request.
    Drains,
    /// Holds from the next start of the process on.
    Restart,
}

impl Effect {
    /// In a few words.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::InPlace => "in place",
            Effect::NewConnections => "for new connections",
            Effect::Resets => "begins anew",
            Effect::Drains => "drains",
            Effect::Restart => "at the next start",
        }
    }
}

/// Keys with another effect than what their part has by default. A key covers those below it.
const OF_PROCESS: &[(&str, Effect)] = &[
    ("service", Effect::InPlace),
    // Endpoints are looked up anew, and the proxy registers itself at the agent that is named now.
    ("consul", Effect::Resets),
    ("register", Effect::InPlace),
    ("drain", Effect::InPlace),
    ("telemetry.log.level", Effect::InPlace),
    ("telemetry.access_log", Effect::InPlace),
];
const OF_LISTENER: &[(&str, Effect)] = &[
    ("address", Effect::Drains),
    ("mode", Effect::NewConnections),
    ("tls", Effect::NewConnections),
    ("limits.streams", Effect::NewConnections),
    ("limits.connections", Effect::InPlace),
];
const OF_ROUTE: &[(&str, Effect)] = &[("discover.from", Effect::Resets)];
const OF_UPSTREAM: &[(&str, Effect)] = &[
    ("load_balancer", Effect::Resets),
    ("health", Effect::Resets),
    ("protocol", Effect::NewConnections),
    ("tls", Effect::NewConnections),
];

/// What a change of this key does. What no table names holds from the next start on where it is the process', so that
/// nothing is promised which nobody has built, and in place elsewhere.
pub(super) fn of(part: Part, key: &str) -> Effect {
    let (table, otherwise) = match part {
        Part::Process => (OF_PROCESS, Effect::Restart),
        Part::Listener => (OF_LISTENER, Effect::InPlace),
        Part::Route => (OF_ROUTE, Effect::InPlace),
        Part::Upstream => (OF_UPSTREAM, Effect::InPlace),
    };
    let covers =
        |known: &str| key.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    table.iter().find(|(known, _)| covers(known)).map_or(otherwise, |(_, effect)| *effect)
}
