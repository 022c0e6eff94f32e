//! A message's body as it passes through the proxy, and the two strings tied to it: one back to the client's
//! connection, one to whoever counts what became of the request.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::error::{Cause, Error, Reason};
use crate::runtime::stream::Stream;

/// The body of a request or response. Lives on the worker that made it.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    observer: Option<Box<dyn Observer>>,
    downstream: Option<Rc<dyn Downstream>>,
    patience: Patience,
    raw_head: Bytes,
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error>>>),
    Tunnel(Box<Tunnel>),
}

/// How long a client may take nothing of a response while there is something to take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// From the last time that it took something.
    pub(crate) idle: Option<Duration>,
    /// When the whole request has to be over, and what it means that it is not.
    pub(crate) request: Option<(Instant, Reason)>,
}

impl Patience {
    /// When it is over, for a client that has taken nothing since then.
    pub(crate) fn until(&self, since: Instant) -> Option<Instant> {
        let idle = self.idle.map(|idle| since + idle);
        let request = self.request.map(|(deadline, _)| deadline);
        [idle, request].into_iter().flatten().min()
    }

    /// Why it is over.
    pub(crate) fn reason(&self) -> Reason {
        match self.request {
            Some((deadline, reason)) if Instant::now() >= deadline => reason,
            _ => Reason::IdleTimeout,
        }
    }
}

/// Counts what becomes of a response. Dropped with its body, where the client left.
pub(crate) trait Observer {
    /// This many bytes of the body were passed on.
    fn sent(&mut self, bytes: u64);
    /// This many bytes came from the client outside of a body.
    fn received(&mut self, bytes: u64);
    /// The response's trailers, where gRPC puts its status.
    fn trailers(&mut self, trailers: &HeaderMap);
    /// True where the response is to end although it is not over. Asked where nothing is to be passed on; the waker
    /// belongs to whoever waits then.
    fn is_cut(&mut self, waker: &Waker) -> bool;
    /// The response is over, and it is this late.
    fn end(self: Box<Self>, outcome: Result<(), Cause>, now: Instant);
}

/// What a request can still ask of the client's connection before its response.
pub(crate) trait Downstream {
    /// When the request's first byte arrived.
    fn received(&self) -> Instant;
    /// Sends a 1xx response ahead of the final one.
    fn send_interim(&self, response: &Response<Body>);
    /// The endpoint, not the proxy, will tell the client to go on with its body.
    fn leave_continue_to_endpoint(&self);
    /// Bytes of the request's body that have been read so far.
    fn bytes_in(&self) -> u64;
}

/// The endpoint's side of an Upgrade or CONNECT, to be joined to the client's.
pub(crate) struct Tunnel {
    pub(crate) endpoint: Stream,
    /// Bytes that came with the endpoint's answer.
    pub(crate) early: Bytes,
    /// How long both directions may be silent.
    pub(crate) idle: Option<Duration>,
    /// Kept as long as the tunnel: permits and counts.
    pub(crate) _guard: Option<Box<dyn Any>>,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Body::default()
    }

    /// A body that is known as a whole.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let mut body = Body::default();
        body.fill(bytes.into());
        body
    }

    /// Any other body; errors end the response early, with the given error's reason in log and metrics.
    pub fn stream(body: impl http_body::Body<Data = Bytes, Error = Error> + 'static) -> Self {
        let mut streamed = Body::default();
        streamed.fill_with(body);
        streamed
    }

    pub(crate) fn tunnel(tunnel: Tunnel) -> Self {
        let mut body = Body::default();
        body.fill_with_tunnel(tunnel);
        body
    }

    /// True where there is not a single byte.
    pub fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    /// The whole body, where it is in memory.
    pub(crate) fn as_full(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Full(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The tunnel that the response opens, where it does.
    pub(crate) fn take_tunnel(&mut self) -> Option<Tunnel> {
        match std::mem::take(&mut self.kind) {
            Kind::Tunnel(tunnel) => Some(*tunnel),
            other => {
                self.kind = other;
                None
            }
        }
    }

    pub(crate) fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observer = Some(observer);
    }

    pub(crate) fn take_observer(&mut self) -> Option<Box<dyn Observer>> {
        self.observer.take()
    }

    pub(crate) fn set_downstream(&mut self, downstream: Rc<dyn Downstream>) {
        self.downstream = Some(downstream);
    }

    pub(crate) fn take_downstream(&mut self) -> Option<Rc<dyn Downstream>> {
        self.downstream.take()
    }

    /// With the client that it goes to.
    pub(crate) fn patience(&self) -> Patience {
        self.patience
    }

    pub(crate) fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Puts bytes in the place of a body that has none yet; what else is tied to it stays.
    pub(crate) fn fill(&mut self, bytes: Bytes) {
        self.kind = if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) };
    }

    /// The same with a stream.
    pub(crate) fn fill_with(&mut self, body: impl http_body::Body<Data = Bytes, Error = Error> + 'static) {
        self.kind = Kind::Stream(Box::pin(body));
    }

    /// The same with the endpoint's side of a tunnel.
    pub(crate) fn fill_with_tunnel(&mut self, tunnel: Tunnel) {
        self.kind = Kind::Tunnel(Box::new(tunnel));
    }

    /// The message's head as it came over HTTP/1; empty where it did not.
    pub(crate) fn raw_head(&self) -> &Bytes {
        &self.raw_head
    }

    pub(crate) fn set_raw_head(&mut self, raw_head: Bytes) {
        self.raw_head = raw_head;
    }

    /// Keeps the first bytes, at most this many, as they pass.
    pub(crate) fn peek(&mut self, most: usize) -> Rc<RefCell<Vec<u8>>> {
        let kept = Rc::new(RefCell::new(Vec::new()));
        match std::mem::take(&mut self.kind) {
            Kind::Full(bytes) => {
                kept.borrow_mut().extend_from_slice(&bytes[..bytes.len().min(most)]);
                self.kind = Kind::Full(bytes);
            }
            Kind::Stream(body) => self.kind = Kind::Stream(Box::pin(Peek { body, kept: kept.clone(), most })),
            other => self.kind = other,
        }
        kept
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.kind {
            Kind::Empty | Kind::Tunnel(_) => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream(body) => {
                let frame = ready!(body.as_mut().poll_frame(cx));
                if frame.is_none() {
                    self.kind = Kind::Empty;
                }
                Poll::Ready(frame)
            }
        }
    }

    fn finish(&mut self, outcome: Result<(), Cause>) {
        if let Some(observer) = self.observer.take() {
            observer.end(outcome, Instant::now());
        }
    }
}

/// A body whose first bytes somebody keeps.
struct Peek {
    body: Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error>>>,
    kept: Rc<RefCell<Vec<u8>>>,
    most: usize,
}

impl http_body::Body for Peek {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            let mut kept = this.kept.borrow_mut();
            let room = this.most.saturating_sub(kept.len());
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let frame = match this.poll_kind(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending if this.observer.as_mut().is_some_and(|observer| observer.is_cut(cx.waker())) => {
                this.kind = Kind::Empty;
                Some(Err(Error::local(Reason::Draining)))
            }
            Poll::Pending => return Poll::Pending,
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(observer) = &mut this.observer {
                    if let Some(data) = frame.data_ref() {
                        observer.sent(data.len() as u64);
                    } else if let Some(trailers) = frame.trailers_ref() {
                        observer.trailers(trailers);
                    }
                }
            }
            Some(Err(error)) => this.finish(Err(error.cause())),
            None => this.finish(Ok(())),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Tunnel(_) => true,
            Kind::Full(_) => false,
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty | Kind::Tunnel(_) => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // A server takes no further frame from a body that says it is at its end.
        if self.observer.is_some() && http_body::Body::is_end_stream(self) {
            self.finish(Ok(()));
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Empty => "Body::Empty",
            Kind::Full(_) => "Body::Full",
            Kind::Stream(_) => "Body::Stream",
            Kind::Tunnel(_) => "Body::Tunnel",
        })
    }
}
