//! What lies over the source of truth, and until when.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::ContentHash;

/// One override.
#[derive(Debug)]
pub(super) struct Override {
    number: u64,
    kind: Kind,
    until: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Somebody put it there by hand, over what the source held then; or went back from what had been put there, while
    /// something else of the source was waiting already.
    Put { held: ContentHash, by: String },
    /// The source's content of this hash was gone back from.
    Rollback { rejected: ContentHash, by: String },
}

impl Override {
    pub(super) fn new(number: u64, kind: Kind, lasts: Option<Duration>) -> Self {
        Override { number, kind, until: lasts.map(|lasts| Instant::now() + lasts) }
    }

    /// Tells it from others.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn left(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// True where it goes on although the source now holds this. A rollback is over as soon as the source holds something
    /// else than what was gone back from.
    pub(super) fn outlasts(&self, hash: ContentHash) -> bool {
        match &self.kind {
            Kind::Put { .. } => true,
            Kind::Rollback { rejected, .. } => *rejected == hash,
        }
    }

    /// What the source held when it was laid over that by hand.
    pub(super) fn laid_over(&self) -> Option<ContentHash> {
        match &self.kind {
            Kind::Put { held, .. } => Some(*held),
            Kind::Rollback { .. } => None,
        }
    }

    /// True where the source has come to hold this meanwhile, and gets its turn when this is over.
    pub(super) fn keeps_waiting(&self, hash: ContentHash) -> bool {
        self.laid_over().is_some_and(|held| held != hash)
    }

    pub(super) fn by(&self) -> String {
        match &self.kind {
            Kind::Put { by, .. } => by.clone(),
            Kind::Rollback { rejected, by } => format!("{by}, until the source is no longer {rejected}"),
        }
    }
}
