//! A request as a listener sees it. Secrets are hidden unless they are asked for.

use std::time::Duration;

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderName, LOCATION, REFERER};
use http::{HeaderValue, Version};
use serde_json::{Value, json};

use super::filter::Filter;
use crate::telemetry::tap::Tapped;

/// What stands for a secret.
const HIDDEN: &str = "(hidden)";

/// Parts of names of headers that hold secrets.
const TELLING: [&str; 13] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "passw",
    "pwd",
    "api-key",
    "apikey",
    "private",
    "session",
    "jwt",
    "csrf",
    "credential",
];

/// As JSON.
pub(super) fn show(request: &Tapped, filter: &Filter) -> Value {
    let path = request.uri.path();
    let target = match request.uri.query() {
        Some(query) if filter.reveal => format!("{path}?{query}"),
        Some(_) => format!("{path}?{HIDDEN}"),
        None => path.to_owned(),
    };
    let mut shown = json!({
        "time": request.time.as_secs_f64(),
        "listener": &*request.listener,
        "route": request.route.as_deref(),
        "upstream": request.upstream.as_deref(),
        "endpoint": request.endpoint.as_deref(),
        "client": request.client,
        "method": request.method.as_str(),
        "scheme": request.scheme,
        "host": request.host.as_ref().map(text),
        "target": target,
        "protocol": protocol(request.version),
        "code": request.code,
        "grpc_code": request.grpc_code,
        "reason": request.reason.map(|reason| reason.as_str()),
        "attempts": request.attempts,
        "bytes_in": request.bytes_in,
        "bytes_out": request.bytes_out,
        "ms": {
            "queued": request.queued.map(millis),
            "connect": request.connect.map(millis),
            "first_byte": request.first_byte.map(millis),
            "total": millis(request.total),
        },
        "trace_id": Some(&request.trace_id).filter(|id| !id.is_empty()),
        "request_id": request.request_id.as_str(),
        "generation": request.generation,
        "request_headers": headers(&request.request_headers, filter.reveal),
        "response_headers": headers(&request.response_headers, filter.reveal),
    });
    if filter.body_bytes > 0
        && let Some(fields) = shown.as_object_mut()
    {
        for (key, body) in [("request_body", &request.request_body), ("response_body", &request.response_body)] {
            let cut = &body[..body.len().min(filter.body_bytes)];
            fields.insert(key.to_owned(), json!(String::from_utf8_lossy(cut)));
        }
    }
    shown
}

/// Pairs: a name may be there several times.
fn headers(headers: &HeaderMap, reveal: bool) -> Vec<[String; 2]> {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = match text(value) {
            shown if reveal => shown,
            _ if is_secret(name) => HIDDEN.to_owned(),
            url if is_url(name, &url) => without_secrets(&url),
            shown => shown,
        };
        [name.as_str().to_owned(), value]
    };
    headers.iter().map(pair).collect()
}

fn is_secret(name: &HeaderName) -> bool {
    TELLING.iter().any(|part| name.as_str().contains(part))
}

fn is_url(name: &HeaderName, value: &str) -> bool {
    [LOCATION, CONTENT_LOCATION, REFERER].contains(name) || value.starts_with('/') || value.contains("://")
}

/// A URL without what follows its path, for tokens are passed on in queries and fragments; and without a user.
fn without_secrets(url: &str) -> String {
    let mut shown = match url.find(['?', '#']) {
        Some(end) => format!("{}{HIDDEN}", &url[..=end]),
        None => url.to_owned(),
    };
    if let Some((scheme, rest)) = shown.split_once("://")
        && let Some((user, rest)) = rest.split_once('@')
        && !user.contains('/')
    {
        shown = format!("{scheme}://{HIDDEN}@{rest}");
    }
    shown
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "h2",
        Version::HTTP_10 => "h1.0",
        _ => "h1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::tests::request;
    use super::*;

    #[test]
    fn secrets_are_hidden_unless_asked_for() {
        let shown = show(&request(), &Filter::parse("").unwrap());
        assert!(!shown.to_string().contains("secret"), "{shown}");
        assert_eq!(shown["request_headers"][0], json!(["authorization", HIDDEN]));
        assert_eq!((&shown["target"], &shown["reason"]), (&"/v1/x?(hidden)".into(), &"connect_failure".into()));
        assert_eq!(shown["ms"]["total"], 4.4);
        assert!(shown.get("request_body").is_none(), "bodies are off by default");
        let shown = show(&request(), &Filter::parse("reveal&bodies=3").unwrap());
        assert_eq!(shown["target"], "/v1/x?token=secret");
        assert_eq!(shown["request_headers"][0], json!(["authorization", "Bearer secret"]));
        assert_eq!((&shown["request_body"], &shown["response_body"]), (&"bod".into(), &"ans".into()));
    }

    #[test]
    fn urls_are_shown_without_what_follows_their_path() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("referer", "https://a.test/reset?code=secret"),
            ("location", "/done#access_token=secret"),
            ("content-location", "/plain"),
            ("x-original-url", "/a?secret"),
            ("x-next", "https://me:secret@a.test/mail/@b"),
            ("x-other", "why? a/b"),
        ] {
            fields.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value));
        }
        let shown: Vec<String> = headers(&fields, false).into_iter().map(|[_, value]| value).collect();
        assert_eq!(
            shown,
            [
                "https://a.test/reset?(hidden)",
                "/done#(hidden)",
                "/plain",
                "/a?(hidden)",
                "https://(hidden)@a.test/mail/@b",
                "why? a/b"
            ]
        );
        assert!(headers(&fields, true).concat().concat().contains("code=secret"));
    }

    #[test]
    fn names_tell_secrets() {
        for name in [
            "authorization",
            "x-api-key",
            "x-amz-security-token",
            "x-goog-iap-jwt-assertion",
            "x-csrf",
            "x-private-key",
            "x-passwd",
            "session-id",
            "set-cookie",
        ] {
            assert!(is_secret(&name.parse().unwrap()), "{name}");
        }
        assert!(!is_secret(&"content-type".parse().unwrap()));
    }
}
