//! What an answer holds: a text, or a stream of events that ends when nobody listens or speaks any more.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::sync::mpsc;

/// An answer's body.
#[derive(Debug)]
pub(super) enum Content {
    Whole(Full<Bytes>),
    Stream(Stream),
}

/// Events as they come.
pub(super) struct Stream {
    events: mpsc::Receiver<Bytes>,
    /// Ends the stream when it is ready.
    end: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Kept as long as somebody listens.
    _held: Option<Box<dyn Any>>,
}

impl Content {
    /// What is sent into the other end of the channel.
    pub(super) fn stream(events: mpsc::Receiver<Bytes>) -> Self {
        Content::Stream(Stream { events, end: None, _held: None })
    }

    /// Lets a stream end at `end` at the latest, and keeps `held` until it does. Nothing to do for a whole answer.
    pub(super) fn until(&mut self, end: impl Future<Output = ()> + 'static, held: impl FnOnce() -> Box<dyn Any>) {
        if let Content::Stream(stream) = self {
            stream.end = Some(Box::pin(end));
            stream._held = Some(held());
        }
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Content::Whole(Full::from(text))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Content::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Content::Stream(stream) => {
                if stream.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
                    return Poll::Ready(None);
                }
                stream.events.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Content::Whole(whole) => whole.is_end_stream(),
            Content::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(whole) => whole.size_hint(),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}
