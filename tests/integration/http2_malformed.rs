//! Requests that HTTP/2 calls malformed: refused, above all those that would read otherwise in HTTP/1.

use crate::support::frames::{self, FrameClient, Outcome};
use crate::support::{Proxy, Upstream, eventually};

/// Sends these fields as a request; the upstream must see nothing of it.
#[track_caller]
fn malformed(proxy: &Proxy, fields: &[(&str, &str)]) {
    let mut client = FrameClient::connect(proxy.address("inbound"));
    client.headers(1, frames::END_STREAM, fields);
    let outcome = client.outcome(1);
    let fine = matches!(
        outcome,
        Outcome::Reset(frames::PROTOCOL_ERROR) | Outcome::GoneAway(_) | Outcome::Status(400) | Outcome::Closed
    );
    assert!(fine, "{fields:?}: {outcome:?}");
}

// RFC 9113, 8.2.1, 8.2.2 and 8.3: malformed requests are refused, above all those that would read otherwise in HTTP/1.
#[test]
fn malformed_requests_are_refused() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let plain = [(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")];
    let with = |field: (&'static str, &'static str)| [plain.as_slice(), &[field]].concat();
    let without = |name: &str| plain.iter().copied().filter(|(own, _)| *own != name).collect::<Vec<_>>();
    let instead = |name: &'static str, value: &'static str| {
        plain.iter().map(|field| if field.0 == name { (name, value) } else { *field }).collect::<Vec<_>>()
    };
    let cases = [
        with(("X-Upper", "1")),
        with(("connection", "keep-alive")),
        with(("connection", "close")),
        with(("transfer-encoding", "chunked")),
        with(("keep-alive", "timeout=5")),
        with(("proxy-connection", "keep-alive")),
        with(("upgrade", "websocket")),
        with(("te", "gzip")),
        with((":path", "/again")),
        with((":status", "200")),
        with((":unknown", "1")),
        with(("x-crlf", "a\r\nSmuggled: 1")),
        with(("x-lf", "a\nSmuggled: 1")),
        with(("x-nul", "a\0b")),
        with(("na me", "1")),
        with(("na:me", "1")),
        with(("na\r\nme", "1")),
        with(("", "1")),
        with(("content-length", "5")),
        with(("content-length", "x")),
        [&[("x-first", "1")], plain.as_slice()].concat(),
        without(":method"),
        without(":path"),
        without(":scheme"),
        instead(":path", ""),
        instead(":path", "no-slash"),
        instead(":path", "?a=b"),
        instead(":path", "*"),
        instead(":path", "http://app.test/"),
        vec![(":method", "CONNECT"), (":authority", "app.test")],
        vec![(":method", "CONNECT"), (":authority", "user@app.test:80")],
        instead(":path", "/ HTTP/1.1\r\nSmuggled: 1"),
        instead(":path", "/a b"),
        instead(":method", "GET /smuggled HTTP/1.1\r\nX:"),
        instead(":method", "G T"),
        instead(":authority", "app.test\r\nSmuggled: 1"),
        instead(":authority", "user@app.test"),
        instead(":authority", "a b"),
    ];
    for fields in &cases {
        malformed(&proxy, fields);
    }
    assert_eq!(upstream.connections(), 0, "{}", upstream.received_text());
}

#[test]
fn a_request_without_any_host_is_refused() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    malformed(&proxy, &[(":method", "GET"), (":scheme", "http"), (":path", "/")]);
    assert_eq!(upstream.connections(), 0);
}

// RFC 9113, 8.1.1: Content-Length and the DATA frames must agree.
#[test]
fn a_length_that_lies_never_becomes_a_whole_request() {
    let upstream = Upstream::scripted(|served| {
        let Some(request) = served.request() else { return };
        assert!(!request.body.complete, "{}: {:?}", request.head, request.text());
    });
    let proxy = Proxy::before(upstream.address());
    for (length, body) in [("5", "too long"), ("50", "too short")] {
        let mut client = FrameClient::connect(proxy.address("inbound"));
        client.headers(
            1,
            0,
            &[
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "app.test"),
                (":path", "/"),
                ("content-length", length),
            ],
        );
        client.send(frames::DATA, frames::END_STREAM, 1, body.as_bytes());
        assert_ne!(client.outcome(1), Outcome::Status(200), "{length}: {body:?}");
    }
    eventually("the upstream's connections to end", || upstream.open_connections() == 0);
}
