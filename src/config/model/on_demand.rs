//! `discover:` services that are found when first called.

use std::time::Duration;

use super::{Consul, Dns};
pub use crate::config::name_pattern::NamePattern;

/// Whatever services are called for: each is an upstream of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDemand {
    /// Who knows them.
    pub from: DiscoverFrom,
    /// Only these names; empty: all.
    pub allow: Vec<NamePattern>,
    /// And none of these.
    pub deny: Vec<NamePattern>,
    /// At most so many at a time. Default 100.
    pub max: usize,
    /// One that nobody has called for so long is forgotten. Default 5 m.
    pub idle: Duration,
}

impl OnDemand {
    /// True where a service of this name may be looked for: lower case, no final dot.
    pub(crate) fn lets(&self, name: &str) -> bool {
        let among = |patterns: &[NamePattern]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.allow.is_empty() || among(&self.allow)) && !among(&self.deny)
    }
}

/// Who knows the services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoverFrom {
    /// Consul, by the names that its DNS has.
    Consul(Consul),
    /// DNS.
    Dns {
        /// Who is asked.
        resolver: Dns,
        /// The only port that is called; `None`: that of the host which is asked for.
        port: Option<u16>,
    },
}
