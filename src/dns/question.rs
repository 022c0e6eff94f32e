//! What DNS is asked, and what it can say.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// One name and one type of record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) name: FullName,
    pub(crate) kind: Kind,
}

/// The types of records that endpoints are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    A,
    Aaaa,
    Srv,
}

/// A name from the root on: lower case, with its final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FullName(Arc<str>);

impl FullName {
    pub(crate) fn new(name: &str) -> Self {
        let mut full = name.to_ascii_lowercase();
        if !full.ends_with('.') {
            full.push('.');
        }
        FullName(full.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As the target of an SRV record: there is no such service (RFC 2782).
    pub(crate) fn is_root(&self) -> bool {
        &*self.0 == "."
    }
}

impl Kind {
    /// True where a record of this type can hold the address.
    pub(crate) fn holds(self, address: IpAddr) -> bool {
        match self {
            Kind::A => address.is_ipv4(),
            Kind::Aaaa => address.is_ipv6(),
            Kind::Srv => false,
        }
    }
}

impl fmt::Display for FullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::A => "A",
            Kind::Aaaa => "AAAA",
            Kind::Srv => "SRV",
        })
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.kind)
    }
}

/// A server has answered. No records is an answer, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) records: Records,
    /// For how long it holds: the least of all records on the way to it, aliases included. `None`: nobody said, as with
    /// an empty answer that brings no SOA record.
    pub(crate) ttl: Option<Duration>,
    /// Addresses of SRV targets that came along.
    pub(crate) along: Vec<Along>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Records {
    /// The name does not exist, as far as this type is concerned.
    NoName,
    /// The name exists and has no such record.
    NoData,
    Addresses(Vec<IpAddr>),
    Services(Vec<Service>),
}

/// An SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// The lowest is tried first.
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    pub(crate) target: FullName,
}

/// An address that came with the SRV record whose target has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Along {
    pub(crate) name: FullName,
    pub(crate) address: IpAddr,
    pub(crate) ttl: Duration,
}

impl Answer {
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        match &self.records {
            Records::Addresses(addresses) => addresses,
            _ => &[],
        }
    }
}

/// Nobody knows: a server said that it failed, or said nothing, or something that makes no sense. Never the same as an
/// empty answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);
