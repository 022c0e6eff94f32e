//! A body on its way out: framed, gathered into few system calls, paced by the peer.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::time::Instant;

use super::{Framing, chunk_end, chunk_start, encode_trailers};
use crate::body::{Body, Observer};
use crate::error::{Cause, Error, Reason};
use crate::runtime::stream::{Outgoing, Socket};

/// Data up to this size is copied behind what is already waiting to be sent; more goes out from where it is.
const COPY_MAX: usize = 16 * 1024;
/// Small pieces are gathered up to this much before they are sent.
const GATHER_MAX: usize = 64 * 1024;

/// Sends one body.
pub(crate) struct BodySender {
    body: Body,
    /// Hears of the end once everything is with the kernel, and not when the body has been read.
    observer: Option<Box<dyn Observer>>,
    framing: Framing,
    /// A large piece on its way.
    tail: Bytes,
    /// Of a body with a length.
    remaining: u64,
    /// The line end behind the chunk in `tail`.
    owes_line_end: bool,
    ended: bool,
    polled: bool,
    moved: bool,
    /// TLS holds something back that the peer has not taken.
    held_back: bool,
}

impl std::fmt::Debug for BodySender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodySender").field("framing", &self.framing).finish_non_exhaustive()
    }
}

/// Why a body cannot be sent.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Where it comes from.
    Body(Error),
    /// Where it goes to.
    Peer(std::io::Error),
}

impl BodySender {
    pub(crate) fn new(mut body: Body, framing: Framing) -> Self {
        let remaining = if let Framing::Length(length) = framing { length } else { 0 };
        let ended = matches!(framing, Framing::None | Framing::Length(0));
        BodySender {
            observer: body.take_observer(),
            body,
            framing,
            tail: Bytes::new(),
            remaining,
            owes_line_end: false,
            ended,
            polled: false,
            moved: false,
            held_back: false,
        }
    }

    /// The body, where nothing of it has been taken yet.
    pub(crate) fn into_untouched(self) -> Option<Body> {
        (!self.polled).then_some(self.body)
    }

    /// True while a piece waits for the peer to take it.
    pub(crate) fn is_stuck(&self) -> bool {
        !self.tail.is_empty() || self.held_back
    }

    /// True where the body is to end although it is not over.
    pub(crate) fn is_cut(&mut self, waker: &Waker) -> bool {
        self.observer.as_mut().is_some_and(|observer| observer.is_cut(waker))
    }

    /// Tells whoever observes the body how it ended, and when.
    pub(crate) fn settle(&mut self, outcome: Result<(), Cause>, now: Instant) {
        if let Some(observer) = self.observer.take() {
            observer.end(outcome, now);
        }
    }

    /// True where something was sent since the last call.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Sends what waits in `out` and then the body; ready when all of it is with the kernel.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut impl Socket,
        out: &mut Outgoing,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let source = self.poll_gather(cx, out)?;
            if out.is_empty() && self.tail.is_empty() && !self.held_back {
                return source.map(Ok);
            }
            let before = out.len() + self.tail.len();
            let sent = stream.with(|stream| out.poll_send(cx, stream, &mut self.tail)).map_err(SendError::Peer);
            let left = out.len() + self.tail.len();
            let held_back = sent.is_pending() && left == 0;
            self.moved |= left < before || (self.held_back && !held_back);
            self.held_back = held_back;
            ready!(sent)?;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes as much of the body as should go in one system call. Ready: there is something, or the end.
    fn poll_gather(&mut self, cx: &mut Context<'_>, out: &mut Outgoing) -> Result<Poll<()>, SendError> {
        while !self.ended && self.tail.is_empty() && out.len() < GATHER_MAX {
            if std::mem::take(&mut self.owes_line_end) {
                out.buffer().extend_from_slice(b"\r\n");
            }
            self.polled = true;
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Some(Ok(frame))) => self.take_frame(frame, out)?,
                Poll::Ready(Some(Err(error))) => return Err(SendError::Body(error)),
                Poll::Ready(None) => self.take_end(out)?,
            }
        }
        Ok(Poll::Ready(()))
    }

    fn take_frame(&mut self, frame: Frame<Bytes>, out: &mut Outgoing) -> Result<(), SendError> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let Ok(trailers) = frame.into_trailers() else { return Ok(()) };
                if let Some(observer) = &mut self.observer {
                    observer.trailers(&trailers);
                }
                if self.framing == Framing::Chunked {
                    encode_trailers(&trailers, out.buffer());
                    self.ended = true;
                }
                return Ok(());
            }
        };
        if data.is_empty() {
            return Ok(());
        }
        if let Some(observer) = &mut self.observer {
            observer.sent(data.len() as u64);
        }
        match self.framing {
            Framing::Chunked => chunk_start(data.len(), out.buffer()),
            Framing::Length(_) => {
                self.remaining = self.remaining.checked_sub(data.len() as u64).ok_or_else(|| mismatch("longer"))?;
                self.ended = self.remaining == 0;
            }
            Framing::UntilClose | Framing::None => {}
        }
        if data.len() <= COPY_MAX {
            out.buffer().extend_from_slice(&data);
            if self.framing == Framing::Chunked {
                out.buffer().extend_from_slice(b"\r\n");
            }
        } else {
            self.tail = data;
            self.owes_line_end = self.framing == Framing::Chunked;
        }
        Ok(())
    }

    fn take_end(&mut self, out: &mut Outgoing) -> Result<(), SendError> {
        self.ended = true;
        match self.framing {
            Framing::Chunked => chunk_end(out.buffer()),
            Framing::Length(_) if self.remaining > 0 => return Err(mismatch("shorter")),
            _ => {}
        }
        Ok(())
    }
}

/// Our own bodies keep their length; one that a user's layer put in its place may not.
fn mismatch(how: &str) -> SendError {
    SendError::Body(Error::local(Reason::Internal).because(format!("the body is {how} than its Content-Length")))
}
