//! Leaving HTTP: `Upgrade` of HTTP/1.1 (RFC 9110, section 7.8) and extended CONNECT of HTTP/2 (RFC 8441), one to the
//! other where the two sides of the proxy differ.

use std::hint::cold_path;

use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::ext::Protocol;

use super::hop_by_hop::HopByHop;
use crate::body::{Body, Tunnel};
use crate::error::{Error, Reason};
use crate::transport::Failure;

/// True where one of these protocols is `h2c`: a proxy that lets it through no longer sees what is sent behind its back.
pub(crate) fn hides_requests(protocols: &[u8]) -> bool {
    protocols.split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

/// True where the request asks for another protocol that we pass on.
pub(super) fn is_wanted(head: &Request<Body>, hop: &HopByHop) -> bool {
    is_extended_connect(head) || upgrade_of(hop).is_some()
}

pub(super) fn is_extended_connect(head: &Request<Body>) -> bool {
    head.extensions().get::<Protocol>().is_some()
}

fn upgrade_of(hop: &HopByHop) -> Option<&HeaderValue> {
    hop.upgrade.as_ref().filter(|value| !hides_requests(value.as_bytes()))
}

/// What the client's side has to be told once the endpoint has agreed.
pub(super) struct Restored {
    extended: bool,
}

/// Asks the endpoint for the Upgrade that the client asked for, in HTTP/1.1's words.
pub(super) fn prepare_http1(head: &mut Request<Body>, hop: &HopByHop) -> Restored {
    let extended = head.extensions().get::<Protocol>().cloned();
    let wanted = match &extended {
        Some(protocol) => HeaderValue::from_str(protocol.as_str()).ok(),
        None => upgrade_of(hop).cloned(),
    };
    if let Some(protocol) = wanted {
        cold_path();
        if extended.is_some() {
            *head.method_mut() = Method::GET;
            if protocol == "websocket" {
                head.headers_mut().insert(SEC_WEBSOCKET_KEY, websocket_key());
                let version = HeaderValue::from_static("13");
                head.headers_mut().entry(SEC_WEBSOCKET_VERSION).or_insert(version);
            }
        }
        head.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers_mut().insert(UPGRADE, protocol);
    }
    Restored { extended: extended.is_some() }
}

impl Restored {
    /// A 2xx that is no 101 would tell an HTTP/2 client that its tunnel is open (RFC 8441, section 5).
    pub(super) fn check(&self, response: Box<Response<Body>>) -> Result<Box<Response<Body>>, Failure> {
        if self.extended && response.status().is_success() {
            let error = Error::upstream(Reason::UpstreamProtocolError).because("an upgrade answered by 2xx");
            return Err(Failure { error, stale: false, body_intact: false });
        }
        Ok(response)
    }

    /// The endpoint's 101 as the client has it.
    pub(super) fn answer(&self, mut response: Box<Response<Body>>, tunnel: Tunnel) -> Box<Response<Body>> {
        response.body_mut().fill_with_tunnel(tunnel);
        if self.extended {
            *response.status_mut() = StatusCode::OK;
            for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH, TRANSFER_ENCODING] {
                response.headers_mut().remove(name);
            }
        }
        response
    }
}

/// 16 random bytes in base64 (RFC 6455, section 4.1): HTTP/2 has no such field, HTTP/1.1 servers insist on it.
fn websocket_key() -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key = [b'='; 24];
    for digit in &mut key[..21] {
        *digit = DIGITS[fastrand::usize(..64)];
    }
    // 128 bits are 21 digits and the upper two bits of another.
    key[21] = DIGITS[fastrand::usize(..4) << 4];
    HeaderValue::from_bytes(&key).unwrap_or(HeaderValue::from_static(""))
}

/// A 101 keeps the two fields that make it one, which were taken off as those of the last hop.
pub(super) fn keep_switch(headers: &mut HeaderMap, protocol: Option<HeaderValue>) {
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}
