//! TLS over a connected socket: what a [`Stream`] has to know that neither rustls nor the socket knows alone.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::{ConnectionCommon, IoState};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::stream::{Liveness, Stream};

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct TlsStream {
    inner: tokio_rustls::TlsStream<Stream>,
    /// The other end must not take the end for a proper one.
    aborted: bool,
}

impl TlsStream {
    pub(crate) fn new(inner: impl Into<tokio_rustls::TlsStream<Stream>>) -> Self {
        TlsStream { inner: inner.into(), aborted: false }
    }

    pub(super) fn socket(&self) -> &Stream {
        self.inner.get_ref().0
    }

    /// Closing will not say that everything was sent.
    pub(super) fn abort(&mut self) {
        self.aborted = true;
        self.inner.get_mut().0.reset_on_close();
    }

    /// Ready when plain bytes, an end or an error are there to be read.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_fill_buf(cx).map_ok(|_| ())
    }

    /// What an idle connection has to say, asked of the kernel. That there are bytes says nothing: session tickets and
    /// key updates come unasked.
    pub(super) fn look(&mut self) -> Liveness {
        let state = match &mut self.inner {
            tokio_rustls::TlsStream::Client(tls) => {
                let (socket, session) = tls.get_mut();
                take_in(socket, session)
            }
            tokio_rustls::TlsStream::Server(tls) => {
                let (socket, session) = tls.get_mut();
                take_in(socket, session)
            }
        };
        match state {
            Ok(state) if state.plaintext_bytes_to_read() > 0 => Liveness::Unexpected,
            Ok(state) if !state.peer_has_closed() => Liveness::Quiet,
            Ok(_) | Err(_) => Liveness::Closed,
        }
    }
}

/// Reads and deciphers what the kernel has.
fn take_in<D>(socket: &Stream, session: &mut ConnectionCommon<D>) -> io::Result<IoState> {
    loop {
        match session.read_tls(&mut AtOnce(socket)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                let state = session.process_new_packets().map_err(io::Error::other)?;
                if state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() {
                    return Ok(state);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return session.process_new_packets().map_err(io::Error::other);
            }
            Err(error) => return Err(error),
        }
    }
}

/// A socket without the runtime, whose notion of it is as old as its last turn.
struct AtOnce<'a>(&'a Stream);

impl Read for AtOnce<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.receive_at_once(buffer)
    }
}

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_at_once(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for TlsStream {
    /// Says goodbye, as far as that goes without waiting: an end without it could be an attacker's (RFC 8446, section
    /// 6.1), and some peers complain.
    fn drop(&mut self) {
        if self.aborted {
            return;
        }
        match &mut self.inner {
            tokio_rustls::TlsStream::Client(tls) => {
                let (socket, session) = tls.get_mut();
                say_goodbye(socket, session);
            }
            tokio_rustls::TlsStream::Server(tls) => {
                let (socket, session) = tls.get_mut();
                say_goodbye(socket, session);
            }
        }
    }
}

fn say_goodbye<D>(socket: &Stream, session: &mut ConnectionCommon<D>) {
    // What is left unsent was given up, and an end in its middle is not a proper one.
    if !session.wants_write() {
        session.send_close_notify();
        let _ = session.write_tls(&mut AtOnce(socket));
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
