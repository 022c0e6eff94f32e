//! One HTTP/1.1 connection to an endpoint. Whoever holds it drives it: there is no task behind it, and no channel.

use std::borrow::Cow;
use std::future::poll_fn;
use std::hint::cold_path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri, header};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::pool::Place;
use super::{Deadlines, Pools, tls};
use crate::body::{Body, Downstream, Patience};
use crate::error::{Error, Reason};
use crate::http1::{self, BodyDecoder, BodyLength, BodySender, Decoded, Framing, SendError};
use crate::runtime::stream::{Liveness, Outgoing, Stream, make_room};
use crate::runtime::timer::{Timer, earlier};
use crate::upstream::limit::Permit;
use crate::upstream::state::InFlight;

/// Bytes of a response's head; Envoy and nginx (with its usual settings) refuse more than 60 or 64 KiB.
const MAX_HEAD: usize = 64 * 1024;
/// First read of a response: head and a small body.
const READ_SMALL: usize = 8 * 1024;
/// Reads of a body that is known to be large: fewer system calls and wake-ups.
const READ_LARGE: usize = 256 * 1024;
/// `Keep-Alive: timeout` is honoured less this, for the answer's way here and the next request's way there.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// A connection that was idle for less is taken at the runtime's word; the kernel is asked after longer.
const FRESHLY_IDLE: Duration = Duration::from_millis(100);

/// What is sent, and with what patience.
pub(crate) struct Attempt<'a> {
    /// The head as it goes out; the target is path and query. Its own body is not sent.
    pub(crate) head: &'a Request<Body>,
    /// The head as it came from the client.
    pub(crate) raw_head: &'a [u8],
    /// The body; what is still untouched after a failure is put back.
    pub(crate) body: &'a mut Body,
    /// The client's connection, for 1xx.
    pub(crate) downstream: Option<&'a Rc<dyn Downstream>>,
    pub(crate) deadlines: &'a Deadlines,
    /// When there was a connection for it: about now.
    pub(crate) began: Instant,
    /// How long all waited for the client to send more of the request; nothing where the answer came before its end.
    pub(crate) uploading: Duration,
}

impl Attempt<'_> {
    pub(super) fn note_upload(&mut self, finished: bool, lacked: Duration) {
        self.uploading = if finished { lacked } else { Duration::ZERO };
    }
}

/// What an endpoint answers.
pub(crate) enum Answer {
    /// With when its head was there.
    Response(Box<Response<Body>>, Instant),
    /// The connection has left HTTP: an accepted Upgrade.
    Switched(Box<Switched>),
}

/// What is left of an exchange that ended with 101.
pub(crate) struct Switched {
    pub(crate) response: Box<Response<Body>>,
    pub(crate) stream: Stream,
    pub(crate) early: Bytes,
    /// Kept as long as the tunnel.
    pub(crate) guards: (Permit, InFlight),
}

/// A failed exchange.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// A reused connection ended without a byte of response: it had probably died before.
    pub(crate) stale: bool,
    /// The attempt's body is as it was: it may be sent again.
    pub(crate) body_intact: bool,
}

/// How carefully an idle connection is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// Only at what the runtime has heard: no system call.
    Heard,
    /// The kernel is asked where it was idle for a while.
    Usual,
    /// The kernel is asked even if it has just been used.
    Utmost,
}

/// A connection, busy or idle.
#[derive(Debug)]
pub(crate) struct Http1Connection {
    stream: Stream,
    read: BytesMut,
    out: Outgoing,
    timer: Timer,
    permit: Permit,
    pub(super) place: Place,
    opened: Instant,
    idle_since: Instant,
    /// How long the endpoint said that it keeps an idle connection.
    keep_alive: Option<Duration>,
    reused: bool,
}

impl Http1Connection {
    pub(super) fn new(stream: Stream, permit: Permit, place: Place) -> Box<Self> {
        let now = Instant::now();
        Box::new(Http1Connection {
            stream,
            read: BytesMut::new(),
            out: Outgoing::default(),
            timer: Timer::default(),
            permit,
            place,
            opened: now,
            idle_since: now,
            keep_alive: None,
            reused: false,
        })
    }

    /// Gives the buffers back, where it has been idle for long enough to think that it will stay so.
    pub(crate) fn release_buffer(&mut self, now: Instant) {
        if now.saturating_duration_since(self.idle_since) > FRESHLY_IDLE {
            self.read = BytesMut::new();
            self.out.release();
        }
    }

    /// Gives the socket away, for a tunnel that never spoke HTTP.
    pub(crate) fn into_stream(self) -> (Stream, Permit) {
        (self.stream, self.permit)
    }

    /// True while an idle connection may be used again.
    pub(crate) fn is_usable(&mut self, now: Instant, idle: Option<Duration>, lifetime: Duration, care: Care) -> bool {
        let quiet_for = now.saturating_duration_since(self.idle_since);
        let bound = earlier_duration(idle, self.keep_alive);
        if bound.is_some_and(|bound| quiet_for >= bound) || now.saturating_duration_since(self.opened) >= lifetime {
            return false;
        }
        let asks = match care {
            Care::Heard => false,
            Care::Usual => quiet_for > FRESHLY_IDLE,
            Care::Utmost => true,
        };
        if asks { self.stream.look() == Liveness::Quiet } else { self.stream.is_quiet() }
    }

    /// Sends the attempt and waits for the response's head. The connection goes home to `pools` with the response's
    /// end.
    pub(crate) async fn exchange(
        mut self: Box<Self>,
        attempt: &mut Attempt<'_>,
        guard: InFlight,
        home: &Rc<Pools>,
    ) -> Result<Answer, Failure> {
        let head = attempt.head;
        let framing = request_framing(head.method(), attempt.body);
        let target = target(head.uri());
        http1::encode_request(head.method(), &target, head.headers(), attempt.raw_head, framing, self.out.buffer());

        let whole = attempt.body.as_full().cloned();
        let mut upload = Upload::new(BodySender::new(std::mem::take(attempt.body), framing), attempt.began);
        if head.headers().contains_key(header::EXPECT)
            && let Some(downstream) = attempt.downstream
        {
            downstream.leave_continue_to_endpoint();
        }
        let outcome = poll_fn(|cx| self.poll_head(cx, attempt, &mut upload)).await;
        let received = match outcome {
            Ok(received) => received,
            Err(failure) => {
                cold_path();
                let intact = whole.map(Body::full).or_else(|| upload.sender.into_untouched());
                let body_intact = intact.is_some();
                *attempt.body = intact.unwrap_or_default();
                return Err(Failure { body_intact, ..failure });
            }
        };
        let now = Instant::now();
        self.keep_alive = keep_alive_timeout(received.response.headers());
        let status = received.response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS || head.method() == Method::CONNECT && status.is_success() {
            cold_path();
            // What is left of the request would run into the tunnel.
            if upload.finished.is_none() || upload.broken.is_some() {
                return Err(protocol_error("a tunnel before the request was complete"));
            }
            let early = self.read.split().freeze();
            let (response, guards) = (received.response, (self.permit, guard));
            return Ok(Answer::Switched(Box::new(Switched { response, stream: self.stream, early, guards })));
        }
        attempt.note_upload(upload.finished.is_some(), upload.lacked);
        Ok(Answer::Response(self.into_response(received, upload, attempt.deadlines, guard, home, now), now))
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        attempt: &Attempt<'_>,
        upload: &mut Upload,
    ) -> Poll<Result<http1::ResponseHead, Failure>> {
        upload.poll(cx, &mut self.stream, &mut self.out).map_err(|error| Failure {
            error,
            stale: false,
            body_intact: false,
        })?;
        loop {
            match http1::parse_response(&mut self.read, &mut upload.scanned, MAX_HEAD, attempt.head.method()) {
                Ok(Some(head))
                    if head.response.status().is_informational()
                        && head.response.status() != StatusCode::SWITCHING_PROTOCOLS =>
                {
                    cold_path();
                    upload.interim += 1;
                    if upload.interim > MAX_INTERIM {
                        return Poll::Ready(Err(protocol_error("too many 1xx responses")));
                    }
                    if let Some(downstream) = attempt.downstream {
                        downstream.send_interim(&head.response);
                    }
                }
                Ok(Some(head))
                    if head.response.status() == StatusCode::SWITCHING_PROTOCOLS
                        && !attempt.head.headers().contains_key(header::UPGRADE) =>
                {
                    return Poll::Ready(Err(protocol_error("101 without having been asked for")));
                }
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {
                    make_room(&mut self.read, READ_SMALL, READ_SMALL / 2);
                    match self.stream.poll_fill(cx, &mut self.read) {
                        Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.ended(upload, None))),
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(self.ended(upload, Some(error)))),
                        Poll::Pending => return self.poll_patience(cx, attempt, upload).map(Err),
                    }
                }
                Err(http1::HeadError::Malformed(what)) => return Poll::Ready(Err(protocol_error(what.0))),
                Err(_) => return Poll::Ready(Err(protocol_error("the response's head is too large"))),
            }
        }
    }

    /// Ready when patience is over.
    fn poll_patience(&mut self, cx: &mut Context<'_>, attempt: &Attempt<'_>, upload: &Upload) -> Poll<Failure> {
        let (reason, deadline) = match upload.finished {
            // Where no answer is due at a time, as for gRPC, silence still has its bound.
            Some(finished) => match attempt.deadlines.response {
                Some(bound) => (Reason::ResponseTimeout, Some(finished + bound)),
                None => (Reason::IdleTimeout, attempt.deadlines.idle.map(|bound| finished + bound)),
            },
            None => (Reason::IdleTimeout, attempt.deadlines.idle.map(|bound| upload.progress + bound)),
        };
        ready!(self.timer.poll(cx, earlier(deadline, attempt.deadlines.head())));
        let reason = attempt.deadlines.reason(reason);
        let error = if upload.lacks(&self.out) { Error::downstream(reason) } else { Error::upstream(reason) };
        Poll::Ready(Failure { error, stale: false, body_intact: false })
    }

    /// The connection ended before a response's head.
    fn ended(&self, upload: &mut Upload, error: Option<std::io::Error>) -> Failure {
        if !self.reused
            && self.read.is_empty()
            && let Some(error) = [&upload.broken, &error].into_iter().flatten().find_map(tls::refusal)
        {
            return Failure { error, stale: false, body_intact: false };
        }
        // One that was dead already says so as soon as it is asked.
        let asked = upload.finished.unwrap_or(upload.progress);
        let stale = self.reused && self.read.is_empty() && upload.interim == 0 && asked.elapsed() < FOUND_DEAD;
        let reason = if stale { Reason::UpstreamClosedIdle } else { Reason::UpstreamReset };
        let failed = Error::upstream(reason);
        let failed = match upload.broken.take().or(error) {
            Some(error) => failed.because(error),
            None => failed.because("closed before the response's head was complete"),
        };
        Failure { error: failed, stale, body_intact: false }
    }

    fn into_response(
        mut self: Box<Self>,
        received: http1::ResponseHead,
        mut upload: Upload,
        deadlines: &Deadlines,
        guard: InFlight,
        home: &Rc<Pools>,
        now: Instant,
    ) -> Box<Response<Body>> {
        let mut response = received.response;
        let reusable = received.keep_alive && upload.broken.is_none();
        let patience = deadlines.patience(response.headers());
        response.body_mut().set_patience(patience);
        let whole_is_here = matches!(received.length, BodyLength::Exact(length) if length <= self.read.len() as u64);
        if upload.finished.is_some() && (received.length == BodyLength::Empty || whole_is_here) {
            // The usual case for small answers: nothing is left to wait for.
            let length = if let BodyLength::Exact(length) = received.length { length as usize } else { 0 };
            response.body_mut().fill(self.read.split_to(length).freeze());
            self.go_home(reusable, home, now);
        } else {
            upload.progress = now;
            response.body_mut().fill_with(Http1Body {
                decoder: BodyDecoder::new(received.length),
                connection: Some(self),
                upload,
                reusable,
                patience,
                home: home.clone(),
                large: matches!(received.length, BodyLength::Exact(length) if length > READ_LARGE as u64),
                _guard: guard,
            });
        }
        response
    }

    fn go_home(mut self: Box<Self>, reusable: bool, home: &Pools, now: Instant) {
        // Bytes behind the end of a response belong to no request.
        if !reusable || !self.read.is_empty() || !self.out.is_empty() {
            return;
        }
        if self.keep_alive.is_some_and(|kept| kept.is_zero()) {
            return;
        }
        self.reused = true;
        self.idle_since = now;
        home.put_back(self, now);
    }
}

/// An idle connection that had ended before it was used shows that within a round trip, and no endpoint is farther away
/// than this. One that ends later has ended over what it was asked.
pub(super) const FOUND_DEAD: Duration = Duration::from_secs(1);

/// 1xx responses to one request.
const MAX_INTERIM: u32 = 16;

#[cold]
fn protocol_error(what: &'static str) -> Failure {
    Failure { error: Error::upstream(Reason::UpstreamProtocolError).because(what), stale: false, body_intact: false }
}

fn earlier_duration(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The request's target (RFC 9112, section 3.2): the path, or where a proxy is asked all of it.
fn target(uri: &Uri) -> Cow<'_, str> {
    if uri.authority().is_some() {
        cold_path();
        return uri.to_string().into();
    }
    uri.path_and_query().map_or("/", |target| target.as_str()).into()
}

/// A request's body with a known length keeps it; without a body nothing is said, except where a method that usually
/// has one would make the endpoint wonder (RFC 9110, section 8.6).
fn request_framing(method: &Method, body: &Body) -> Framing {
    match body.size_hint().exact() {
        Some(0) if *method == Method::POST || *method == Method::PUT || *method == Method::PATCH => Framing::Length(0),
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// `Keep-Alive: timeout=N` (RFC 2068, section 19.7.1.1, in its only living use), less the margin.
fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let seconds = value.split(',').find_map(|item| {
        let (name, seconds) = item.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| seconds.trim().trim_matches('"').parse::<u32>().ok())?
    })?;
    Some(Duration::from_secs(seconds.into()).saturating_sub(KEEP_ALIVE_MARGIN))
}

/// The request's body on its way, and how the exchange is getting on.
#[derive(Debug)]
struct Upload {
    sender: BodySender,
    /// Since when all of it has been sent, or sending was given up.
    finished: Option<Instant>,
    /// The endpoint takes no more; it may still have answered.
    broken: Option<std::io::Error>,
    /// The last time that anything moved.
    progress: Instant,
    /// Since when the client is waited for.
    starved: Option<Instant>,
    /// How long it was waited for, all in all.
    lacked: Duration,
    /// It has had its first turn, which comes as soon as there is a connection.
    begun: bool,
    scanned: usize,
    interim: u32,
}

impl Upload {
    fn new(sender: BodySender, now: Instant) -> Self {
        Upload {
            sender,
            finished: None,
            broken: None,
            progress: now,
            starved: None,
            lacked: Duration::ZERO,
            begun: false,
            scanned: 0,
            interim: 0,
        }
    }

    /// True where everybody waits for the client to send more.
    fn lacks(&self, out: &Outgoing) -> bool {
        self.finished.is_none() && out.is_empty() && !self.sender.is_stuck()
    }

    /// Moves the body on. An error is the client's: the endpoint's come to light when its answer is read.
    fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Stream, out: &mut Outgoing) -> Result<(), Error> {
        if self.finished.is_some() {
            return Ok(());
        }
        if let Some(since) = self.starved.take() {
            self.lacked += since.elapsed();
        }
        let sent = self.sender.poll(cx, stream, out);
        let moved = self.sender.take_moved();
        if std::mem::replace(&mut self.begun, true) && moved {
            self.progress = Instant::now();
        }
        match sent {
            Poll::Pending => self.starved = self.lacks(out).then(Instant::now),
            Poll::Ready(Ok(())) => self.finished = Some(self.progress),
            Poll::Ready(Err(SendError::Peer(error))) => {
                self.finished = Some(Instant::now());
                self.broken = Some(error);
            }
            Poll::Ready(Err(SendError::Body(error))) => return Err(error),
        }
        Ok(())
    }
}

/// A response's body that still has to be read, and with it perhaps a request's that still has to be sent.
struct Http1Body {
    decoder: BodyDecoder,
    connection: Option<Box<Http1Connection>>,
    upload: Upload,
    reusable: bool,
    patience: Patience,
    home: Rc<Pools>,
    large: bool,
    _guard: InFlight,
}

impl Http1Body {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            let Some(connection) = self.connection.as_deref_mut() else { return Poll::Ready(None) };
            if let Err(error) = self.upload.poll(cx, &mut connection.stream, &mut connection.out) {
                return Poll::Ready(Some(Err(error)));
            }
            match self.decoder.decode(&mut connection.read) {
                Ok(Decoded::Data(data)) => {
                    if self.decoder.is_done() {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Decoded::Trailers(trailers)) => {
                    self.finish();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::Done) => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Ok(Decoded::NeedMore) => {}
                Err(what) => {
                    let error = Error::upstream(Reason::UpstreamProtocolError).because(what);
                    return Poll::Ready(Some(Err(error)));
                }
            }
            let wanted = if self.large { READ_LARGE } else { READ_SMALL };
            if connection.read.capacity() - connection.read.len() < wanted / 2 {
                let rest = self.decoder.remaining().map_or(wanted, |rest| rest.min(wanted as u64) as usize);
                connection.read.reserve(rest.max(64));
            }
            match connection.stream.poll_fill(cx, &mut connection.read) {
                Poll::Ready(Ok(0)) if self.decoder.ends_with_connection() => {
                    self.connection = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => {
                    let error = Error::upstream(Reason::UpstreamReset).because("closed before the body's end");
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Ok(read)) => {
                    self.upload.progress = Instant::now();
                    // A chunked body shows its size by filling what it is given.
                    self.large |=
                        read >= READ_SMALL / 2 && self.decoder.remaining().is_none_or(|rest| rest > READ_LARGE as u64);
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Some(Err(Error::upstream(Reason::UpstreamReset).because(error))));
                }
                Poll::Pending => {
                    ready!(connection.timer.poll(cx, self.patience.until(self.upload.progress)));
                    let reason = self.patience.reason();
                    let lacks = self.upload.lacks(&connection.out);
                    let error = if lacks { Error::downstream(reason) } else { Error::upstream(reason) };
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            let reusable = self.reusable && self.upload.finished.is_some() && self.upload.broken.is_none();
            connection.go_home(reusable, &self.home, Instant::now());
        }
    }
}

impl http_body::Body for Http1Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let frame = ready!(this.poll_read(cx));
        if matches!(frame, Some(Err(_))) {
            this.connection = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder.remaining() {
            Some(exact) => SizeHint::with_exact(exact),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_says_how_long_it_keeps_a_connection() {
        for (value, seconds) in [
            ("timeout=5", Some(4)),
            ("max=5, Timeout = \"7\"", Some(6)),
            ("timeout=0", Some(0)),
            ("timeout=-1", None),
            ("timeout=x", None),
            ("timeout", None),
        ] {
            let headers = HeaderMap::from_iter([(KEEP_ALIVE, value.parse().unwrap())]);
            assert_eq!(keep_alive_timeout(&headers), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
