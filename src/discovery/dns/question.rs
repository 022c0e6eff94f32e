//! What DNS is asked, and what it can say.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// One name and one type of record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) name: FullName,
    pub(super) kind: Kind,
}

/// The types of records that endpoints are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    A,
    Aaaa,
    Srv,
}

/// A name from the root on: lower case, with its final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FullName(Arc<str>);

impl FullName {
    pub(super) fn new(name: &str) -> Self {
        let mut full = name.to_ascii_lowercase();
        if !full.ends_with('.') {
            full.push('.');
        }
        FullName(full.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// As the target of an SRV record: there is no such service (RFC 2782).
    pub(super) fn is_root(&self) -> bool {
        &*self.0 == "."
    }
}

impl Kind {
    /// True where a record of this type can hold the address.
    pub(super) fn holds(self, address: IpAddr) -> bool {
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
pub(super) struct Answer {
    pub(super) records: Records,
    /// For how long it holds: the least of all records on the way to it, aliases included. `None`: nobody said, as with
    /// an empty answer that brings no SOA record.
    pub(super) ttl: Option<Duration>,
    /// Addresses of SRV targets that came along.
    pub(super) along: Vec<Along>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Records {
    /// The name does not exist, as far as this type is concerned.
    NoName,
    /// The name exists and has no such record.
    NoData,
    Addresses(Vec<IpAddr>),
    Services(Vec<Service>),
}

/// An SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    /// The lowest is tried first.
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: FullName,
}

/// An address that came with the SRV record whose target has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Along {
    pub(super) name: FullName,
    pub(super) address: IpAddr,
    pub(super) ttl: Duration,
}

impl Answer {
    pub(super) fn addresses(&self) -> &[IpAddr] {
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
pub(super) struct Failure(pub(super) String);
