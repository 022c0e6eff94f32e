//! A request's body that can be sent again.
//!
//! Nothing is waited for: what the client sends goes out as it comes, and a copy of the first bytes is kept beside it.
//! A second attempt gets the copy and then what the client goes on with. Once the body is longer than what may be kept,
//! the copy is thrown away, and the request can no longer be repeated.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame, SizeHint};

use crate::body::Body;
use crate::error::{Error, Reason};

/// The body of a request, for all of its attempts.
pub(super) enum Replay {
    /// In memory as a whole, or empty.
    Whole(Bytes),
    /// Kept as it comes.
    Kept(Rc<RefCell<Kept>>),
    /// For one attempt; another only where the first did not touch it.
    Once { body: Body, touched: bool, too_large: bool },
}

/// What has come, and where more comes from.
pub(super) struct Kept {
    source: Body,
    frames: Vec<Piece>,
    bytes: usize,
    most: usize,
    size: SizeHint,
    /// The number of the attempt that may take more from the client.
    current: u32,
    ended: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Repeatable,
    TooLarge,
    /// The client's side failed: there is nothing to repeat.
    Failed,
}

/// What comes in pieces smaller than this is kept in one: a piece costs about a hundred bytes, so that a body of single
/// bytes would take a hundred times what may be kept.
const SMALL_BYTES: usize = 1 << 10;

enum Piece {
    Data(Bytes),
    /// Of small ones, together.
    Gathered(BytesMut),
    Trailers(HeaderMap),
}

/// Another request with the same head.
pub(super) fn without_body(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

impl Replay {
    /// `keep`: how many bytes may be kept, where a second attempt can be wanted at all.
    pub(super) fn new(body: Body, keep: Option<usize>) -> Self {
        if body.is_empty() {
            return Replay::Whole(Bytes::new());
        }
        if let Some(bytes) = body.as_full() {
            return Replay::Whole(bytes.clone());
        }
        let size = body.size_hint();
        match keep {
            Some(most) if size.lower() <= most as u64 => Replay::Kept(Rc::new(RefCell::new(Kept {
                source: body,
                frames: Vec::new(),
                bytes: 0,
                most,
                size,
                current: 0,
                ended: false,
                state: State::Repeatable,
            }))),
            keep => Replay::Once { body, touched: false, too_large: keep.is_some() },
        }
    }

    /// The whole body for somebody else, where all of it has come and is kept.
    pub(super) fn complete(&self) -> Option<Body> {
        match self {
            Replay::Whole(bytes) => Some(Body::full(bytes.clone())),
            Replay::Kept(kept) => {
                let kept = kept.borrow();
                if kept.state != State::Repeatable || !kept.is_at_end() {
                    return None;
                }
                let mut bytes = BytesMut::with_capacity(kept.bytes);
                for piece in &kept.frames {
                    bytes.extend_from_slice(piece.data());
                }
                Some(Body::full(bytes))
            }
            Replay::Once { .. } => None,
        }
    }

    /// The whole body, for the next attempt.
    pub(super) fn body(&mut self) -> Body {
        match self {
            Replay::Whole(bytes) => Body::full(bytes.clone()),
            Replay::Kept(kept) => {
                let number = {
                    let mut kept = kept.borrow_mut();
                    kept.current += 1;
                    kept.current
                };
                Body::stream(Sending { kept: kept.clone(), number, place: Place::default(), sent: 0 })
            }
            Replay::Once { body, touched, .. } => {
                *touched = true;
                std::mem::take(body)
            }
        }
    }

    /// What an attempt that failed has left, and whether that is all of it.
    pub(super) fn take_back(&mut self, left: Body, intact: bool) {
        if let Replay::Once { body, touched, .. } = self
            && intact
        {
            *body = left;
            *touched = false;
        }
    }

    /// True where another attempt will have the same body, whatever becomes of this one.
    pub(super) fn can_repeat(&self) -> bool {
        match self {
            Replay::Once { .. } => false,
            Replay::Whole(_) | Replay::Kept(_) => self.is_repeatable(),
        }
    }

    /// True where another attempt would have the same body.
    pub(super) fn is_repeatable(&self) -> bool {
        match self {
            Replay::Whole(_) => true,
            Replay::Kept(kept) => kept.borrow().state == State::Repeatable,
            Replay::Once { touched, .. } => !touched,
        }
    }

    /// True where it is not because the body is longer than what may be kept.
    pub(super) fn is_too_large(&self) -> bool {
        match self {
            Replay::Whole(_) => false,
            Replay::Kept(kept) => kept.borrow().state == State::TooLarge,
            Replay::Once { too_large, .. } => *too_large,
        }
    }
}

/// One attempt's way through the body.
struct Sending {
    kept: Rc<RefCell<Kept>>,
    number: u32,
    place: Place,
    sent: u64,
}

/// How far one has come in what is kept.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    piece: usize,
    /// How much of that piece has been sent: it may grow.
    sent: usize,
}

impl Place {
    /// All that is kept has been sent.
    fn end(frames: &[Piece]) -> Self {
        Place { piece: frames.len().saturating_sub(1), sent: frames.last().map_or(0, Piece::length) }
    }

    fn is_end(self, frames: &[Piece]) -> bool {
        match frames.get(self.piece) {
            None => true,
            Some(piece) => self.sent == piece.length() && self.piece + 1 == frames.len(),
        }
    }

    fn next(&mut self, frames: &[Piece]) -> Option<Frame<Bytes>> {
        if self.is_end(frames) {
            return None;
        }
        if frames.get(self.piece).is_some_and(|piece| self.sent == piece.length()) {
            *self = Place { piece: self.piece + 1, sent: 0 };
        }
        let piece = frames.get(self.piece)?;
        let from = std::mem::replace(&mut self.sent, piece.length());
        Some(match piece {
            Piece::Data(data) => Frame::data(data.slice(from..)),
            Piece::Gathered(data) => Frame::data(Bytes::copy_from_slice(&data[from..])),
            Piece::Trailers(trailers) => Frame::trailers(trailers.clone()),
        })
    }
}

impl Piece {
    /// Never zero.
    fn length(&self) -> usize {
        self.data().len().max(1)
    }

    fn data(&self) -> &[u8] {
        match self {
            Piece::Data(data) => data,
            Piece::Gathered(data) => data,
            Piece::Trailers(_) => &[],
        }
    }
}

impl Kept {
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.source).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.keep(frame),
            Some(Err(_)) => self.state = State::Failed,
            None => self.ended = true,
        }
        Poll::Ready(frame)
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.state != State::Repeatable {
            return;
        }
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len();
            self.gather(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.frames.push(Piece::Trailers(trailers.clone()));
        }
        if self.bytes > self.most {
            self.state = State::TooLarge;
            self.frames = Vec::new();
        }
    }

    /// The only piece of most bodies is kept without a copy.
    fn gather(&mut self, data: &Bytes) {
        match self.frames.last_mut() {
            _ if data.is_empty() => {}
            Some(Piece::Gathered(gathered)) if data.len() < SMALL_BYTES => gathered.extend_from_slice(data),
            Some(last @ Piece::Data(_)) if data.len().max(last.data().len()) < SMALL_BYTES => {
                let mut gathered = BytesMut::with_capacity(SMALL_BYTES);
                gathered.extend_from_slice(last.data());
                gathered.extend_from_slice(data);
                *last = Piece::Gathered(gathered);
            }
            _ => self.frames.push(Piece::Data(data.clone())),
        }
    }

    fn is_at_end(&self) -> bool {
        self.ended || self.source.is_end_stream()
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let mut kept = this.kept.borrow_mut();
        let frame = match this.place.next(&kept.frames) {
            Some(frame) => Some(Ok(frame)),
            None if kept.is_at_end() => None,
            // Somebody else's turn has begun: this attempt is over, and whoever still sends it must not go on.
            None if kept.current != this.number => Some(Err(Error::local(Reason::ClientCancelled))),
            None => {
                let frame = ready!(kept.poll_more(cx));
                this.place = Place::end(&kept.frames);
                frame
            }
        };
        if let Some(Ok(frame)) = &frame {
            this.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.kept.borrow();
        self.place.is_end(&kept.frames) && kept.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        match self.kept.borrow().size.exact() {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.sent)),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    struct Script(VecDeque<Option<Bytes>>);

    impl http_body::Body for Script {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            match self.get_mut().0.pop_front() {
                None => Poll::Ready(None),
                Some(Some(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        }
    }

    /// Takes up to `most` frames; what came, and whether that was all.
    fn take(body: &mut Body, most: usize) -> (Vec<u8>, bool) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut taken = Vec::new();
        let mut frames = 0;
        while frames < most {
            match Pin::new(&mut *body).poll_frame(&mut cx) {
                Poll::Pending => {}
                Poll::Ready(Some(frame)) => {
                    taken.extend_from_slice(frame.unwrap().data_ref().unwrap());
                    frames += 1;
                }
                Poll::Ready(None) => return (taken, true),
            }
        }
        (taken, false)
    }

    proptest! {
        // Whatever part of the body earlier attempts have taken, a later one has it from the first byte.
        #[test]
        fn each_attempt_has_the_whole_body_as_long_as_it_is_kept(
            pieces in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 1..20)), 0..20),
            cuts in prop::collection::vec(0_usize..8, 0..4),
            most in 0_usize..300,
        ) {
            let all: Vec<u8> = pieces.iter().flatten().flatten().copied().collect();
            let script = Script(pieces.into_iter().map(|piece| piece.map(Bytes::from)).collect());
            let mut replay = Replay::new(Body::stream(script), Some(most));
            for cut in cuts {
                let (taken, _) = take(&mut replay.body(), cut);
                if !replay.is_repeatable() {
                    prop_assert!(taken.len() > most && replay.is_too_large());
                    return Ok(());
                }
                prop_assert!(all.starts_with(&taken) && taken.len() <= most);
            }
            prop_assert_eq!(take(&mut replay.body(), usize::MAX), (all, true));
        }
    }

    #[test]
    fn single_bytes_take_no_more_memory_than_long_pieces() {
        let bytes = 64 << 10;
        let mut replay = Replay::new(Body::stream(Script(vec![Some(Bytes::from("a")); bytes].into())), Some(bytes));
        let all = (vec![b'a'; bytes], true);
        assert_eq!(take(&mut replay.body(), usize::MAX), all);
        let Replay::Kept(kept) = &replay else { panic!("not kept") };
        assert_eq!(kept.borrow().frames.len(), 1);
        assert_eq!(take(&mut replay.body(), usize::MAX), all);
    }

    #[test]
    fn long_pieces_are_not_copied() {
        let long = Bytes::from(vec![b'a'; SMALL_BYTES]);
        let script = [Some(Bytes::from("b")), Some(long.clone()), Some(Bytes::from("c"))];
        let mut replay = Replay::new(Body::stream(Script(script.into())), Some(10_000));
        take(&mut replay.body(), usize::MAX);
        let Replay::Kept(kept) = &replay else { panic!("not kept") };
        assert!(kept.borrow().frames.iter().any(|piece| piece.data().as_ptr() == long.as_ptr()));
        let all = [&b"b"[..], &long, b"c"].concat();
        assert_eq!(take(&mut replay.body(), usize::MAX), (all, true));
    }

    #[test]
    fn an_attempt_that_is_over_takes_nothing_from_the_next() {
        let script = || Script([Some(Bytes::from("a")), Some(Bytes::from("b"))].into());
        let mut replay = Replay::new(Body::stream(script()), Some(10));
        let mut first = replay.body();
        assert_eq!(take(&mut first, 1).0, b"a");
        let mut second = replay.body();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(Pin::new(&mut first).poll_frame(&mut cx), Poll::Ready(Some(Err(_)))));
        assert_eq!(take(&mut second, 5), (b"ab".to_vec(), true));
        assert!(second.is_end_stream());
    }

    #[test]
    fn what_is_not_kept_goes_out_once_unless_it_was_not_touched() {
        let mut replay = Replay::new(Body::stream(Script([Some(Bytes::from("a"))].into())), None);
        let body = replay.body();
        assert!(!replay.is_repeatable() && !replay.is_too_large());
        replay.take_back(body, true);
        assert_eq!(take(&mut replay.body(), 5), (b"a".to_vec(), true));
        assert!(!replay.is_repeatable());
    }

    #[test]
    fn a_known_length_stays_known_and_is_not_copied_where_it_is_too_long() {
        struct Long;
        impl http_body::Body for Long {
            type Data = Bytes;
            type Error = Error;
            fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
                Poll::Ready(None)
            }
            fn size_hint(&self) -> SizeHint {
                SizeHint::with_exact(11)
            }
        }
        let mut replay = Replay::new(Body::stream(Long), Some(11));
        assert_eq!(replay.body().size_hint().exact(), Some(11));
        let replay = Replay::new(Body::stream(Long), Some(10));
        assert!(matches!(replay, Replay::Once { too_large: true, .. }));
    }
}
