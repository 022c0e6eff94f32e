//! Addresses as they are, after binding.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What was really bound: port 0 has become a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundAddress {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A Unix socket; its file is removed at the end.
    Unix(PathBuf),
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoundAddress::Tcp(address) => address.fmt(f),
            BoundAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl BoundAddress {
    /// True where only this machine can call.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            BoundAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
            BoundAddress::Unix(_) => true,
        }
    }
}
