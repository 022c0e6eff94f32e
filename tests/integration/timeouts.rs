//! Every timeout ends what it is about, and nothing else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::client::{get, once};
use crate::support::message::status_of;
use crate::support::upstream::OK;
use crate::support::{Gate, Proxy, Upstream};

const POST: &str = "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Takes requests and never answers.
fn mute() -> Upstream {
    Upstream::scripted(|served| {
        served.request();
        served.rest();
    })
}

/// An address whose queue of connections is full: the kernel drops further SYNs.
pub fn unanswering() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = vec![listener];
    loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        match socket.connect_timeout(&address, Duration::from_millis(150)) {
            Ok(()) => held.push(socket),
            Err(_) => return (address.as_socket().unwrap(), held),
        }
        assert!(held.len() < 64, "the queue of a listener with backlog 0 does not fill up");
    }
}

#[test]
fn connecting_takes_no_longer_than_connect() {
    let (address, _held) = unanswering();
    let proxy = Proxy::before_upstream(address, ", timeouts: { connect: 300ms }");
    let started = Instant::now();
    let response = proxy.client().get("/");
    assert_eq!((response.status, response.reason()), (504, Some("connect_timeout; hop=inbound")));
    assert!(started.elapsed() >= Duration::from_millis(250));
}

#[test]
fn a_refused_connection_is_no_timeout() {
    let gone = Upstream::ok();
    let proxy = Proxy::before(gone.address());
    gone.stop_accepting();
    let response = proxy.client().get("/");
    assert_eq!((response.status, response.reason()), (503, Some("connect_failure; hop=inbound")));
}

#[test]
fn an_answer_takes_no_longer_than_response() {
    let upstream = mute();
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { response: 300ms }");
    let started = Instant::now();
    let mut client = proxy.client();
    let response = client.get("/");
    assert_eq!((response.status, response.reason()), (504, Some("response_timeout; hop=inbound")));
    assert!(started.elapsed() >= Duration::from_millis(250));
    upstream.all_closed();
    // The client's connection is as good as before.
    assert_eq!(client.get("/").status, 504);
}

#[test]
fn a_routes_timeout_goes_before_the_upstreams_and_that_before_the_default() {
    let upstream = mute();
    let proxy = Proxy::start(
        "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { match: { path: /route }, upstream: own, timeouts: { response: 500ms } }
      - { match: { path: /upstream }, upstream: own }
      - { match: { path: /default }, upstream: plain }
defaults: { timeouts: { response: 50ms } }
upstreams:
  own: { static: [\"@app\"], timeouts: { response: 250ms } }
  plain: { static: [\"@app\"] }
",
        &[("@app", &upstream.address())],
    );
    // Each waits longer than what it goes before would have it.
    for (path, least) in [("/route", 500), ("/upstream", 250), ("/default", 50)] {
        let began = Instant::now();
        let response = proxy.client().get(path);
        assert_eq!((response.status, response.reason()), (504, Some("response_timeout; hop=inbound")), "{path}");
        assert!(began.elapsed() >= Duration::from_millis(least), "{path}: {:?}", began.elapsed());
    }
}

// `response` runs from the request's last byte: an upload may take longer than it.
#[test]
fn response_does_not_run_while_the_request_streams() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { response: 300ms }");
    let mut client = proxy.client();
    client.send(POST);
    for _ in 0..4 {
        client.send("1\r\nx\r\n");
        assert!(client.silent_for(Duration::from_millis(150)), "answered while the request still streams");
    }
    client.send("0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, upstream.request(0).text().as_str()), (200, "xxxx"));
}

#[test]
fn response_runs_after_a_streamed_request() {
    let upstream = mute();
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { response: 200ms }");
    let mut client = proxy.client();
    client.send(POST);
    client.send("1\r\nx\r\n0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.reason()), (504, Some("response_timeout; hop=inbound")));
}

#[test]
fn silence_in_the_middle_of_an_answer_ends_it() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
        served.rest();
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { idle: 300ms }");
    let mut client = proxy.client();
    client.send(get("/silent"));
    client.head().unwrap();
    assert_eq!(client.chunk(), b"part");
    client.expect_end();
    upstream.all_closed();
    assert_eq!(proxy.log_line("/silent")["reason"], "idle_timeout");
}

#[test]
fn silence_in_the_middle_of_a_request_ends_it() {
    let upstream = mute();
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { idle: 300ms }");
    let mut client = proxy.client();
    client.send(POST);
    client.send("1\r\nx\r\n");
    let response = client.response();
    assert_eq!((response.status, response.reason()), (504, Some("idle_timeout; hop=inbound")));
    upstream.all_closed();
}

#[test]
fn movement_in_either_direction_is_life() {
    let upstream = Upstream::scripted(|served| {
        served.request_head();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..4 {
            served.chunk();
        }
        for _ in 0..4 {
            served.send("1\r\ny\r\n");
            served.silent_for(Duration::from_millis(150));
        }
        served.send("0\r\n\r\n");
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { idle: 400ms }");
    let mut client = proxy.client();
    client.send(POST);
    client.head().unwrap();
    for _ in 0..4 {
        client.silent_for(Duration::from_millis(150));
        client.send("1\r\nx\r\n");
    }
    let body = client.body(crate::support::message::Framing::Chunked);
    assert_eq!((body.data.as_slice(), body.complete), (&b"yyyy"[..], true));
}

#[test]
fn a_request_takes_no_longer_than_request() {
    let upstream = mute();
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { request: 300ms }");
    let response = proxy.client().get("/");
    assert_eq!((response.status, response.reason()), (504, Some("request_timeout; hop=inbound")));
    upstream.all_closed();

    let upstream = Upstream::scripted(|served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while served.try_send("1\r\nx\r\n").is_ok() && served.silent_for(Duration::from_millis(30)) {}
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { request: 300ms }");
    let mut client = proxy.client();
    let response = client.get("/drips");
    assert_eq!((response.status, response.body.complete), (200, false));
    upstream.all_closed();
    assert_eq!(proxy.log_line("/drips")["reason"], "request_timeout");
}

// No timeout but `idle` touches an answer that has begun: event streams live as long as something moves.
#[test]
fn an_event_stream_outlives_the_response_timeout() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..5 {
            served.send("9\r\ndata: x\n\n\r\n");
            assert!(served.silent_for(Duration::from_millis(150)), "the proxy ended an event stream");
        }
        served.send("0\r\n\r\n");
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { response: 200ms }");
    let response = proxy.client().get("/events");
    assert_eq!((response.status, response.body.complete, response.body.data.len()), (200, true, 45));
}

#[test]
fn headers_take_no_longer_than_header_timeout() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_timeout: 300ms }");
    for start in ["G", "GET / HTTP/1.1\r\nHost: app.test\r\nX-Slow:"] {
        let mut client = proxy.client();
        client.send(start);
        let response = client.response();
        assert_eq!((response.status, response.reason()), (408, Some("header_timeout; hop=inbound")), "{start:?}");
        client.expect_end();
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn dripping_headers_gain_no_time() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_timeout: 400ms }");
    let mut client = proxy.client();
    let started = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\nX-Slow: ");
    while client.silent_for(Duration::from_millis(40)) {
        let _ = client.try_send("x");
        assert!(started.elapsed() < Duration::from_secs(5), "a header that drips for ever is never ended");
    }
    let (bytes, _) = client.rest();
    if !bytes.is_empty() {
        let head = crate::support::Head::parse(bytes);
        assert_eq!(status_of(&head), 408);
    }
}

#[test]
fn a_second_requests_headers_take_no_longer_either() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_timeout: 300ms }");
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    client.send("GET / HT");
    assert_eq!(client.response().status, 408);
    client.expect_end();
}

#[test]
fn a_connection_that_never_speaks_is_closed() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_timeout: 300ms }");
    let mut client = proxy.client();
    let (bytes, _) = client.rest();
    assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 408 "), "{}", bytes.escape_ascii());
}

// Point 2 of what users of other proxies suffer: the header timeout is not the idle timeout.
#[test]
fn between_requests_only_idle_counts() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_timeout: 200ms, idle: 30s }");
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    assert!(client.silent_for(Duration::from_millis(600)), "the header timeout ended an idle connection");
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { idle: 300ms }");
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    client.expect_end();
}

#[test]
fn a_request_under_way_is_not_idle() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.silent_for(Duration::from_millis(500));
        served.send(OK);
    });
    let proxy = Proxy::before_with(upstream.address(), ", limits: { idle: 200ms, header_timeout: 200ms }");
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn none_is_no_timeout() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.silent_for(Duration::from_millis(300));
        served.send(OK);
    });
    let keys = ", timeouts: { connect: none, response: none, idle: none, request: none, tunnel_idle: none }";
    let proxy = Proxy::before_upstream(upstream.address(), keys);
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn a_client_that_leaves_before_the_answer_cancels_the_upstreams_work() {
    let upstream = mute();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(get("/left"));
    upstream.request(0);
    client.reset();
    upstream.all_closed();
    let line = proxy.log_line("/left");
    assert_eq!((&line["code"], &line["reason"]), (&499.into(), &"client_cancelled".into()), "{line}");
}

#[test]
fn a_client_that_leaves_during_the_answer_cancels_the_upstreams_work() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
        served.rest();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(get("/left"));
    client.until("part");
    client.reset();
    upstream.all_closed();
    assert_eq!(proxy.log_line("/left")["reason"], "client_cancelled");
}

#[test]
fn a_client_that_leaves_while_the_upstream_streams_cancels_it() {
    let stopped = Gate::new();
    let told = stopped.clone();
    let upstream = Upstream::scripted(move |served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while served.try_send("4\r\ntick\r\n").is_ok() && served.silent_for(Duration::from_millis(5)) {}
        told.open();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(get("/left"));
    client.until("tick");
    client.reset();
    stopped.wait("the upstream to notice");
}

#[test]
fn an_answer_of_the_proxy_itself_keeps_the_connection() {
    let proxy = Proxy::start(
        "listeners:\n  inbound: { address: 127.0.0.1:0, routes: [{ match: { path: /known }, respond: { status: 204 } }] }\n",
        &[],
    );
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/unknown").status, 404);
        assert_eq!(client.get("/known").status, 204);
    }
    let response = once(proxy.address("inbound"), "POST /unknown HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(response.status, 404);
}
