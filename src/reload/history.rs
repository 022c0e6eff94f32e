//! The last generations, to look at and to go back to.

use std::collections::VecDeque;
use std::time::SystemTime;

use super::Refusal;
use super::document::Wording;
use crate::config::ContentHash;
use crate::config::diff::Diff;
use crate::telemetry::clock;

/// So many generations are remembered, each by its text. Together they take 10 MiB at most; of a thousand routes, 0.6 MiB.
const REMEMBERED: usize = 10;
/// Lines of what one of them changed: more than that nobody reads.
const MOST_LINES: usize = 60;

/// Standings of a probation.
pub(super) const WATCHED: &str = "watched";
pub(super) const PASSED: &str = "passed";
pub(super) const FAILED: &str = "failed";
pub(super) const SUPERSEDED: &str = "superseded";

/// One accepted configuration.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) at: SystemTime,
    /// Where it came from.
    pub(crate) source: String,
    /// What it changed, in a few words.
    pub(crate) summary: String,
    /// The same line by line.
    pub(crate) changes: Vec<String>,
    /// Somebody went back from it.
    pub(crate) rejected: bool,
    /// Somebody went back from what it holds, from this number or a later one: nobody goes there without naming it.
    withdrawn: bool,
    /// How its probation stands: `watched`, `passed`, `failed`, `superseded`; `None` where it had none.
    pub(crate) probation: Option<&'static str>,
    pub(crate) wording: Wording,
}

impl Generation {
    /// The one that the proxy has started with.
    pub(crate) fn first(number: u64, source: String, wording: Wording) -> Self {
        Generation { summary: "started".to_owned(), ..Self::new(number, source, &Diff::default(), wording) }
    }

    pub(crate) fn new(number: u64, source: String, diff: &Diff, wording: Wording) -> Self {
        Generation {
            number,
            at: clock::now(),
            source,
            summary: diff.summary(),
            changes: diff.lines(MOST_LINES),
            rejected: false,
            withdrawn: false,
            probation: None,
            wording,
        }
    }
}

/// One to go back to.
#[derive(Debug)]
pub(super) struct Earlier {
    pub(super) number: u64,
    pub(super) wording: Wording,
}

impl From<&Generation> for Earlier {
    fn from(generation: &Generation) -> Self {
        Earlier { number: generation.number, wording: generation.wording.clone() }
    }
}

#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Generation>);

impl History {
    pub(super) fn add(&mut self, generation: Generation) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(generation);
    }

    /// Somebody has gone back from this one. What it holds is not to be gone back to by itself any more.
    pub(super) fn reject(&mut self, number: u64) {
        let Some(left) = self.0.iter_mut().find(|generation| generation.number == number) else { return };
        left.rejected = true;
        let hash = left.wording.hash;
        for generation in self.0.iter_mut().filter(|generation| generation.number <= number) {
            generation.withdrawn |= generation.wording.hash == hash;
        }
    }

    /// How the probation of this generation stands.
    pub(super) fn set_probation(&mut self, number: u64, standing: &'static str) {
        if let Some(generation) = self.0.iter_mut().find(|generation| generation.number == number) {
            generation.probation = Some(standing);
        }
    }

    /// The generation of this number, or the newest that differs from `in_force` and that nobody went back from.
    pub(super) fn target(&self, number: Option<u64>, in_force: ContentHash) -> Option<Earlier> {
        let target = match number {
            Some(number) => self.0.iter().rev().find(|generation| generation.number == number),
            None => self.earlier(in_force).next(),
        };
        target.map(Earlier::from)
    }

    /// The same as without a number, but rather one whose probation was not cut short: that one may be as bad.
    pub(super) fn proven(&self, in_force: ContentHash) -> Option<Earlier> {
        let proven = self.earlier(in_force).find(|generation| generation.probation != Some(SUPERSEDED));
        proven.or_else(|| self.earlier(in_force).next()).map(Earlier::from)
    }

    fn earlier(&self, in_force: ContentHash) -> impl Iterator<Item = &Generation> {
        let earlier = move |generation: &&Generation| generation.wording.hash != in_force && !generation.withdrawn;
        self.0.iter().rev().filter(earlier)
    }

    /// Why there is no target.
    pub(super) fn nothing_left(&self) -> Refusal {
        if self.0.len() > 1 { Refusal::NothingLeft } else { Refusal::NothingBefore }
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Generation> {
        self.0.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::{Accepted, Trust};
    use super::*;
    use crate::config::{Document, LoadOptions, load};

    fn wording(port: u16) -> Wording {
        let text = format!("listeners: {{ inbound: {{ address: \":0\", upstream: \"127.0.0.1:{port}\" }} }}");
        let document = Document { name: "test", bytes: text.as_bytes() };
        Accepted::new(load(document, &|_: &str| None, &LoadOptions::default()).unwrap(), Trust::Local).wording
    }

    fn history(ports: impl IntoIterator<Item = u16>) -> History {
        let mut history = History::default();
        for (number, port) in (1..).zip(ports) {
            history.add(Generation::first(number, String::new(), wording(port)));
        }
        history
    }

    #[test]
    fn going_back_twice_does_not_go_forth() {
        let mut history = history([1, 2, 3]);
        history.reject(3);
        assert_eq!(history.target(None, wording(3).hash).unwrap().wording.hash, wording(2).hash);
        history.add(Generation::first(4, String::new(), wording(2)));
        history.reject(4);
        assert_eq!(history.target(None, wording(2).hash).unwrap().wording.hash, wording(1).hash);
        history.add(Generation::first(5, String::new(), wording(1)));
        history.reject(5);
        assert!(history.target(None, wording(1).hash).is_none());
        let rejected: Vec<_> = history.newest_first().map(|generation| generation.rejected).collect();
        assert_eq!(
            rejected,
            [true, true, true, false, false],
            "those that were left, and not those that hold the same"
        );
    }

    #[test]
    fn what_somebody_wants_again_is_not_withdrawn_any_more() {
        let mut history = history([1, 2, 3]);
        history.reject(3);
        history.add(Generation::first(4, String::new(), wording(3)));
        history.add(Generation::first(5, String::new(), wording(9)));
        assert_eq!(history.target(None, wording(9).hash).unwrap().number, 4);
    }

    #[test]
    fn the_guard_goes_back_to_what_was_proven() {
        let mut history = history([1, 2, 3, 4]);
        history.set_probation(2, PASSED);
        history.set_probation(3, SUPERSEDED);
        assert_eq!(history.proven(wording(4).hash).unwrap().wording.hash, wording(2).hash);
        assert_eq!(history.target(None, wording(4).hash).unwrap().wording.hash, wording(3).hash);
        for port in [1, 2] {
            history.reject(port);
        }
        assert_eq!(history.proven(wording(4).hash).unwrap().wording.hash, wording(3).hash, "rather that than nothing");
    }

    #[test]
    fn ten_are_remembered() {
        let history = history(1..=12);
        assert_eq!(history.newest_first().map(|generation| generation.number).last(), Some(3));
        assert!(history.target(Some(2), wording(12).hash).is_none());
        assert_eq!(history.target(Some(3), wording(12).hash).unwrap().wording.hash, wording(3).hash);
    }
}
