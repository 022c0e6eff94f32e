//! Which route a request takes, and what routes do besides forwarding.

use crate::support::client::once;
use crate::support::{Proxy, Response, Upstream};

fn request(proxy: &Proxy, line: &str, fields: &str) -> Response {
    once(proxy.address("inbound"), format!("{line} HTTP/1.1\r\n{fields}\r\n"))
}

/// Routes that answer with their own name.
fn naming(routes: &str) -> Proxy {
    Proxy::start(&format!("listeners:\n  inbound:\n    address: 127.0.0.1:0\n    routes:\n{routes}"), &[])
}

#[test]
fn hosts_match_without_case_port_and_final_dot() {
    let proxy = naming(
        "
      - { match: { host: \"ported.test:8080\" }, respond: { body: ported } }
      - { match: { host: \"app.test\" }, respond: { body: exact } }
      - { match: { host: \"*.app.test\" }, respond: { body: suffix } }
      - { respond: { body: rest } }
",
    );
    let cases = [
        ("app.test", "exact"),
        ("APP.Test", "exact"),
        ("app.test:1234", "exact"),
        ("app.test.", "exact"),
        ("a.app.test", "suffix"),
        ("a.b.app.test:80", "suffix"),
        ("xapp.test", "rest"),
        ("test", "rest"),
        ("ported.test:8080", "ported"),
        ("ported.test", "rest"),
        ("ported.test:8081", "rest"),
    ];
    for (host, route) in cases {
        assert_eq!(request(&proxy, "GET /", &format!("Host: {host}\r\n")).text(), route, "{host}");
    }
}

#[test]
fn paths_match_exactly_by_segment_or_by_pattern() {
    let proxy = naming(
        "
      - { match: { path: { exact: /exact } }, respond: { body: exact } }
      - { match: { path: /prefix }, respond: { body: prefix } }
      - { match: { path: { regex: \"/item/[0-9]+\" } }, respond: { body: regex } }
      - { respond: { body: rest } }
",
    );
    let cases = [
        ("/exact", "exact"),
        ("/exact?q", "exact"),
        ("/exact/", "rest"),
        ("/prefix", "prefix"),
        ("/prefix/", "prefix"),
        ("/prefix/deeper?q", "prefix"),
        ("/prefixed", "rest"),
        ("/item/42", "regex"),
        ("/item/42/more", "rest"),
        ("/x/item/42", "rest"),
        ("/", "rest"),
    ];
    for (path, route) in cases {
        assert_eq!(request(&proxy, &format!("GET {path}"), "Host: app.test\r\n").text(), route, "{path}");
    }
}

#[test]
fn methods_headers_and_queries_match() {
    let proxy = naming(
        "
      - { match: { path: /m, method: [POST, PUT] }, respond: { body: method } }
      - { match: { path: /h, headers: { x-canary: \"true\" } }, respond: { body: header } }
      - { match: { path: /q, query: { v: \"a b\" } }, respond: { body: query } }
      - { respond: { body: rest } }
",
    );
    let cases = [
        ("POST /m", "Content-Length: 0\r\n", "method"),
        ("PUT /m", "Content-Length: 0\r\n", "method"),
        ("GET /m", "", "rest"),
        ("GET /h", "X-Canary: true\r\n", "header"),
        ("GET /h", "x-canary: false\r\n", "rest"),
        ("GET /h", "", "rest"),
        ("GET /q?v=a%20b", "", "query"),
        ("GET /q?x=1&v=a+b", "", "query"),
        ("GET /q?v=b", "", "rest"),
    ];
    for (line, fields, route) in cases {
        assert_eq!(request(&proxy, line, &format!("Host: app.test\r\n{fields}")).text(), route, "{line} {fields:?}");
    }
}

#[test]
fn the_first_match_in_written_order_wins() {
    let proxy = naming(
        "
      - { match: { path: /a, host: app.test }, respond: { body: first } }
      - { match: { path: /a/b }, respond: { body: second } }
      - { match: { host: app.test }, respond: { body: third } }
",
    );
    assert_eq!(request(&proxy, "GET /a/b", "Host: app.test\r\n").text(), "first");
    assert_eq!(request(&proxy, "GET /a/b", "Host: other.test\r\n").text(), "second");
    assert_eq!(request(&proxy, "GET /c", "Host: app.test\r\n").text(), "third");
    let none = request(&proxy, "GET /c", "Host: other.test\r\n");
    assert_eq!((none.status, none.reason()), (404, Some("no_route; hop=inbound")));
}

#[test]
fn a_redirect_keeps_what_it_does_not_name() {
    let proxy = naming(
        "
      - { match: { path: { exact: /old } }, redirect: { path: /new, status: 301 } }
      - { match: { path: /secure }, redirect: { scheme: https } }
      - { match: { path: /moved }, redirect: { host: other.test } }
",
    );
    let moved = request(&proxy, "GET /old?a=1", "Host: app.test:81\r\n");
    assert_eq!((moved.status, moved.head.get("location")), (301, Some("/new?a=1")));
    let secure = request(&proxy, "GET /secure/x?a=1", "Host: app.test\r\n");
    assert_eq!((secure.status, secure.head.get("location")), (308, Some("https://app.test/secure/x?a=1")));
    let moved = request(&proxy, "GET /moved/x", "Host: app.test\r\n");
    assert_eq!(moved.head.get("location"), Some("http://other.test/moved/x"));
}

#[test]
fn a_fixed_answer_is_given_at_once() {
    let proxy = naming(
        "
      - { match: { path: /empty }, respond: { status: 204 } }
      - { match: { path: /full }, respond: { status: 418, body: \"short and stout\" } }
",
    );
    let empty = request(&proxy, "GET /empty", "Host: app.test\r\n");
    assert_eq!((empty.status, empty.text().as_str(), empty.reason()), (204, "", None));
    let full = request(&proxy, "GET /full", "Host: app.test\r\n");
    assert_eq!(
        (full.status, full.text().as_str(), full.head.get("content-type")),
        (418, "short and stout", Some("text/plain; charset=utf-8"))
    );
    // Who answers says when; as one of the three forms of RFC 9110, 5.6.7.
    let date = full.head.get("date").unwrap_or_default();
    assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
    let head = request(&proxy, "HEAD /full", "Host: app.test\r\n");
    assert_eq!((head.status, head.head.get("content-length")), (418, Some("15")));
}

#[test]
fn rewrites_change_path_and_host() {
    let upstream = Upstream::ok();
    let proxy = Proxy::start(
        "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { match: { path: /api }, upstream: app, rewrite: { path_prefix: /, host: inner.test } }
      - { match: { path: /v1 }, upstream: app, rewrite: { path_prefix: /v2 } }
upstreams:
  app: { static: [\"@app\"] }
",
        &[("@app", &upstream.address())],
    );
    let cases = [
        ("/api/items?q=%20", "/items?q=%20", "inner.test"),
        ("/api", "/", "inner.test"),
        ("/api/", "/", "inner.test"),
        ("/v1/x%2Fy", "/v2/x%2Fy", "app.test"),
        ("/v1", "/v2", "app.test"),
    ];
    for (index, (from, to, host)) in cases.into_iter().enumerate() {
        assert_eq!(request(&proxy, &format!("GET {from}"), "Host: app.test\r\n").status, 200);
        let seen = upstream.request(index);
        assert_eq!((seen.target.as_str(), seen.head.all("host")), (to, vec![host]), "{from}");
    }
}

#[test]
fn listeners_have_routes_of_their_own() {
    let (one, two) = (
        Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"),
        Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"),
    );
    let proxy = Proxy::start(
        "
listeners:
  inbound: { address: 127.0.0.1:0, upstream: \"@one\" }
  outbound:
    address: 127.0.0.1:0
    routes: [{ match: { host: payments }, upstream: payments }]
upstreams:
  payments: { static: [\"@two\"] }
",
        &[("@one", &one.address()), ("@two", &two.address())],
    );
    assert_eq!(proxy.client().get("/").text(), "one");
    assert_eq!(once(proxy.address("outbound"), "GET / HTTP/1.1\r\nHost: payments\r\n\r\n").text(), "two");
    // As HTTP_PROXY makes clients ask.
    assert_eq!(
        once(proxy.address("outbound"), "GET http://payments/ HTTP/1.1\r\nHost: payments\r\n\r\n").text(),
        "two"
    );
    let other = once(proxy.address("outbound"), "GET / HTTP/1.1\r\nHost: orders\r\n\r\n");
    assert_eq!((other.status, other.reason()), (404, Some("no_route; hop=outbound")));
}

#[test]
fn a_listener_may_be_a_unix_socket_or_all_interfaces() {
    let upstream = Upstream::ok();
    let proxy = Proxy::start(
        "
listeners:
  local: { address: \"unix:@directory/in.sock\", upstream: app }
  inbound: { address: \":0\", upstream: app }
  six: { address: \"[::1]:0\", upstream: app }
upstreams:
  app: { static: [\"@app\"] }
",
        &[("@app", &upstream.address())],
    );
    let mut local = crate::support::Client::connect_unix(&proxy.directory().join("in.sock"));
    assert_eq!(local.get("/").status, 200);
    assert_eq!(proxy.client().get("/").status, 200);
    let port = proxy.address("inbound").port();
    assert_eq!(crate::support::Client::connect(format!("[::1]:{port}").parse().unwrap()).get("/").status, 200);
    assert_eq!(crate::support::Client::connect(proxy.address("six")).get("/").status, 200);
}
