//! Clients that flood HTTP/2: streams opened only to be reset (CVE-2023-44487), headers without end and the like.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::lane::Activity;
use crate::runtime::stream::Stream;

/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, sections 6.8 and 7). Which streams were looked at stays open: whoever floods is
/// not invited to try again.
const ENHANCE_YOUR_CALM: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11];

/// True where h2 has noticed one, and told the client.
pub(super) fn is_noticed_by(error: &hyper::Error) -> bool {
    let h2 = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    h2.is_some_and(|h2| h2.is_library() && h2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// A client's stream, which is told why it ends where we have noticed a flood: hyper only ends it.
pub(super) struct Calming {
    stream: Stream,
    activity: Rc<Activity>,
    /// A frame may be half written.
    midway: bool,
}

impl Calming {
    pub(super) fn new(stream: Stream, activity: Rc<Activity>) -> Self {
        Calming { stream, activity, midway: false }
    }
}

impl Drop for Calming {
    fn drop(&mut self) {
        if self.activity.is_flood() && !self.midway {
            // As far as that goes without waiting.
            let mut cx = Context::from_waker(Waker::noop());
            let _ = Pin::new(&mut self.stream).poll_write(&mut cx, &ENHANCE_YOUR_CALM);
            let _ = Pin::new(&mut self.stream).poll_flush(&mut cx);
        }
    }
}

impl AsyncRead for Calming {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Calming {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.midway = true;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.midway = true;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// h2 flushes once nothing is left of what it has to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.midway &= flushed.is_pending();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
