//! Clients and upstreams that mean no good, or know no better: what they take is bounded, and nobody else pays for it.

use std::time::Duration;

use crate::support::client::{get, once};
use crate::support::frames::{self, FrameClient, Outcome};
use crate::support::upstream::OK;
use crate::support::{Client, Proxy, Upstream, eventually};

/// Sends blocks until the other side ends the connection or this much has gone.
fn flood(client: &mut Client, block: &[u8], most: usize) -> usize {
    let mut sent = 0;
    while sent < most && client.try_send(block).is_ok() {
        sent += block.len();
    }
    sent
}

#[test]
fn trailers_without_end_are_ended() {
    let upstream = Upstream::scripted(|served| {
        let Some(request) = served.request() else { return };
        assert!(!request.body.complete);
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n");
    let block = format!("X-Trailer: {}\r\n", "x".repeat(1000)).repeat(16);
    let sent = flood(&mut client, block.as_bytes(), 16 << 20);
    assert!(sent < 16 << 20, "{sent} bytes of trailers were taken");
    upstream.all_closed();
}

#[test]
fn chunk_extensions_without_end_are_ended() {
    let upstream = Upstream::scripted(|served| {
        let Some(request) = served.request() else { return };
        assert!(!request.body.complete);
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n1;");
    let sent = flood(&mut client, &[b'x'; 16 * 1024], 16 << 20);
    assert!(sent < 16 << 20, "{sent} bytes of a chunk extension were taken");
}

#[test]
fn an_upstreams_headers_without_end_are_ended() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        let _ = served.try_send("HTTP/1.1 200 OK\r\n");
        let block = format!("X-Header: {}\r\n", "x".repeat(1000)).repeat(16);
        for _ in 0..1024 {
            if served.try_send(&block).is_err() {
                return;
            }
        }
        panic!("16 MiB of headers were taken");
    });
    let proxy = Proxy::before(upstream.address());
    let response = proxy.client().get("/");
    assert_eq!((response.status, response.reason()), (502, Some("upstream_protocol_error; hop=inbound")));
    upstream.all_closed();
}

#[test]
fn nothing_after_a_request_with_close_is_served() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(format!("GET /last HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n{}", get("/never")));
    assert_eq!(client.response().status, 200);
    client.expect_end();
    assert_eq!((upstream.count("/last"), upstream.count("/never")), (1, 0));
}

#[test]
fn an_error_to_head_has_no_body() {
    let proxy = Proxy::start(
        "listeners:\n  inbound: { address: 127.0.0.1:0, routes: [{ match: { path: /known }, respond: { status: 204 } }] }\n",
        &[],
    );
    let mut client = proxy.client();
    for _ in 0..2 {
        assert_eq!(client.exchange("HEAD /unknown HTTP/1.1\r\nHost: app.test\r\n\r\n").status, 404);
    }
    assert_eq!(client.get("/known").status, 204);
}

// What was to be a refused request's body is never read as the next request.
#[test]
fn the_body_of_a_refused_request_is_no_request() {
    let upstream = Upstream::ok();
    let proxy = Proxy::start(
        "
listeners:
  inbound: { address: 127.0.0.1:0, routes: [{ match: { path: /known }, upstream: \"@app\" }] }
",
        &[("@app", &upstream.address())],
    );
    let smuggled = get("/known/smuggled");
    for head in [format!("Content-Length: {}", smuggled.len()), "Transfer-Encoding: chunked".to_owned()] {
        let body = if head.starts_with('C') {
            smuggled.clone()
        } else {
            format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len())
        };
        let mut client = proxy.client();
        client.send(format!("POST /unknown HTTP/1.1\r\nHost: app.test\r\n{head}\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 404, "{head}");
        let _ = client.try_send(&body);
        let _ = client.try_send(get("/known/next"));
        if let Some(next) = client.response_or_end("GET") {
            assert_eq!(next.status, 200, "{head}");
        }
    }
    assert_eq!(upstream.count("smuggled"), 0);
}

// RFC 9112, 7: names of codings have no case; zeros before a length mean nothing.
#[test]
fn unusual_spellings_are_understood() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let cases = [
        "Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding:chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "CONTENT-LENGTH:005\r\n\r\nhello",
        "Content-Length: \t5 \r\n\r\nhello",
    ];
    for (index, rest) in cases.into_iter().enumerate() {
        assert_eq!(
            once(proxy.address("inbound"), format!("POST / HTTP/1.1\r\nHost: app.test\r\n{rest}")).status,
            200,
            "{rest:?}"
        );
        assert_eq!(upstream.request(index).text(), "hello", "{rest:?}");
    }
}

#[test]
fn a_client_that_never_reads_is_left() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        let _ = served.try_send("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
        let block = vec![b'x'; 1 << 20];
        while served.try_send(&block).is_ok() {}
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { idle: 400ms }");
    let mut client = proxy.client();
    client.send(get("/unread"));
    upstream.request(0);
    upstream.all_closed();
    assert_eq!(proxy.log_line("/unread")["reason"], "idle_timeout");
}

// Any amount of data, for as long as it is taken.
fn endless() -> Upstream {
    Upstream::scripted(|served| {
        while let Some(request) = served.request() {
            if request.target == "/short" {
                served.send(OK);
                continue;
            }
            let _ = served.try_send("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
            let block = vec![b'x'; 1 << 20];
            while served.try_send(&block).is_ok() {}
            return;
        }
    })
}

/// A client of HTTP/2 that answers PINGs, and opens its streams with a window of so many bytes.
fn client_with_window(proxy: &Proxy, window: u8) -> FrameClient {
    const INITIAL_WINDOW_SIZE: u8 = 4;
    let mut client = FrameClient::connect(proxy.address("inbound"));
    client.send(frames::SETTINGS, 0, 0, &[0, INITIAL_WINDOW_SIZE, 0, 0, 0, window]);
    client
}

fn get_on(client: &mut FrameClient, stream: u32, path: &str) {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", path)];
    client.headers(stream, frames::END_STREAM, &fields);
}

// The stream alone: its connection may have others that are well.
#[test]
fn an_http_2_client_that_opens_no_window_loses_the_stream() {
    let upstream = endless();
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { idle: 400ms }");
    let mut client = client_with_window(&proxy, 0);
    for (stream, path) in [(1, "/unread"), (3, "/short")] {
        get_on(&mut client, stream, path);
        assert_eq!(client.outcome(stream), Outcome::Status(200));
        assert_eq!(client.outcome(stream), Outcome::Reset(frames::CANCEL));
        assert_eq!(proxy.log_line(path)["reason"], "idle_timeout");
    }
    eventually("the endless answer to be left", || upstream.open_connections() <= 1);
    get_on(&mut client, 5, "/short");
    client.send(frames::WINDOW_UPDATE, 0, 5, &[0, 0, 1, 0]);
    assert_eq!(client.outcome(5), Outcome::Status(200));
    assert_eq!(client.until(frames::DATA).payload, b"ok");
}

#[test]
fn the_end_of_what_was_sent_is_not_kept_for_ever() {
    let upstream = endless();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { idle: 100ms }");
    let mut client = client_with_window(&proxy, 1);
    get_on(&mut client, 1, "/short");
    assert_eq!(client.until(frames::DATA).payload, b"o");
    while client.frame().is_some() {}
    assert_eq!(proxy.log_line("/short")["code"], 200);
}

#[test]
fn a_request_has_an_end_also_where_its_client_takes_nothing() {
    let upstream = endless();
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { request: 400ms }");
    let mut client = client_with_window(&proxy, 0);
    get_on(&mut client, 1, "/over-http-2");
    assert_eq!(client.outcome(1), Outcome::Status(200));
    assert_eq!(client.outcome(1), Outcome::Reset(frames::CANCEL));
    let mut client = proxy.client();
    client.send(get("/over-http-1"));
    upstream.all_closed();
    for path in ["/over-http-1", "/over-http-2"] {
        assert_eq!(proxy.log_line(path)["reason"], "request_timeout", "{path}");
    }
}

#[test]
fn an_upstream_that_drips_its_headers_is_left() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        let _ = served.try_send("HTTP/1.1 200 OK\r\nX-Drip: ");
        while served.try_send("x").is_ok() && served.silent_for(Duration::from_millis(30)) {}
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { response: 300ms }");
    let response = proxy.client().get("/");
    assert_eq!((response.status, response.reason()), (504, Some("response_timeout; hop=inbound")));
    upstream.all_closed();
}

#[test]
fn requests_are_not_read_without_end_while_nobody_reads_the_answers() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.set_patience(Duration::from_millis(500));
    let block = get("/pipelined").repeat(1000);
    let sent = flood(&mut client, block.as_bytes(), 256 << 20);
    assert!(sent < 256 << 20, "{sent} bytes of pipelined requests were taken");
    assert_eq!(proxy.client().get("/other").status, 200);
}

#[test]
fn half_a_preface_is_a_header_that_does_not_arrive() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_timeout: 300ms }");
    for part in ["P", "PRI * HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
        let mut client = proxy.client();
        client.send(part);
        client.rest();
    }
    let mut client = proxy.client();
    client.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    client.rest();
    assert_eq!(upstream.connections(), 0);
}

// CVE-2024-27316 and its kin: headers that are begun and never end.
#[test]
fn http_2_headers_without_end_are_ended() {
    const CONTINUATION: u8 = 9;
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_timeout: 400ms, idle: 400ms }");
    let block = frames::block(&[(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")]);

    let mut silent = FrameClient::connect(proxy.address("inbound"));
    silent.send(frames::HEADERS, frames::END_STREAM, 1, &block);
    while silent.frame().is_some() {}

    let mut endless = FrameClient::connect(proxy.address("inbound"));
    endless.send(frames::HEADERS, frames::END_STREAM, 1, &block);
    let field = frames::block(&[("x-more", &"x".repeat(8_000))]);
    let mut sent = 0;
    while sent < 64 << 20 && endless.wire.try_send(frames::frame(CONTINUATION, 0, 1, &field)).is_ok() {
        sent += field.len();
    }
    assert!(sent < 64 << 20, "{sent} bytes of continued headers were taken");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn an_http_2_connection_without_a_request_does_not_stay() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_timeout: 300ms, idle: 300ms }");
    let mut client = FrameClient::connect(proxy.address("inbound"));
    while client.frame().is_some() {}
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.rest();
    });
    let proxy = Proxy::before_with(upstream.address(), ", limits: { streams: 3 }");
    let mut client = FrameClient::connect(proxy.address("inbound"));
    for nth in 0..4 {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")];
        client.headers(2 * nth + 1, frames::END_STREAM, &fields);
    }
    assert!(matches!(client.outcome(7), frames::Outcome::Reset(_) | frames::Outcome::GoneAway(_)));
    eventually("the streams that were allowed", || upstream.requests().len() == 3);
}

#[test]
fn a_crowd_that_connects_and_leaves_costs_nothing() {
    let upstream = Upstream::ok();
    let mut proxy = Proxy::before(upstream.address());
    assert_eq!(proxy.client().get("/").status, 200);
    let before = proxy.process().open_files();
    for _ in 0..300 {
        proxy.client().reset();
        let mut client = proxy.client();
        let _ = client.try_send("GET / HT");
        client.reset();
    }
    eventually("the sockets to be closed", || proxy.process().open_files() <= before + 2);
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn an_http_2_client_that_opens_streams_only_to_reset_them_is_left() {
    let mut proxy = Proxy::start(
        "listeners:
  inbound:
    address: 127.0.0.1:0
    routes: [{ match: { path: /slow }, fault: { delay: 1m }, respond: {} }, { respond: {} }]
",
        &[],
    );
    // How many streams the client can open, and how it learns that it may open no more; of each `of`, one is waited for.
    let address = proxy.address("inbound");
    let streams = |of: u32| {
        let mut client = FrameClient::connect(address);
        for nth in 0..1200 {
            let stream = 2 * nth + 1;
            if nth % of == 0 {
                get_on(&mut client, stream, "/");
                match client.outcome(stream) {
                    Outcome::Status(200) => continue,
                    other => return (nth, other),
                }
            }
            get_on(&mut client, stream, "/slow");
            // The proxy has taken it by the time it answers this.
            client.send(frames::PING, 0, 0, &[0; 8]);
            while let Some(frame) = client.frame() {
                match frame.kind {
                    frames::PING => break,
                    frames::GOAWAY => return (nth, Outcome::GoneAway(frame.error_code())),
                    _ => {}
                }
            }
            client.send(frames::RST_STREAM, 0, stream, &frames::CANCEL.to_be_bytes());
        }
        (1200, Outcome::Status(200))
    };
    let mut told = |times: usize| {
        let rejects = [("listener", "inbound"), ("cause", "http2_flood")];
        proxy.metric_reaches("outrigger_downstream_rejects_total", &rejects, times as f64);
        let mut lines = || proxy.process().stderr().matches("a client floods HTTP/2").count();
        eventually("a line of the log", || lines() == times);
    };
    assert_eq!(streams(2).0, 1200, "half of them");
    told(0);
    let (most, end) = streams(100);
    assert!((500..700).contains(&most), "{most} streams");
    assert_eq!(end, Outcome::GoneAway(frames::ENHANCE_YOUR_CALM));
    told(1);

    // So many at once that the proxy sees their resets before it has taken them.
    let mut client = FrameClient::connect(address);
    let head =
        frames::block(&[(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/slow")]);
    let pair = |nth: u32| {
        let (stream, code) = (2 * nth + 1, frames::CANCEL.to_be_bytes());
        let headers = frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, stream, &head);
        [headers, frames::frame(frames::RST_STREAM, 0, stream, &code)].concat()
    };
    client.wire.send((0..450).flat_map(pair).collect::<Vec<u8>>());
    assert_eq!(client.outcome(1), Outcome::GoneAway(frames::ENHANCE_YOUR_CALM));
    told(2);
}
