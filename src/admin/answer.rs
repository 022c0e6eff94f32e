//! What answers are made of.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::content::Content;

pub(super) type Answer = Response<Content>;

pub(super) fn wants_json<B>(request: &Request<B>) -> bool {
    match parameter(request, "format") {
        Some(format) => format == "json",
        None => {
            request.headers().get_all(ACCEPT).iter().any(|accept| accept.as_bytes().starts_with(b"application/json"))
        }
    }
}

/// The value of a query's parameter; empty where it has none.
pub(super) fn parameter<'r, B>(request: &'r Request<B>, name: &str) -> Option<&'r str> {
    let pairs = request.uri().query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

pub(super) fn text(content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Content::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Server-sent events.
pub(super) fn stream(events: mpsc::Receiver<Bytes>) -> Answer {
    let mut answer = Response::new(Content::stream(events));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}

pub(super) fn data(status: StatusCode, value: &impl Serialize) -> Answer {
    // Nothing here has a map with keys that are no strings, which is all that could fail.
    let mut body = serde_json::to_string(value).unwrap_or_default();
    body.push('\n');
    let mut answer = text("application/json", body);
    *answer.status_mut() = status;
    answer
}

pub(super) fn failure(status: StatusCode, message: &str) -> Answer {
    data(status, &json!({ "error": message }))
}
