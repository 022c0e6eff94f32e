//! HTTP/2 connections to endpoints: hyper's, many streams on each.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, Uri, Version, header, uri};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::http1::{Attempt, FOUND_DEAD, Failure};
use super::tls::{Heard, Overheard};
use super::{Deadlines, tls};
use crate::body::{Body, Patience};
use crate::error::{Error, Reason, Source};
use crate::http1;
use crate::runtime::local::LocalExec;
use crate::runtime::stream::Stream;
use crate::runtime::timer::{Timer, earlier};
use crate::upstream::limit::Permit;
use crate::upstream::state::InFlight;

/// Flow-control windows: what one stream, and one connection, may have in memory unread.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A connection with streams on it that is silent for this long is asked for a sign of life, and given as long again.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A response's header list; gRPC's metadata can be large.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// Streams on a new connection before the endpoint has said how many it takes; further ones wait for that word, which
/// comes within a round trip, and are not refused.
const STREAMS_BEFORE_SETTINGS: usize = 2;

/// A connection. It ends when nobody holds it and its last stream is over.
#[derive(Debug)]
pub(crate) struct Http2Connection {
    send: RefCell<SendRequest<Body>>,
    streams: Cell<u32>,
    /// As many as the endpoint's SETTINGS let us open.
    allowed: Rc<Cell<u32>>,
    opened: Instant,
    idle_since: Cell<Instant>,
    used: Cell<bool>,
    /// Something has come back on it.
    answered: Cell<bool>,
    /// Under TLS.
    secure: bool,
    /// That the endpoint does not like our certificate comes to light only after the handshake with TLS 1.3.
    heard: Rc<Heard>,
    room: Rc<Notify>,
    _permit: Permit,
}

impl Http2Connection {
    /// `room`: who is told when a stream has ended.
    pub(crate) async fn handshake(
        stream: Stream,
        permit: Permit,
        secure: bool,
        room: Rc<Notify>,
    ) -> Result<Self, Error> {
        let (stream, heard) = Overheard::new(stream);
        let failed = |error: hyper::Error| Error::upstream(Reason::ConnectFailure).unsent().because(error);
        let (send, connection) = Builder::new(LocalExec)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        let allowed = Rc::new(Cell::new(u32::MAX));
        let (settings, said) = (allowed.clone(), heard.clone());
        tokio::task::spawn_local(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = std::future::poll_fn(|cx| {
                let ended = connection.as_mut().poll(cx);
                if said.anything.get() {
                    settings.set(u32::try_from(connection.current_max_send_streams()).unwrap_or(u32::MAX));
                } else {
                    // hyper reads in another task, and this one hears only of requests.
                    said.waiting.replace(Some(cx.waker().clone()));
                }
                ended
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "HTTP/2 connection to an endpoint ended");
            }
        });
        let now = Instant::now();
        Ok(Http2Connection {
            send: RefCell::new(send),
            streams: Cell::new(0),
            allowed,
            opened: now,
            idle_since: Cell::new(now),
            used: Cell::new(false),
            answered: Cell::new(false),
            secure,
            heard,
            room,
            _permit: permit,
        })
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.send.borrow().is_closed()
    }

    /// True where it was made after what ended before `time`.
    pub(crate) fn is_newer(&self, time: Instant) -> bool {
        self.opened >= time
    }

    /// True where another stream may begin. Servers should allow at least 100 (RFC 9113, section 6.5.2); some allow fewer.
    pub(crate) fn has_room(&self, most: u32) -> bool {
        self.streams() < most.min(self.allowed.get().max(1))
    }

    pub(crate) fn streams(&self) -> u32 {
        self.streams.get()
    }

    pub(crate) fn is_usable(&self, now: Instant, idle: Option<Duration>, lifetime: Duration) -> bool {
        let quiet = self.streams() == 0
            && idle.is_some_and(|idle| now.saturating_duration_since(self.idle_since.get()) >= idle);
        self.is_open() && !quiet && now.saturating_duration_since(self.opened) < lifetime
    }

    /// Sends the attempt and waits for the response's head.
    pub(crate) async fn exchange(
        self: &Rc<Self>,
        attempt: &mut Attempt<'_>,
        guard: InFlight,
    ) -> Result<Box<Response<Body>>, Failure> {
        let reused = self.used.replace(true);
        let stream = StreamCount::new(self.clone());
        let upload = Rc::new(UploadWatch::default());
        let shared = Rc::new(RefCell::new(std::mem::take(attempt.body)));
        let body = Upload { body: shared.clone(), watch: upload.clone() };
        let body = if body.is_end_stream() { Body::empty() } else { Body::stream(body) };
        if body.is_empty() {
            upload.end();
        }
        let request = to_http2(attempt.head, body, self.secure);
        let sending = self.send.borrow_mut().try_send_request(request);
        let mut sending = std::pin::pin!(sending);
        let mut timer = Timer::default();
        let deadlines = attempt.deadlines;
        // Whatever becomes of this attempt: when it is over, so is its request.
        let mut request_side = RequestSide { body: shared, watch: upload.clone() };
        let outcome = std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = sending.as_mut().poll(cx) {
                return Poll::Ready(outcome.map_err(|mut error| {
                    // Later, an alert says nothing of what the endpoint has done with the request.
                    if let Some(alert) = self.heard.refusal.get().filter(|_| !self.answered.get()) {
                        return Failure { error: tls::refused_by(alert), stale: false, body_intact: false };
                    }
                    let unsent = error.take_message().is_some();
                    let failed = classify(error.error(), unsent);
                    // A stream that was reset was seen by somebody, be it to say that it is too busy; a connection that
                    // just ended may have been dead.
                    let ended = reused && failed.reason == Reason::UpstreamReset;
                    let died = failed.unsent || ended && attempt.began.elapsed() < FOUND_DEAD;
                    Failure {
                        stale: died && !is_reset(error.error()),
                        body_intact: false,
                        error: failed.because(error.into_error()),
                    }
                }));
            }
            upload.waiting.replace(Some(cx.waker().clone()));
            let (reason, deadline) = upload.patience(deadlines);
            ready!(timer.poll(cx, earlier(deadline, deadlines.head())));
            let reason = deadlines.reason(reason);
            let error = if upload.lacks() { Error::downstream(reason) } else { Error::upstream(reason) };
            Poll::Ready(Err(Failure { error, stale: false, body_intact: false }))
        })
        .await;
        match outcome {
            Ok(response) => {
                self.answered.set(true);
                attempt.note_upload(upload.finished.get().is_some(), upload.lacked.get());
                Ok(from_http2(response, request_side, stream, guard, deadlines))
            }
            Err(mut failure) => {
                // The client's failure explains the stream's.
                if let Some((reason, source)) = upload.failed.get() {
                    failure.error = Error { reason, source, ..failure.error };
                }
                failure.body_intact = !upload.touched.get();
                if failure.body_intact {
                    *attempt.body = request_side.take();
                }
                Err(failure)
            }
        }
    }
}

/// A stream that counts until it is dropped.
#[derive(Debug)]
struct StreamCount(Rc<Http2Connection>);

impl StreamCount {
    fn new(connection: Rc<Http2Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        StreamCount(connection)
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.idle_since.set(Instant::now());
        self.0.room.notify_waiters();
    }
}

/// The request as HTTP/2 has it: the host is `:authority`, and of the connection's fields only `te: trailers` is left.
fn to_http2(head: &Request<Body>, body: Body, secure: bool) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method().clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers().clone();
    let host = request.headers_mut().remove(header::HOST);
    let mut parts = uri::Parts::default();
    parts.path_and_query = head.uri().path_and_query().cloned();
    parts.scheme = Some(if secure { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    parts.authority = host.and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
    if parts.authority.is_none() {
        parts.authority = Some(uri::Authority::from_static("localhost"));
    }
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    if let Some(protocol) = head.extensions().get::<hyper::ext::Protocol>() {
        request.extensions_mut().insert(protocol.clone());
    }
    request
}

fn from_http2(
    response: Response<Incoming>,
    request: RequestSide,
    stream: StreamCount,
    guard: InFlight,
    deadlines: &Deadlines,
) -> Box<Response<Body>> {
    let patience = deadlines.patience(response.headers());
    let (parts, incoming) = response.into_parts();
    let mut body = if incoming.is_end_stream() {
        Body::empty()
    } else {
        let progress = Instant::now();
        let timer = Timer::default();
        Body::stream(Http2Body { incoming, request, patience, timer, progress, _stream: stream, _guard: guard })
    };
    body.set_patience(patience);
    Box::new(Response::from_parts(parts, body))
}

/// What became of a stream, from hyper's error and h2's behind it.
fn classify(error: &hyper::Error, unsent: bool) -> Error {
    if unsent {
        return Error::upstream(Reason::UpstreamReset).unsent();
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return classify_h2(h2);
        }
        source = cause.source();
    }
    if error.is_parse() {
        return Error::upstream(Reason::UpstreamProtocolError);
    }
    Error::upstream(Reason::UpstreamReset)
}

fn is_reset(error: &hyper::Error) -> bool {
    let h2 = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    h2.is_some_and(h2::Error::is_reset)
}

fn classify_h2(error: &h2::Error) -> Error {
    if error.reason() == Some(h2::Reason::REFUSED_STREAM) && error.is_remote() {
        return Error::upstream(Reason::RefusedStream).unsent();
    }
    // RFC 9113, section 6.8: streams above the last one named were not processed; others are let finish.
    if error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR) {
        return Error::upstream(Reason::RefusedStream).unsent();
    }
    if error.is_library() || error.reason() == Some(h2::Reason::PROTOCOL_ERROR) {
        return Error::upstream(Reason::UpstreamProtocolError);
    }
    Error::upstream(Reason::UpstreamReset)
}

/// How the request's body is getting on, seen from the response's side.
#[derive(Debug, Default)]
struct UploadWatch {
    touched: Cell<bool>,
    finished: Cell<Option<Instant>>,
    progress: Cell<Option<Instant>>,
    /// Since when the client has nothing more to send as yet, and all that it sent is with hyper.
    starved: Cell<Option<Instant>>,
    /// How long that was so, all in all.
    lacked: Cell<Duration>,
    /// Who waits for the response: the body is sent by hyper's task, and its end begins another patience.
    waiting: RefCell<Option<Waker>>,
    failed: Cell<Option<(Reason, Source)>>,
    /// The response is over, or nobody wants it any more: so is the request.
    abandoned: Cell<bool>,
    /// hyper's task, which sends the body.
    sending: RefCell<Option<Waker>>,
}

impl UploadWatch {
    fn end(&self) {
        self.finished.set(Some(Instant::now()));
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// True where everybody waits for the client to send more.
    fn lacks(&self) -> bool {
        self.finished.get().is_none() && self.starved.get().is_some()
    }

    fn patience(&self, deadlines: &Deadlines) -> (Reason, Option<Instant>) {
        match self.finished.get() {
            // Where no answer is due at a time, as for gRPC, silence still has its bound.
            Some(finished) => match deadlines.response {
                Some(bound) => (Reason::ResponseTimeout, Some(finished + bound)),
                None => (Reason::IdleTimeout, deadlines.idle.map(|bound| finished + bound)),
            },
            None => {
                let since = self.progress.get().unwrap_or_else(|| {
                    let now = Instant::now();
                    self.progress.set(Some(now));
                    now
                });
                (Reason::IdleTimeout, deadlines.idle.map(|bound| since + bound))
            }
        }
    }
}

/// The request's body, watched.
struct Upload {
    body: Rc<RefCell<Body>>,
    watch: Rc<UploadWatch>,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.watch.abandoned.get() {
            return Poll::Ready(Some(Err(Error::local(Reason::ClientCancelled))));
        }
        self.watch.sending.replace(Some(cx.waker().clone()));
        self.watch.touched.set(true);
        let frame = Pin::new(&mut *self.body.borrow_mut()).poll_frame(cx);
        let now = Instant::now();
        let lacked = self.watch.starved.get().map_or(Duration::ZERO, |since| now - since);
        self.watch.lacked.set(self.watch.lacked.get() + lacked);
        self.watch.starved.set(frame.is_pending().then_some(now));
        let frame = ready!(frame);
        self.watch.progress.set(Some(now));
        match &frame {
            None => self.watch.end(),
            Some(Ok(_)) if self.is_end_stream() => self.watch.end(),
            Some(Ok(_)) => {}
            Some(Err(error)) => self.watch.failed.set(Some((error.reason, error.source))),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.borrow().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.borrow().size_hint()
    }
}

/// The request behind a response. hyper goes on sending it when the response is dropped; this stops it, for it reads
/// from the client's connection, which by then is somebody else's.
struct RequestSide {
    body: Rc<RefCell<Body>>,
    watch: Rc<UploadWatch>,
}

impl RequestSide {
    /// The body, back from hyper; whoever still has it there finds it at its end.
    fn take(&mut self) -> Body {
        std::mem::take(&mut *self.body.borrow_mut())
    }
}

impl Drop for RequestSide {
    fn drop(&mut self) {
        if self.watch.finished.get().is_some() {
            return;
        }
        // An error, and no end: the endpoint must not take a part for the whole.
        self.watch.abandoned.set(true);
        *self.body.borrow_mut() = Body::empty();
        if let Some(waker) = self.watch.sending.take() {
            waker.wake();
        }
    }
}

/// A response's body, with its patience.
struct Http2Body {
    incoming: Incoming,
    request: RequestSide,
    patience: Patience,
    timer: Timer,
    progress: Instant,
    _stream: StreamCount,
    _guard: InFlight,
}

impl http_body::Body for Http2Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.progress = Instant::now();
                let failed = this.request.watch.failed.get();
                Poll::Ready(frame.map(|frame| {
                    let frame = frame.map(|frame| match frame.into_trailers() {
                        Ok(trailers) => Frame::trailers(http1::without_forbidden(trailers)),
                        Err(data) => data,
                    });
                    frame.map_err(|error| {
                        let classified = classify(&error, false).because(error);
                        // The client's failure explains the stream's.
                        match failed {
                            Some((reason, source)) => Error { reason, source, ..classified },
                            None => classified,
                        }
                    })
                }))
            }
            Poll::Pending => {
                if this.request.watch.finished.get().is_none() {
                    this.request.watch.waiting.replace(Some(cx.waker().clone()));
                }
                let progress =
                    this.request.watch.progress.get().map_or(this.progress, |upload| upload.max(this.progress));
                ready!(this.timer.poll(cx, this.patience.until(progress)));
                let (reason, lacks) = (this.patience.reason(), this.request.watch.lacks());
                Poll::Ready(Some(Err(if lacks { Error::downstream(reason) } else { Error::upstream(reason) })))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Joins the crumbs that HTTP/2 allows a cookie to be cut into (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut joined = BytesMut::new();
    for crumb in headers.get_all(header::COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(joined) = header::HeaderValue::from_maybe_shared(joined.freeze()) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::super::{Pools, Wanted};
    use super::*;
    use crate::config::model::EndpointAddress;
    use crate::config::{Document, LoadOptions, load};
    use crate::upstream::endpoints::Discovered;
    use crate::upstream::registry::Registry;

    async fn waits<T>(future: &mut Pin<&mut impl Future<Output = T>>) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn who_waits_for_a_stream_has_it_before_a_newcomer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = EndpointAddress::Tcp(listener.local_addr().unwrap());
        let serving = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut builder = h2::server::Builder::new();
            let mut connection = builder.max_concurrent_streams(1).handshake::<_, Bytes>(socket).await.unwrap();
            while connection.accept().await.is_some() {}
        };
        let text = b"listeners: { in: { address: 127.0.0.1:1, upstream: \"consul://web\" } }";
        let document = Document { name: "test", bytes: text };
        let loaded = load(document, &|_: &str| None, &LoadOptions::default()).unwrap();
        let mut upstream = { loaded }.config.upstreams.remove(0);
        upstream.limits.connections = 1;
        let (upstream, endpoints) = Registry::new(tokio::sync::mpsc::unbounded_channel().0).upstream(&upstream);
        let now = Instant::now();
        endpoints.publish(vec![Discovered { address, weight: 1, priority: 0, zone: None, protocol: None }], now);
        let endpoint = endpoints.load().members[0].state.clone();
        let wanted = Wanted { now, fresh: false, careful: false, until: None, idle: None, tls: None, tunnel: false };
        let pools = Pools::new(Default::default());
        let asking = async {
            let ask = || async { pools.http2(&upstream, &endpoint, wanted).await.unwrap().connection };
            let stream = StreamCount::new(ask().await);
            while stream.0.has_room(100) {
                tokio::task::yield_now().await; // Until the endpoint has said that it takes one.
            }
            let (mut first, mut second, mut third) = (pin!(ask()), pin!(ask()), pin!(ask()));
            assert!(waits(&mut first).await && waits(&mut second).await);
            drop(stream);
            assert!(waits(&mut third).await, "it overtakes two");
            let stream = StreamCount::new(first.await);
            assert!(waits(&mut third).await && waits(&mut second).await);
            drop(stream);
            assert!(waits(&mut third).await, "it overtakes one");
            let stream = StreamCount::new(second.await);
            assert!(waits(&mut third).await);
            drop(stream);
            third.await;
            ask().await;
        };
        tokio::task::LocalSet::new()
            .run_until(async {
                tokio::select! { () = serving => panic!("it left"), () = asking => {} }
            })
            .await;
    }
}
