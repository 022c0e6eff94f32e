//! A connected socket of any kind, with TLS on it or without.

use std::cell::RefCell;
use std::hint::cold_path;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::tls_stream::TlsStream;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
    /// Bytes that were read to tell the protocol, then the socket.
    Replayed(BytesMut, Box<Stream>),
}

impl Stream {
    /// The other end, where it has an IP address.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(tcp) => tcp.peer_addr().ok(),
            Stream::Unix(_) => None,
            Stream::Tls(tls) => tls.socket().peer(),
            Stream::Replayed(_, inner) => inner.peer(),
        }
    }

    /// Reads what is there into `buffer`, at most its spare room (at least 1 byte). 0: the other end has finished.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        // The future holds no state, so that making a new one for each poll loses nothing.
        std::pin::pin!(self.read_buf(buffer)).poll(cx)
    }

    /// Ready when bytes, an end or an error are there to be read; reads nothing.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(tcp) => tcp.poll_read_ready(cx),
            Stream::Unix(unix) => unix.poll_read_ready(cx),
            Stream::Tls(tls) => tls.poll_readable(cx),
            Stream::Replayed(bytes, _) if !bytes.is_empty() => Poll::Ready(Ok(())),
            Stream::Replayed(_, inner) => inner.poll_readable(cx),
        }
    }

    /// What an idle connection has to say, asked of the kernel.
    ///
    /// The runtime's own notion is as old as its last turn; this costs one system call.
    pub(crate) fn look(&mut self) -> Liveness {
        let peeked = match self {
            Stream::Tls(tls) => return tls.look(),
            Stream::Replayed(bytes, _) if !bytes.is_empty() => return Liveness::Unexpected,
            Stream::Replayed(_, inner) => return inner.look(),
            Stream::Tcp(tcp) => peek(tcp),
            Stream::Unix(unix) => peek(unix),
        };
        match peeked {
            Ok(None) => Liveness::Closed,
            Ok(Some(_)) => Liveness::Unexpected,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Liveness::Quiet
            }
            Err(_) => Liveness::Closed,
        }
    }

    /// True where the other side has reset the connection, whatever it has sent before. One system call.
    pub(crate) fn is_reset(&self) -> bool {
        let error = match self {
            Stream::Tcp(tcp) => tcp.take_error(),
            Stream::Unix(unix) => unix.take_error(),
            Stream::Tls(tls) => return tls.socket().is_reset(),
            Stream::Replayed(_, inner) => return inner.is_reset(),
        };
        !matches!(error, Ok(None))
    }

    /// The next byte of the socket, which stays there, as soon as there is one; `None` at its end.
    pub(crate) fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        loop {
            ready!(self.poll_readable(cx))?;
            let peeked = match self {
                Stream::Tcp(tcp) => tcp.try_io(Interest::READABLE, || peek(&*tcp)),
                Stream::Unix(unix) => unix.try_io(Interest::READABLE, || peek(&*unix)),
                Stream::Tls(_) | Stream::Replayed(..) => Err(io::ErrorKind::Unsupported.into()),
            };
            match peeked {
                // The runtime was mistaken, and knows better now.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return Poll::Ready(peeked),
            }
        }
    }

    /// Reads what the kernel has, whatever the runtime thinks.
    pub(super) fn receive_at_once(&self, buffer: &mut [u8]) -> io::Result<usize> {
        const NOW: rustix::net::RecvFlags = rustix::net::RecvFlags::DONTWAIT;
        match self {
            Stream::Tcp(tcp) => Ok(rustix::net::recv(tcp, buffer, NOW)?.0),
            Stream::Unix(unix) => Ok(rustix::net::recv(unix, buffer, NOW)?.0),
            Stream::Tls(_) | Stream::Replayed(..) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Gives the kernel what it takes, whatever the runtime thinks.
    pub(super) fn send_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        const NOW: rustix::net::SendFlags = rustix::net::SendFlags::DONTWAIT.union(rustix::net::SendFlags::NOSIGNAL);
        match self {
            Stream::Tcp(tcp) => Ok(rustix::net::send(tcp, bytes, NOW)?),
            Stream::Unix(unix) => Ok(rustix::net::send(unix, bytes, NOW)?),
            Stream::Tls(_) | Stream::Replayed(..) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Closing will reset the connection instead of ending it. A Unix socket has no such thing.
    pub(crate) fn reset_on_close(&mut self) {
        match self {
            Stream::Tcp(tcp) => {
                let _ = socket2::SockRef::from(&*tcp).set_linger(Some(std::time::Duration::ZERO));
            }
            Stream::Unix(_) => {}
            Stream::Tls(tls) => tls.abort(),
            Stream::Replayed(_, inner) => inner.reset_on_close(),
        }
    }

    /// True where nothing is known to be there to be read. What is there is lost; whoever asks wants silence.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0u8; 1];
        let read = match self {
            Stream::Tls(tls) => return tls.look() == Liveness::Quiet,
            Stream::Tcp(tcp) => tcp.try_read(&mut byte),
            Stream::Unix(unix) => unix.try_read(&mut byte),
            Stream::Replayed(bytes, inner) => return bytes.is_empty() && inner.is_quiet(),
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Room for what comes next: `wanted` bytes, or what is there where that is at least `enough`.
///
/// Before a new message, the room of the last one is taken again, if nobody needs it any more: the buffer would go on
/// behind it until it is full, and so write each message to memory that no cache holds.
pub(crate) fn make_room(buffer: &mut BytesMut, wanted: usize, enough: usize) {
    let has_room = buffer.is_empty() && buffer.try_reclaim(wanted);
    if !has_room && buffer.capacity() - buffer.len() < enough {
        buffer.reserve(wanted);
    }
}

const PEEK: rustix::net::RecvFlags = rustix::net::RecvFlags::PEEK.union(rustix::net::RecvFlags::DONTWAIT);

/// The next byte of a socket, which stays there; `None` at its end. Asked of the kernel, without waiting.
fn peek(socket: impl AsFd) -> io::Result<Option<u8>> {
    let mut byte = [0u8; 1];
    let (read, _) = rustix::net::recv(socket, &mut byte, PEEK)?;
    Ok((read > 0).then_some(byte[0]))
}

/// What [`Stream::look`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// Open, nothing to read.
    Quiet,
    /// Bytes that nobody asked for.
    Unexpected,
    /// Closed or reset.
    Closed,
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Stream::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
            Stream::Replayed(bytes, inner) => {
                if bytes.is_empty() {
                    return Pin::new(&mut **inner).poll_read(cx, buf);
                }
                let take = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes[..take]);
                bytes.advance(take);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Stream::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, buf),
            Stream::Replayed(_, inner) => Pin::new(&mut **inner).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Stream::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, slices),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, slices),
            Stream::Replayed(_, inner) => Pin::new(&mut **inner).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // Sockets hold nothing back.
            Stream::Tcp(_) | Stream::Unix(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
            Stream::Replayed(_, inner) => Pin::new(&mut **inner).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
            Stream::Replayed(_, inner) => Pin::new(&mut **inner).poll_shutdown(cx),
        }
    }
}

/// A way to a stream for the time of one poll.
///
/// The client's stream is shared by who reads the request and who writes the response; polling a body in between may
/// come back to it, so nobody holds it for longer.
pub(crate) trait Socket {
    fn with<T>(&mut self, action: impl FnOnce(&mut Stream) -> T) -> T;
}

impl Socket for Stream {
    fn with<T>(&mut self, action: impl FnOnce(&mut Stream) -> T) -> T {
        action(self)
    }
}

impl Socket for &RefCell<Stream> {
    fn with<T>(&mut self, action: impl FnOnce(&mut Stream) -> T) -> T {
        action(&mut self.borrow_mut())
    }
}

/// Bytes on their way out, with how many of them have gone.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

/// Above this much room, a buffer is given back once it is empty.
const KEEP_CAPACITY: usize = 16 * 1024;

impl Outgoing {
    /// Where to append. What has gone gives its room back first: under a peer that always leaves something, the buffer
    /// is never empty, and would grow with all that ever passed.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.sent > KEEP_CAPACITY {
            cold_path();
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        &mut self.bytes
    }

    /// What has not been sent.
    pub(crate) fn into_unsent(mut self) -> Vec<u8> {
        self.bytes.drain(..self.sent);
        self.bytes
    }

    /// Bytes not yet sent.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends everything, then `tail` as far as it goes in the same system call; `tail` is advanced. Ready when all of it
    /// is with the kernel.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        tail: &mut impl Buf,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() || tail.has_remaining() {
            let head = &self.bytes[self.sent..];
            let written = if !tail.has_remaining() {
                ready!(Pin::new(&mut *stream).poll_write(cx, head))?
            } else if head.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, tail.chunk()))?
            } else {
                let slices = [io::IoSlice::new(head), io::IoSlice::new(tail.chunk())];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(self.len());
            self.sent += of_head;
            tail.advance(written - of_head);
            if self.is_empty() {
                self.clear();
            }
        }
        Pin::new(stream).poll_flush(cx)
    }

    /// Gives the memory back; for connections that go idle.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            self.bytes = Vec::new();
            self.sent = 0;
        }
    }

    fn clear(&mut self) {
        self.sent = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEEP_CAPACITY {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_gone_takes_no_room_although_something_is_always_left() {
        let mut out = Outgoing::default();
        for _ in 0..10_000 {
            out.buffer().extend_from_slice(&[7; 8 * 1024]);
            // A slow peer takes some, and never all of it.
            out.sent += out.len() - 1024;
        }
        assert!(out.bytes.capacity() < 64 * 1024, "{}", out.bytes.capacity());
        assert_eq!(out.into_unsent(), [7; 1024]);
    }

    #[test]
    fn a_new_message_has_the_room_of_the_last_where_nobody_needs_that() {
        let mut buffer = BytesMut::new();
        make_room(&mut buffer, 64, 16);
        buffer.extend_from_slice(b"the first message");
        let first = buffer.as_ptr();
        let kept = buffer.split().freeze();
        make_room(&mut buffer, 64, 16);
        buffer.extend_from_slice(b"the second");
        assert_ne!(buffer.as_ptr(), first);
        assert_eq!(kept, "the first message");
        drop((kept, buffer.split()));
        make_room(&mut buffer, 64, 16);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (first, 64));
        // A message that has begun stays where it is, as long as there is enough behind it.
        buffer.extend_from_slice(b"the third");
        make_room(&mut buffer, 64, 16);
        assert_eq!(buffer.as_ptr(), first);
        assert_eq!(buffer, "the third");
    }
}
