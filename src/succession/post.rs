//! Where a process waits for the one that takes its place.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use socket2::Socket;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use super::TAKE_OVER;
use super::message::{Message, PROTOCOL, SOCKETS, receive, send};
use super::peer::trusted;

/// Without a free file descriptor, the next look is after this long.
const BREATH: Duration = Duration::from_millis(100);

/// The Unix socket at which a new process asks. It keeps packets apart (SOCK_SEQPACKET), which tokio's types need not know.
#[derive(Debug)]
pub(crate) struct Post {
    door: UnixListener,
    path: PathBuf,
    lent: Cell<bool>,
    closed: Cell<bool>,
}

/// What the new process may have.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) key: String,
    pub(crate) sockets: Vec<Socket>,
    /// A service manager has them, too.
    pub(crate) kept: bool,
}

/// A process that would take over.
#[derive(Debug)]
pub(crate) struct Candidate {
    socket: UnixStream,
    pub(crate) pid: u32,
}

/// What it says once it serves.
#[derive(Debug)]
pub(crate) struct Relief {
    /// It serves all but these.
    pub(crate) left: Vec<String>,
    /// It stands, or will stand, in the registry as this service.
    pub(crate) registered: Option<String>,
}

impl Post {
    /// To be called on the runtime that waits.
    ///
    /// # Errors
    /// Where the runtime cannot look after another socket.
    pub(crate) fn new(door: Socket, path: PathBuf) -> io::Result<Self> {
        let door = UnixListener::from_std(door.into())?;
        Ok(Post { door, path, lent: Cell::new(false), closed: Cell::new(false) })
    }

    /// The next process that asks and may.
    pub(crate) async fn candidate(&self) -> Candidate {
        loop {
            match self.accept().await {
                Ok(candidate) => return candidate,
                Err(error) => {
                    tracing::warn!(%error, "a process that wanted to take over was turned away");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<Candidate> {
        let (socket, _) = self.door.accept().await?;
        let pid = trusted(&socket)?;
        Ok(Candidate { socket, pid })
    }

    /// The post itself, so that the next one after the new process finds it at the same place.
    ///
    /// # Errors
    /// Without a free file descriptor.
    pub(crate) fn offer(&self) -> io::Result<Offer> {
        let socket = Socket::from(self.door.as_fd().try_clone_to_owned()?);
        Ok(Offer { key: TAKE_OVER.to_owned(), sockets: vec![socket], kept: false })
    }

    /// Another process has the post and everything else, or has it no longer.
    pub(crate) fn lend(&self, lent: bool) {
        self.lent.set(lent);
    }

    pub(crate) fn is_lent(&self) -> bool {
        self.lent.get()
    }

    /// No further process may ask.
    pub(crate) fn close(&self) {
        self.closed.set(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        if !self.lent.get() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Candidate {
    /// Gives it the sockets, and waits until it serves: for as long as it is there, for it has them all that time.
    ///
    /// # Errors
    /// Where it has gone instead. It has nothing then that anybody would miss.
    pub(crate) async fn serves(&self, offers: &[Offer]) -> io::Result<Relief> {
        self.offer(offers).await?;
        loop {
            match self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await {
                Ok((Message::Serving { left, registered }, _)) => return Ok(Relief { left, registered }),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) => return Err(error),
            }
            tracing::warn!(pid = self.pid, "the process that is to take over says what was not asked");
        }
    }

    async fn offer(&self, offers: &[Offer]) -> io::Result<()> {
        let packets: Vec<_> = offers
            .iter()
            .flat_map(|offer| offer.sockets.chunks(SOCKETS).map(move |sockets| (offer, sockets)))
            .collect();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.say(&Message::Offer { protocol: PROTOCOL, version, packets: packets.len() }, &[]).await?;
        for (offer, sockets) in packets {
            self.say(&Message::Sockets { key: offer.key.clone(), kept: offer.kept }, sockets).await?;
        }
        Ok(())
    }

    async fn say(&self, message: &Message, sockets: &[Socket]) -> io::Result<()> {
        let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
        self.socket.async_io(Interest::WRITABLE, || send(&self.socket, message, &sockets)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_candidate_is_waited_for_until_it_serves_or_has_gone() {
        let candidate = || {
            let (ours, theirs) = Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
            ours.set_nonblocking(true).unwrap();
            (Candidate { socket: UnixStream::from_std(ours.into()).unwrap(), pid: 1 }, theirs)
        };
        let (late, theirs) = candidate();
        let speaking = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            theirs.send(b"a moment").unwrap();
            send(&theirs, &Message::Serving { left: vec!["admin.address".to_owned()], registered: None }, &[]).unwrap();
        };
        let (relief, ()) = tokio::join!(late.serves(&[]), speaking);
        assert_eq!(relief.unwrap().left, ["admin.address"]);
        let (gone, theirs) = candidate();
        drop(theirs);
        assert!(gone.serves(&[]).await.is_err());
    }
}
