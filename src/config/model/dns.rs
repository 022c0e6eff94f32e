//! What is looked up in DNS, and whom to ask.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::builtin;
use crate::config::dns_form::HostName;
use crate::config::scalar::Scalar;

/// The `dns:` section.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dns {
    /// Asked in turn. Empty: the machine's, by `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Answers hold at least this long. Default 1 s.
    pub min_ttl: Duration,
    /// And at most this long. Default 5 m.
    pub max_ttl: Duration,
    /// Where nobody answers any more, the last answer is used for this long after it has expired. Default 1 h.
    pub stale: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        builtin::DNS.clone()
    }
}

/// `upstreams.*.dns`, `upstreams.*.srv`: endpoints by DNS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DnsSource {
    /// Who is asked, and how long answers hold.
    pub resolver: Dns,
    /// What for.
    pub target: DnsTarget,
}

/// What is looked up. Names are as they are written: the search list applies where they have no final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DnsTarget {
    /// Every address of the name, with this port.
    Address {
        /// `orders.default.svc`
        name: String,
        /// At least 1.
        port: u16,
    },
    /// The instances that the name's SRV records name.
    Service {
        /// `_http._tcp.orders.default.svc`
        name: String,
    },
}

impl DnsTarget {
    /// The domain that endpoints speak for: the name, without what says of it which service it is, and without its
    /// final dot.
    pub(crate) fn domain(&self) -> &str {
        let (DnsTarget::Address { name, .. } | DnsTarget::Service { name }) = self;
        let mut domain = name.strip_suffix('.').unwrap_or(name);
        while let Some((_, parent)) = domain.split_once('.').filter(|(label, _)| label.starts_with('_')) {
            domain = parent;
        }
        domain
    }

    /// `None` where DNS cannot be asked for such a name, or there is no such port.
    pub(crate) fn address(name: &str, port: u16) -> Option<Self> {
        let HostName(name) = HostName::parse(name).ok().filter(|_| port > 0)?;
        Some(DnsTarget::Address { name, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_speak_for_the_domain_that_was_asked() {
        let service = |name: &str| DnsTarget::Service { name: name.to_owned() };
        assert_eq!(service("_http._tcp.bills.example.org.").domain(), "bills.example.org");
        assert_eq!(service("_tcp").domain(), "_tcp");
        assert_eq!(DnsTarget::Address { name: "orders.svc.".to_owned(), port: 1 }.domain(), "orders.svc");
    }
}
