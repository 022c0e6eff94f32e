//! Listening sockets that this process has not bound itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Socket, Type};

use crate::config::model::BindAddress;
use crate::listener::socket::Bound;
use crate::runtime::address::BoundAddress;

/// What each address is known by, besides [`key_of_listener`].
pub(crate) const ADMIN: &str = "admin.address";
pub(crate) const ADMIN_SOCKET: &str = "admin.socket";
pub(crate) const METRICS: &str = "metrics.address";

/// The socket at which the next process asks for all of them.
pub(crate) const TAKE_OVER: &str = "take-over";

/// What a listener's address is known by.
pub(crate) fn key_of_listener(name: &str) -> String {
    format!("{LISTENERS}{name}")
}

const LISTENERS: &str = "listeners.";

/// All of them, for whoever would otherwise bind. Whoever claims one gets copies.
#[derive(Debug, Default)]
pub(crate) struct Inheritance(Vec<Inherited>);

/// The sockets of one address.
#[derive(Debug)]
struct Inherited {
    /// A key, or only a listener's name.
    name: String,
    address: BoundAddress,
    sockets: Vec<Socket>,
    /// A service manager has them, too, and will give them to the next process.
    kept: bool,
}

impl Inheritance {
    /// One more socket.
    ///
    /// # Errors
    /// Where connections cannot be accepted from it.
    pub(super) fn add(&mut self, name: &str, socket: OwnedFd, kept: bool) -> io::Result<()> {
        let socket = Socket::from(socket);
        let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if ![Type::STREAM, Type::SEQPACKET].contains(&socket.r#type()?) {
            return wrong("it is no stream socket");
        }
        if !socket.is_listener()? {
            return wrong("it does not listen (systemd's `Accept=yes` is for others)");
        }
        let bound = socket.local_addr()?;
        let address = match (bound.as_socket(), bound.as_pathname()) {
            (Some(address), _) => BoundAddress::Tcp(address),
            (None, Some(path)) => BoundAddress::Unix(path.to_owned()),
            (None, None) => return wrong("its address is neither an IP address nor a path"),
        };
        socket.set_nonblocking(true)?;
        match self.0.iter_mut().find(|inherited| inherited.name == name && inherited.address == address) {
            Some(inherited) => inherited.sockets.push(socket),
            None => self.0.push(Inherited { name: name.to_owned(), address, sockets: vec![socket], kept }),
        }
        Ok(())
    }

    /// The sockets for an address as written, if they are there: those of its name first, then those that are bound to it.
    ///
    /// # Errors
    /// Without a free file descriptor.
    pub(crate) fn claim(&self, key: &str, written: &BindAddress) -> io::Result<Option<Bound>> {
        let named = self.0.iter().find(|inherited| inherited.is_called(key) && inherited.name_counts(written));
        let Some(inherited) = named.or_else(|| self.0.iter().find(|inherited| inherited.is_at(written))) else {
            return Ok(None);
        };
        let sockets = inherited.sockets.iter().map(Socket::try_clone).collect::<io::Result<_>>()?;
        Ok(Some(Bound { address: inherited.address.clone(), sockets, kept: inherited.kept }))
    }

    /// Those of a service manager that are at none of these addresses, in words.
    pub(crate) fn unclaimed<'b>(&self, bound: impl Iterator<Item = &'b BoundAddress> + Clone) -> Vec<String> {
        let left = self.besides(bound).filter(|inherited| inherited.kept);
        left.map(|inherited| format!("{} ({})", inherited.address, inherited.name)).collect()
    }

    /// Those that are at none of these addresses, by their names; [`TAKE_OVER`] apart.
    pub(crate) fn left<'b>(&self, bound: impl Iterator<Item = &'b BoundAddress> + Clone) -> Vec<String> {
        self.besides(bound).map(|inherited| inherited.name.clone()).filter(|name| name != TAKE_OVER).collect()
    }

    fn besides<'b>(&self, bound: impl Iterator<Item = &'b BoundAddress> + Clone) -> impl Iterator<Item = &Inherited> {
        self.0.iter().filter(move |inherited| !bound.clone().any(|address| *address == inherited.address))
    }

    /// Lets go of what only an earlier process had.
    pub(crate) fn settle(&mut self) {
        self.0.retain(|inherited| inherited.kept);
    }
}

impl Inherited {
    fn is_called(&self, key: &str) -> bool {
        self.name == key || key.strip_prefix(LISTENERS) == Some(&self.name)
    }

    /// A name that somebody gave a socket is meant for it, whatever the file says of the address. Otherwise names only
    /// tell apart which of the ports of the kernel's choice is whose.
    fn name_counts(&self, written: &BindAddress) -> bool {
        let any_port = match (written, &self.address) {
            (BindAddress::Tcp(written), BoundAddress::Tcp(bound)) => written.port() == 0 && written.ip() == bound.ip(),
            (BindAddress::AllInterfaces(0), BoundAddress::Tcp(bound)) => bound.ip().is_unspecified(),
            _ => false,
        };
        self.kept || any_port || self.name == TAKE_OVER
    }

    fn is_at(&self, written: &BindAddress) -> bool {
        match (written, &self.address) {
            (BindAddress::Unix(written), BoundAddress::Unix(bound)) => written == bound,
            (BindAddress::Tcp(written), BoundAddress::Tcp(bound)) => same(written, bound),
            (BindAddress::AllInterfaces(port), BoundAddress::Tcp(bound)) => {
                bound.ip().is_unspecified() && bound.port() == *port
            }
            _ => false,
        }
    }
}

/// Apart from an IPv6 address' scope, which systemd writes and we may not.
fn same(written: &SocketAddr, bound: &SocketAddr) -> bool {
    let ip = |address: &SocketAddr| -> IpAddr { address.ip().to_canonical() };
    ip(written) == ip(bound) && written.port() == bound.port()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn claimed(inheritance: &Inheritance, key: &str, written: &str) -> Option<SocketAddr> {
        let written = BindAddress::Tcp(written.parse().unwrap());
        inheritance.claim(key, &written).unwrap().map(|bound| match bound.address {
            BoundAddress::Tcp(address) => address,
            BoundAddress::Unix(_) => panic!(),
        })
    }

    #[test]
    fn a_socket_is_found_by_its_address() {
        let (socket, address) = listening();
        let mut inheritance = Inheritance::default();
        inheritance.add("outrigger.socket", socket.into(), true).unwrap();
        assert_eq!(claimed(&inheritance, "listeners.inbound", &address.to_string()), Some(address));
        assert_eq!(claimed(&inheritance, "listeners.inbound", "127.0.0.1:1"), None);
        assert_eq!(claimed(&inheritance, "listeners.inbound", &format!("127.0.0.2:{}", address.port())), None);
    }

    #[test]
    fn a_service_managers_name_goes_before_the_address() {
        let ((one, at_one), (two, at_two)) = (listening(), listening());
        let mut inheritance = Inheritance::default();
        inheritance.add("inbound", one.into(), true).unwrap();
        inheritance.add("metrics.address", two.into(), true).unwrap();
        assert_eq!(claimed(&inheritance, "listeners.inbound", &at_two.to_string()), Some(at_one));
        assert_eq!(claimed(&inheritance, METRICS, "127.0.0.1:1"), Some(at_two));
        assert_eq!(claimed(&inheritance, "listeners.outbound", "127.0.0.1:1"), None);
    }

    #[test]
    fn another_processs_name_counts_only_where_any_port_would_do() {
        let (socket, address) = listening();
        let mut inheritance = Inheritance::default();
        inheritance.add("listeners.inbound", socket.into(), false).unwrap();
        assert_eq!(claimed(&inheritance, "listeners.inbound", "127.0.0.1:0"), Some(address));
        assert_eq!(claimed(&inheritance, "listeners.other", "127.0.0.1:0"), None);
        assert_eq!(claimed(&inheritance, "listeners.inbound", "127.0.0.1:1"), None, "it has moved");
    }

    #[test]
    fn what_nobody_can_accept_from_is_refused() {
        let mut inheritance = Inheritance::default();
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(inheritance.add("udp", datagrams.into(), true).is_err());
        let (listener, address) = listening();
        let connected = std::net::TcpStream::connect(address).unwrap();
        assert!(inheritance.add("accepted", connected.into(), true).is_err());
        drop(listener);
        assert!(inheritance.unclaimed([].iter()).is_empty());
    }

    #[test]
    fn what_is_left_is_named() {
        let (socket, address) = listening();
        let mut inheritance = Inheritance::default();
        inheritance.add("old", socket.into(), true).unwrap();
        assert_eq!(inheritance.unclaimed([].iter()), [format!("{address} (old)")]);
        assert!(inheritance.unclaimed([BoundAddress::Tcp(address)].iter()).is_empty());
    }
}
