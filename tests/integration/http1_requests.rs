//! HTTP/1 requests: versions, persistence, pipelining, the four forms of a target, Host.

use crate::support::client::{get, once};
use crate::support::{Client, Gate, Proxy, Upstream};

#[test]
fn a_plain_request_goes_through_and_its_answer_comes_back() {
    let upstream = Upstream::answering("HTTP/1.1 203 Fine Too\r\nContent-Length: 5\r\nX-From: app\r\n\r\nhello");
    let proxy = Proxy::before(upstream.address());
    let response = proxy.client().get("/path?query=1");
    assert_eq!((response.status, response.text().as_str()), (203, "hello"));
    assert_eq!(response.head.get("x-from"), Some("app"));
    let request = upstream.request(0);
    assert_eq!(request.head.start, "GET /path?query=1 HTTP/1.1");
    assert_eq!(request.head.all("host"), ["app.test"]);
}

// RFC 9110, 4.2.3 lets nobody between client and origin normalise what was not configured.
#[test]
fn a_target_is_not_normalised() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let targets =
        ["/a/./b/../c//d", "/%7Euser/%2f%2F", "/x?", "/?a=1&&b=%zz&c", "/a;p=1/b", "/a:b@c!$&'()*+,=-._~", "//double"];
    let mut client = proxy.client();
    for (index, target) in targets.into_iter().enumerate() {
        assert_eq!(client.get(target).status, 200, "{target}");
        assert_eq!(upstream.request(index).target, target);
    }
}

#[test]
fn a_connection_persists() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    for _ in 0..5 {
        let response = client.get("/");
        assert_eq!(response.status, 200);
        assert!(!response.head.lists("connection", "close"));
    }
    assert_eq!(upstream.requests().len(), 5);
}

#[test]
fn connection_close_ends_the_connection_after_the_answer() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    let response = client.exchange("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
    assert!(
        response.head.lists("connection", "close"),
        "RFC 9112, 9.6: the server says close as well: {}",
        response.head
    );
    client.expect_end();
    // It was the client's wish, not one for the next hop.
    assert!(!upstream.request(0).head.lists("connection", "close"));
}

#[test]
fn the_upstreams_close_is_not_the_clients() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(response.status, 200);
        assert!(!response.head.lists("connection", "close"), "{}", response.head);
    }
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::scripted(|served| {
        while let Some(request) = served.request() {
            let body = format!("{} {}", request.target, request.text());
            served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(concat!(
        "GET /1 HTTP/1.1\r\nHost: app.test\r\n\r\n",
        "POST /2 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody",
        "POST /3 HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
        "GET /4 HTTP/1.1\r\nHost: app.test\r\n\r\n",
    ));
    for expected in ["/1 ", "/2 body", "/3 abcd", "/4 "] {
        assert_eq!(client.response().text(), expected);
    }
}

#[test]
fn a_request_in_pieces_is_put_together() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    for byte in "POST /slow HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\nabc".bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.request(0).text(), "abc");
}

// RFC 9112, 2.2: empty lines before the request line are ignored.
#[test]
fn an_empty_line_before_a_request_is_ignored() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    assert_eq!(client.exchange("\r\nGET /a HTTP/1.1\r\nHost: app.test\r\n\r\n").status, 200);
    assert_eq!(client.exchange("\r\nGET /b HTTP/1.1\r\nHost: app.test\r\n\r\n").status, 200);
}

// RFC 9112, 9.3: a proxy keeps no connection to an HTTP/1.0 client, whatever that client asks for.
#[test]
fn an_http_1_0_client_gets_its_answer_and_the_end_of_the_connection() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    for wish in ["", "Connection: keep-alive\r\n"] {
        let mut client = proxy.client();
        let response = client.exchange(format!("GET /old HTTP/1.0\r\nHost: app.test\r\n{wish}\r\n"));
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        assert!(!response.head.lists("connection", "keep-alive"), "{}", response.head);
        client.expect_end();
    }
    assert_eq!(upstream.request(0).head.start, "GET /old HTTP/1.1", "RFC 9110, 2.5: each hop sends its own version");
}

#[test]
fn an_http_1_0_request_without_host_is_served() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let response = once(proxy.address("inbound"), "GET / HTTP/1.0\r\n\r\n");
    assert_eq!(response.status, 200);
    assert_eq!(upstream.request(0).head.all("host").len(), 1, "RFC 9112, 3.2: an HTTP/1.1 request has one Host");
}

// RFC 9112, 6.1: no Transfer-Encoding in a response to HTTP/1.0; the close ends the body.
#[test]
fn an_http_1_0_client_never_gets_chunks() {
    let upstream =
        Upstream::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: app.test\r\n\r\n");
    let head = client.head().unwrap();
    assert!(!head.has("transfer-encoding"), "{head}");
    assert_eq!(client.rest().0, b"abcde");
}

#[test]
fn an_http_1_0_post_goes_through() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let response = once(proxy.address("inbound"), "POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(response.status, 200);
    assert_eq!(upstream.request(0).text(), "abc");
}

// RFC 9112, 3.2.2: the authority of an absolute target replaces Host.
#[test]
fn an_absolute_target_becomes_an_origin_target() {
    let upstream = Upstream::ok();
    let proxy = Proxy::start(
        "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes: [{ match: { host: payments.test }, upstream: app }]
upstreams:
  app: { static: [\"@app\"] }
",
        &[("@app", &upstream.address())],
    );
    let cases = [
        ("GET http://payments.test/a?b=c", "GET /a?b=c", "payments.test"),
        ("GET http://payments.test:8080/a", "GET /a", "payments.test:8080"),
        ("GET http://payments.test", "GET /", "payments.test"),
        ("GET http://payments.test?q", "GET /?q", "payments.test"),
        ("GET HTTP://PAYMENTS.test/x", "GET /x", "PAYMENTS.test"),
    ];
    let mut client = proxy.client();
    for (index, (line, expected, host)) in cases.into_iter().enumerate() {
        let response = client.exchange(format!("{line} HTTP/1.1\r\nHost: other.test\r\n\r\n"));
        assert_eq!(response.status, 200, "{line}");
        let request = upstream.request(index);
        assert_eq!(request.head.start, format!("{expected} HTTP/1.1"), "{line}");
        let hosts = request.head.all("host");
        assert_eq!(hosts.len(), 1, "{line}: {}", request.head);
        assert!(hosts[0].eq_ignore_ascii_case(host), "{line}: {}", request.head);
    }
}

// RFC 9112, 3.2.4: the last proxy turns an absolute target without a path back into `*`.
#[test]
fn options_asterisk_arrives_as_such() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    for (index, line) in ["OPTIONS *", "OPTIONS http://app.test"].into_iter().enumerate() {
        let response = once(proxy.address("inbound"), format!("{line} HTTP/1.1\r\nHost: app.test\r\n\r\n"));
        assert_eq!(response.status, 200, "{line}");
        assert_eq!(upstream.request(index).head.start, "OPTIONS * HTTP/1.1", "{line}");
    }
}

#[test]
fn methods_nobody_knows_are_forwarded() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    for (index, method) in ["PATCH", "PROPFIND", "BREW", "M-SEARCH"].into_iter().enumerate() {
        let response = once(
            proxy.address("inbound"),
            format!("{method} / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n"),
        );
        assert_eq!(response.status, 200, "{method}");
        assert_eq!(upstream.request(index).method, method);
    }
}

// RFC 9112, 3.2: 400 for a request without Host, with several, or with one that is no host.
#[test]
fn a_request_must_have_one_valid_host() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let cases = [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: user@a\r\n",
        "Host: a, b\r\n",
    ];
    for fields in cases {
        let response = once(proxy.address("inbound"), format!("GET / HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!((response.status, response.reason()), (400, Some("bad_request; hop=inbound")), "{fields:?}");
    }
    assert_eq!(upstream.connections(), 0, "{}", upstream.received_text());
}

#[test]
fn what_is_no_request_gets_400_and_the_end_of_the_connection() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let cases: [&[u8]; 12] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\nHost: app.test\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"G@T / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET / HTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nX-\x00: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\n: nameless\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nno colon\r\n\r\n",
    ];
    for bytes in cases {
        let mut client = proxy.client();
        client.send(bytes);
        let response = client.response();
        assert_eq!(response.status, 400, "{}", bytes.escape_ascii());
        client.expect_end();
    }
    // A target that only OPTIONS may have (RFC 9112, 3.2.4).
    assert_eq!(once(proxy.address("inbound"), "GET * HTTP/1.1\r\nHost: app.test\r\n\r\n").status, 400);
    assert_eq!(upstream.connections(), 0, "{}", upstream.received_text());
}

#[test]
fn a_client_that_says_nothing_more_after_a_request_still_gets_its_answer() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        served.request();
        opened.wait("the client's FIN");
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        served.request();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(get("/half-closed"));
    upstream.request(0);
    client.fin();
    gate.open();
    // Both are right: to take the FIN for a client that left (then nothing comes), or to answer. Half an answer is not.
    if let Some(response) = client.response_or_end("GET") {
        assert!(response.body.complete);
    }
}

#[test]
fn many_connections_at_once_are_served() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut clients: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
}
