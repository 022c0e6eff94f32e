//! A connection that is passed on as it is: bytes both ways, to an endpoint that its route leads to.
//!
//! It is handled as the CONNECT that its client did not send, to the host that its TLS asks for, so that routes, lists of
//! identities, balancing, limits, metrics and the log are those of requests.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderValue, Method, Request};
use rustls::server::Acceptor;
use tokio::time::Instant;

use super::session::Unread;
use crate::body::Body;
use crate::proxy::{Connection, tunnel};
use crate::runtime::drain::{Phase, Ticket};
use crate::runtime::stream::Stream;
use crate::runtime::timer::{Timer, after};

/// How a TLS record that begins a handshake begins (RFC 8446, section 5.1).
pub(super) const HANDSHAKE: u8 = 0x16;
/// A first message that is longer is none that asks for a host.
const HELLO_MAX: usize = 64 * 1024;
const READ: usize = 4 * 1024;

/// Serves the connection to its end.
pub(super) async fn serve(mut stream: Stream, connection: Connection, mut ticket: Ticket) {
    let received = Instant::now();
    let (mut early, mut timer) = (BytesMut::new(), Timer::default());
    let host = match connection.server_name() {
        None if connection.routes_by_host() => {
            Box::pin(asked_for(&mut stream, &mut early, &connection, &mut ticket, &mut timer)).await
        }
        known => known.map(str::to_owned),
    };
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::CONNECT;
    if let Some(host) = host.and_then(|host| HeaderValue::try_from(host).ok()) {
        request.headers_mut().insert(HOST, host);
    }
    request.body_mut().set_downstream(Rc::new(Unread(received)));
    let mut response = Box::pin(connection.handle(&mut request)).await;
    drop(request);
    let observer = response.body_mut().take_observer();
    match response.body_mut().take_tunnel() {
        Some(tunnel) => {
            let (none, early) = (Bytes::new(), early.freeze());
            let joined = tunnel::join(&mut stream, none, early, tunnel, observer, &mut ticket, &mut timer);
            if Box::pin(joined).await.is_err() {
                // A part must not be taken for the whole.
                stream.reset_on_close();
            }
        }
        None => {
            // Nothing can be said here but that it failed.
            stream.reset_on_close();
            if let Some(observer) = observer {
                observer.end(Ok(()), Instant::now());
            }
        }
    }
}

/// The host that the client's first message asks for; what has been read of it is in `read`. `None` where it speaks no TLS,
/// asks for none, or says nothing in time.
async fn asked_for(
    stream: &mut Stream,
    read: &mut BytesMut,
    connection: &Connection,
    ticket: &mut Ticket,
    timer: &mut Timer,
) -> Option<String> {
    let deadline = after(Some(connection.limits().header_timeout));
    let mut acceptor = Acceptor::default();
    poll_fn(|cx| {
        loop {
            read.reserve(READ);
            let seen = read.len();
            match stream.poll_fill(cx, read) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
            let mut unseen = &read[seen..];
            while !unseen.is_empty() {
                if read[0] != HANDSHAKE || acceptor.read_tls(&mut unseen).is_err() {
                    return Poll::Ready(None);
                }
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return Poll::Ready(accepted.client_hello().server_name().map(str::to_owned)),
                Ok(None) if read.len() < HELLO_MAX => {}
                Ok(None) | Err(_) => return Poll::Ready(None),
            }
        }
        if ticket.watch(cx.waker()) == Phase::Forced {
            return Poll::Ready(None);
        }
        ready!(timer.poll(cx, deadline));
        Poll::Ready(None)
    })
    .await
}
