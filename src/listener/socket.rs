//! Sockets that listen: how they are bound, and how they end without losing who is at the door.

use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::Path;

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::model::BindAddress;
use crate::runtime::address::BoundAddress;

/// Connections that have been made and wait to be accepted. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: {error}{}", hint(.what, .address, .error))]
pub struct BindError {
    /// `listener inbound`, `admin`, `metrics`.
    pub what: String,
    /// As configured.
    pub address: String,
    /// What the kernel said.
    pub error: io::Error,
}

fn hint(what: &str, address: &str, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse if address.starts_with("unix:") => {
            "; another process has it (find it with `ss -lxp`), or it is no socket"
        }
        io::ErrorKind::AddrInUse if what == "admin" => {
            "; another process has it, perhaps another proxy: write another `admin.address`, or none (`run --admin` without \
             a file)"
        }
        io::ErrorKind::AddrInUse => "; another process has it (find it with `ss -ltnp`)",
        io::ErrorKind::NotFound if address.starts_with("unix:") => "; its folder is not there",
        io::ErrorKind::PermissionDenied if address.starts_with("unix:") => {
            "; whoever runs the proxy has to be let into its folder, and to write there"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// A bound address with a socket for each worker (one for all where it is a Unix socket).
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) address: BoundAddress,
    pub(crate) sockets: Vec<Socket>,
    /// A service manager has bound them and keeps them for the next process.
    pub(crate) kept: bool,
}

/// Binds `address` with `count` sockets. With `reuse_port`, another process of the same user may have it too.
///
/// # Errors
/// When the address is in use, not ours, or not permitted.
pub(crate) fn bind(address: &BindAddress, count: usize, reuse_port: bool) -> io::Result<Bound> {
    match address {
        BindAddress::Unix(path) => bind_unix(path, Type::STREAM, None),
        BindAddress::Tcp(address) => bind_tcp(*address, count, reuse_port),
        BindAddress::AllInterfaces(port) => {
            let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
            match bind_tcp(both, count, reuse_port) {
                // A kernel without IPv6.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
                    bind_tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)), count, reuse_port)
                }
                bound => bound,
            }
        }
    }
}

/// Binds a Unix socket that only the user of this process (and root) can connect to. Its folder is made where it is
/// missing, as `/run/outrigger` is in an empty image; not those above it.
///
/// # Errors
/// As [`bind`].
pub(crate) fn bind_owner_only(path: &Path, kind: Type) -> io::Result<Bound> {
    if let Some(folder) = path.parent()
        && let Err(error) = DirBuilder::new().mode(0o755).create(folder)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    bind_unix(path, kind, Some(Mode::RUSR | Mode::WUSR))
}

fn bind_tcp(address: SocketAddr, count: usize, reuse_port: bool) -> io::Result<Bound> {
    if !reuse_port && address.port() != 0 {
        // SO_REUSEPORT, which spreads connections over our workers, would also let a second proxy share the port
        // unnoticed. A socket without it finds out whether somebody has it.
        tcp_socket(address, false)?;
    }
    let first = tcp_socket(address, true)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(tcp_socket(bound, true)?);
    }
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok(Bound { address: BoundAddress::Tcp(bound), sockets, kept: false })
}

fn tcp_socket(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier process that still linger do not hold the port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path, kind: Type, mode: Option<Mode>) -> io::Result<Bound> {
    let address = SockAddr::unix(path)?;
    // A file that a killed proxy left behind; one that somebody listens on is left alone.
    if path.metadata().is_ok_and(|file| file.file_type().is_socket()) {
        let probe = Socket::new(Domain::UNIX, kind, None)?;
        // Only a refusal says that nobody listens there; sockets of another kind answer otherwise.
        match probe.connect(&address) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.set_nonblocking(true)?;
    if let Some(mode) = mode {
        // Before there is a file: Linux makes it with the socket's mode, so that it is never open to others.
        rustix::fs::fchmod(&socket, mode)?;
    }
    socket.bind(&address)?;
    socket.listen(BACKLOG)?;
    Ok(Bound { address: BoundAddress::Unix(path.to_owned()), sockets: vec![socket], kept: false })
}

/// Lets no new connection begin on a listening socket, while those under way can still be accepted.
///
/// A listening socket that is closed resets what waits in its queue, and with SO_REUSEPORT the kernel goes on to fill
/// that queue to the last moment, also while another process listens on the same port. So the first packet of new
/// connections (SYN without ACK; offset 13 of the TCP header holds the flags, RFC 9293, section 3.1) is dropped
/// beforehand; clients send it again after a second, and by then it reaches whoever has the port.
pub(crate) fn refuse_new(socket: &Socket) -> io::Result<()> {
    const LOAD_BYTE_ABSOLUTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const SYN: u32 = 0x02;
    const SYN_OR_ACK: u32 = 0x12;
    socket.attach_filter(&[
        socket2::SockFilter::new(LOAD_BYTE_ABSOLUTE, 0, 0, 13),
        socket2::SockFilter::new(AND, 0, 0, SYN_OR_ACK),
        socket2::SockFilter::new(JUMP_EQUAL, 0, 1, SYN),
        socket2::SockFilter::new(RETURN, 0, 0, 0),
        socket2::SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Undoes [`refuse_new`], which another process may have done to a socket that is this one's now, too: the filter is the
/// socket's, and stays when that process ends.
pub(crate) fn welcome_new(socket: &Socket) -> io::Result<()> {
    match socket.detach_filter() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_taken_port_is_noticed_unless_it_is_to_be_shared() {
        let any = BindAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let first = bind(&any, 2, false).unwrap();
        let BoundAddress::Tcp(taken) = first.address else { panic!() };
        assert_eq!(bind(&BindAddress::Tcp(taken), 1, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        bind(&BindAddress::Tcp(taken), 1, true).unwrap();
    }

    #[test]
    fn what_is_not_permitted_has_a_reason_of_its_kind() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(hint("listener a", "127.0.0.1:80", &denied).contains("CAP_NET_BIND_SERVICE"));
        assert!(hint("listener a", "unix:/run/a.sock", &denied).contains("folder"));
    }

    #[test]
    fn who_is_in_the_queue_stays_and_nobody_new_comes() {
        let bound = bind(&BindAddress::Tcp("127.0.0.1:0".parse().unwrap()), 1, false).unwrap();
        let BoundAddress::Tcp(address) = bound.address else { panic!() };
        let _queued = TcpStream::connect(address).unwrap();
        refuse_new(&bound.sockets[0]).unwrap();
        let refused = TcpStream::connect_timeout(&address, Duration::from_millis(50));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
        welcome_new(&bound.sockets[0]).unwrap();
        welcome_new(&bound.sockets[0]).unwrap();
        let _welcome = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        let listener = TcpListener::from(bound.sockets.into_iter().next().unwrap());
        assert!(listener.accept().is_ok() && listener.accept().is_ok());
    }

    #[test]
    fn an_old_socket_file_is_replaced_and_a_live_one_is_not() {
        let path = std::env::temp_dir().join(format!("outrigger-socket-{}.sock", std::process::id()));
        let address = BindAddress::Unix(path.clone());
        let live = bind(&address, 1, false).unwrap();
        assert_eq!(bind(&address, 1, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        bind(&address, 1, false).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
