//! Manifests and pods: the sidecar in, the sidecar out. Pure: text in, text out.
//!
//! A `plan` says what is to be changed in a pod; `inject` makes it edits of the text, which `eject` undoes by the
//! `record` that an annotation keeps. To put something more into pods: its value in `sidecar`, its place in `plan`.

mod edit;
mod eject;
mod inject;
mod options;
mod plan;
mod probes;
mod record;
pub mod redirect;
mod review;
mod sidecar;
mod value;
mod yaml;

pub use eject::eject;
pub use inject::{Companion, inject};
pub use options::{Form, Mode, Options, PROXY_USER};
pub use review::{Policy, review};
pub use sidecar::example_of_variable;
pub use yaml::SyntaxError;

/// What became of manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The manifests.
    pub text: String,
    /// Workloads that were changed.
    pub changed: usize,
    /// What a person should know of the others.
    pub notes: Vec<Note>,
}

/// Something to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// A sentence.
    pub text: String,
    /// Whether the work could not be done.
    pub error: bool,
}

impl Note {
    fn left(text: String) -> Self {
        Note { text, error: false }
    }

    fn wrong(text: String) -> Self {
        Note { text, error: true }
    }
}
