//! The sample services: one fast, one slow, one that fails a share of its requests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::runtime::worker;

/// Services on loopback ports of their own; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Services {
    /// By the name of the variable that the configuration has for each.
    pub(super) addresses: Vec<(&'static str, SocketAddr)>,
    _running: oneshot::Sender<()>,
    _thread: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Fast,
    Slow,
    Flaky,
}

impl Services {
    /// Starts them.
    ///
    /// # Errors
    /// When a port or thread cannot be had.
    pub(super) fn start() -> io::Result<Self> {
        let wanted = [
            ("DEMO_FAST_1", Manner::Fast),
            ("DEMO_FAST_2", Manner::Fast),
            ("DEMO_SLOW", Manner::Slow),
            ("DEMO_FLAKY", Manner::Flaky),
        ];
        let mut addresses = Vec::new();
        let mut listeners = Vec::new();
        for (variable, manner) in wanted {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            addresses.push((variable, listener.local_addr()?));
            listeners.push((listener, manner));
        }
        let (running, ended) = oneshot::channel();
        let thread = worker::start("services".to_owned(), move || async move {
            for (listener, manner) in listeners {
                tokio::task::spawn_local(listen(listener, manner));
            }
            let _ = ended.await;
        })?;
        Ok(Services { addresses, _running: running, _thread: thread })
    }
}

async fn listen(listener: std::net::TcpListener, manner: Manner) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(serve(stream, manner));
    }
}

async fn serve(stream: TcpStream, manner: Manner) {
    let _ = stream.set_nodelay(true);
    if manner == Manner::Flaky {
        // Whatever ends this connection resets it.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    let service = service_fn(move |request| answer(request, manner));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, manner: Manner) -> Result<Response<Full<Bytes>>, io::Error> {
    match manner {
        Manner::Fast => Ok(say(StatusCode::OK, "fast", &request)),
        Manner::Slow => {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(35..=45))).await;
            Ok(say(StatusCode::OK, "slow", &request))
        }
        Manner::Flaky => match fastrand::u8(0..100) {
            0..3 => Err(io::ErrorKind::ConnectionReset.into()),
            3..13 => Ok(say(StatusCode::SERVICE_UNAVAILABLE, "flaky", &request)),
            _ => Ok(say(StatusCode::OK, "flaky", &request)),
        },
    }
}

fn say(status: StatusCode, service: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let said = json!({ "service": service, "path": request.uri().path(), "status": status.as_u16() });
    let mut response = Response::new(Full::from(format!("{said}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
