//! Who is at the other end.

use std::io;
use std::os::fd::AsFd;

/// The process at the other end, where it belongs to this process' user or to root. (Zero in another PID namespace.)
///
/// # Errors
/// Where it belongs to somebody else.
pub(super) fn trusted(socket: impl AsFd) -> io::Result<u32> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    if peer.uid != rustix::process::geteuid() && !peer.uid.is_root() {
        let reason = format!("the process at the other end belongs to another user ({})", peer.uid.as_raw());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    Ok(peer.pid.as_raw_pid().unsigned_abs())
}
