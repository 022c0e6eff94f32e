//! The handshake with a client, before any HTTP.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustls::Error as TlsError;
use rustls::server::Acceptor;
use tokio::io::AsyncWrite as _;
use tokio_rustls::LazyConfigAcceptor;

use super::tcp::HANDSHAKE;
use crate::identity::{Peer, ServerTls};
use crate::proxy::Connection;
use crate::runtime::drain::{Phase, Ticket};
use crate::runtime::stream::Stream;
use crate::runtime::timer::{Timer, after};
use crate::runtime::tls_stream::TlsStream;
use crate::telemetry::metrics::ListenerCounter;

/// A handshake has its turn for this long: a client that has not answered by then, however far away, lets others wait no
/// longer.
const TURN: Duration = Duration::from_secs(1);
/// After a handshake that failed, what the client still sends is read for this long, so that it sees the alert and not
/// a reset.
const LINGER: Duration = Duration::from_secs(1);
/// And at most this much.
const LINGER_BYTES: usize = 64 * 1024;

/// A connection that may speak now.
pub(super) struct Opened {
    pub(super) stream: Stream,
    /// The client has chosen HTTP/2.
    pub(super) http2: bool,
}

/// Why a connection goes no further.
enum Failure {
    /// The client said nothing, or not enough in time.
    Timeout,
    /// It left, or the proxy ends.
    Closed,
    /// It shall speak TLS and does not.
    Plaintext,
    Tls(TlsError),
}

/// Shakes hands where the client speaks TLS. `None`: the connection is over, and that has been counted and logged.
pub(super) async fn open(
    stream: Stream,
    tls: &ServerTls,
    connection: &mut Connection,
    ticket: &mut Ticket,
) -> Option<Opened> {
    let worker = connection.worker().clone();
    let outcome = shake_hands(stream, tls, connection, ticket).await;
    let counter = match &outcome {
        Ok(_) if connection.tls_version().is_some() => ListenerCounter::TlsHandshakes,
        Ok(_) => ListenerCounter::TlsNone,
        Err(failure) => failure.counter(),
    };
    worker.metrics.count_listener(connection.entry().listener, counter);
    match outcome {
        Ok(opened) => {
            if let Some(version) = connection.tls_version() {
                worker.metrics.count_listener(connection.entry().listener, ListenerCounter::of_tls(version));
            }
            Some(opened)
        }
        // Whoever looks whether the port is open has done nothing wrong.
        Err(Failure::Closed) => None,
        Err(failure) => {
            if worker.client_log.admit() {
                let (listener, reason) = (connection.listener_name(), failure.to_string());
                let peer = connection.peer_name();
                tracing::warn!(listener = &*listener, peer, reason, "TLS handshake with a client failed");
            }
            None
        }
    }
}

async fn shake_hands(
    mut stream: Stream,
    tls: &ServerTls,
    connection: &mut Connection,
    ticket: &mut Ticket,
) -> Result<Opened, Failure> {
    let limits = connection.limits();
    let mut timer = Timer::default();
    let deadline = after(Some(limits.header_timeout));
    let first = poll_fn(|cx| {
        if let Poll::Ready(first) = stream.poll_peek(cx) {
            return Poll::Ready(first.map_err(|_| Failure::Closed));
        }
        match ticket.watch(cx.waker()) {
            Phase::Forced => return Poll::Ready(Err(Failure::Closed)),
            Phase::ClosingIdle => return Poll::Ready(Err(Failure::Closed)),
            _ => {}
        }
        ready!(timer.poll(cx, deadline));
        Poll::Ready(Err(Failure::Timeout))
    })
    .await?;
    match first {
        Some(HANDSHAKE) => {}
        Some(_) if tls.allows_plaintext() => return Ok(Opened { stream, http2: false }),
        Some(_) => return Err(Failure::Plaintext),
        None => return Err(Failure::Closed),
    }
    let worker = connection.worker().clone();
    let handshake = async {
        // Who has not said all of its first word waits at nobody's expense.
        let mut greeting = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let greeted = match (&mut greeting).await {
            Ok(greeted) => greeted,
            Err(error) => return Err((error, greeting.take_io())),
        };
        // Many at once would only make each of them slower, and all of their memory stay for longer.
        let turn = worker.handshakes.acquire().await;
        let mut rest = greeted.into_stream(tls.config()).into_fallible();
        let outcome = match tokio::time::timeout(TURN, &mut rest).await {
            Ok(outcome) => outcome,
            Err(_) => {
                drop(turn);
                rest.await
            }
        };
        outcome.map_err(|(error, stream)| (error, Some(stream)))
    };
    let mut handshake = std::pin::pin!(handshake);
    let outcome = poll_fn(|cx| {
        if let Poll::Ready(outcome) = handshake.as_mut().poll(cx) {
            return Poll::Ready(Ok(outcome));
        }
        if ticket.watch(cx.waker()) == Phase::Forced {
            return Poll::Ready(Err(Failure::Closed));
        }
        ready!(timer.poll(cx, deadline));
        Poll::Ready(Err(Failure::Timeout))
    })
    .await?;
    match outcome {
        Ok(secured) => {
            let (_, session) = secured.get_ref();
            let http2 = session.alpn_protocol() == Some(b"h2");
            connection.secure(Rc::new(Peer::of(session, tls)));
            Ok(Opened { stream: Stream::Tls(Box::new(TlsStream::new(secured))), http2 })
        }
        Err((error, stream)) => {
            let failure = Failure::of(error);
            if let Some(stream) = stream {
                linger(stream, &mut timer).await;
            }
            Err(failure)
        }
    }
}

/// Ends the connection so that the client reads why.
async fn linger(mut stream: Stream, timer: &mut Timer) {
    let deadline = after(Some(LINGER));
    let mut taken = 0;
    poll_fn(|cx| {
        if ready!(Pin::new(&mut stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        let mut sink = BytesMut::with_capacity(4 * 1024);
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

impl Failure {
    fn of(error: io::Error) -> Self {
        match error.downcast::<TlsError>() {
            Ok(error) => Failure::Tls(error),
            Err(_) => Failure::Closed,
        }
    }

    fn counter(&self) -> ListenerCounter {
        match self {
            Failure::Timeout => ListenerCounter::TlsTimeout,
            Failure::Closed => ListenerCounter::TlsClosed,
            Failure::Plaintext => ListenerCounter::TlsNotTls,
            Failure::Tls(error) => match error {
                TlsError::NoCertificatesPresented => ListenerCounter::TlsNoCertificate,
                TlsError::InvalidCertificate(_) => ListenerCounter::TlsBadCertificate,
                TlsError::AlertReceived(_) => ListenerCounter::TlsRefusedByClient,
                TlsError::PeerIncompatible(_) | TlsError::NoApplicationProtocol => ListenerCounter::TlsIncompatible,
                _ => ListenerCounter::TlsBroken,
            },
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Timeout => f.write_str("it took longer than limits.header_timeout"),
            Failure::Closed => f.write_str("the connection ended"),
            Failure::Plaintext => f.write_str("the client does not speak TLS"),
            Failure::Tls(error) => error.fmt(f),
        }
    }
}
