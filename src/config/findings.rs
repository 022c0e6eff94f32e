//! What was found wrong while a file is read, before it is known how it will be shown.

use std::collections::HashSet;

use super::source::Place;
use super::tree::NodeId;

/// More than this many findings help nobody; the rest is counted.
const MAX_FINDINGS: usize = 50;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration works, but probably not as meant.
    Warning,
}

/// Where a finding points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// A node of the tree.
    Node(NodeId),
    /// A place in the text, where there is no node.
    Place(Place),
}

/// One mistake.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// Short and stable, such as `unknown-key`.
    pub(crate) code: &'static str,
    pub(crate) at: At,
    /// The keys to it, where `at` does not tell.
    pub(crate) path: Option<String>,
    /// One sentence without a full stop.
    pub(crate) reason: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// Another node that explains this one, and what it is.
    pub(crate) related: Option<(NodeId, &'static str)>,
}

impl Finding {
    pub(crate) fn error(code: &'static str, at: impl Into<At>, reason: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Error,
            code,
            at: at.into(),
            path: None,
            reason: reason.into(),
            hint: None,
            related: None,
        }
    }

    pub(crate) fn warning(code: &'static str, at: impl Into<At>, reason: impl Into<String>) -> Self {
        Finding { severity: Severity::Warning, ..Finding::error(code, at, reason) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    pub(crate) fn path(mut self, path: String) -> Self {
        self.path = Some(path);
        self
    }

    pub(crate) fn related(mut self, node: NodeId, what: &'static str) -> Self {
        self.related = Some((node, what));
        self
    }
}

impl From<NodeId> for At {
    fn from(node: NodeId) -> Self {
        At::Node(node)
    }
}

impl From<Place> for At {
    fn from(place: Place) -> Self {
        At::Place(place)
    }
}

/// All mistakes of a file, up to a bound.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    omitted: usize,
    errors: usize,
    /// Mappings with keys that could not be read: what is missing in them may be misspelt.
    incomplete: HashSet<NodeId>,
}

impl Findings {
    /// Adds a finding, unless the same was said of the same place: what an alias repeats is one mistake.
    pub(crate) fn push(&mut self, finding: Finding) {
        if self.list.iter().any(|other| other.at == finding.at && other.code == finding.code) {
            return;
        }
        if finding.severity == Severity::Error {
            self.errors += 1;
        }
        if self.list.len() < MAX_FINDINGS {
            self.list.push(finding);
        } else {
            self.omitted += 1;
        }
    }

    /// True when further findings are only counted: making their texts is wasted work.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= MAX_FINDINGS
    }

    /// Counts a mistake whose text was not made because [`Findings::is_full`].
    pub(crate) fn omit_error(&mut self) {
        self.errors += 1;
        self.omitted += 1;
    }

    pub(crate) fn mark_incomplete(&mut self, mapping: NodeId) {
        self.incomplete.insert(mapping);
    }

    pub(crate) fn is_incomplete(&self, mapping: NodeId) -> bool {
        self.incomplete.contains(&mapping)
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The findings that were kept, and how many were not.
    pub(crate) fn into_parts(self) -> (Vec<Finding>, usize) {
        (self.list, self.omitted)
    }
}
