//! A request's ties to the connection that it came by: its body, which is read from there, and what may still be asked.

use super::*;

impl Downstream for Shared {
    fn received(&self) -> Instant {
        self.received.get()
    }

    fn send_interim(&self, response: &Response<Body>) {
        if self.takes_interim.get() {
            let mut interim = Response::new(());
            *interim.status_mut() = response.status();
            *interim.headers_mut() = response.headers().clone();
            *interim.extensions_mut() = response.extensions().clone();
            hop_by_hop::strip(interim.headers_mut());
            // What proxies tell each other stands in final responses.
            decisions::drop_own_fields(interim.headers_mut());
            let raw_head = response.body().raw_head();
            http1::encode_response(&interim, raw_head, Framing::None, None, self.interim.borrow_mut().buffer());
        }
    }

    fn leave_continue_to_endpoint(&self) {
        self.owes_continue.set(false);
    }

    fn bytes_in(&self) -> u64 {
        self.bytes_in.get()
    }
}

/// The body of the request that the connection is at.
pub(super) struct RequestBody {
    pub(super) shared: Rc<Shared>,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let shared = &*self.shared;
        let input = &mut *shared.input.borrow_mut();
        let stream = &mut *shared.stream.borrow_mut();
        if shared.owes_continue.replace(false) && shared.takes_interim.get() && input.read.is_empty() {
            let mut interim = shared.interim.borrow_mut();
            interim.buffer().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            // What does not fit now is sent by the connection's own turn.
            let _ = interim.poll_send(cx, stream, &mut Bytes::new());
        }
        loop {
            match input.decoder.decode(&mut input.read) {
                Ok(Decoded::Data(data)) => {
                    let total = shared.bytes_in.get() + data.len() as u64;
                    shared.bytes_in.set(total);
                    if input.max_body.is_some_and(|max| total > max) {
                        return Poll::Ready(Some(Err(Error::downstream(Reason::BodyTooLarge))));
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Decoded::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Decoded::Done) => return Poll::Ready(None),
                Ok(Decoded::NeedMore) => {}
                Err(what) => {
                    return Poll::Ready(Some(Err(Error::downstream(Reason::BadRequest).because(what))));
                }
            }
            let wanted = input.decoder.remaining().map_or(READ_LARGE, |rest| rest.min(READ_LARGE as u64) as usize);
            if input.read.capacity() - input.read.len() < wanted.min(READ_SMALL) {
                input.read.reserve(wanted.max(READ_SMALL));
            }
            match ready!(stream.poll_fill(cx, &mut input.read)) {
                Ok(0) => return Poll::Ready(Some(Err(Error::downstream(Reason::BodyIncomplete)))),
                Ok(_) => {}
                Err(error) => {
                    return Poll::Ready(Some(Err(Error::downstream(Reason::ClientCancelled).because(error))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.shared.input.borrow().decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        match self.shared.input.borrow().decoder.remaining() {
            Some(exact) => SizeHint::with_exact(exact),
            None => SizeHint::default(),
        }
    }
}
