//! The process whose place this one takes.

use std::io;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::inherited::Inheritance;
use super::message::{Message, PROTOCOL, receive, send};
use super::peer::trusted;

/// For each word of the old process. It says nothing while it talks with another one that wants its place.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// It serves until it is relieved.
#[derive(Debug)]
pub(crate) struct Predecessor(Socket);

impl Predecessor {
    /// Takes the sockets of the process that listens at `path`; `None` where there is none.
    ///
    /// # Errors
    /// Where it may not be asked, is somebody else's, or cannot be understood.
    pub(crate) fn ask(path: &Path, inheritance: &mut Inheritance) -> io::Result<Option<Self>> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        match socket.connect(&SockAddr::unix(path)?) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let pid = trusted(&socket)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        let (Message::Offer { protocol: PROTOCOL, version, packets }, _) = receive(&socket)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks another version of this protocol"));
        };
        for _ in 0..packets {
            let (Message::Sockets { key, kept }, sockets) = receive(&socket)? else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it did not say which sockets these are"));
            };
            for socket in sockets {
                inheritance.add(&key, socket, kept)?;
            }
        }
        tracing::info!(pid, version, "taking over from a running process, which serves until this one does");
        Ok(Some(Predecessor(socket)))
    }

    /// Tells it that it may go: this process serves, but for the addresses of `left`. `registered` is the service that
    /// stays in the registry.
    pub(crate) fn relieve(self, left: Vec<String>, registered: Option<String>) {
        if let Err(error) = send(&self.0, &Message::Serving { left, registered }, &[]) {
            tracing::warn!(%error, "the old process has gone before it was told to");
        }
    }
}
