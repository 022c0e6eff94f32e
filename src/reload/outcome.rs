//! How an attempt to change the configuration ends.

use std::io;

use crate::config::diagnostics::Diagnostics;
use crate::config::diff::Diff;
use crate::identity::FileError;
use crate::listener::socket::BindError;

/// It is in force, or would be.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) generation: u64,
    /// The generation that had this content before, where somebody went back.
    pub(crate) content_of: Option<u64>,
    pub(crate) diff: Diff,
    /// What is probably not meant.
    pub(crate) warnings: Diagnostics,
}

impl Adopted {
    /// Nothing had to be done.
    pub(super) fn same(generation: u64) -> Self {
        let warnings = Diagnostics { file: String::new(), list: Vec::new(), omitted: 0 };
        Adopted { generation, content_of: None, diff: Diff::default(), warnings }
    }
}

/// It is not, and nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{}", .0.to_string().trim_end())]
    Invalid(Diagnostics),
    #[error("cannot read it: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Identity(#[from] FileError),
    /// What the environment says of Consul cannot be used.
    #[error("{0}")]
    Consul(String),
    #[error("cannot open the access log: {0}")]
    AccessLog(io::Error),
    #[error("this proxy is draining; the one that takes its place reads the new configuration")]
    Draining,
    #[error("another process is about to take this one's place; until it does, or has gone, nothing changes here")]
    TakingOver,
    #[error("generation {generation} is in force, which is not the one that If-Match names")]
    Outdated { generation: u64 },
    #[error("no override is in force")]
    NoOverride,
    #[error("there is no earlier configuration to go back to")]
    NothingBefore,
    #[error(
        "every generation that is remembered holds what is in force, or what was gone back from; --to NUMBER (?to=) goes there all the same"
    )]
    NothingLeft,
    #[error("generation {generation} is not among those that are remembered")]
    NotRemembered { generation: u64 },
    #[error("the configuration could not be compiled; this is a bug in the proxy")]
    Internal,
}

impl Refusal {
    /// True where the same may be accepted another time: it was what surrounds it that was not right.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Refusal::Bind(_) | Refusal::Identity(_) | Refusal::AccessLog(_) | Refusal::TakingOver => true,
            Refusal::Invalid(diagnostics) => diagnostics.may_pass(),
            Refusal::Unreadable(_)
            | Refusal::Consul(_)
            | Refusal::Draining
            | Refusal::Outdated { .. }
            | Refusal::NoOverride
            | Refusal::NothingBefore
            | Refusal::NothingLeft
            | Refusal::NotRemembered { .. }
            | Refusal::Internal => false,
        }
    }
}
