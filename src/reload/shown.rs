//! What is in force, what lies over what, and what is not as it should be, as people and their tools see it.

use std::sync::Arc;
use std::time::Duration;

use super::document::Accepted;
use super::history::Generation;
use super::{Failure, Reload};
use crate::telemetry::metrics::ConfigFacts;

/// What is in force, as people see it.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) generation: u64,
    pub(crate) in_force: Arc<Accepted>,
    pub(crate) override_: Option<ShownOverride>,
    /// The hash of what the source holds, where it waits for the override's end.
    pub(crate) pending: Option<String>,
    /// Of what the source holds.
    pub(crate) failure: Option<Failure>,
    /// Of what somebody wanted last.
    pub(crate) refusal: Option<Failure>,
    /// What of it is read only when the proxy starts, and was otherwise then.
    pub(crate) held: Vec<String>,
    pub(crate) generations_alive: usize,
    /// Until what is in force is no longer watched.
    pub(crate) probation_left: Option<Duration>,
    /// Why the proxy went back by itself, as long as it has done nothing since.
    pub(crate) gone_back: Option<String>,
}

/// What lies over the source, as people see it.
#[derive(Debug, Clone)]
pub(crate) struct ShownOverride {
    pub(crate) by: String,
    /// Until it ends by itself.
    pub(crate) left: Option<Duration>,
}

impl Reload {
    pub(crate) fn shown(&self) -> Shown {
        let state = self.state.borrow();
        let override_ = state.over.as_ref().map(|over| ShownOverride { by: over.by(), left: over.left() });
        let waits = state.over.as_ref().is_some_and(|over| over.keeps_waiting(state.truth.hash));
        Shown {
            generation: self.stage.generation(),
            in_force: state.in_force.clone(),
            pending: waits.then(|| state.truth.hash.to_string()),
            override_,
            failure: state.failure.clone(),
            refusal: state.refusal.clone(),
            held: state.held.clone(),
            generations_alive: self.stage.generations_alive(),
            probation_left: self.guard.left(),
            gone_back: state.gone_back.clone(),
        }
    }

    pub(crate) fn history(&self) -> Vec<Generation> {
        self.state.borrow().history.newest_first().cloned().collect()
    }

    /// Where the truth comes from, for people: the source or, as long as that holds nothing that is right, what stands in
    /// for it.
    pub(crate) fn source(&self) -> String {
        self.state.borrow().stand_in.clone().unwrap_or_else(|| self.source.clone())
    }

    /// What is not as it should be, and does not make the proxy unready.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let shown = self.shown();
        let mut warnings = Vec::new();
        for failure in shown.failure.iter().chain(&shown.refusal) {
            let mut lines = failure.error.lines().map(str::trim);
            let first = lines.next().unwrap_or_default();
            // Of a mistake in a text, where it is.
            let place = lines.next().and_then(|line| line.strip_prefix("--> "));
            let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
            warnings.push(format!("the configuration of {} was refused: {first}{place}", failure.source));
        }
        if let Some(stand_in) = &self.state.borrow().stand_in {
            warnings.push(format!("{stand_in} stands in for {}", self.source));
        }
        if !shown.held.is_empty() {
            warnings.push(format!("{}: what is written holds from the next start on", shown.held.join(", ")));
        }
        warnings.extend(shown.gone_back);
        if let Some(override_) = &shown.override_ {
            warnings.push(format!("an override is in force ({})", override_.by));
        }
        if shown.pending.is_some() {
            warnings.push(format!("{} has changed and waits for the override's end", self.source));
        }
        warnings
    }

    pub(crate) fn facts(&self) -> ConfigFacts {
        let shown = self.shown();
        let state = self.state.borrow();
        let hash = shown.in_force.hash().to_string();
        ConfigFacts {
            source: state.stand_in.clone().unwrap_or_else(|| self.source.clone()),
            hash: state.truth.hash.to_string(),
            overridden: if shown.override_.is_some() { hash } else { String::new() },
            generation: shown.generation,
            last_reload_successful: state.failure.is_none() && state.refusal.is_none(),
            generations_alive: shown.generations_alive as u64,
            accepted: state.accepted,
            refused: state.refused,
            probations: self.guard.counts(),
        }
    }
}
