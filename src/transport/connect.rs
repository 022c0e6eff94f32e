//! A new connection to an endpoint.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use arc_swap::ArcSwap;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use crate::config::model::EndpointAddress;
use crate::error::{Error, Reason};
use crate::runtime::address::BoundAddress;
use crate::runtime::descriptors;
use crate::runtime::stream::Stream;

/// Addresses that this proxy itself listens on: a connection to one of them would go round for ever.
#[derive(Debug, Default)]
pub(crate) struct OwnAddresses(ArcSwap<Addresses>);

#[derive(Debug, Default, Clone)]
struct Addresses {
    exact: HashSet<SocketAddr>,
    /// Ports that are bound on every interface.
    wildcard: HashSet<u16>,
    unix: HashSet<PathBuf>,
}

impl OwnAddresses {
    /// These are all, from now on.
    pub(crate) fn set<'a>(&self, all: impl IntoIterator<Item = &'a BoundAddress>) {
        let mut addresses = Addresses::default();
        for address in all {
            addresses.add(address);
        }
        self.0.store(addresses.into());
    }
}

impl Addresses {
    fn add(&mut self, address: &BoundAddress) {
        match address {
            BoundAddress::Tcp(address) => self.add_tcp(*address),
            BoundAddress::Unix(path) => {
                self.unix.insert(path.clone());
            }
        }
    }

    fn add_tcp(&mut self, address: SocketAddr) {
        if address.ip().is_unspecified() {
            self.wildcard.insert(address.port());
        } else {
            self.exact.insert(canonical(address));
        }
    }

    /// `local` is our own end: a connection from an address to itself has not left this machine.
    fn holds_tcp(&self, remote: SocketAddr, local: Option<IpAddr>) -> bool {
        let remote = canonical(remote);
        let local = local.map(|local| local.to_canonical());
        let here = remote.ip().is_loopback() || remote.ip().is_unspecified() || Some(remote.ip()) == local;
        self.exact.contains(&remote) || (here && self.wildcard.contains(&remote.port()))
    }
}

/// Connects before `until`.
///
/// # Errors
/// `connect_failure`, `connect_timeout`, or `loop_detected` where the address is the proxy's own.
pub(crate) async fn connect(
    address: &EndpointAddress,
    own: &OwnAddresses,
    until: Option<Instant>,
) -> Result<Stream, Error> {
    let connecting = async {
        match address {
            EndpointAddress::Tcp(address) => {
                let tcp = TcpStream::connect(address).await.map_err(connect_failure)?;
                // Not the address that was asked for: the kernel takes 0.0.0.0 and [::] for loopback.
                let reached = tcp.peer_addr().unwrap_or(*address);
                if own.0.load().holds_tcp(reached, tcp.local_addr().ok().map(|local| local.ip())) {
                    return Err(Error::local(Reason::LoopDetected));
                }
                tcp.set_nodelay(true).map_err(connect_failure)?;
                Ok(Stream::Tcp(tcp))
            }
            EndpointAddress::Unix(path) => {
                let unix = UnixStream::connect(path).await.map_err(connect_failure)?;
                if leads_to_one_of(&own.0.load().unix, path) {
                    return Err(Error::local(Reason::LoopDetected));
                }
                Ok(Stream::Unix(unix))
            }
        }
    };
    match until {
        None => connecting.await,
        Some(until) => tokio::time::timeout_at(until, connecting)
            .await
            .unwrap_or_else(|_| Err(Error::upstream(Reason::ConnectTimeout).unsent())),
    }
}

/// True where the path leads to one of these sockets, by whatever links and detours. Names do not tell: the kernel knows a
/// peer by the path that it was bound to, which may be one of another container.
fn leads_to_one_of(own: &HashSet<PathBuf>, path: &Path) -> bool {
    let file = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino())).ok();
    let by_file = || file(path).is_some_and(|reached| own.iter().any(|own| file(own) == Some(reached)));
    !own.is_empty() && (own.contains(path) || by_file())
}

/// IPv4 also where it is written as IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Where this process has no descriptor left, no endpoint is to blame.
fn connect_failure(error: std::io::Error) -> Error {
    if descriptors::are_exhausted(&error) {
        return Error::local(Reason::Overflow).because(error);
    }
    Error::upstream(Reason::ConnectFailure).unsent().because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_told_from_others() {
        let mut own = Addresses::default();
        own.add_tcp("127.0.0.1:1".parse().unwrap());
        own.add_tcp("[::]:2".parse().unwrap());
        let here = Some("10.0.0.1".parse().unwrap());
        for (address, expected) in [
            ("127.0.0.1:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("127.0.0.2:1", false),
            ("127.0.0.1:2", true),
            ("10.0.0.1:2", true),
            ("10.0.0.2:2", false),
        ] {
            assert_eq!(own.holds_tcp(address.parse().unwrap(), here), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn where_a_connection_has_come_counts_and_not_what_was_asked_for() {
        let own = OwnAddresses::default();
        for (bound, asked) in [("127.0.0.1:0", "0.0.0.0"), ("[::1]:0", "::")] {
            let listener = tokio::net::TcpListener::bind(bound).await.unwrap();
            let bound = listener.local_addr().unwrap();
            let asked = EndpointAddress::Tcp(SocketAddr::new(asked.parse().unwrap(), bound.port()));
            own.set([]);
            assert!(connect(&asked, &own, None).await.is_ok(), "{asked}");
            own.set([&BoundAddress::Tcp(bound)]);
            let refused = connect(&asked, &own, None).await.unwrap_err();
            assert_eq!(refused.reason, Reason::LoopDetected, "{asked}");
        }
    }
}
