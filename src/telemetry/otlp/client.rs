//! One export over the wire: OTLP in protobuf, in an HTTP/1.1 request or in a gRPC call, in the clear or over TLS.
//!
//! <https://opentelemetry.io/docs/specs/otlp/>. The bytes are the same for both; only their envelope differs.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, TE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{Signal, Target};
use crate::config::model::{OtlpProtocol, UpstreamTls};
use crate::dns;
use crate::runtime::local::LocalExec;
use crate::runtime::stream::Stream;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("outrigger/", env!("CARGO_PKG_VERSION")));
/// Of an answer, which says a sentence at most.
const ANSWER_BYTES: usize = 64 << 10;
/// gRPC's frame: one byte of flags, four of length.
const FRAME: usize = 5;

/// Shakes hands over a connection to this host. Whoever knows about certificates brings it.
pub(crate) type Secure = for<'a> fn(Stream, &'a UpstreamTls, &'a str, OtlpProtocol) -> Securing<'a>;

/// A handshake.
pub(crate) type Securing<'a> = Pin<Box<dyn Future<Output = io::Result<Stream>> + 'a>>;

/// Sends exports, one after the other, over one connection that is kept.
#[derive(Debug)]
pub(super) struct Client {
    signal: Signal,
    target: Target,
    secure: Secure,
    connection: Option<Connection>,
}

#[derive(Debug)]
enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An export that did not arrive.
#[derive(Debug)]
pub(super) struct Failure {
    /// It may arrive the next time.
    pub(super) retryable: bool,
    /// What the collector asks for.
    pub(super) retry_after: Option<Duration>,
    /// For people.
    pub(super) detail: String,
}

impl Failure {
    fn passing(detail: String) -> Self {
        Failure { retryable: true, retry_after: None, detail }
    }

    fn lasting(detail: String) -> Self {
        Failure { retryable: false, ..Failure::passing(detail) }
    }
}

impl Client {
    pub(super) fn new(signal: Signal, target: Target, secure: Secure) -> Self {
        Client { signal, target, secure, connection: None }
    }

    /// The collector, for people.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.target.url.host, self.target.url.port)
    }

    /// Sends the signal's request, and tells how many items of it were refused.
    pub(super) async fn send(&mut self, message: Bytes) -> Result<u64, Failure> {
        let timeout = self.target.timeout;
        let outcome = tokio::time::timeout(timeout, self.exchange(message)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Failure::passing(format!("no answer within {timeout:?}"))));
        if outcome.is_err() {
            // Whatever state it is in, the next try deserves a fresh one.
            self.connection = None;
        }
        outcome
    }

    async fn exchange(&mut self, message: Bytes) -> Result<u64, Failure> {
        let request = self.request(message).map_err(|error| Failure::lasting(error.to_string()))?;
        let broken = |error: hyper::Error| Failure::passing(format!("the connection broke: {error}"));
        let response = match self.connection().await? {
            Connection::Http1(sender) => sender.send_request(request).await,
            Connection::Http2(sender) => sender.send_request(request).await,
        };
        let (head, body) = response.map_err(broken)?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| Failure::passing(format!("the answer broke off: {error}")))?;
        match self.target.protocol {
            OtlpProtocol::Http => judge_http(self.signal, &Response::from_parts(head, ()), body),
            OtlpProtocol::Grpc => judge_grpc(self.signal, &Response::from_parts(head, ()), body),
        }
    }

    fn request(&self, message: Bytes) -> http::Result<Request<Full<Bytes>>> {
        let url = &self.target.url;
        let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
        let (authority, scheme) = (format!("{host}:{}", url.port), if url.secure { "https" } else { "http" });
        let request = Request::builder().method(Method::POST).header(USER_AGENT, AGENT);
        let (request, body) = match self.target.protocol {
            OtlpProtocol::Http => {
                let request = request.uri(url.path.as_str()).header(HOST, authority);
                (request.header(CONTENT_TYPE, "application/x-protobuf"), message)
            }
            OtlpProtocol::Grpc => {
                let mut framed = BytesMut::with_capacity(FRAME + message.len());
                framed.put_u8(0);
                // Far below 4 GiB: spans of a batch are counted and their texts bounded by those of a head, and so are
                // series.
                framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
                framed.put(message);
                let request = request
                    .version(Version::HTTP_2)
                    .uri(format!("{scheme}://{authority}{}{}", url.path, self.signal.method()))
                    .header(CONTENT_TYPE, "application/grpc")
                    .header(TE, "trailers")
                    .header("grpc-timeout", format!("{}m", self.target.timeout.as_millis().min(99_999_999)));
                (request, framed.freeze())
            }
        };
        let mut request = request.body(Full::new(body))?;
        for (name, value) in &self.target.headers {
            request.headers_mut().append(name.clone(), value.clone());
        }
        Ok(request)
    }

    /// The connection that is there, or a new one.
    async fn connection(&mut self) -> Result<&mut Connection, Failure> {
        let ready = match &mut self.connection {
            Some(Connection::Http1(sender)) => sender.ready().await.is_ok(),
            Some(Connection::Http2(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            self.connection = None;
        }
        match &mut self.connection {
            Some(_) => {}
            none => *none = Some(connect(&self.target, self.secure).await?),
        }
        self.connection.as_mut().ok_or_else(|| Failure::passing("there is no connection".to_owned()))
    }
}

async fn connect(target: &Target, secure: Secure) -> Result<Connection, Failure> {
    let host = target.url.host.as_str();
    let stream = dns::connect(host, target.url.port).await;
    let stream = stream.map_err(|error| Failure::passing(format!("no connection: {error}")))?;
    let _ = stream.set_nodelay(true);
    let mut stream = Stream::Tcp(stream);
    if let Some(tls) = &target.tls {
        let secured = secure(stream, tls, host, target.protocol).await;
        stream = secured.map_err(|error| match error.kind() {
            // Files or certificates that are not right stay so for longer than a retry waits.
            io::ErrorKind::InvalidData | io::ErrorKind::Other => Failure::lasting(format!("no TLS: {error}")),
            _ => Failure::passing(format!("no TLS: {error}")),
        })?;
    }
    let stream = TokioIo::new(stream);
    let broken = |error: hyper::Error| Failure::passing(format!("no connection: {error}"));
    Ok(match target.protocol {
        OtlpProtocol::Http => {
            let (sender, connection) = http1::handshake(stream).await.map_err(broken)?;
            tokio::task::spawn_local(connection);
            Connection::Http1(sender)
        }
        OtlpProtocol::Grpc => {
            let builder = &mut http2::Builder::new(LocalExec);
            let (sender, connection) = builder.timer(TokioTimer::new()).handshake(stream).await.map_err(broken)?;
            tokio::task::spawn_local(connection);
            Connection::Http2(sender)
        }
    })
}

fn judge_http(signal: Signal, response: &Response<()>, body: Collected<Bytes>) -> Result<u64, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(signal.refused(&body.to_bytes()));
    }
    let retryable = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    Err(Failure { retryable, retry_after, detail: format!("it answered {status}") })
}

fn judge_grpc(signal: Signal, response: &Response<()>, body: Collected<Bytes>) -> Result<u64, Failure> {
    // Without a message, the status stands in the head.
    let trailers = body.trailers().filter(|trailers| trailers.contains_key("grpc-status")).cloned();
    let trailers = trailers.unwrap_or_else(|| response.headers().clone());
    match grpc_status(&trailers) {
        Some(0) => Ok(body.to_bytes().get(FRAME..).map_or(0, |answer| signal.refused(answer))),
        Some(code) => {
            let message = trailers.get("grpc-message").and_then(|message| message.to_str().ok()).unwrap_or_default();
            // Of those that may pass, one only where the collector says when: RESOURCE_EXHAUSTED.
            let retryable = matches!(code, 1 | 4 | 10 | 11 | 14 | 15);
            Err(Failure { retryable, retry_after: None, detail: format!("it answered gRPC status {code} {message}") })
        }
        None => {
            let status = response.status();
            Err(Failure {
                retryable: status.is_server_error(),
                ..Failure::lasting(format!("it answered {status} without a gRPC status"))
            })
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
