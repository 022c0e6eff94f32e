//! Asks the app whether it is well, in the place of whoever may not ask it directly.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::model::{EndpointAddress, ProbeQuestion, ProbeTarget};

/// The app's status, or what kept it from saying one. `headers` are those of whoever asks. Who calls bounds the time.
pub(super) async fn ask(target: &ProbeTarget, headers: &HeaderMap) -> Result<StatusCode, String> {
    let refused = |error: std::io::Error| format!("the app does not answer at {}: {error}", target.address);
    match &target.address {
        EndpointAddress::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(refused)?;
            question(stream, target, headers).await
        }
        EndpointAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(refused)?;
            question(stream, target, headers).await
        }
    }
}

async fn question(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    target: &ProbeTarget,
    headers: &HeaderMap,
) -> Result<StatusCode, String> {
    let ProbeQuestion::Http(path) = &target.question else { return Ok(StatusCode::OK) };
    let wrong = |error: &dyn std::fmt::Display| format!("the app does not answer as HTTP does: {error}");
    let mut request =
        Request::builder().uri(path.as_str()).body(Empty::<Bytes>::new()).map_err(|error| wrong(&error))?;
    // What a probe is told to send (a Host, a token) is for the app.
    *request.headers_mut() = headers.clone();
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING] {
        request.headers_mut().remove(name);
    }
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if !headers.contains_key(HOST) {
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| wrong(&error))?;
    let (mut connection, mut answer) = (std::pin::pin!(connection), std::pin::pin!(sender.send_request(request)));
    let answer = tokio::select! {
        answer = answer.as_mut() => answer,
        // The connection's end is the answer's, which says it better.
        _ = connection.as_mut() => answer.await,
    };
    answer.map(|answer| answer.status()).map_err(|error| wrong(&error))
}
