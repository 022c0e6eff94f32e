//! What a service manager is told of this process' state: sd_notify(3).

use std::cell::Cell;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Whoever started this process and wants to hear of it, if anybody does.
#[derive(Debug, Default)]
pub(crate) struct Manager {
    socket: Option<UnixDatagram>,
    /// This process has said that it ends, or that another is meant: what is ready after that is not its to say.
    over: Cell<bool>,
}

impl Manager {
    /// Whom the environment names.
    pub(crate) fn of_environment() -> Self {
        let Some(address) = std::env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty()) else {
            return Manager::default();
        };
        let manager = Manager::at(&address);
        let socket =
            manager.inspect_err(|error| tracing::warn!(%error, address, "cannot tell the service manager")).ok();
        Manager { socket, ..Manager::default() }
    }

    fn at(address: &str) -> io::Result<UnixDatagram> {
        let address = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(socket)
    }

    /// Everything is ready, or again.
    pub(crate) fn ready(&self) {
        if !self.over.get() {
            self.tell("READY=1");
        }
    }

    /// The configuration is being read again; [`Manager::ready`] is the end of it.
    pub(crate) fn reloading(&self) {
        if self.over.get() {
            return;
        }
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default());
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
        self.over.set(true);
    }

    /// Another process is to be looked after instead of this one.
    pub(crate) fn succeeded_by(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}"));
        self.over.set(true);
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::warn!(%error, state, "cannot tell the service manager");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_address_are_reached() {
        let path = std::env::temp_dir().join(format!("outrigger-notify-{}.sock", std::process::id()));
        let name = format!("outrigger-notify-{}", std::process::id());
        let files = UnixDatagram::bind(&path).unwrap();
        let abstract_ = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(files, path.display().to_string()), (abstract_, format!("@{name}"))] {
            let manager = Manager { socket: Some(Manager::at(&address).unwrap()), ..Manager::default() };
            let mut buffer = [0; 100];
            manager.ready();
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
            manager.reloading();
            let length = socket.recv(&mut buffer).unwrap();
            assert!(buffer[..length].starts_with(b"RELOADING=1\nMONOTONIC_USEC="), "{address}");
            manager.stopping();
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"STOPPING=1");
            // A reload that was under way.
            manager.ready();
            socket.set_nonblocking(true).unwrap();
            assert_eq!(socket.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock, "{address}");
        }
        std::fs::remove_file(path).unwrap();
    }
}
