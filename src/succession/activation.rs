//! Sockets that a service manager has bound for us: systemd's socket activation, sd_listen_fds(3).
//!
//! systemd keeps them while no process runs, so that whoever connects between two processes waits instead of being turned
//! away.

use std::os::fd::OwnedFd;

use listenfd::ListenFd;

use super::inherited::Inheritance;

/// What the environment says that this process was started with. To be asked once, before there are threads.
///
/// # Errors
/// A sentence, where a socket is of a kind that cannot be served.
pub(crate) fn of_service_manager() -> Result<Inheritance, String> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = ListenFd::from_env();
    let mut inheritance = Inheritance::default();
    for index in 0..sockets.len() {
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        let refused = |error: std::io::Error| format!("cannot use the socket `{name}` of the service manager: {error}");
        let tcp = sockets.take_tcp_listener(index).ok().flatten().map(OwnedFd::from);
        let socket = match tcp {
            Some(socket) => Some(socket),
            None => sockets.take_unix_listener(index).map_err(refused)?.map(OwnedFd::from),
        };
        if let Some(socket) = socket {
            inheritance.add(name, socket, true).map_err(refused)?;
        }
    }
    Ok(inheritance)
}
