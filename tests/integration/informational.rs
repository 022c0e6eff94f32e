//! What comes before the final answer, and final answers that come before the request's end.

use crate::support::client::get;
use crate::support::upstream::OK;
use crate::support::{Gate, Proxy, Upstream};

const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

// RFC 9110, 10.1.1: a proxy forwards the expectation (or answers finally), and the client gets the upstream's 100.
#[test]
fn an_expectation_reaches_the_upstream_and_its_100_the_client() {
    let upstream = Upstream::scripted(|served| {
        while let Some(request) = served.request_head() {
            if request.method == "POST" {
                assert!(request.head.lists("expect", "100-continue"), "{}", request.head);
                served.send("HTTP/1.1 100 Continue\r\n\r\n");
                assert_eq!(served.exactly(4), b"body");
            }
            served.send(OK);
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(EXPECTING);
    assert_eq!(client.response().status, 100);
    client.send("body");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(client.get("/next").status, 200);
}

#[test]
fn an_expectation_can_be_refused_before_the_body_is_sent() {
    let upstream = Upstream::scripted(|served| {
        while let Some(request) = served.request_head() {
            if request.method == "POST" {
                served.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
                return;
            }
            served.send(OK);
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(EXPECTING);
    let response = client.response();
    assert_eq!(
        (response.status, response.text().as_str()),
        (401, "no"),
        "the first answer must be the upstream's refusal"
    );
    // What the client does next must not be taken for the body: either the connection ends, or the body is still due.
    if response.head.lists("connection", "close") {
        client.expect_end();
    }
}

// The body may come without waiting for the 100 (RFC 9110, 10.1.1), for instance from a client that lost patience.
#[test]
fn an_expectation_whose_body_comes_anyway_is_served() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(format!("{EXPECTING}body"));
    let mut response = client.response();
    while response.status == 100 {
        response = client.response();
    }
    assert_eq!(response.status, 200);
    assert_eq!(upstream.request(0).text(), "body");
}

// RFC 9110, 10.1.1: an HTTP/1.0 client's expectation is ignored, for it could not understand a 100.
#[test]
fn an_http_1_0_client_gets_no_100() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.0\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.request(0).text(), "body");
}

// RFC 9110, 15.2: a proxy forwards 1xx responses.
#[test]
fn early_hints_reach_the_client() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            if request.target == "/hints" {
                served.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
                opened.wait("the client to have the first hint");
                served.send("HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n");
            }
            served.send(OK);
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(get("/hints"));
    let hint = client.response();
    assert_eq!((hint.status, hint.head.get("link")), (103, Some("</a.css>; rel=preload")));
    gate.open();
    let hint = client.response();
    assert_eq!((hint.status, hint.head.get("link")), (103, Some("</b.css>; rel=preload")));
    assert_eq!(client.response().text(), "ok");
    assert_eq!(client.get("/plain").text(), "ok");
}

#[test]
fn early_hints_are_fields_like_those_of_any_response() {
    let upstream = Upstream::answering(
        "HTTP/1.1 103 Early Hints\r\nLINK: </a>\r\nX-Outrigger-Reason: theirs\r\nKeep-Alive: 5\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::start(
        "listeners: { inbound: { address: 127.0.0.1:0, edge: true, upstream: \"@app\" } }\n",
        &[("@app", &upstream.address())],
    );
    let mut client = proxy.client();
    client.send(get("/"));
    let hint = client.response();
    assert_eq!((hint.status, hint.head.names()), (103, vec!["LINK"]), "{}", hint.head);
    assert_eq!(client.response().status, 200);
}

#[test]
fn an_http_1_0_client_gets_no_informational_response() {
    let upstream = Upstream::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: app.test\r\n\r\n");
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_final_answer_may_come_while_the_request_still_streams() {
    let upstream = Upstream::scripted(|served| {
        served.request_head();
        assert_eq!(served.chunk(), b"one");
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n");
        assert_eq!(served.chunk(), b"two");
        assert_eq!(served.chunk(), b"");
        served.send("4\r\nlate\r\n0\r\n\r\n");
        served.request();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    client.head().unwrap();
    assert_eq!(client.chunk(), b"early");
    client.send("3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(client.chunk(), b"late");
    assert_eq!(client.chunk(), b"");
}

#[test]
fn a_whole_answer_to_half_a_request_is_delivered() {
    let upstream = Upstream::scripted(|served| {
        served.request_head();
        assert_eq!(served.chunk(), b"one");
        served.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        served.fin();
        served.rest();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (413, "no"));
    // The rest of the request is either read and dropped, or the connection ends; it is never the next request.
    let _ = client.try_send("3\r\ntwo\r\n0\r\n\r\n");
    let _ = client.try_send("GET /next HTTP/1.1\r\nHost: app.test\r\n\r\n");
    if let Some(next) = client.response_or_end("GET") {
        assert_ne!(next.status, 400, "the rest of the body was read as a request");
    }
}
