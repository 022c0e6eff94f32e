//! One HTTP/1 connection from a client: requests one after the other, all driven from this one task.

mod request;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hint::cold_path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use self::request::RequestBody;
use super::Session;
use crate::body::{Body, Downstream};
use crate::config::model::ListenerLimits;
use crate::error::{Cause, Error, Reason};
use crate::http1::{self, BodyDecoder, BodyLength, BodySender, Decoded, Framing, HeadError, SendError};
use crate::proxy::{decisions, hop_by_hop, tunnel};
use crate::runtime::drain::{Phase, Ticket};
use crate::runtime::stream::{Outgoing, Stream, make_room};
use crate::runtime::timer::{Timer, after};

/// How HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A connection that waits for a request for longer is idle, and gives back what it kept for it: 4 % of a busy one's CPU,
/// and more memory than idle ones may cost.
const BUSY: Duration = Duration::from_secs(1);
/// First read of a request: nearly all fit.
const READ_SMALL: usize = 4 * 1024;
/// Reads of an upload.
const READ_LARGE: usize = 64 * 1024;
/// Bytes of further requests that are taken while one is at work.
const PIPELINE_MAX: usize = 16 * 1024;
/// After the last response: the client's late bytes are read for at most this long, so that it sees the response and
/// not a reset (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// And at most this much.
const LINGER_BYTES: usize = 1024 * 1024;
/// How long it may take to see that a client has gone whose last bytes nobody reads.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a connection goes on.
pub(super) enum Outcome {
    /// It is over.
    Closed,
    /// It speaks HTTP/2, and these bytes of it have been read.
    Http2(Stream, BytesMut),
}

/// What the request's body, the response and the wait between them share.
struct Shared {
    stream: RefCell<Stream>,
    input: RefCell<Input>,
    /// 1xx responses on their way.
    interim: RefCell<Outgoing>,
    received: Cell<Instant>,
    bytes_in: Cell<u64>,
    /// The client waits for a 100 which the proxy has to send.
    owes_continue: Cell<bool>,
    /// It speaks HTTP/1.1, and its final response has not begun.
    takes_interim: Cell<bool>,
}

struct Input {
    read: BytesMut,
    scanned: usize,
    decoder: BodyDecoder,
    max_body: Option<u64>,
}

impl Input {
    /// True where what comes next is no part of this request, and is taken to see whether the client is there.
    fn reads_ahead(&self) -> bool {
        self.decoder.is_done() && self.read.len() < PIPELINE_MAX
    }

    /// True where the request has been read to its end. `skip`: nobody wants the rest, so what has come of it is passed
    /// over, that the connection may go on.
    fn is_read(&mut self, skip: bool) -> bool {
        while skip && let Ok(Decoded::Data(_) | Decoded::Trailers(_)) = self.decoder.decode(&mut self.read) {}
        self.decoder.is_done()
    }
}

/// What of a request is still needed for its response.
struct Asked {
    method: Method,
    version: Version,
    keep_alive: bool,
    /// How long the client may take nothing of what nobody else times.
    idle: Duration,
}

/// How a connection waits for a request.
#[derive(Clone, Copy, PartialEq)]
enum Wait {
    /// For its first, which has to come as if it had begun with the connection.
    First,
    /// Since the last was answered, with all that it had for that one.
    Busy(Instant),
    /// Since then, and holding nothing.
    Idle(Instant),
}

enum Next {
    Request(http1::RequestHead),
    /// None has come soon after the last, which was answered then.
    Quiet(Instant),
    Http2,
    Failed(Error),
    Closed,
}

/// What a response leaves behind.
enum After {
    /// The connection takes another request, from now on.
    Another(Instant),
    Close,
    /// The client must see that something went wrong.
    Abort,
}

/// Serves the connection to its end.
pub(super) async fn serve(stream: Stream, session: &Session, mut ticket: Ticket) -> Outcome {
    let now = Instant::now();
    let shared = Rc::new(Shared {
        stream: RefCell::new(stream),
        input: RefCell::new(Input {
            read: BytesMut::new(),
            scanned: 0,
            decoder: BodyDecoder::new(BodyLength::Empty),
            max_body: None,
        }),
        interim: RefCell::default(),
        received: Cell::new(now),
        bytes_in: Cell::new(0),
        owes_continue: Cell::new(false),
        takes_interim: Cell::new(false),
    });
    let mut timer = Timer::default();
    let mut wait = Wait::First;
    loop {
        let limits = session.limits();
        // On the heap what a connection that waits need not have room for.
        let quiet = match next_head(&shared, session, limits, &mut ticket, &mut timer, wait).await {
            Next::Request(head) => Box::pin(busy(&shared, session, limits, head, &mut ticket, &mut timer)).await,
            Next::Failed(error) => {
                Box::pin(refuse(&shared, session, error, &mut ticket, &mut timer)).await;
                None
            }
            Next::Http2 => {
                let Some(shared) = Rc::into_inner(shared) else { return Outcome::Closed };
                return Outcome::Http2(shared.stream.into_inner(), shared.input.into_inner().read);
            }
            Next::Quiet(_) | Next::Closed => None,
        };
        match quiet {
            Some(since) => wait = Wait::Idle(since),
            None => return Outcome::Closed,
        }
    }
}

/// Answers requests for as long as each comes soon after the one before. Since when the connection has been quiet, or
/// `None` where it is over.
async fn busy(
    shared: &Rc<Shared>,
    session: &Session,
    mut limits: ListenerLimits,
    mut head: http1::RequestHead,
    ticket: &mut Ticket,
    timer: &mut Timer,
) -> Option<Instant> {
    loop {
        let after = pin!(exchange(shared, session, limits, head, ticket, timer)).await;
        let answered = match after {
            After::Another(answered) => answered,
            After::Close => {
                linger(shared, timer).await;
                return None;
            }
            After::Abort => {
                shared.stream.borrow_mut().reset_on_close();
                return None;
            }
        };
        limits = session.limits();
        let next = pin!(next_head(shared, session, limits, ticket, timer, Wait::Busy(answered))).await;
        match next {
            Next::Request(next) => head = next,
            Next::Quiet(since) => return Some(since),
            Next::Failed(error) => {
                refuse(shared, session, error, ticket, timer).await;
                return None;
            }
            Next::Http2 | Next::Closed => return None,
        }
    }
}

/// Answers what is no request, and ends the connection.
async fn refuse(shared: &Rc<Shared>, session: &Session, error: Error, ticket: &mut Ticket, timer: &mut Timer) {
    let response = session.refuse(error, shared.received.get());
    let asked =
        Asked { method: Method::GET, version: Version::HTTP_11, keep_alive: false, idle: session.limits().idle };
    respond(shared, asked, response, ticket, timer).await;
    linger(shared, timer).await;
}

/// Waits for a request and reads its head.
async fn next_head(
    shared: &Rc<Shared>,
    session: &Session,
    limits: ListenerLimits,
    ticket: &mut Ticket,
    timer: &mut Timer,
    wait: Wait,
) -> Next {
    let first = wait == Wait::First;
    let waiting_since = match wait {
        Wait::First => Instant::now(),
        Wait::Busy(since) | Wait::Idle(since) => since,
    };
    let silent_until = waiting_since + if first { limits.header_timeout } else { limits.idle };
    let mut begun = (!shared.input.borrow().read.is_empty()).then_some(waiting_since);
    poll_fn(|cx| {
        let input = &mut *shared.input.borrow_mut();
        let stream = &mut *shared.stream.borrow_mut();
        loop {
            if !input.read.is_empty() {
                let since = *begun.get_or_insert_with(Instant::now);
                shared.received.set(since);
                if first && input.scanned == 0 && is_preface(&input.read) {
                    if input.read.len() >= PREFACE.len() {
                        return Poll::Ready(Next::Http2);
                    }
                } else {
                    match http1::parse_request(&mut input.read, &mut input.scanned, limits.header_bytes) {
                        Ok(Some(head)) => return Poll::Ready(Next::Request(head)),
                        // Empty lines between requests are none of a request.
                        Ok(None) if input.read.is_empty() => begun = None,
                        Ok(None) => {}
                        Err(error) => return Poll::Ready(Next::Failed(head_error(error))),
                    }
                }
            }
            if input.read.is_empty() {
                match stream.poll_readable(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Next::Closed),
                    Poll::Pending => break,
                }
            }
            make_room(&mut input.read, READ_SMALL, READ_SMALL / 4);
            match stream.poll_fill(cx, &mut input.read) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        match ticket.watch(cx.waker()) {
            Phase::Forced => return Poll::Ready(Next::Closed),
            Phase::ClosingIdle if begun.is_none() => return Poll::Ready(Next::Closed),
            _ => {}
        }
        let deadline = begun.map_or(silent_until, |begun| begun + limits.header_timeout);
        if begun.is_none() {
            if matches!(wait, Wait::Busy(_)) {
                ready!(timer.poll(cx, Some(deadline.min(waiting_since + BUSY))));
                return Poll::Ready(Next::Quiet(waiting_since));
            }
            input.read = BytesMut::new();
            shared.interim.borrow_mut().release();
        }
        ready!(timer.poll(cx, Some(deadline)));
        if first {
            session.count_header_timeout();
        }
        Poll::Ready(match begun {
            Some(_) => Next::Failed(Error::downstream(Reason::HeaderTimeout)),
            None => Next::Closed,
        })
    })
    .await
}

fn is_preface(read: &[u8]) -> bool {
    let length = read.len().min(PREFACE.len());
    // One byte more than `P` tells it from PUT, POST and PATCH.
    read[..length] == PREFACE[..length]
}

fn head_error(error: HeadError) -> Error {
    match error {
        HeadError::Malformed(what) => Error::downstream(Reason::BadRequest).because(what),
        HeadError::TooLarge => Error::downstream(Reason::HeaderTooLarge),
        HeadError::TargetTooLong => Error::downstream(Reason::UriTooLong),
    }
}

/// Answers one request.
async fn exchange(
    shared: &Rc<Shared>,
    session: &Session,
    limits: ListenerLimits,
    head: http1::RequestHead,
    ticket: &mut Ticket,
    timer: &mut Timer,
) -> After {
    let mut request = head.request;
    let asked = Asked {
        method: request.method().clone(),
        version: request.version(),
        keep_alive: head.keep_alive,
        idle: limits.idle,
    };
    let max_body = limits.body_bytes;
    {
        let mut input = shared.input.borrow_mut();
        input.decoder = BodyDecoder::new(head.length);
        input.max_body = max_body;
    }
    shared.bytes_in.set(0);
    shared.owes_continue.set(head.expects_continue && head.length != BodyLength::Empty);
    shared.takes_interim.set(asked.version == Version::HTTP_11);
    let too_large = matches!((head.length, max_body), (BodyLength::Exact(length), Some(max)) if length > max);
    if head.length != BodyLength::Empty {
        request.body_mut().fill_with(RequestBody { shared: shared.clone() });
    }
    request.body_mut().set_downstream(shared.clone());
    let response = if too_large {
        cold_path();
        session.refuse_request(Error::downstream(Reason::BodyTooLarge), &mut request)
    } else {
        let mut answering = pin!(session.call(&mut request));
        let mut look = None;
        let driven = poll_fn(|cx| {
            if let Poll::Ready(response) = answering.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            if poll_client(shared, cx).is_ready() || poll_reset(shared, cx, timer, &mut look).is_ready() {
                return Poll::Ready(None);
            }
            match ticket.watch(cx.waker()) {
                Phase::Forced => Poll::Ready(Some(session.draining())),
                _ => Poll::Pending,
            }
        })
        .await;
        // The client has left: whatever was under way for it ends with the future.
        let Some(response) = driven else { return After::Close };
        response
    };
    // A response may last for long, and needs nothing of it.
    drop(request);
    shared.takes_interim.set(false);
    pin!(respond(shared, asked, response, ticket, timer)).await
}

/// Ready when the client has left. Sends what waits, and takes what it sends ahead of time.
fn poll_client(shared: &Shared, cx: &mut Context<'_>) -> Poll<()> {
    let mut interim = shared.interim.borrow_mut();
    let stream = &mut *shared.stream.borrow_mut();
    if !interim.is_empty()
        && let Poll::Ready(Err(_)) = interim.poll_send(cx, stream, &mut Bytes::new())
    {
        return Poll::Ready(());
    }
    let input = &mut *shared.input.borrow_mut();
    // While a body is on its way, its end shows whether the client is there.
    while input.reads_ahead() {
        if input.read.capacity() == input.read.len() {
            input.read.reserve(READ_SMALL);
        }
        match ready!(stream.poll_fill(cx, &mut input.read)) {
            Ok(0) | Err(_) => return Poll::Ready(()),
            Ok(_) => {}
        }
    }
    Poll::Pending
}

/// Ready when the client has reset its connection behind bytes that nobody reads just now: reading would not tell.
fn poll_reset(shared: &Shared, cx: &mut Context<'_>, timer: &mut Timer, look: &mut Option<Instant>) -> Poll<()> {
    if shared.input.borrow().reads_ahead() {
        return Poll::Pending;
    }
    loop {
        let due = *look.get_or_insert_with(|| Instant::now() + LOOK_EVERY);
        ready!(timer.poll(cx, Some(due)));
        if shared.stream.borrow().is_reset() {
            return Poll::Ready(());
        }
        *look = None;
    }
}

/// Sends the response.
async fn respond(
    shared: &Rc<Shared>,
    asked: Asked,
    mut response: Box<Response<Body>>,
    ticket: &mut Ticket,
    timer: &mut Timer,
) -> After {
    if let Some(tunnel) = response.body_mut().take_tunnel() {
        cold_path();
        let mut greeting = std::mem::take(&mut *shared.interim.borrow_mut()).into_unsent();
        http1::encode_response(&response, response.body().raw_head(), Framing::None, None, &mut greeting);
        let early = shared.input.borrow_mut().read.split().freeze();
        let observer = response.body_mut().take_observer();
        let joined = tunnel::join_http1(&shared.stream, greeting.into(), early, tunnel, observer, ticket, timer).await;
        return if joined.is_ok() { After::Close } else { After::Abort };
    }
    // A response that still streams may be made of the request's body.
    let answered = response.body().is_empty() || response.body().as_full().is_some();
    let body_read = shared.input.borrow_mut().is_read(answered);
    let draining = ticket.phase() >= Phase::Draining;
    let framing = response_framing(&asked, &response);
    let keep_alive = asked.keep_alive && body_read && !draining && framing != Framing::UntilClose;
    let connection = if keep_alive { None } else { Some("close") };

    let mut out = std::mem::take(&mut *shared.interim.borrow_mut());
    http1::encode_response(&response, response.body().raw_head(), framing, connection, out.buffer());
    let mut patience = response.body().patience();
    if answered {
        // What the proxy says itself is nobody's to wait for without end.
        patience.idle = patience.idle.or(Some(asked.idle));
    }
    let body = response.into_body();
    let mut sender = BodySender::new(body, framing);
    let mut progress: Option<Instant> = None;
    let mut socket = &shared.stream;
    let left = Cause::downstream(Reason::ClientCancelled);
    let sent = poll_fn(|cx| {
        match sender.poll(cx, &mut socket, &mut out) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(SendError::Peer(_))) => return Poll::Ready(Err(left)),
            Poll::Ready(Err(SendError::Body(error))) => return Poll::Ready(Err(error.cause())),
            Poll::Pending => {}
        }
        if poll_client(shared, cx).is_ready() {
            return Poll::Ready(Err(left));
        }
        if ticket.watch(cx.waker()) == Phase::Forced || sender.is_cut(cx.waker()) {
            return Poll::Ready(Err(Cause::local(Reason::Draining)));
        }
        // Silence of the endpoint is the body's to notice; that of a client which takes nothing is noticed here.
        let waits = !out.is_empty() || sender.is_stuck();
        if sender.take_moved() || !waits {
            progress = None;
        }
        if waits {
            let since = *progress.get_or_insert_with(Instant::now);
            ready!(timer.poll(cx, patience.until(since)));
            return Poll::Ready(Err(Cause::downstream(patience.reason())));
        }
        Poll::Pending
    })
    .await;
    let now = Instant::now();
    sender.settle(sent, now);
    *shared.interim.borrow_mut() = out;
    match sent {
        // An early answer leaves the rest of the request unread: nobody knows where the next begins.
        Ok(()) if keep_alive && shared.input.borrow().decoder.is_done() => After::Another(now),
        Ok(()) => After::Close,
        // The client must not take a part for the whole, and without a length only a reset tells it.
        Err(_) if framing == Framing::UntilClose => After::Abort,
        Err(_) => After::Close,
    }
}

fn response_framing(asked: &Asked, response: &Response<Body>) -> Framing {
    let status = response.status();
    if asked.method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return Framing::None;
    }
    match response.body().size_hint().exact() {
        Some(length) => Framing::Length(length),
        None if asked.version == Version::HTTP_10 => Framing::UntilClose,
        None => Framing::Chunked,
    }
}

/// Ends the connection so that the client reads its last response.
async fn linger(shared: &Shared, timer: &mut Timer) {
    let deadline = after(Some(LINGER));
    let mut taken = 0;
    poll_fn(|cx| {
        let stream = &mut *shared.stream.borrow_mut();
        match tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut *stream), cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => return timer.poll(cx, deadline),
        }
        let mut sink = BytesMut::with_capacity(READ_SMALL);
        while taken < LINGER_BYTES {
            sink.clear();
            match stream.poll_fill(cx, &mut sink) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(read)) => taken += read,
                Poll::Pending => return timer.poll(cx, deadline),
            }
        }
        Poll::Ready(())
    })
    .await;
}
