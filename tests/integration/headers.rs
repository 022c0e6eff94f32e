//! Header fields on their way through: case, order, what ends at this hop, what this hop adds.

use crate::support::client::once;
use crate::support::{Proxy, Response, Upstream};

/// Sends a GET with these lines and returns what the upstream received.
#[track_caller]
fn forwarded(proxy: &Proxy, upstream: &Upstream, lines: &str) -> crate::support::Head {
    let index = upstream.requests().len();
    let response = once(proxy.address("inbound"), format!("GET / HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n"));
    assert_eq!(response.status, 200, "{lines:?}");
    upstream.request(index).head
}

#[track_caller]
fn returned(answer: &str) -> Response {
    let upstream = Upstream::answering(answer);
    let proxy = Proxy::before(upstream.address());
    proxy.client().get("/")
}

#[test]
fn case_and_order_are_kept_both_ways() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nX-ReSPonse: One\r\nSet-Cookie: a=1\r\nX-Other: x\r\nSet-Cookie: b=2\r\nCONTENT-length: 2\r\n\r\nok",
    );
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    let response = client.exchange("GET / HTTP/1.1\r\nhOST: app.test\r\nX-ReQuest: One\r\nx-multi: 1\r\nAuthorization: Basic eHl6\r\nx-multi: 2\r\n\r\n");
    let names = response.head.names();
    for name in ["X-ReSPonse", "Set-Cookie", "X-Other"] {
        assert!(names.contains(&name), "{name}: {}", response.head);
    }
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
    let request = upstream.request(0).head;
    assert!(request.names().contains(&"X-ReQuest") && request.names().contains(&"Authorization"), "{request}");
    assert_eq!(request.all("x-multi"), ["1", "2"]);
    assert_eq!(request.get("authorization"), Some("Basic eHl6"));
}

// RFC 9110, 7.6.1.
#[test]
fn what_ends_at_this_hop_is_not_sent_to_the_upstream() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let head = forwarded(
        &proxy,
        &upstream,
        "Connection: keep-alive, X-First\r\nX-First: 1\r\nConnection: x-SECOND ,, x-third\r\nX-Second: 2\r\nX-Third: 3\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: deflate\r\nX-Stays: 4\r\nUpgrade: foo/1\r\n",
    );
    for name in
        ["x-first", "x-second", "x-third", "keep-alive", "proxy-connection", "te", "upgrade", "transfer-encoding"]
    {
        assert!(!head.has(name), "{name} was forwarded: {head}");
    }
    assert_eq!(head.get("x-stays"), Some("4"));
    assert!(head.list("connection").iter().all(|option| option.eq_ignore_ascii_case("keep-alive")), "{head}");
}

#[test]
fn what_ends_at_this_hop_is_not_sent_to_the_client() {
    let response = returned(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-First\r\nX-First: 1\r\nConnection: X-Second\r\nX-Second: 2\r\n\
         Keep-Alive: timeout=9, max=7\r\nProxy-Connection: keep-alive\r\nX-Stays: 3\r\nServer: app/1\r\nContent-Length: 2\r\n\r\nok",
    );
    for name in ["x-first", "x-second", "keep-alive", "proxy-connection"] {
        assert!(!response.head.has(name), "{name} was forwarded: {}", response.head);
    }
    assert_eq!((response.head.get("x-stays"), response.head.all("server")), (Some("3"), vec!["app/1"]));
}

// A client may not use Connection to take away what the proxy adds, nor the message's own frame.
#[test]
fn connection_cannot_name_away_what_the_hop_needs() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let request = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\
                   Connection: Host, Content-Length, X-Forwarded-For, X-Forwarded-Proto, Via\r\n\r\nabc";
    let response = once(proxy.address("inbound"), request);
    if response.status == 400 {
        return;
    }
    assert_eq!(response.status, 200);
    let request = upstream.request(0);
    assert_eq!(request.text(), "abc");
    assert_eq!(request.head.all("host"), ["app.test"]);
    for name in ["x-forwarded-for", "x-forwarded-proto", "via"] {
        assert!(request.head.has(name), "{name}: {}", request.head);
    }
}

// RFC 9113, 3.1 gave up the Upgrade to h2c; passed on, it would hide requests from the proxy's rules.
#[test]
fn an_upgrade_to_h2c_is_not_passed_on() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let lines = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
    let head = forwarded(&proxy, &upstream, lines);
    assert!(!head.has("upgrade") && !head.has("http2-settings"), "{head}");
}

// RFC 9110, 7.6.3: a gateway adds Via to requests; the version is that of the received message.
#[test]
fn via_is_added_at_the_end() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let alone = forwarded(&proxy, &upstream, "").list("via");
    assert_eq!(alone.len(), 1);
    assert!(alone[0].starts_with("1.1 "), "{alone:?}");
    let longer = forwarded(&proxy, &upstream, "Via: 1.0 alpha, 2 beta\r\n").list("via");
    assert_eq!(longer, ["1.0 alpha".to_owned(), "2 beta".to_owned(), alone[0].clone()]);
    once(proxy.address("inbound"), "GET / HTTP/1.0\r\nHost: app.test\r\n\r\n");
    let old = upstream.request(2).head.list("via");
    assert!(old.len() == 1 && old[0].starts_with("1.0 "), "{old:?}");
}

#[test]
fn the_client_and_its_request_are_told_to_the_upstream() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let head = forwarded(&proxy, &upstream, "");
    assert_eq!(head.list("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(head.all("x-forwarded-host"), ["app.test"]);
    let head = forwarded(&proxy, &upstream, "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-For: 192.0.2.8\r\n");
    assert_eq!(head.list("x-forwarded-for"), ["192.0.2.9", "192.0.2.8", "127.0.0.1"]);
}

#[test]
fn the_client_is_who_the_trusted_proxies_say() {
    let upstream = Upstream::ok();
    let cases = [
        ("{ hops: 0 }", "X-Forwarded-For: 192.0.2.9, 192.0.2.8\r\n", "127.0.0.1"),
        ("{ hops: 1 }", "X-Forwarded-For: 192.0.2.9, 192.0.2.8\r\n", "192.0.2.8"),
        ("{ hops: 2 }", "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-For: 192.0.2.8\r\n", "192.0.2.9"),
        ("{ hops: 1 }", "", "127.0.0.1"),
        ("{ cidr: [\"127.0.0.0/8\", \"192.0.2.8/32\"] }", "X-Forwarded-For: 192.0.2.9, 192.0.2.8\r\n", "192.0.2.9"),
        ("{ cidr: [\"10.0.0.0/8\"] }", "X-Forwarded-For: 192.0.2.9, 192.0.2.8\r\n", "127.0.0.1"),
        ("{ hops: 1 }", "X-Forwarded-For: 192.0.2.9, nonsense\r\n", "127.0.0.1"),
    ];
    for (index, (trust, lines, client)) in cases.into_iter().enumerate() {
        let proxy = Proxy::start(
            "
listeners:
  inbound:
    address: 127.0.0.1:0
    trust: @trust
    routes: [{ upstream: app, request_headers: { set: { x-client: \"%{client.address}\" } } }]
upstreams:
  app: { static: [\"@app\"] }
",
            &[("@trust", &trust), ("@app", &upstream.address())],
        );
        let head = forwarded(&proxy, &upstream, lines);
        assert_eq!(head.get("x-client"), Some(client), "case {index}: trust {trust}, {lines:?}");
    }
}

#[test]
fn an_edge_listener_believes_nobody() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", edge: true");
    let head = forwarded(
        &proxy,
        &upstream,
        "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nForwarded: for=192.0.2.9\r\n\
         X-Request-Id: forged\r\nX-Outrigger-Anything: 1\r\nX-Stays: 1\r\n",
    );
    assert_eq!(head.list("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(head.all("x-forwarded-host"), ["app.test"]);
    assert!(!head.all("forwarded").join(",").contains("192.0.2.9"), "{head}");
    assert_ne!(head.get("x-request-id"), Some("forged"));
    assert!(!head.has("x-outrigger-anything"), "{head}");
    assert_eq!(head.get("x-stays"), Some("1"));
}

#[test]
fn rules_change_headers_both_ways() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nServer: secret/1\r\nX-Set: old\r\nX-Set: older\r\nX-Add: 1\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::start(
        "
service: shop
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - name: main
        upstream: app
        request_headers:
          remove: [x-remove]
          set: { x-set: \"%{listener}/%{route}/%{upstream}/%{request.method}/%{request.path}\", x-literal: \"100%\", x-who: \"%{service}\" }
          add: { x-add: two }
        response_headers:
          remove: [server]
          set: { x-set: new, x-id: \"%{request.id}\", x-copy: \"%{request.header.x-in}\" }
          add: { x-add: \"2\" }
upstreams:
  app: { static: [\"@app\"] }
",
        &[("@app", &upstream.address())],
    );
    let request = "GET /p?q HTTP/1.1\r\nHost: app.test\r\nX-Remove: 1\r\nX-Set: a\r\nX-Set: b\r\nX-Add: one\r\nX-In: seen\r\nX-Request-Id: id-7\r\n\r\n";
    let response = once(proxy.address("inbound"), request);
    let head = upstream.request(0).head;
    assert!(!head.has("x-remove"), "{head}");
    assert_eq!(head.all("x-set"), ["inbound/main/app/GET//p"]);
    assert_eq!(head.all("x-add"), ["one", "two"]);
    assert_eq!((head.get("x-literal"), head.get("x-who")), (Some("100%"), Some("shop")));
    assert!(!response.head.has("server"), "{}", response.head);
    assert_eq!(response.head.all("x-set"), ["new"]);
    assert_eq!(response.head.all("x-add"), ["1", "2"]);
    assert_eq!((response.head.get("x-id"), response.head.get("x-copy")), (Some("id-7"), Some("seen")));
}
