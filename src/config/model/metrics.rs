//! What scrapes and probes find.

use std::fmt;

use super::{BindAddress, EndpointAddress};

/// The `metrics:` section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where scrapes and probes are answered. Default nowhere.
    pub address: Option<BindAddress>,
    /// What is asked of the app when `/probe/NAME` is, by name.
    pub probes: Vec<(String, ProbeTarget)>,
}

/// What is asked of the app when a probe comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Where the app listens.
    pub address: EndpointAddress,
    /// How it is asked.
    pub question: ProbeQuestion,
}

/// How an app is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeQuestion {
    /// A GET of this.
    Http(http::uri::PathAndQuery),
    /// A connection.
    Tcp,
}

impl fmt::Display for ProbeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.question {
            ProbeQuestion::Http(path) => write!(f, "http://{}{path}", self.address),
            ProbeQuestion::Tcp => write!(f, "tcp://{}", self.address),
        }
    }
}
