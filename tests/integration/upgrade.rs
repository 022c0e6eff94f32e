//! Upgrade on HTTP/1: after 101 both ends own the connection, and only `tunnel_idle` ends it.

use std::time::Duration;

use crate::support::upstream::OK;
use crate::support::{Client, Gate, Proxy, Served, Upstream};

const HANDSHAKE: &str = "GET /socket HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Accepts the upgrade.
#[track_caller]
fn switch(served: &mut Served) {
    let request = served.request_head().unwrap();
    assert!(request.head.lists("connection", "upgrade"), "{}", request.head);
    assert_eq!(request.head.get("upgrade"), Some("websocket"));
    assert_eq!(request.head.get("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    served.send(SWITCH);
}

/// Sends back what comes, until the other side ends.
fn echo(served: &mut Served) {
    loop {
        let bytes = served.some();
        if bytes.is_empty() || served.try_send(&bytes).is_err() {
            return;
        }
    }
}

fn echoing() -> Upstream {
    Upstream::scripted(|served| {
        switch(served);
        echo(served);
    })
}

#[track_caller]
fn upgraded(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    client.send(HANDSHAKE);
    let response = client.response();
    assert_eq!(response.status, 101, "{}", response.head);
    assert!(response.head.lists("connection", "upgrade"), "{}", response.head);
    assert_eq!(response.head.get("upgrade"), Some("websocket"));
    assert_eq!(response.head.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client
}

#[test]
fn bytes_flow_both_ways_after_101() {
    let upstream = echoing();
    let proxy = Proxy::before(upstream.address());
    let mut client = upgraded(&proxy);
    for message in [&b"\x81\x05hello"[..], b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", &[0; 70_000]] {
        client.send(message);
        client.expect(message);
    }
    client.fin();
    client.expect_end();
    upstream.all_closed();
    assert_eq!(proxy.log_line("/socket")["code"], 101);
}

#[test]
fn bytes_that_come_with_the_handshake_are_not_lost() {
    let upstream = Upstream::scripted(|served| {
        switch(served);
        served.expect("early bird");
        served.send("answer");
        served.rest();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(format!("{HANDSHAKE}early bird"));
    assert_eq!(client.response().status, 101);
    client.expect("answer");
    client.fin();
    client.expect_end();
    // They count like all others; the proxy's own head does not.
    let line = proxy.log_line("/socket");
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&10.into(), &6.into()));

    let upstream = Upstream::scripted(|served| {
        served.request_head();
        served.send(format!("{SWITCH}server first"));
        served.rest();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = upgraded(&proxy);
    client.expect("server first");
    client.fin();
    client.expect_end();
    assert_eq!(proxy.log_line("/socket")["bytes_out"], 12);
}

#[test]
fn one_direction_may_end_before_the_other() {
    let upstream = Upstream::scripted(|served| {
        switch(served);
        let (bytes, _) = served.rest();
        served.send(format!("after your end: {}", bytes.len()));
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = upgraded(&proxy);
    client.send("12345");
    client.fin();
    client.expect("after your end: 5");
    client.expect_end();

    let upstream = Upstream::scripted(|served| {
        switch(served);
        served.send("bye");
        served.fin();
        served.expect("still here");
        served.rest();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = upgraded(&proxy);
    client.expect("bye");
    client.expect_end();
    client.send("still here");
    client.fin();
    upstream.all_closed();
}

#[test]
fn an_end_of_the_upstream_is_an_end_for_the_client() {
    let upstream = Upstream::scripted(|served| {
        switch(served);
        served.reset();
    });
    let proxy = Proxy::before(upstream.address());
    upgraded(&proxy).expect_end();
}

#[test]
fn a_client_that_vanishes_ends_the_upstreams_side() {
    let upstream = echoing();
    let proxy = Proxy::before(upstream.address());
    let mut client = upgraded(&proxy);
    client.send("x");
    client.expect("x");
    client.reset();
    upstream.all_closed();
}

#[test]
fn only_tunnel_idle_ends_a_tunnel() {
    let upstream = echoing();
    let timeouts = ", timeouts: { response: 200ms, idle: 200ms, request: 300ms, tunnel_idle: 900ms }";
    let proxy = Proxy::before_upstream(upstream.address(), timeouts);
    let mut client = upgraded(&proxy);
    client.send("a");
    client.expect("a");
    assert!(client.silent_for(Duration::from_millis(500)), "a timeout other than tunnel_idle ended the tunnel");
    client.send("b");
    client.expect("b");
    client.expect_end();
    upstream.all_closed();
}

// Point 17 of what users of other proxies suffer: timeouts bind the handshake.
#[test]
fn the_response_timeout_holds_for_the_handshake() {
    let upstream = Upstream::scripted(|served| {
        served.request_head();
        served.rest();
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { response: 200ms }");
    let mut client = proxy.client();
    client.send(HANDSHAKE);
    let response = client.response();
    assert_eq!((response.status, response.reason()), (504, Some("response_timeout; hop=inbound")));
}

#[test]
fn a_refused_upgrade_is_a_plain_answer() {
    let upstream = Upstream::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.exchange(HANDSHAKE);
        assert_eq!((response.status, response.text().as_str()), (403, "no"));
        assert!(!response.head.lists("connection", "upgrade"), "{}", response.head);
    }
    assert_eq!(client.get("/plain").status, 403);
}

#[test]
fn any_protocol_can_be_switched_to() {
    let upstream = Upstream::scripted(|served| {
        let request = served.request().unwrap();
        assert_eq!(request.head.get("upgrade"), Some("tea/2.1"));
        served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tea/2.1\r\n\r\nsteep");
        echo(served);
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: tea/2.1\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(client.response().status, 101);
    client.expect("steep");
    client.send("more");
    client.expect("more");
}

#[test]
fn the_connection_of_a_tunnel_serves_no_other_request() {
    let done = Gate::new();
    let opened = done.clone();
    let upstream = Upstream::scripted(move |served| {
        while let Some(request) = served.request_head() {
            if request.head.has("upgrade") {
                served.send(SWITCH);
                served.send("x");
                opened.wait("the other requests");
                return;
            }
            served.send(OK);
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut tunnel = upgraded(&proxy);
    tunnel.expect("x");
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 200);
    }
    done.open();
    tunnel.expect_end();
    assert_eq!(client.get("/").status, 200);
}

// RFC 9110, 7.8: what an HTTP/1.0 client says in Upgrade is passed over.
#[test]
fn an_http_1_0_client_is_not_upgraded() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let response = proxy.client().exchange(HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(response.status, 200);
    let head = upstream.request(0).head;
    assert!(!head.has("upgrade") && !head.has("connection"), "{head}");
}
