//! What one client, or all of them, may take: bytes of headers and bodies, connections, time.

use std::time::Duration;

use crate::support::client::{get, once};
use crate::support::{Client, Gate, Proxy, Upstream, eventually};

#[test]
fn headers_may_fill_the_limit_and_not_more() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_bytes: 8KiB }");
    let request = |size: usize| format!("GET / HTTP/1.1\r\nHost: app.test\r\nX-Big: {}\r\n\r\n", "x".repeat(size));
    assert_eq!(once(proxy.address("inbound"), request(7 * 1024)).status, 200);
    let mut client = proxy.client();
    let response = client.exchange(request(9 * 1024));
    assert_eq!((response.status, response.reason()), (431, Some("header_too_large; hop=inbound")));
    client.expect_end();
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn by_default_headers_may_have_64_kib() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let request = |size: usize| format!("GET / HTTP/1.1\r\nHost: app.test\r\nX-Big: {}\r\n\r\n", "x".repeat(size));
    assert_eq!(once(proxy.address("inbound"), request(60_000)).status, 200);
    assert_eq!(once(proxy.address("inbound"), request(70_000)).status, 431);
}

#[test]
fn headers_without_end_are_refused_when_the_limit_is_reached() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_bytes: 8KiB }");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n");
    for _ in 0..64 {
        if client.try_send(format!("X-More: {}\r\n", "x".repeat(1024))).is_err() {
            break;
        }
    }
    // The reply may be lost where the kernel resets a connection with unread bytes; more than the limit is not read.
    if let Some(response) = client.response_or_end("GET") {
        assert_eq!((response.status, response.reason()), (431, Some("header_too_large; hop=inbound")));
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_target_beyond_the_limit_is_too_long() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_bytes: 8KiB }");
    let mut client = proxy.client();
    let response = client.exchange(get(&format!("/{}", "x".repeat(9 * 1024))));
    assert_eq!((response.status, response.reason()), (414, Some("uri_too_long; hop=inbound")));
    client.expect_end();
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn thousands_of_small_headers_are_too_many() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let request = |count: usize| format!("GET / HTTP/1.1\r\nHost: app.test\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert_eq!(once(proxy.address("inbound"), request(80)).status, 200);
    let response = once(proxy.address("inbound"), request(5_000));
    assert_eq!((response.status, response.reason()), (431, Some("header_too_large; hop=inbound")));
}

#[test]
fn an_announced_body_beyond_the_limit_is_refused_before_it_comes() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { body_bytes: 1KiB }");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1025\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.reason()), (413, Some("body_too_large; hop=inbound")));
    assert_eq!(upstream.requests().len(), 0);
    let fits = format!("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1024\r\n\r\n{}", "x".repeat(1024));
    assert_eq!(once(proxy.address("inbound"), fits).status, 200);
}

#[test]
fn a_streamed_body_is_ended_at_the_limit() {
    let upstream = Upstream::scripted(|served| {
        let Some(request) = served.request() else { return };
        assert!(!request.body.complete && request.body.data.len() <= 1024, "{} bytes", request.body.data.len());
    });
    let proxy = Proxy::before_with(upstream.address(), ", limits: { body_bytes: 1KiB }");
    let mut client = proxy.client();
    client.send("POST /big HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("200\r\n{}\r\n", "x".repeat(512)));
    eventually("the first piece to reach the upstream", || upstream.received_text().contains("xxxx"));
    client.send(format!("400\r\n{}\r\n", "x".repeat(1024)));
    let response = client.response();
    assert_eq!((response.status, response.reason()), (413, Some("body_too_large; hop=inbound")));
    upstream.all_closed();
    assert_eq!(proxy.log_line("/big")["reason"], "body_too_large");
}

#[test]
fn no_more_connections_than_allowed_are_served() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { connections: 2 }");
    let mut first: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut first {
        assert_eq!(client.get("/").status, 200);
    }
    // Beyond the limit: closed, or told so, or left waiting outside. Not served.
    let mut third = proxy.client();
    let _ = third.try_send(get("/third"));
    if !third.silent_for(Duration::from_millis(200))
        && let Some(response) = third.response_or_end("GET")
    {
        assert_eq!((response.status, response.reason()), (503, Some("overflow; hop=inbound")));
    }
    assert_eq!(upstream.count("/third"), 0);
    drop(third);
    for client in &mut first {
        assert_eq!(client.get("/still").status, 200);
    }
    drop(first);
    eventually("a place to be free", || {
        let mut client = proxy.client();
        client.try_send(get("/free")).is_ok()
            && client.response_or_end("GET").is_some_and(|response| response.status == 200)
    });
}

// Who drips headers holds nothing but a connection, and that not for ever.
#[test]
fn hundreds_of_slow_clients_disturb_nobody() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", limits: { header_timeout: 2s }");
    let mut slow: Vec<Client> = (0..500).map(|_| proxy.client()).collect();
    for client in &mut slow {
        client.send("GET /slow HTTP/1.1\r\nHost: app.test\r\nX-Slow: ");
    }
    let mut client = proxy.client();
    for _ in 0..100 {
        assert_eq!(client.get("/normal").status, 200);
        assert_eq!(proxy.client().get("/normal").status, 200);
    }
    for client in &mut slow {
        let (bytes, _) = client.rest();
        assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 408 "), "{}", bytes.escape_ascii());
    }
    assert_eq!(upstream.count("/slow"), 0);
}

#[test]
fn what_a_client_of_many_requests_took_is_given_back() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        while served.request().is_some() {
            opened.wait("all clients");
            served.send(crate::support::upstream::OK);
        }
    });
    let mut proxy = Proxy::before(upstream.address());
    let before = proxy.process().open_files();
    let mut clients: Vec<Client> = (0..200).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    eventually("all requests at the upstream", || upstream.requests().len() == 200);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    drop(clients);
    upstream.drop_connections(false);
    eventually("all sockets to be closed", || proxy.process().open_files() <= before + 2);
}
