//! After an Upgrade or CONNECT: bytes both ways, until one side has ended and the other has drained, or nothing moves.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::body::{Observer, Tunnel};
use crate::error::{Cause, Reason};
use crate::runtime::drain::{Phase, Ticket};
use crate::runtime::stream::Stream;
use crate::runtime::timer::Timer;

/// Once the endpoint has ended its direction, the client may be silent for this long: most likely nobody reads any more.
/// A client that has ended its own may wait for what it has asked for.
const HALF_CLOSED: Duration = Duration::from_secs(10);
/// Bytes of each direction in memory.
const BUFFER: usize = 16 * 1024;

/// Both ways of a connection.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// Joins the client's end to the endpoint's. `greeting` goes to the client first, `early` to the endpoint. Returns how it
/// ended. Where that is not well, the endpoint's connection is reset, and so should be the client's: a part must not be
/// taken for the whole.
pub(crate) async fn join(
    client: &mut dyn Duplex,
    greeting: Bytes,
    early: Bytes,
    tunnel: Tunnel,
    mut observer: Option<Box<dyn Observer>>,
    ticket: &mut Ticket,
    timer: &mut Timer,
) -> Result<(), Reason> {
    let mut endpoint = tunnel.endpoint;
    let mut down = Pipe::new(greeting, tunnel.early);
    let mut up = Pipe::new(Bytes::new(), early);
    let mut progress = Instant::now();
    let outcome = poll_fn(|cx| {
        let moved = down.moved + up.moved;
        let ended = match (down.poll(cx, &mut endpoint, client), up.poll(cx, client, &mut endpoint)) {
            (Poll::Ready(Err(Broken::Source)), _) | (_, Poll::Ready(Err(Broken::Sink))) => {
                Some(Err(Reason::UpstreamReset))
            }
            (Poll::Ready(Err(Broken::Sink)), _) | (_, Poll::Ready(Err(Broken::Source))) => {
                Some(Err(Reason::ClientCancelled))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Some(Ok(())),
            _ => None,
        };
        if let Some(outcome) = ended {
            return Poll::Ready(outcome);
        }
        if down.moved + up.moved > moved {
            progress = Instant::now();
        }
        let cut = observer.as_mut().is_some_and(|observer| observer.is_cut(cx.waker()));
        if ticket.watch(cx.waker()) == Phase::Forced || cut {
            return Poll::Ready(Err(Reason::Draining));
        }
        let idle = if down.closed { tunnel.idle.map(|idle| idle.min(HALF_CLOSED)) } else { tunnel.idle };
        ready!(timer.poll(cx, idle.map(|idle| progress + idle)));
        Poll::Ready(if down.closed { Ok(()) } else { Err(Reason::IdleTimeout) })
    })
    .await;
    if outcome.is_err() {
        endpoint.reset_on_close();
    }
    if let Some(mut observer) = observer.take() {
        observer.sent(down.moved);
        observer.received(up.moved);
        observer.end(outcome.map_err(Cause::upstream), Instant::now());
    }
    outcome
}

/// Joins a client that spoke HTTP/1 so far.
pub(crate) async fn join_http1(
    client: &RefCell<Stream>,
    greeting: Bytes,
    early: Bytes,
    tunnel: Tunnel,
    observer: Option<Box<dyn Observer>>,
    ticket: &mut Ticket,
    timer: &mut Timer,
) -> Result<(), Reason> {
    join(&mut Borrowed(client), greeting, early, tunnel, observer, ticket, timer).await
}

/// The end of a direction that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Source,
    Sink,
}

/// One direction.
struct Pipe {
    first: bytes::buf::Chain<Bytes, Bytes>,
    buffer: BytesMut,
    ended: bool,
    closed: bool,
    /// Of the source's.
    moved: u64,
}

impl Pipe {
    /// `greeting` is the proxy's own; `early` is the source's first.
    fn new(greeting: Bytes, early: Bytes) -> Self {
        Pipe { first: greeting.chain(early), buffer: BytesMut::new(), ended: false, closed: false, moved: 0 }
    }

    /// Ready when the source has ended, everything has been passed on, and so has the end. A tunnel ends with whoever
    /// breaks.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut dyn Duplex, to: &mut dyn Duplex) -> Poll<Result<(), Broken>> {
        loop {
            while self.first.has_remaining() {
                let written =
                    ready!(Pin::new(&mut *to).poll_write(cx, self.first.chunk())).map_err(|_| Broken::Sink)?;
                let greeting = self.first.first_ref().len();
                self.first.advance(written);
                self.moved += written.saturating_sub(greeting) as u64;
            }
            while !self.buffer.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer)).map_err(|_| Broken::Sink)?;
                self.buffer.advance(written);
                self.moved += written as u64;
            }
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.closed = true;
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|_| Broken::Sink)?;
            self.buffer.reserve(BUFFER);
            match pin!(from.read_buf(&mut self.buffer)).poll(cx) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Source)),
                Poll::Pending => {
                    // A silent tunnel holds no memory.
                    self.buffer = BytesMut::new();
                    return Poll::Pending;
                }
            }
        }
    }
}

/// The client's stream, whose owner waits for us.
struct Borrowed<'a>(&'a RefCell<Stream>);

impl AsyncRead for Borrowed<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Borrowed<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;
    use crate::runtime::drain::LocalDrain;

    async fn joined(mut client: UnixStream, endpoint: UnixStream, idle: Option<Duration>) -> Result<(), Reason> {
        let tunnel = Tunnel { endpoint: Stream::Unix(endpoint), early: Bytes::new(), idle, _guard: None };
        let (mut ticket, mut timer) = (LocalDrain::at(Phase::Serving).join(), Timer::default());
        join(&mut client, Bytes::new(), Bytes::new(), tunnel, None, &mut ticket, &mut timer).await
    }

    #[tokio::test]
    async fn whoever_breaks_it_is_named_whichever_way_the_bytes_went() {
        for (gone_is_client, reason) in [(true, Reason::ClientCancelled), (false, Reason::UpstreamReset)] {
            let ((client, clients), (endpoint, endpoints)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
            let (mut sends, gone) = if gone_is_client { (endpoints, clients) } else { (clients, endpoints) };
            drop(gone);
            sends.write_all(b"into the void").await.unwrap();
            assert_eq!(joined(client, endpoint, None).await, Err(reason));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_said_all_may_wait_as_long_as_any() {
        const IDLE: Duration = Duration::from_secs(60);
        for (client_ends, outcome, least) in [(true, Err(Reason::IdleTimeout), IDLE), (false, Ok(()), HALF_CLOSED)] {
            let ((client, mut clients), (endpoint, mut endpoints)) =
                (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
            let ends = if client_ends { &mut clients } else { &mut endpoints };
            ends.shutdown().await.unwrap();
            let began = Instant::now();
            assert_eq!(joined(client, endpoint, Some(IDLE)).await, outcome);
            let took = began.elapsed();
            assert!(took >= least && took < least * 2, "client_ends {client_ends}: {took:?}");
        }
    }
}
