//! What speaks against an endpoint, in one word that a pick looks at.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Something that speaks against an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Objection {
    /// Its check says that it is down.
    Down = 1,
    /// It has failed too often.
    Ejected = 2,
    /// It gets less than its share for a while.
    Warming = 4,
    /// It would be ejected, if ejection did more than count.
    Shadowed = 8,
}

/// All objections to one endpoint. None, mostly.
#[derive(Debug, Default)]
pub(crate) struct Standing(AtomicU8);

impl Standing {
    /// True where a pick need not look further.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    pub(crate) fn has(&self, objection: Objection) -> bool {
        self.0.load(Relaxed) & objection as u8 != 0
    }

    /// True where it was not there yet.
    pub(crate) fn raise(&self, objection: Objection) -> bool {
        self.0.fetch_or(objection as u8, Relaxed) & objection as u8 == 0
    }

    /// True where it was there. Where it was not, nothing is written: the workers' cores go on reading their own copies.
    pub(crate) fn drop(&self, objection: Objection) -> bool {
        self.has(objection) && self.0.fetch_and(!(objection as u8), Relaxed) & objection as u8 != 0
    }
}
