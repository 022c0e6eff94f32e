//! The table of reasons: each word with its status in HTTP and gRPC, in the reply, the log and the metric.
//!
//! Not here: `internal`, a bug by definition; `no_endpoint`, for static endpoints that get nothing are refused at start;
//! `breaker_open` and `no_healthy_endpoint`, which have files of their own.

use std::time::Duration;

use crate::support::client::get;
use crate::support::h2::H2Upstream;
use crate::support::rng::own_loopback_ip;
use crate::support::{Client, Gate, Proxy, Response, Upstream, eventually};

/// Word, HTTP status, gRPC status.
const TABLE: [(&str, u16, &str); 22] = [
    ("bad_request", 400, "3"),
    ("uri_too_long", 414, "3"),
    ("header_too_large", 431, "3"),
    ("body_too_large", 413, "3"),
    ("header_timeout", 408, "3"),
    ("body_incomplete", 400, "3"),
    ("no_route", 404, "12"),
    ("connect_not_allowed", 405, "12"),
    ("loop_detected", 508, "12"),
    ("overflow", 503, "14"),
    ("connect_failure", 503, "14"),
    ("connect_timeout", 504, "14"),
    ("refused_stream", 503, "14"),
    ("upstream_reset", 502, "14"),
    ("upstream_closed_idle", 502, "14"),
    ("upstream_protocol_error", 502, "14"),
    ("response_timeout", 504, "4"),
    ("idle_timeout", 504, "4"),
    ("request_timeout", 504, "4"),
    ("deadline_exceeded", 504, "4"),
    ("client_cancelled", 499, "1"),
    ("draining", 503, "14"),
];

fn row(reason: &str) -> (&'static str, u16, &'static str) {
    *TABLE.iter().find(|row| row.0 == reason).unwrap()
}

const GRPC: &str = "POST /grpc HTTP/1.1\r\nHost: app.test\r\nContent-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0";

/// Checks a reply to a plain request and what the log and the metric say of it.
#[track_caller]
fn shown(proxy: &Proxy, response: &Response, reason: &str) {
    let (_, status, _) = row(reason);
    let expected = format!("{reason}; hop=inbound");
    assert_eq!((response.status, response.reason()), (status, Some(expected.as_str())), "{}", response.head);
    assert_eq!(response.head.get("content-type"), Some("application/json"), "{}", response.head);
    assert!(
        response.body.data.len() < 1024 && response.json().to_string().contains(&format!("\"{reason}\"")),
        "{}",
        response.text()
    );
    recorded(proxy, reason, status, None);
}

/// Checks the log and the metric.
#[track_caller]
fn recorded(proxy: &Proxy, reason: &str, status: u16, grpc: Option<&str>) {
    let code = status.to_string();
    let found = || {
        proxy.log_lines().into_iter().any(|line| {
            let grpc_code = line["grpc_code"].as_u64().map(|code| code.to_string());
            line["reason"] == reason
                && line["code"] == status
                && line["listener"] == "inbound"
                && grpc_code.as_deref() == grpc
        })
    };
    if crate::support::wait::within(Duration::from_secs(5), || found().then_some(())).is_none() {
        panic!("no line with reason {reason}, code {status}, grpc_code {grpc:?} in {:#?}", proxy.log_lines());
    }
    let labels =
        [("listener", "inbound"), ("code", code.as_str()), ("grpc_code", grpc.unwrap_or("")), ("reason", reason)];
    proxy.metric_reaches("outrigger_requests_total", &labels, 1.0);
}

/// Sends a gRPC request that must fail for this reason.
#[track_caller]
fn shown_to_grpc(proxy: &Proxy, client: &mut Client, reason: &str) {
    grpc_reply(proxy, &client.exchange(GRPC), reason);
}

#[track_caller]
fn grpc_reply(proxy: &Proxy, response: &Response, reason: &str) {
    let (_, _, grpc) = row(reason);
    let trailer = response
        .body
        .trailers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("grpc-status"))
        .map(|(_, value)| value.as_str());
    let status = response.head.get("grpc-status").or(trailer);
    let expected = format!("{reason}; hop=inbound");
    assert_eq!(
        (response.status, status, response.reason()),
        (200, Some(grpc), Some(expected.as_str())),
        "{}",
        response.head
    );
    assert_eq!(response.head.get("content-type"), Some("application/grpc"), "{}", response.head);
    recorded(proxy, reason, 200, Some(grpc));
}

/// A proxy before an upstream that is spoken to in HTTP/1, gRPC or not.
fn before(endpoint: impl std::fmt::Display, listener: &str, upstream: &str) -> Proxy {
    Proxy::start(
        "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app@listener }
upstreams:
  app: { static: [\"@app\"], protocol: http1@upstream }
",
        &[("@app", &endpoint), ("@listener", &listener), ("@upstream", &upstream)],
    )
}

#[test]
fn bad_request() {
    let upstream = Upstream::ok();
    let proxy = before(upstream.address(), "", "");
    shown(&proxy, &proxy.client().exchange("GET / HTTP/1.1\r\n\r\n"), "bad_request");
}

#[test]
fn bytes_that_are_no_request_are_bad_requests_too() {
    let upstream = Upstream::ok();
    let proxy = before(upstream.address(), "", "");
    shown(&proxy, &proxy.client().exchange("nonsense\r\n\r\n"), "bad_request");
}

#[test]
fn uri_too_long() {
    let upstream = Upstream::ok();
    let proxy = before(upstream.address(), ", limits: { header_bytes: 8KiB }", "");
    shown(&proxy, &proxy.client().get(&format!("/{}", "x".repeat(9000))), "uri_too_long");
}

#[test]
fn header_too_large() {
    let upstream = Upstream::ok();
    let proxy = before(upstream.address(), ", limits: { header_bytes: 8KiB }", "");
    let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\nX: {}\r\n\r\n", "x".repeat(9000));
    shown(&proxy, &proxy.client().exchange(request), "header_too_large");
}

#[test]
fn body_too_large() {
    let upstream = Upstream::ok();
    let proxy = before(upstream.address(), ", limits: { body_bytes: 4B }", "");
    shown(
        &proxy,
        &proxy.client().exchange("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\n12345"),
        "body_too_large",
    );
    shown_to_grpc(&proxy, &mut proxy.client(), "body_too_large");
}

#[test]
fn header_timeout() {
    let upstream = Upstream::ok();
    let proxy = before(upstream.address(), ", limits: { header_timeout: 200ms }", "");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: app");
    shown(&proxy, &client.response(), "header_timeout");
}

#[test]
fn body_incomplete() {
    let upstream = Upstream::scripted(|served| {
        served.request();
    });
    let proxy = before(upstream.address(), "", "");
    let mut client = proxy.client();
    client.send("POST /half HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nhalf");
    eventually("the half at the upstream", || upstream.received_text().contains("half"));
    client.fin();
    shown(&proxy, &client.response(), "body_incomplete");
}

#[test]
fn no_route() {
    let proxy = Proxy::start(
        "listeners:\n  inbound: { address: 127.0.0.1:0, routes: [{ match: { path: /known }, respond: { status: 204 } }] }\n",
        &[],
    );
    shown(&proxy, &proxy.client().get("/"), "no_route");
    shown_to_grpc(&proxy, &mut proxy.client(), "no_route");
}

#[test]
fn connect_not_allowed() {
    let upstream = Upstream::ok();
    let proxy = before(upstream.address(), "", "");
    let mut client = proxy.client();
    client.send("CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n");
    shown(&proxy, &client.response(), "connect_not_allowed");
}

#[test]
fn loop_detected() {
    let address = format!("{}:15006", own_loopback_ip());
    let proxy =
        Proxy::start("listeners:\n  inbound: { address: \"@self\", upstream: \"@self\" }\n", &[("@self", &address)]);
    shown(&proxy, &proxy.client().get("/"), "loop_detected");
    shown_to_grpc(&proxy, &mut proxy.client(), "loop_detected");
}

#[test]
fn overflow() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        served.request();
        opened.wait("the end of the test");
    });
    let proxy = before(upstream.address(), "", ", limits: { requests: 1 }");
    let mut holder = proxy.client();
    holder.send(get("/held"));
    upstream.request(0);
    shown(&proxy, &proxy.client().get("/"), "overflow");
    shown_to_grpc(&proxy, &mut proxy.client(), "overflow");
    gate.open();
}

#[test]
fn connect_failure() {
    let upstream = Upstream::ok();
    let proxy = before(upstream.address(), "", "");
    upstream.stop_accepting();
    shown(&proxy, &proxy.client().get("/"), "connect_failure");
    shown_to_grpc(&proxy, &mut proxy.client(), "connect_failure");
}

#[test]
fn connect_failure_of_a_unix_socket() {
    let proxy = before("unix:/nonexistent/app.sock", "", "");
    shown(&proxy, &proxy.client().get("/"), "connect_failure");
}

#[test]
fn connect_timeout() {
    let (address, _held) = crate::timeouts::unanswering();
    let proxy = before(address, "", ", timeouts: { connect: 200ms }");
    shown(&proxy, &proxy.client().get("/"), "connect_timeout");
    shown_to_grpc(&proxy, &mut proxy.client(), "connect_timeout");
}

#[test]
fn refused_stream() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        stream.respond.send_reset(h2::Reason::REFUSED_STREAM);
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", protocol: http2");
    shown(&proxy, &proxy.client().get("/"), "refused_stream");
    shown_to_grpc(&proxy, &mut proxy.client(), "refused_stream");
}

#[test]
fn upstream_reset() {
    let upstream = Upstream::scripted(|served| {
        served.request();
    });
    let proxy = before(upstream.address(), "", "");
    shown(&proxy, &proxy.client().get("/"), "upstream_reset");
    shown_to_grpc(&proxy, &mut proxy.client(), "upstream_reset");
}

#[test]
fn upstream_closed_idle() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.send(crate::support::upstream::OK);
        served.request();
    });
    let proxy = before(upstream.address(), "", "");
    let mut client = proxy.client();
    let post = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(client.get("/first").status, 200);
    shown(&proxy, &client.exchange(post), "upstream_closed_idle");
    assert_eq!(client.get("/first").status, 200);
    shown_to_grpc(&proxy, &mut client, "upstream_closed_idle");
}

#[test]
fn upstream_protocol_error() {
    let upstream = Upstream::answering("nonsense\r\n\r\n");
    let proxy = before(upstream.address(), "", "");
    shown(&proxy, &proxy.client().get("/"), "upstream_protocol_error");
    shown_to_grpc(&proxy, &mut proxy.client(), "upstream_protocol_error");
}

fn mute() -> Upstream {
    Upstream::scripted(|served| {
        served.request();
        served.rest();
    })
}

#[test]
fn response_timeout() {
    let upstream = mute();
    let proxy = before(upstream.address(), "", ", timeouts: { response: 150ms }");
    shown(&proxy, &proxy.client().get("/"), "response_timeout");
    shown_to_grpc(&proxy, &mut proxy.client(), "response_timeout");
}

#[test]
fn idle_timeout() {
    let upstream = mute();
    let proxy = before(upstream.address(), "", ", timeouts: { idle: 150ms }");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbo");
    shown(&proxy, &client.response(), "idle_timeout");
    let mut client = proxy.client();
    client.send(&GRPC[..GRPC.len() - 2]);
    grpc_reply(&proxy, &client.response(), "idle_timeout");
}

#[test]
fn request_timeout() {
    let upstream = mute();
    let proxy = before(upstream.address(), "", ", timeouts: { request: 150ms }");
    shown(&proxy, &proxy.client().get("/"), "request_timeout");
    shown_to_grpc(&proxy, &mut proxy.client(), "request_timeout");
}

#[test]
fn deadline_exceeded() {
    let upstream = mute();
    let proxy = before(upstream.address(), "", "");
    let request = GRPC.replace("TE: trailers", "TE: trailers\r\nGrpc-Timeout: 150m");
    grpc_reply(&proxy, &proxy.client().exchange(request), "deadline_exceeded");
}

#[test]
fn client_cancelled() {
    let upstream = mute();
    let proxy = before(upstream.address(), "", "");
    let mut client = proxy.client();
    client.send(get("/"));
    upstream.request(0);
    client.reset();
    recorded(&proxy, "client_cancelled", 499, None);
}

// A request that cannot finish before the drain's deadline is told why, where no answer has begun.
#[test]
fn draining() {
    let upstream = mute();
    let proxy = Proxy::start(
        "listeners:\n  inbound: { address: 127.0.0.1:0, upstream: \"@app\" }\ndrain: { delay: 0s, timeout: 300ms }\n",
        &[("@app", &upstream.address())],
    );
    let mut client = proxy.client();
    client.send(get("/late"));
    upstream.request(0);
    proxy.terminate();
    let response = client.response();
    assert_eq!((response.status, response.reason()), (503, Some("draining; hop=inbound")));
    assert_eq!(proxy.log_line("/late")["reason"], "draining");
}

// Strangers learn the status and nothing else.
#[test]
fn an_edge_listener_shows_no_reason() {
    let upstream = Upstream::ok();
    let proxy = before(upstream.address(), ", edge: true", "");
    upstream.stop_accepting();
    let response = proxy.client().get("/");
    assert_eq!((response.status, response.reason()), (503, None));
    let everything = format!("{}{}", response.head, response.text());
    assert!(
        !everything.contains("connect_failure") && !everything.contains(&upstream.address().to_string()),
        "{everything}"
    );
    recorded(&proxy, "connect_failure", 503, None);
}

// A reason comes from this hop only; one that an upstream wrote is its own word about its own hop.
#[test]
fn a_reply_of_the_upstream_has_no_reason_of_ours() {
    let upstream = Upstream::answering("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    let proxy = before(upstream.address(), "", "");
    let response = proxy.client().get("/own");
    assert_eq!((response.status, response.reason()), (503, None));
    let line = proxy.log_line("/own");
    assert_eq!((&line["code"], &line["reason"]), (&503.into(), &serde_json::Value::Null));
}
