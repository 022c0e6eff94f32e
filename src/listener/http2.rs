//! One HTTP/2 connection from a client: hyper's, with our requests on it.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{EXPECT, HOST};
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::Session;
use super::flood::{self, Calming};
use super::lane::{Answer, Lane, Lanes};
use crate::body::{Body, Downstream, Patience};
use crate::error::{Error, Reason};
use crate::http1;
use crate::proxy::record::is_grpc;
use crate::proxy::{tunnel, upgrade};
use crate::runtime::drain::{Phase, Ticket};
use crate::runtime::stream::Stream;
use crate::runtime::timer::Timer;

/// Flow-control windows: what one stream, and one connection, may have in memory unread.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A client that is silent for this long is asked for a sign of life, and given as long again.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams that clients may open and reset before they are told to leave (CVE-2023-44487). gRPC clients cancel often,
/// so more than hyper's 20.
const PENDING_RESETS: usize = 100;
/// So many times `limits.idle`, a connection without open streams may last in all: clients that have to take the end of
/// what they were sent (h2 keeps at most 400 KiB of a stream for them) and do not, hold it that long.
const LAST_PIECES: u32 = 5;

/// Serves the connection to its end.
pub(super) async fn serve(stream: Stream, early: BytesMut, session: Rc<Session>, mut ticket: Ticket) {
    let limits = session.limits();
    let lanes = Lanes::new();
    let service = {
        let (lanes, session) = (lanes.clone(), session.clone());
        service_fn(move |request: Request<Incoming>| {
            let lane = lanes.open();
            let session = session.clone();
            async move { Ok::<_, Infallible>(answer(&session, request, lane).await) }
        })
    };
    let stream = if early.is_empty() { stream } else { Stream::Replayed(early, Box::new(stream)) };
    let io = TokioIo::new(Calming::new(stream, lanes.activity().clone()));
    let connection = Builder::new(lanes.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .enable_connect_protocol()
        .auto_date_header(false)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut timer = Timer::default();
    let mut leaving = false;
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
            match outcome {
                Err(error) if flood::is_noticed_by(&error) => {
                    session.flooded("it resets streams, or does not end headers")
                }
                Err(error) => tracing::debug!(%error, "HTTP/2 connection of a client ended"),
                Ok(()) => {}
            }
            return Poll::Ready(());
        }
        match ticket.watch(cx.waker()) {
            Phase::Forced => return Poll::Ready(()),
            Phase::Draining | Phase::ClosingIdle if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            _ => {}
        }
        let activity = lanes.activity();
        if activity.is_flood() {
            session.flooded("it resets most of its streams before they are answered");
            return Poll::Ready(());
        }
        if activity.streams.get() == 0 {
            let since = activity.idle_since.get();
            if !leaving {
                ready!(timer.poll(cx, Some(since + limits.idle)));
                leaving = true;
                connection.as_mut().graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            ready!(timer.poll(cx, Some(since + limits.idle * LAST_PIECES)));
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

async fn answer(session: &Rc<Session>, mut request: Request<Incoming>, lane: Rc<Lane>) -> Response<Answer> {
    let wants_tunnel = request.method() == Method::CONNECT;
    let upgrade = wants_tunnel.then(|| hyper::upgrade::on(&mut request));
    let incoming = Rc::new(Counted { received: lane.opened, bytes: Cell::new(0) });
    let limits = session.limits();
    let max = limits.body_bytes;
    let announced = request.body().size_hint().lower();
    let ended = request.body().is_end_stream() || wants_tunnel;
    let mut request = request.map(|body| {
        if ended { Body::empty() } else { Body::stream(RequestBody { body, counted: incoming.clone(), max }) }
    });
    request.body_mut().set_downstream(incoming);
    let mut response = match normalise(&mut request) {
        Err(error) => session.refuse_request(error, &mut request),
        Ok(()) if max.is_some_and(|max| announced > max) => {
            session.refuse_request(Error::downstream(Reason::BodyTooLarge), &mut request)
        }
        Ok(()) => pin!(session.call(&mut request)).await,
    };
    *response.version_mut() = Version::HTTP_2;
    if let (Some(tunnel), Some(upgrade)) = (response.body_mut().take_tunnel(), upgrade) {
        let observer = response.body_mut().take_observer();
        let mut ticket = session.join_drain();
        let tunnelled = lane.clone();
        tokio::task::spawn_local(async move {
            let _open = tunnelled;
            // Without the client's end, the tunnel ends with its observer.
            if let Ok(client) = upgrade.await {
                let (mut client, mut timer) = (TokioIo::new(client), Timer::default());
                let none = Bytes::new();
                let _ = tunnel::join(&mut client, none.clone(), none, tunnel, observer, &mut ticket, &mut timer).await;
            }
        });
        return response.map(|_| Answer::new(Body::empty(), lane, Patience::default(), None));
    }
    let mut patience = response.body().patience();
    if response.body().as_full().is_some() {
        // What the proxy says itself is nobody's to wait for without end.
        patience.idle = patience.idle.or(Some(limits.idle));
    }
    let grpc = is_grpc(response.headers()).then(|| session.clone());
    response.map(|body| Answer::new(body, lane, patience, grpc))
}

/// The request as HTTP/1 would have it: the host in `Host`, the target without it.
fn normalise(request: &mut Request<Body>) -> Result<(), Error> {
    let bad = |what: &'static str| Error::downstream(Reason::BadRequest).because(what);
    // RFC 9113, section 8.3.1: `:authority` is the host; a Host that differs is malformed.
    let authority = request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    let headers = request.headers_mut();
    match authority {
        Some(Ok(authority)) => {
            if headers.get_all(HOST).iter().any(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
                return Err(bad("Host differs from :authority"));
            }
            headers.insert(HOST, authority);
        }
        Some(Err(_)) => return Err(bad("invalid :authority")),
        None => {}
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if crate::route::target::valid_host(host.as_bytes()) => {}
        (None, _) => return Err(bad("neither :authority nor Host")),
        _ => return Err(bad("invalid Host")),
    }
    // hyper sends no 1xx on HTTP/2; a client that waits for a 100 goes on by itself (RFC 9110, section 10.1.1).
    headers.remove(EXPECT);
    let protocol = request.extensions().get::<hyper::ext::Protocol>();
    if protocol.is_some_and(|protocol| upgrade::hides_requests(protocol.as_ref())) {
        return Err(bad("HTTP/2 within a stream"));
    }
    if request.method() == Method::CONNECT && protocol.is_none() {
        return match request.uri().authority() {
            Some(authority) if authority.port().is_some() => Ok(()),
            _ => Err(bad("CONNECT needs HOST:PORT")),
        };
    }
    // RFC 9113, section 8.3.1.
    match request.uri().path_and_query().cloned() {
        Some(target) if target.as_str().starts_with('/') => *request.uri_mut() = Uri::from(target),
        Some(target) if target == "*" && request.method() == Method::OPTIONS => *request.uri_mut() = Uri::from(target),
        Some(_) => return Err(bad("invalid :path")),
        None => return Err(bad("no :path")),
    }
    Ok(())
}

/// What a request has brought.
struct Counted {
    received: Instant,
    bytes: Cell<u64>,
}

impl Downstream for Counted {
    fn received(&self) -> Instant {
        self.received
    }

    fn send_interim(&self, _: &Response<Body>) {}

    fn leave_continue_to_endpoint(&self) {}

    fn bytes_in(&self) -> u64 {
        self.bytes.get()
    }
}

/// A request's body, counted and bounded.
struct RequestBody {
    body: Incoming,
    counted: Rc<Counted>,
    max: Option<u64>,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => {
                let total = this.counted.bytes.get() + frame.data_ref().map_or(0, |data| data.len() as u64);
                this.counted.bytes.set(total);
                if this.max.is_some_and(|max| total > max) {
                    return Err(Error::downstream(Reason::BodyTooLarge));
                }
                Ok(match frame.into_trailers() {
                    Ok(trailers) => Frame::trailers(http1::without_forbidden(trailers)),
                    Err(data) => data,
                })
            }
            Err(error) => Err(Error::downstream(Reason::ClientCancelled).because(error)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
