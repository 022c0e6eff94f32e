//! One question to one endpoint, over a connection of its own: a check is to find out whether new ones come about.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;

use crate::config::model::{EndpointAddress, HealthCheck, Probe};
use crate::identity::{ClientTls, Offer};
use crate::runtime::local::LocalExec;
use crate::runtime::stream::Stream;
use crate::transport::{OwnAddresses, connect, secure};

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("outrigger/", env!("CARGO_PKG_VERSION"), " (health check)"));
/// Of the answer of gRPC's health protocol: two bytes in a frame of five, and whatever later versions add.
const MOST_BYTES: usize = 4 * 1024;
/// `grpc.health.v1.HealthCheckResponse.SERVING`
const SERVING: u64 = 1;

/// Why a check has failed, for people.
pub(super) type Reason = String;

/// How a check goes.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) check: HealthCheck,
    /// As requests are sent.
    pub(super) tls: Option<Arc<ClientTls>>,
    pub(super) own: Arc<OwnAddresses>,
}

impl Question {
    /// Asks. Whoever calls bounds the time. `None` where this process has no descriptor left to ask with.
    pub(super) async fn ask(&self, address: &EndpointAddress) -> Option<Result<(), Reason>> {
        let mut address = address.clone();
        if let (EndpointAddress::Tcp(address), Some(port)) = (&mut address, self.check.port) {
            address.set_port(port);
        }
        let stream = match connect(&address, &self.own, None).await {
            Ok(stream) => stream,
            Err(error) if error.reason == crate::error::Reason::Overflow => return None,
            Err(error) => return Some(Err(error.to_string())),
        };
        Some(self.put(stream, &address).await)
    }

    async fn put(&self, stream: Stream, address: &EndpointAddress) -> Result<(), Reason> {
        let authority = match address {
            EndpointAddress::Tcp(address) => address.to_string(),
            EndpointAddress::Unix(_) => "localhost".to_owned(),
        };
        match &self.check.probe {
            Probe::Tcp => Ok(()),
            Probe::Http(target) => http(self.secured(stream, Offer::Http1, address).await?, target, &authority).await,
            Probe::Grpc(service) => grpc(self.secured(stream, Offer::Http2, address).await?, service, &authority).await,
        }
    }

    async fn secured(&self, stream: Stream, offer: Offer, address: &EndpointAddress) -> Result<Stream, Reason> {
        match &self.tls {
            None => Ok(stream),
            Some(tls) => {
                let secured = secure(stream, tls, offer, address, None).await.map_err(|error| error.to_string())?;
                Ok(secured.stream)
            }
        }
    }
}

async fn http(stream: Stream, target: &PathAndQuery, authority: &str) -> Result<(), Reason> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = Uri::from(target.clone());
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority).map_err(|error| error.to_string())?);
    request.headers_mut().insert(USER_AGENT, AGENT);
    let asking = async { sender.send_request(request).await.map_err(|error| error.to_string()) };
    let response = while_driven(connection, asking).await?;
    if response.status().is_success() { Ok(()) } else { Err(format!("status {}", response.status().as_u16())) }
}

async fn grpc(stream: Stream, service: &str, authority: &str) -> Result<(), Reason> {
    let handshake = http2::handshake(LocalExec, TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query("/grpc.health.v1.Health/Check").build();
    let mut request = Request::new(Full::new(Bytes::from(frame(service))));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, AGENT);
    let asking = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MOST_BYTES).collect().await.map_err(|error| error.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let code = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status")).cloned();
        match code.as_ref().map(HeaderValue::as_bytes) {
            Some(b"0") => {}
            Some(code) => return Err(format!("gRPC status {}", String::from_utf8_lossy(code))),
            None => return Err(format!("status {} and no gRPC status", head.status.as_u16())),
        }
        match serving_status(&body.to_bytes()) {
            Some(SERVING) => Ok(()),
            Some(status) => Err(format!("serving status {status}")),
            None => Err("an answer that is not one of gRPC's health protocol".to_owned()),
        }
    };
    while_driven(connection, asking).await
}

/// Waits for the answer, and has the connection work until then.
async fn while_driven<T>(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    asking: impl Future<Output = Result<T, Reason>>,
) -> Result<T, Reason> {
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answer = &mut asking => answer,
        ended = connection => match ended {
            // What came with the connection's end is an answer all the same.
            Ok(()) => asking.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// `HealthCheckRequest { service }` in a frame: field 1, a string.
fn frame(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

/// `HealthCheckResponse.status`: field 1, a number; 0 where it is not written. `None` where this is no such message.
fn serving_status(body: &[u8]) -> Option<u64> {
    let [0, length @ ..] = body else { return None };
    let (length, message) = length.split_first_chunk::<4>()?;
    let message = message.get(..u32::from_be_bytes(*length) as usize)?;
    match message {
        [] => Some(0),
        [0x08, status, ..] if *status < 0x80 => Some((*status).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_protocol() {
        assert_eq!(frame(""), [0, 0, 0, 0, 0]);
        assert_eq!(frame("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = frame(&"x".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 0x08, 2]), Some(2));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        for wrong in [&[][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 0x08, 1], &[0, 0, 0, 0, 2, 0x10, 1]] {
            assert_eq!(serving_status(wrong), None, "{wrong:?}");
        }
    }
}
