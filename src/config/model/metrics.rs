//! What scrapes and probes find.

use std::fmt;
use std::time::Duration;

use super::{BindAddress, EndpointAddress, MetricsExport};

/// The `metrics:` section.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// Where scrapes and probes are answered. Default nowhere.
    pub address: Option<BindAddress>,
    /// What is asked of the app when `/probe/NAME` is, by name.
    pub probes: Vec<(String, ProbeTarget)>,
    /// Of the histograms of durations.
    pub buckets: Buckets,
    /// Also sent to a collector of OpenTelemetry's; `None` where the file says nothing of it.
    pub export: Option<MetricsExport>,
}

/// Upper bounds of a histogram's buckets, the smallest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets(pub(in crate::config) Vec<Duration>);

impl Buckets {
    /// Each is one more series of each route and class of codes.
    pub const MOST: usize = 20;

    /// Those with these bounds, as they should be.
    #[cfg(test)]
    pub(crate) fn of(bounds: impl IntoIterator<Item = Duration>) -> Self {
        Buckets(bounds.into_iter().collect())
    }

    /// At least one, at most [`Buckets::MOST`].
    pub fn bounds(&self) -> &[Duration] {
        &self.0
    }
}

impl Default for Buckets {
    /// Eleven, so that ten routes with two classes of codes stay below 300 series; closer together where most services
    /// answer (1 to 25 ms) than where only timeouts are.
    fn default() -> Self {
        let micros = [500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 250_000, 1_000_000, 5_000_000, 60_000_000];
        Buckets(micros.map(Duration::from_micros).to_vec())
    }
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
