//! HTTP/2 by prior knowledge on the same port, translated to HTTP/1 and back, and HTTP/2 to the upstream.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};

use crate::support::frames::{self, FrameClient, Outcome};
use crate::support::h2::{H2Client, H2Upstream, answer, get, next, request, send_all};
use crate::support::upstream::OK;
use crate::support::wait::{bounded, until};
use crate::support::{Client, Gate, Proxy, Upstream, eventually};

/// The fields of a plain request.
const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")];

/// A proxy whose upstream is spoken to in HTTP/2.
fn before_h2(upstream: &H2Upstream) -> Proxy {
    Proxy::before_upstream(upstream.address(), ", protocol: http2")
}

async fn client(proxy: &Proxy) -> H2Client {
    H2Client::connect(proxy.address("inbound")).await
}

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port() {
    let upstream = Upstream::answering(
        "HTTP/1.1 203 Fine\r\nX-From: App\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::before(upstream.address());
    let answer = client(&proxy).await.exchange(get("/h2?q=1"), "").await;
    assert_eq!((answer.status, answer.text().as_str(), answer.header("x-from")), (203, "ok", Some("App")));
    assert_eq!(
        (answer.header("connection"), answer.header("keep-alive"), answer.header("content-length")),
        (None, None, Some("2"))
    );
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
    let data =
        Bytes::from((0..2_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>());
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
            served.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
                request.target.len(),
                request.target
            ));
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
    let request = request("GET", "/")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-other", "x")
        .header("cookie", "c=3");
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
    let request =
        |host: &str| Request::builder().uri("http://payments.test:81/x").header("host", host).body(()).unwrap();
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
    for (method, path, status, length) in
        [("HEAD", "/", 200, Some("7")), ("GET", "/204", 204, None), ("GET", "/304", 304, Some("5"))]
    {
        let answer = client.exchange(request(method, path).body(()).unwrap(), "").await;
        assert_eq!(
            (answer.status, answer.header("content-length"), answer.body.len()),
            (status, length, 0),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn trailers_pass_through_http_1() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: down\r\n\r\n",
    );
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
    let [(name, value)] = request.body.trailers.as_slice() else { panic!("{:?}", request.body.trailers) };
    assert_eq!((name.to_ascii_lowercase().as_str(), value.as_str()), ("x-sum", "up"));
}

/// As above: what hyper cannot send is left out, and the final response is whole.
#[tokio::test]
async fn early_hints_end_before_http_2() {
    let upstream = Upstream::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::before(upstream.address());
    let mut client = FrameClient::connect(proxy.address("inbound"));
    client.headers(
        1,
        frames::END_STREAM,
        &[(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")],
    );
    assert_eq!(client.until(frames::HEADERS).status(), Some(200));
}

/// hyper sends no 1xx over HTTP/2, so the proxy takes the expectation on itself: it reads the body as it comes.
#[tokio::test]
async fn an_expectation_over_http_2_ends_at_the_proxy() {
    let upstream = Upstream::scripted(|served| {
        let request = served.request_head().unwrap();
        assert!(!request.head.lists("expect", "100-continue"), "{}", request.head);
        assert_eq!(served.exactly(4), b"body");
        served.send(OK);
        served.request();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = FrameClient::connect(proxy.address("inbound"));
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "app.test"),
        (":path", "/"),
        ("expect", "100-continue"),
        ("content-length", "4"),
    ];
    client.headers(1, 0, &fields);
    client.send(frames::DATA, frames::END_STREAM, 1, b"body");
    assert_eq!(client.until(frames::HEADERS).status(), Some(200));
}

#[test]
fn headers_beyond_the_limit_are_refused() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_bytes: 8KiB }");
    let mut client = FrameClient::connect(proxy.address("inbound"));
    let big = "x".repeat(10_000);
    client.headers(
        1,
        frames::END_STREAM,
        &[(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/"), ("x-big", &big)],
    );
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
        client.headers(
            2 * nth + 1,
            frames::END_STREAM,
            &[(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")],
        );
        client.send(frames::RST_STREAM, 0, 2 * nth + 1, &frames::CANCEL.to_be_bytes());
    }
    assert_eq!(proxy.client().get("/").status, 200);
    drop(client);
    eventually("the requests to be cleared away", || {
        proxy.client().get("/").status == 200 && upstream.open_connections() < 50
    });
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
    client.headers(
        1,
        frames::END_STREAM,
        &[(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")],
    );
    assert_eq!(client.until(frames::HEADERS).status(), Some(200));
    let goaway = client.until(frames::GOAWAY);
    assert_eq!(goaway.error_code(), 0);
    while client.frame().is_some() {}
}

// `timeouts.idle`: a PING is life, so that a silent stream lives as long as its client shows that it does.
#[test]
fn pings_keep_a_silent_stream_alive() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        served.request();
        opened.wait("the pings");
        served.send(OK);
        served.request();
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { idle: 400ms }");
    let mut client = FrameClient::connect(proxy.address("inbound"));
    client.headers(1, frames::END_STREAM, &GET);
    for _ in 0..8 {
        client.send(frames::PING, 0, 0, b"12345678");
        client.until(frames::PING);
        assert!(client.wire.silent_for(Duration::from_millis(120)), "the stream was ended although its client lives");
    }
    gate.open();
    assert_eq!(client.outcome(1), Outcome::Status(200));
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

// RFC 9110, 6.5.1: what frames, routes or authenticates a message cannot come after it, whichever way it comes.
#[tokio::test]
async fn trailers_that_are_no_trailers_go_nowhere() {
    const NAMES: [&str; 8] = [
        "host",
        "content-length",
        "authorization",
        "cookie",
        "set-cookie",
        "forwarded",
        "x-forwarded-for",
        "x-outrigger-attempt",
    ];
    let trailers = || {
        let mut trailers = HeaderMap::new();
        for name in NAMES {
            trailers.insert(name, "9".parse().unwrap());
        }
        trailers.insert("x-sum", "7".parse().unwrap());
        trailers
    };
    let fields: String = NAMES.map(|name| format!("{name}: 9\r\n")).concat();
    let one = Upstream::answering(format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{fields}x-sum: 7\r\n\r\n"
    ));
    let two = H2Upstream::streams(move |mut stream| async move {
        let (_, got) = stream.read().await;
        assert_eq!(got.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["x-sum"]);
        let mut sending = stream.respond.send_response(http::Response::new(()), false).unwrap();
        sending.send_data("ok".into(), false).unwrap();
        sending.send_trailers(trailers()).unwrap();
    });
    for (address, protocol) in [(one.address(), "http1"), (two.address(), "http2")] {
        let proxy = Proxy::before_upstream(address, &format!(", protocol: {protocol}"));
        let mut client = client(&proxy).await;
        let (response, mut sending) = client.start(request("POST", "/").body(()).unwrap(), false).await;
        send_all(&mut sending, "body".into(), false).await;
        sending.send_trailers(trailers()).unwrap();
        let answer = answer(response).await.unwrap();
        let got: Vec<_> = answer.trailers.keys().map(|name| name.as_str()).collect();
        assert_eq!((answer.status, got), (200, vec!["x-sum"]), "{protocol}");

        let answer = proxy.client().exchange(format!(
            "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{fields}x-sum: 7\r\n\r\n"
        ));
        assert_eq!(answer.body.trailers, [("x-sum".to_owned(), "7".to_owned())], "{protocol}");
    }
    for request in one.requests() {
        assert_eq!(request.body.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    }
}
