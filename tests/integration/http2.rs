//! HTTP/2 by prior knowledge on the same port, translated to HTTP/1 and back, and HTTP/2 to the upstream.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use crate::support::frames::{self, FrameClient, Outcome};
use crate::support::h2::{H2Client, H2Upstream, answer, get, next, request, send_all};
use crate::support::upstream::OK;
use crate::support::wait::{bounded, until};
use crate::support::{Client, Gate, Proxy, Upstream, eventually};

/// A proxy whose upstream is spoken to in HTTP/2.
fn before_h2(upstream: &H2Upstream) -> Proxy {
    Proxy::before_upstream(upstream.address(), ", protocol: http2")
}

async fn client(proxy: &Proxy) -> H2Client {
    H2Client::connect(proxy.address("inbound")).await
}

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port() {
    let upstream = Upstream::answering("HTTP/1.1 203 Fine\r\nX-From: App\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::before(upstream.address());
    let answer = client(&proxy).await.exchange(get("/h2?q=1"), "").await;
    assert_eq!((answer.status, answer.text().as_str(), answer.header("x-from")), (203, "ok", Some("App")));
    assert_eq!((answer.header("connection"), answer.header("keep-alive"), answer.header("content-length")), (None, None, Some("2")));
    assert_eq!(proxy.client().get("/h1").status, 203);
    let head = upstream.request(0).head;
    assert_eq!(head.start, "GET /h2?q=1 HTTP/1.1");
    assert_eq!(head.all("host"), ["app.test"]);
    assert!(!head.names().iter().any(|name| name.starts_with(':')), "{head}");
    assert_eq!(head.list("via").len(), 1);
    assert!(head.list("via")[0].starts_with("2"), "RFC 9110, 7.6.3: {head}");
}

#[tokio::test]
async fn a_preface_in_pieces_is_recognised() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut wire = Client::connect(proxy.address("inbound"));
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        wire.send([*byte]);
    }
    wire.send(frames::frame(frames::SETTINGS, 0, 0, &[]));
    assert_eq!(wire.exactly(9)[3], frames::SETTINGS);
}

#[tokio::test]
async fn bodies_pass_both_ways() {
    let upstream = Upstream::scripted(|served| {
        while let Some(request) = served.request() {
            let length = request.body.data.len();
            if request.target == "/chunked" {
                served.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n"));
                served.send(&request.body.data);
                served.send("\r\n0\r\n\r\n");
            } else {
                served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
                served.send(&request.body.data);
            }
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let data = Bytes::from((0..2_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>());
    let with_length = request("PUT", "/length").header("content-length", data.len()).body(()).unwrap();
    for request in [with_length, request("PUT", "/chunked").body(()).unwrap()] {
        let answer = client.exchange(request, data.clone()).await;
        assert!(answer.body == data, "{} bytes came back", answer.body.len());
    }
    assert_eq!(upstream.request(0).head.all("content-length"), ["2000000"]);
    assert_eq!(upstream.request(1).head.list("transfer-encoding"), ["chunked"]);
}

#[tokio::test]
async fn a_get_over_http_2_gets_no_body_framing() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    client(&proxy).await.exchange(get("/"), "").await;
    let head = upstream.request(0).head;
    assert!(!head.has("transfer-encoding") && !head.has("content-length"), "{head}");
}

#[tokio::test]
async fn a_hundred_streams_run_side_by_side() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            opened.wait("all streams");
            served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", request.target.len(), request.target));
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let mut responses = Vec::new();
    for nth in 0..100 {
        responses.push(client.start(get(&format!("/{nth}")), true).await.0);
    }
    until("all requests at the upstream", || upstream.requests().len() == 100).await;
    gate.open();
    for (nth, response) in responses.into_iter().enumerate() {
        assert_eq!(answer(response).await.unwrap().text(), format!("/{nth}"));
    }
}

// RFC 9113, 8.2.3: crumbs are put together before they enter HTTP/1.
#[tokio::test]
async fn cookie_crumbs_become_one_cookie() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let request = request("GET", "/").header("cookie", "a=1").header("cookie", "b=2").header("x-other", "x").header("cookie", "c=3");
    client(&proxy).await.exchange(request.body(()).unwrap(), "").await;
    assert_eq!(upstream.request(0).head.all("cookie"), ["a=1; b=2; c=3"]);
}

#[tokio::test]
async fn the_authority_is_the_host() {
    let upstream = Upstream::ok();
    let proxy = Proxy::start(
        "
listeners:
  inbound: { address: 127.0.0.1:0, routes: [{ match: { host: payments.test }, upstream: app }] }
upstreams:
  app: { static: [\"@app\"] }
",
        &[("@app", &upstream.address())],
    );
    let mut client = client(&proxy).await;
    let request = |host: &str| Request::builder().uri("http://payments.test:81/x").header("host", host).body(()).unwrap();
    // RFC 9113, 8.3.1: where both are there, `:authority` counts; a Host that differs may also be refused.
    let answer = client.try_exchange(request("other.test"), "").await;
    if answer.is_ok_and(|answer| answer.status == 200) {
        assert_eq!(upstream.request(0).head.all("host"), ["payments.test:81"]);
    }
    let before = upstream.requests().len();
    assert_eq!(client.exchange(request("payments.test:81"), "").await.status, 200);
    assert_eq!(upstream.request(before).head.all("host"), ["payments.test:81"]);
}

#[tokio::test]
async fn head_and_bodiless_answers_end_at_once() {
    let upstream = Upstream::scripted(|served| {
        while let Some(request) = served.request() {
            served.send(match request.target.as_str() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
            });
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    for (method, path, status, length) in [("HEAD", "/", 200, Some("7")), ("GET", "/204", 204, None), ("GET", "/304", 304, Some("5"))] {
        let answer = client.exchange(request(method, path).body(()).unwrap(), "").await;
        assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (status, length, 0), "{method} {path}");
    }
}

#[tokio::test]
async fn trailers_pass_through_http_1() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: down\r\n\r\n");
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let request = request("POST", "/").header("te", "trailers").header("trailer", "x-sum").body(()).unwrap();
    let (response, mut stream) = client.start(request, false).await;
    send_all(&mut stream, "body".into(), false).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "up".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    let answer = answer(response).await.unwrap();
    assert_eq!((answer.text().as_str(), answer.trailer("x-sum")), ("ok", Some("down")));
    let request = upstream.request(0);
    assert_eq!(request.text(), "body");
    assert_eq!(request.body.trailers, [("x-sum".to_owned(), "up".to_owned())]);
}

#[tokio::test]
async fn early_hints_pass_to_http_2() {
    let mut frames = {
        let upstream = Upstream::answering("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let proxy = Proxy::before(upstream.address());
        let mut client = FrameClient::connect(proxy.address("inbound"));
        client.headers(1, frames::END_STREAM, &[(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")]);
        let first = client.until(frames::HEADERS);
        let second = client.until(frames::HEADERS);
        vec![first, second]
    };
    let last = frames.pop().unwrap();
    assert_eq!((frames[0].status(), last.status()), (Some(103), Some(200)));
}

#[tokio::test]
async fn an_expectation_over_http_2_is_met() {
    let upstream = Upstream::scripted(|served| {
        let request = served.request_head().unwrap();
        assert!(request.head.lists("expect", "100-continue"), "{}", request.head);
        served.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(served.exactly(4), b"body");
        served.send(OK);
        served.request();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = FrameClient::connect(proxy.address("inbound"));
    let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "app.test"), (":path", "/"), ("expect", "100-continue"), ("content-length", "4")];
    client.headers(1, 0, &fields);
    assert_eq!(client.until(frames::HEADERS).status(), Some(100));
    client.send(frames::DATA, frames::END_STREAM, 1, b"body");
    assert_eq!(client.until(frames::HEADERS).status(), Some(200));
}

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
        client.headers(1, 0, &[(":method", "POST"), (":scheme", "http"), (":authority", "app.test"), (":path", "/"), ("content-length", length)]);
        client.send(frames::DATA, frames::END_STREAM, 1, body.as_bytes());
        assert_ne!(client.outcome(1), Outcome::Status(200), "{length}: {body:?}");
    }
    eventually("the upstream's connections to end", || upstream.open_connections() == 0);
}

#[test]
fn headers_beyond_the_limit_are_refused() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_bytes: 8KiB }");
    let mut client = FrameClient::connect(proxy.address("inbound"));
    let big = "x".repeat(10_000);
    client.headers(1, frames::END_STREAM, &[(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/"), ("x-big", &big)]);
    let outcome = client.outcome(1);
    assert!(matches!(outcome, Outcome::Status(431) | Outcome::Reset(_) | Outcome::GoneAway(_)), "{outcome:?}");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn the_limit_of_streams_is_announced() {
    let upstream = Upstream::ok();
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const ENABLE_CONNECT_PROTOCOL: u16 = 8;
    let proxy = Proxy::before(upstream.address());
    let settings = FrameClient::connect(proxy.address("inbound")).settings;
    assert_eq!(settings.setting(MAX_CONCURRENT_STREAMS), Some(256));
    assert_eq!(settings.setting(ENABLE_CONNECT_PROTOCOL), Some(1), "RFC 8441, 3");
    let proxy = Proxy::before_with(upstream.address(), ", limits: { streams: 7 }");
    assert_eq!(FrameClient::connect(proxy.address("inbound")).settings.setting(MAX_CONCURRENT_STREAMS), Some(7));
}

// CVE-2023-44487: streams that are opened and reset at once must not pile up.
#[test]
fn rapid_resets_hurt_nobody_else() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = FrameClient::connect(proxy.address("inbound"));
    for nth in 0..5_000 {
        client.headers(2 * nth + 1, frames::END_STREAM, &[(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")]);
        client.send(frames::RST_STREAM, 0, 2 * nth + 1, &frames::CANCEL.to_be_bytes());
    }
    assert_eq!(proxy.client().get("/").status, 200);
    drop(client);
    eventually("the requests to be cleared away", || proxy.client().get("/").status == 200 && upstream.open_connections() < 50);
}

#[test]
fn a_ping_is_answered() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = FrameClient::connect(proxy.address("inbound"));
    client.send(frames::PING, 0, 0, b"12345678");
    let pong = client.until(frames::PING);
    assert_eq!((pong.flags, pong.payload.as_slice()), (frames::ACK, &b"12345678"[..]));
}

#[test]
fn an_idle_connection_is_told_to_go() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { idle: 300ms }");
    let mut client = FrameClient::connect(proxy.address("inbound"));
    client.headers(1, frames::END_STREAM, &[(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")]);
    assert_eq!(client.until(frames::HEADERS).status(), Some(200));
    let goaway = client.until(frames::GOAWAY);
    assert_eq!(goaway.error_code(), 0);
    while client.frame().is_some() {}
}

#[tokio::test]
async fn a_stream_under_way_keeps_its_connection_from_being_idle() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.silent_for(Duration::from_millis(700));
        served.send(OK);
    });
    let proxy = Proxy::before_with(upstream.address(), ", limits: { idle: 200ms }");
    assert_eq!(client(&proxy).await.exchange(get("/"), "").await.status, 200);
}

#[tokio::test]
async fn a_reset_stream_cancels_the_request_to_http_1() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.rest();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let (response, mut stream) = client.start(get("/left"), true).await;
    until("the request at the upstream", || upstream.count("/left") == 1).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    tokio::task::spawn_blocking(move || {
        upstream.all_closed();
        assert_eq!(proxy.log_line("/left")["reason"], "client_cancelled");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_reset_stream_resets_the_stream_to_http_2() {
    let told = Gate::new();
    let theirs = told.clone();
    let upstream = H2Upstream::streams(move |mut stream| {
        let told = theirs.clone();
        async move {
            let reason = std::future::poll_fn(|context| stream.respond.poll_reset(context)).await;
            assert_eq!(reason.unwrap(), h2::Reason::CANCEL);
            told.open();
        }
    });
    let proxy = before_h2(&upstream);
    let mut client = client(&proxy).await;
    let (response, mut stream) = client.start(get("/"), true).await;
    until("the stream at the upstream", || upstream.heads().len() == 1).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    told.opened("RST_STREAM at the upstream").await;
    // The connection lives on.
    assert_eq!(upstream.connection_count(), 1);
}

#[tokio::test]
async fn an_upstream_that_dies_resets_only_its_stream() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            if request.target == "/dies" {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart");
                opened.wait("the client to have the part");
                return;
            }
            served.send(OK);
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let (response, _) = client.start(get("/dies"), true).await;
    let mut body = bounded("headers", response).await.unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "part");
    gate.open();
    let error = next(&mut body).await.expect_err("the stream was ended as if it were whole");
    assert!(error.is_reset(), "{error}");
    assert_eq!(client.exchange(get("/lives"), "").await.status, 200);
}

#[tokio::test]
async fn http_1_goes_to_an_http_2_upstream() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        let (body, _) = stream.read().await;
        stream.ok(format!("got {}", String::from_utf8_lossy(&body))).await;
    });
    let proxy = before_h2(&upstream);
    let mut client = proxy.client();
    let response = client.exchange("POST /a?b HTTP/1.1\r\nHOST: app.test\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nX-Stays: 1\r\nTE: trailers, gzip\r\nKeep-Alive: 5\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
    assert_eq!((response.status, response.text().as_str()), (200, "got body"));
    let head = upstream.head(0);
    assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("POST", "http://app.test/a?b"));
    for name in ["connection", "keep-alive", "x-hop", "transfer-encoding", "upgrade", "host"] {
        assert!(!head.headers.contains_key(name), "{name}: {:?}", head.headers);
    }
    assert!(head.headers.get("te").is_none_or(|te| te == "trailers"), "RFC 9113, 8.2.2: {:?}", head.headers);
    assert_eq!(head.headers["x-stays"], "1");
    assert_eq!(client.get("/again").status, 200);
    assert_eq!(upstream.connection_count(), 1);
}

#[tokio::test]
async fn many_requests_share_a_connection_to_an_http_2_upstream() {
    let upstream = H2Upstream::streams(|stream| async move { stream.ok("ok").await });
    let proxy = Proxy::start(
        "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"], protocol: http2 }
",
        &[("@app", &upstream.address())],
    );
    let mut client = client(&proxy).await;
    let mut responses = Vec::new();
    for _ in 0..50 {
        responses.push(client.start(get("/"), true).await.0);
    }
    for response in responses {
        assert_eq!(answer(response).await.unwrap().status, 200);
    }
    // One, or two where several requests found none: never one a request.
    assert!(upstream.connection_count() <= 2, "{} connections", upstream.connection_count());
}

#[tokio::test]
async fn the_upstreams_limit_of_streams_is_kept() {
    let (now, most) = (std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let (theirs, peak) = (now.clone(), most.clone());
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(3);
    let upstream = H2Upstream::streams_with(builder, move |stream| {
        let (now, most) = (theirs.clone(), peak.clone());
        async move {
            use std::sync::atomic::Ordering::SeqCst;
            if stream.connection == 0 {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, SeqCst);
            }
            stream.ok("ok").await;
        }
    });
    let proxy = before_h2(&upstream);
    let mut client = client(&proxy).await;
    let mut responses = Vec::new();
    for _ in 0..30 {
        responses.push(client.start(get("/"), true).await.0);
    }
    for response in responses {
        assert_eq!(answer(response).await.unwrap().status, 200);
    }
    assert!(most.load(std::sync::atomic::Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn an_upstream_that_goes_away_costs_nothing() {
    // Each connection serves three streams, then says GOAWAY and lets what runs end.
    let upstream = H2Upstream::scripted(|number, mut connection, recorder| async move {
        let mut nth = 0;
        while let Some(Ok(pair)) = connection.accept().await {
            let stream = recorder.stream(number, nth, pair);
            nth += 1;
            tokio::task::spawn_local(stream.ok("ok"));
            if nth == 3 {
                connection.graceful_shutdown();
            }
        }
    });
    let proxy = before_h2(&upstream);
    let mut client = client(&proxy).await;
    for nth in 0..20 {
        let answer = client.exchange(get(&format!("/{nth}")), "").await;
        assert_eq!(answer.status, 200, "request {nth}: {:?} {}", answer.headers, answer.text());
    }
    assert!(upstream.connection_count() >= 5);
}

// RFC 9113, 6.8: streams above the last one named were not processed, and may be sent again, whatever their method.
#[tokio::test]
async fn streams_above_the_last_one_of_goaway_go_out_again() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // The first connection answers SETTINGS and then, at the first HEADERS, GOAWAY with last stream 0. Later ones work.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first.write_all(&frames::frame(frames::SETTINGS, 0, 0, &[])).await.unwrap();
        let mut preface = [0; 24];
        first.read_exact(&mut preface).await.unwrap();
        loop {
            let mut head = [0; 9];
            first.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
            first.read_exact(&mut payload).await.unwrap();
            if head[3] == frames::SETTINGS && head[4] == 0 {
                first.write_all(&frames::frame(frames::SETTINGS, frames::ACK, 0, &[])).await.unwrap();
            }
            if head[3] == frames::HEADERS {
                first.write_all(&frames::frame(frames::GOAWAY, 0, 0, &[0; 8])).await.unwrap();
                break;
            }
        }
        let mut sink = Vec::new();
        let rest = tokio::spawn(async move { first.read_to_end(&mut sink).await });
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let _ = respond.send_response(Response::builder().status(200).body(()).unwrap(), true);
                }
            });
            let _ = &rest;
        }
    });
    let proxy = Proxy::before_upstream(address, ", protocol: http2");
    let mut client = client(&proxy).await;
    let answer = client.exchange(request("POST", "/").header("content-length", "0").body(()).unwrap(), "").await;
    assert_eq!(answer.status, 200, "{:?} {}", answer.headers, answer.text());
}

#[tokio::test]
async fn a_stream_that_is_always_refused_is_an_error_with_its_reason() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        stream.respond.send_reset(h2::Reason::REFUSED_STREAM);
    });
    let proxy = before_h2(&upstream);
    let answer = client(&proxy).await.exchange(get("/"), "").await;
    assert_eq!((answer.status, answer.header("x-outrigger-reason")), (503, Some("refused_stream; hop=inbound")));
}

#[tokio::test]
async fn a_stream_that_is_reset_is_an_error_with_its_reason() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        stream.respond.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let proxy = before_h2(&upstream);
    let mut client = client(&proxy).await;
    let answer = client.exchange(get("/"), "").await;
    assert_eq!((answer.status, answer.header("x-outrigger-reason")), (502, Some("upstream_reset; hop=inbound")));
    assert_eq!(upstream.heads().len(), 1, "a stream that may have been processed was sent again");
}

#[tokio::test]
async fn idle_http_2_connections_of_an_upstream_that_closes_them_cost_nothing() {
    for abrupt in [false, true] {
        let upstream = H2Upstream::scripted(move |number, mut connection, recorder| async move {
            let Some(Ok(pair)) = connection.accept().await else { return };
            let stream = recorder.stream(number, 0, pair);
            tokio::task::spawn_local(stream.ok("ok"));
            if !abrupt {
                connection.graceful_shutdown();
            }
            // Drives the answer out. The abrupt one then drops the connection without GOAWAY.
            let drive = async { while let Some(Ok(_)) = connection.accept().await {} };
            let _ = tokio::time::timeout(Duration::from_millis(if abrupt { 20 } else { 2_000 }), drive).await;
        });
        let proxy = before_h2(&upstream);
        let mut client = client(&proxy).await;
        for nth in 0..15 {
            let answer = client.exchange(get(&format!("/{nth}")), "").await;
            assert_eq!(answer.status, 200, "abrupt {abrupt}, request {nth}: {:?}", answer.headers);
            tokio::time::sleep(Duration::from_millis([0, 15, 20, 25, 40][nth % 5])).await;
        }
    }
}

#[tokio::test]
async fn what_is_no_http_2_is_an_upstream_protocol_error() {
    let upstream = Upstream::scripted(|served| {
        served.some();
        served.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        served.rest();
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", protocol: http2");
    let response = tokio::task::spawn_blocking(move || proxy.client().get("/")).await.unwrap();
    assert_eq!((response.status, response.reason()), (502, Some("upstream_protocol_error; hop=inbound")));
}

// RFC 8441: a WebSocket on a stream becomes an Upgrade at an HTTP/1 upstream.
#[tokio::test]
async fn extended_connect_becomes_an_upgrade() {
    let upstream = Upstream::scripted(|served| {
        let request = served.request_head().unwrap();
        assert_eq!(request.head.start, "GET /socket?room=1 HTTP/1.1");
        assert!(request.head.lists("connection", "upgrade"), "{}", request.head);
        assert_eq!(request.head.get("upgrade"), Some("websocket"));
        assert_eq!(request.head.get("sec-websocket-version"), Some("13"));
        assert_eq!(request.head.get("sec-websocket-key").map(str::len), Some(24), "RFC 6455, 4.1: {}", request.head);
        assert!(!request.head.has("content-length") && !request.head.has("transfer-encoding"), "{}", request.head);
        // RFC 6455, 4.2.2; a proxy that checks the key's digest would find this one right only for the sample nonce.
        served.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
            accept_key(request.head.get("sec-websocket-key").unwrap()),
        ));
        loop {
            let bytes = served.some();
            if bytes.is_empty() {
                return;
            }
            served.send(bytes);
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let connect = |path: &str| {
        Request::builder()
            .method("CONNECT")
            .uri(format!("http://app.test{path}"))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "chat")
            .extension(h2::ext::Protocol::from_static("websocket"))
            .body(())
            .unwrap()
    };
    let (response, mut stream) = client.start(connect("/socket?room=1"), false).await;
    let response = bounded("the handshake", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(name == "sec-websocket-accept" || !response.headers().contains_key(name), "{name}");
    }
    let mut body = response.into_body();
    for message in ["\u{1}\u{5}hello", "again"] {
        send_all(&mut stream, message.into(), false).await;
        assert_eq!(next(&mut body).await.unwrap().unwrap(), message);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(next(&mut body).await.unwrap().is_none());
}

/// Base64 of SHA-1 of key and GUID (RFC 6455, 4.2.2), by the tools every machine has.
fn accept_key(key: &str) -> String {
    let script = "import base64,hashlib,sys;print(base64.b64encode(hashlib.sha1((sys.argv[1]+'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode())";
    let output = std::process::Command::new("python3").args(["-c", script, key]).output().expect("python3 is needed");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_refused_extended_connect_is_a_plain_answer() {
    let upstream = Upstream::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let request = Request::builder()
        .method("CONNECT")
        .uri("http://app.test/socket")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (response, _stream) = client.start(request, false).await;
    let answer = answer(response).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    assert_eq!(client.exchange(get("/next"), "").await.status, 403);
}
