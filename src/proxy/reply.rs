//! Errors as responses: the one place where a reason becomes bytes for a client.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::body::Body;
use crate::error::Error;

/// Why, and at which listener.
pub(super) const X_OUTRIGGER_REASON: HeaderName = HeaderName::from_static("x-outrigger-reason");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Who is answered, and how much it may know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audience<'a> {
    pub(crate) grpc: bool,
    /// Strangers are not told what is wrong in here.
    pub(crate) edge: bool,
    pub(crate) listener: &'a str,
    pub(crate) request_id: Option<&'a str>,
}

/// The response of a request that failed.
pub(crate) fn failure(error: &Error, audience: Audience<'_>) -> Response<Body> {
    let reason = error.reason;
    let mut response = if audience.grpc { grpc(error, audience.edge) } else { plain(error, audience) };
    if let Some(wait) = error.retry_after {
        // Whole seconds, and never too early.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if !audience.edge {
        let hop = [reason.as_str(), "; hop=", audience.listener].concat();
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(hop)) {
            response.headers_mut().insert(X_OUTRIGGER_REASON, value);
        }
    }
    response
}

fn plain(error: &Error, audience: Audience<'_>) -> Response<Body> {
    let reason = error.reason;
    let status = error.status.unwrap_or_else(|| reason.status());
    let mut body = if audience.edge {
        json!({ "status": status.as_u16(), "message": status.canonical_reason().unwrap_or_default() })
    } else {
        json!({
            "reason": reason.as_str(),
            "status": status.as_u16(),
            "message": reason.describe(),
            "listener": audience.listener,
        })
    };
    if let Some(fields) = body.as_object_mut() {
        if let Some(detail) = error.detail.as_ref().filter(|_| !audience.edge) {
            fields.insert("detail".to_owned(), detail.to_string().into());
        }
        if let Some(id) = audience.request_id {
            fields.insert("request_id".to_owned(), id.into());
        }
    }
    let mut response = Response::new(Body::full(format!("{body}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Trailers-Only: gRPC clients look at `grpc-status` alone, and want 200 before they do.
fn grpc(error: &Error, edge: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    *response.headers_mut() = grpc_trailers(error, edge);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The same at the end of an answer that had begun.
pub(crate) fn grpc_trailers(error: &Error, edge: bool) -> HeaderMap {
    let reason = error.reason;
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(
        GRPC_STATUS,
        HeaderValue::from(u16::from(error.status.map_or_else(|| reason.grpc_status(), grpc_status_of))),
    );
    let message = match (edge, reason.status().canonical_reason()) {
        (true, canonical) => canonical.unwrap_or("error").to_owned(),
        (false, _) => [reason.as_str(), ": ", reason.describe()].concat(),
    };
    if let Ok(message) = HeaderValue::from_maybe_shared(Bytes::from(percent_encode(&message))) {
        headers.insert(GRPC_MESSAGE, message);
    }
    headers
}

/// The gRPC status that clients make of an HTTP status (gRPC's http-grpc-status-mapping).
fn grpc_status_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// As gRPC over HTTP/2 has it: all but the visible ASCII, space and without the percent sign.
fn percent_encode(message: &str) -> String {
    const REST: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');
    percent_encoding::utf8_percent_encode(message, REST).to_string()
}

/// Sends the client elsewhere.
pub(crate) fn redirect(status: StatusCode, location: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, location);
    response
}

/// A response that the configuration wrote.
pub(crate) fn fixed(status: StatusCode, body: &str, content_type: &HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::full(body.to_owned()));
    *response.status_mut() = status;
    if !body.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    #[test]
    fn strangers_learn_nothing() {
        let mut audience = Audience { grpc: false, edge: false, listener: "in", request_id: Some("7") };
        let told = failure(&Error::upstream(Reason::ConnectFailure), audience);
        assert_eq!(told.headers()["x-outrigger-reason"], "connect_failure; hop=in");
        assert_eq!(told.status(), 503);
        audience.edge = true;
        let hidden = failure(&Error::upstream(Reason::ConnectFailure), audience);
        assert!(!hidden.headers().contains_key("x-outrigger-reason"));
        let body = String::from_utf8(hidden.body().as_full().unwrap().to_vec()).unwrap();
        assert!(!body.contains("connect"), "{body}");
    }

    #[test]
    fn grpc_gets_its_own_form() {
        let audience = Audience { grpc: true, edge: false, listener: "in", request_id: None };
        let response = failure(&Error::upstream(Reason::ResponseTimeout), audience);
        assert_eq!((response.status().as_u16(), &response.headers()["grpc-status"]), (200, &HeaderValue::from(4u16)));
        assert!(response.body().is_empty());
    }
}
