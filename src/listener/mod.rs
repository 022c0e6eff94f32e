//! Sockets in: accept, spread over the workers, tell the protocol, serve.

mod accept;
mod capture;
pub(crate) mod entrance;
mod flood;
mod http1;
mod http2;
mod lane;
mod session;
pub(crate) mod socket;
mod tcp;
mod tls;

pub(crate) use accept::{Door, Loads, StreamIn, listen, take_over};
pub use session::Proxy;
pub(crate) use session::{LayerFn, Session};

use std::rc::Rc;

use bytes::BytesMut;

use crate::config::model::Mode;
use crate::proxy::Connection;
use crate::runtime::stream::Stream;
use crate::telemetry::metrics::{ListenerCounter, ListenerGauge};

/// Serves one client's connection to its end.
async fn serve(stream: Stream, mut connection: Connection, layers: Option<LayerFn>) {
    let worker = connection.worker().clone();
    let mut ticket = connection.entry().drain.join();
    let stream = match connection.mode() {
        Mode::Http | Mode::Tcp => stream,
        Mode::Transparent => match Box::pin(capture::open(stream, &mut connection, &mut ticket)).await {
            Some(stream) => stream,
            None => return,
        },
    };
    let (stream, http2) = match connection.tls() {
        None => (stream, false),
        Some(tls) => match Box::pin(tls::open(stream, &tls, &mut connection, &mut ticket)).await {
            Some(opened) => (opened.stream, opened.http2),
            None => return,
        },
    };
    if connection.mode() == Mode::Tcp {
        worker.metrics.count_listener(connection.entry().listener, ListenerCounter::TcpConnections);
        let _held = worker.metrics.hold_listener(connection.entry().listener, ListenerGauge::TcpConnections);
        return Box::pin(tcp::serve(stream, connection, ticket)).await;
    }
    let session = Rc::new(Session::new(connection, layers.as_ref()));
    if http2 {
        return serve_http2(stream, BytesMut::new(), session).await;
    }
    let held = worker.metrics.hold_listener(session.listener(), ListenerGauge::Http1Connections);
    let outcome = http1::serve(stream, &session, ticket).await;
    drop(held);
    match outcome {
        http1::Outcome::Closed => worker.metrics.count_listener(session.listener(), ListenerCounter::Http1Connections),
        http1::Outcome::Http2(stream, early) => serve_http2(stream, early, session).await,
    }
}

async fn serve_http2(stream: Stream, early: BytesMut, session: Rc<Session>) {
    let worker = session.worker().clone();
    worker.metrics.count_listener(session.listener(), ListenerCounter::Http2Connections);
    let _held = worker.metrics.hold_listener(session.listener(), ListenerGauge::Http2Connections);
    let ticket = session.join_drain();
    Box::pin(http2::serve(stream, early, session, ticket)).await;
}
