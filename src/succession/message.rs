//! What two processes say to each other while one takes the other's place: a JSON value a packet, with sockets beside it.
//!
//! They may be of different versions. Keys are only added; where that does not do, [`PROTOCOL`] counts up, and processes
//! that do not understand each other leave each other alone.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Of the words below.
pub(super) const PROTOCOL: u32 = 1;
/// One packet carries at most 253 descriptors: SCM_MAX_FD, unix(7).
pub(super) const SOCKETS: usize = 250;
/// Largest packet. The kernel's own bound is about 200 KiB.
const BYTES: usize = 128 << 10;

/// A packet.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// From the old process: so many packets of sockets follow.
    Offer { protocol: u32, version: String, packets: usize },
    /// From the old process: what is bound for this key. There may be more than one for a key.
    Sockets { key: String, kept: bool },
    /// From the new process: it accepts connections from all that was offered, but for these.
    Serving { left: Vec<String>, registered: Option<String> },
}

/// Sends it, in one piece or not at all.
///
/// # Errors
/// Where the other side has gone, or (on a socket that does not block) takes nothing now.
pub(super) fn send(socket: impl AsFd, message: &Message, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > BYTES || sockets.len() > SOCKETS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message, with the sockets that came with it.
///
/// # Errors
/// Where the other side has gone, or says what is none ([`io::ErrorKind::InvalidData`]), or (on a socket that does not
/// block) nothing yet.
pub(super) fn receive(socket: impl AsFd) -> io::Result<(Message, Vec<OwnedFd>)> {
    let mut bytes = vec![0; BYTES];
    let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            sockets.extend(received);
        }
    }
    if received.bytes == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has gone"));
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what it says is too long, or too many files are open"));
    }
    let message = serde_json::from_slice(&bytes[..received.bytes]);
    Ok((message.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?, sockets))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn sockets_go_along_and_live_on() {
        let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let message = Message::Sockets { key: "listeners.inbound".to_owned(), kept: false };
        send(&one, &message, &[listener.as_fd(), listener.as_fd()]).unwrap();
        drop(listener);
        let (received, sockets) = receive(&other).unwrap();
        assert_eq!((received, sockets.len()), (message, 2));
        TcpStream::connect(address).unwrap().write_all(b"x").unwrap();
        let [first, _] = <[OwnedFd; 2]>::try_from(sockets).unwrap();
        TcpListener::from(first).accept().unwrap();
        drop(one);
        assert_eq!(receive(&other).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        one.send(b"GET / HTTP/1.1\r\n").unwrap();
        assert_eq!(receive(&other).unwrap_err().kind(), io::ErrorKind::InvalidData);
        one.send(b"{").unwrap();
        assert_eq!(receive(&other).unwrap_err().kind(), io::ErrorKind::InvalidData, "it has not gone");
        let serving = br#"{"serving":{"left":[],"registered":null,"later":1}}"#;
        one.send(serving).unwrap();
        assert_eq!(receive(&other).unwrap().0, Message::Serving { left: Vec::new(), registered: None });
    }
}
