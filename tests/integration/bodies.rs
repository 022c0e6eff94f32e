//! Bodies: how their end is marked on each side, trailers, and what becomes of a body that is cut short.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::client::{get, once};
use crate::support::wire::End;
use crate::support::{Client, Gate, Proxy, Upstream, eventually};

#[test]
fn a_body_of_known_length_keeps_it() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let response =
        once(proxy.address("inbound"), "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!((response.head.get("content-length"), response.head.get("transfer-encoding")), (Some("2"), None));
    let request = upstream.request(0);
    assert_eq!((request.head.all("content-length"), request.head.get("transfer-encoding")), (vec!["5"], None));
    assert_eq!(request.text(), "hello");
}

#[test]
fn a_body_of_length_zero_keeps_it() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::before(upstream.address());
    let response = once(proxy.address("inbound"), "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(response.head.get("content-length"), Some("0"));
    assert_eq!(upstream.request(0).head.all("content-length"), ["0"]);
}

#[test]
fn a_get_without_body_gets_no_framing() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    proxy.client().get("/");
    let head = upstream.request(0).head;
    assert!(!head.has("content-length") && !head.has("transfer-encoding"), "{head}");
}

#[test]
fn a_body_of_unknown_length_goes_in_chunks() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
    );
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    let response = client
        .exchange("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\n\r\n");
    assert_eq!(
        (response.head.list("transfer-encoding"), response.text().as_str()),
        (vec!["chunked".to_owned()], "abcde")
    );
    let request = upstream.request(0);
    assert_eq!((request.head.list("transfer-encoding"), request.text().as_str()), (vec!["chunked".to_owned()], "wxyz"));
    assert_eq!(client.get("/again").status, 200);
}

#[test]
fn a_body_that_lasts_until_the_close_is_delivered_whole() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nX-Length: none\r\n\r\nuntil");
        served.send(" the close");
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.text().as_str(), response.body.complete), ("until the close", true));
    }
    assert_eq!(upstream.connections(), 2, "a connection whose end was a body's end was used again");
}

#[test]
fn each_piece_is_passed_on_when_it_comes() {
    let gates = [Gate::new(), Gate::new()];
    let theirs = gates.clone();
    let upstream = Upstream::scripted(move |served| {
        served.request_head();
        assert_eq!(served.chunk(), b"one");
        theirs[0].open();
        assert_eq!(served.chunk(), b"two");
        assert_eq!(served.chunk(), b"");
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        theirs[1].wait("the client to have the first piece");
        served.send("1\r\nd\r\n0\r\n\r\n");
        served.request();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    gates[0].wait("the first piece to reach the upstream before the second is sent");
    client.send("3\r\ntwo\r\n0\r\n\r\n");
    client.head().unwrap();
    assert_eq!(client.chunk(), b"abc");
    gates[1].open();
    assert_eq!(client.chunk(), b"d");
    assert_eq!(client.chunk(), b"");
}

#[test]
fn megabytes_pass_unchanged_both_ways() {
    let upstream = Upstream::scripted(|served| {
        while let Some(request) = served.request() {
            served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.data.len()));
            served.send(&request.body.data);
        }
    });
    let proxy = Proxy::before(upstream.address());
    let data: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = proxy.client();
    client.send(format!("PUT / HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\n", data.len()));
    client.send(&data);
    let response = client.response();
    assert!(response.body.data == data, "{} of {} bytes came back, or others", response.body.data.len(), data.len());
}

// RFC 9110, 6.5: trailers are forwarded as such, or dropped where the recipient did not ask; never merged into the head.
#[test]
fn trailers_stay_trailers_both_ways() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: down\r\n\r\n",
    );
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    let response = client.exchange(
        "POST / HTTP/1.1\r\nHost: app.test\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nbody\r\n0\r\nX-Sum: up\r\n\r\n",
    );
    let down: Vec<_> = response.body.trailers.into_iter().map(lower).collect();
    assert_eq!(down, [("x-sum".to_owned(), "down".to_owned())]);
    assert!(!response.head.has("x-sum"));
    let request = upstream.request(0);
    assert_eq!(
        request.body.trailers.into_iter().map(lower).collect::<Vec<_>>(),
        [("x-sum".to_owned(), "up".to_owned())]
    );
    assert!(!request.head.has("x-sum"));
}

fn lower((name, value): (String, String)) -> (String, String) {
    (name.to_ascii_lowercase(), value)
}

#[test]
fn trailers_that_are_no_trailers_change_nothing() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    let response = client.exchange(
        "POST / HTTP/1.1\r\nHost: app.test\r\nTrailer: Host, Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nbody\r\n0\r\nHost: evil.test\r\nContent-Length: 9\r\nTransfer-Encoding: gzip\r\n\r\n",
    );
    if response.status == 400 {
        return;
    }
    let request = upstream.request(0);
    assert_eq!(request.head.all("host"), ["app.test"]);
    assert!(!request.head.has("content-length"));
    for (name, _) in &request.body.trailers {
        assert!(
            !["host", "content-length", "transfer-encoding"].contains(&name.to_ascii_lowercase().as_str()),
            "{name}"
        );
    }
}

#[test]
fn head_204_and_304_have_no_body() {
    let cases = [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", 200, Some("1234")),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None),
        ("HEAD", "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", 404, Some("9")),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"x\"\r\n\r\n", 304, Some("77")),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304, None),
    ];
    for (method, answer, status, length) in cases {
        let upstream = Upstream::answering(answer);
        let proxy = Proxy::before(upstream.address());
        let mut client = proxy.client();
        for _ in 0..2 {
            let response = client.exchange(format!("{method} / HTTP/1.1\r\nHost: app.test\r\n\r\n"));
            assert_eq!((response.status, response.head.get("content-length")), (status, length), "{method} {answer:?}");
            if status == 204 {
                assert!(!response.head.has("transfer-encoding"), "RFC 9112, 6.1: {}", response.head);
            }
        }
        assert!(client.silent_for(Duration::from_millis(50)), "{method}: a body came after {answer:?}");
        assert_eq!(upstream.connections(), 1, "{method}: the connection was not used again after {answer:?}");
    }
}

/// The upstream sends this and then ends its connection; the client must notice that something is missing.
#[track_caller]
fn cut_short(answer: &'static str, end: End) {
    let read = Gate::new();
    let theirs = read.clone();
    let upstream = Upstream::scripted(move |served| {
        served.request();
        served.send(answer);
        theirs.wait("the client to have what was sent");
        match end {
            End::Fin => served.close(),
            End::Reset => served.reset(),
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(get("/cut"));
    client.until("part");
    read.open();
    let (rest, ended) = client.rest();
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(!rest.contains("0\r\n\r\n"), "{answer:?}, {end:?}: the body was ended as if it were whole: {rest:?}");
    if answer.contains("Connection: close") {
        assert_eq!(ended, End::Reset, "{answer:?}: only a RST tells this body's end from its loss");
    }
    let line = proxy.log_line("/cut");
    assert_eq!(line["reason"], "upstream_reset", "{answer:?}, {end:?}: {line}");
}

// RFC 9112, 8: an incomplete message is never passed on as a complete one.
#[test]
fn a_response_cut_short_is_cut_short_for_the_client() {
    for end in [End::Fin, End::Reset] {
        cut_short("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart", end);
        cut_short("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", end);
        cut_short("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\npart", end);
    }
    cut_short("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\npart", End::Reset);
}

#[test]
fn a_response_that_ends_inside_its_head_is_502() {
    for partial in ["HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "H"] {
        let upstream = Upstream::scripted(move |served| {
            served.request();
            served.send(partial);
        });
        let proxy = Proxy::before(upstream.address());
        let response = proxy.client().get("/");
        assert_eq!((response.status, response.reason()), (502, Some("upstream_reset; hop=inbound")), "{partial:?}");
        assert_eq!(upstream.requests().len(), 1, "{partial:?}: the request was sent again after an answer had begun");
    }
}

#[test]
fn a_request_cut_short_never_completes_at_the_upstream() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let upstream = Upstream::scripted(move |served| {
        let Some(request) = served.request() else { return };
        assert!(!request.body.complete, "{:?} was taken for a whole body", request.text());
        count.fetch_add(1, Ordering::SeqCst);
    });
    let proxy = Proxy::before(upstream.address());
    let heads = [
        "Content-Length: 10\r\n\r\npart",
        "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        "Transfer-Encoding: chunked\r\n\r\n9\r\npart",
    ];
    for (index, head) in heads.into_iter().enumerate() {
        let mut client = proxy.client();
        client.send(format!("POST /fin-{index} HTTP/1.1\r\nHost: app.test\r\n{head}"));
        eventually("the part to reach the upstream", || {
            upstream.received_text().matches("part").count() == 2 * index + 1
        });
        client.fin();
        if let Some(response) = client.response_or_end("POST") {
            assert_eq!((response.status, response.reason()), (400, Some("body_incomplete; hop=inbound")), "{head:?}");
        }
        let line = proxy.log_line(&format!("/fin-{index}"));
        assert!(line["reason"] == "body_incomplete" || line["reason"] == "client_cancelled", "{line}");

        let mut client = proxy.client();
        client.send(format!("POST /rst-{index} HTTP/1.1\r\nHost: app.test\r\n{head}"));
        eventually("the part to reach the upstream", || {
            upstream.received_text().matches("part").count() == 2 * index + 2
        });
        client.reset();
        let line = proxy.log_line(&format!("/rst-{index}"));
        assert!(line["reason"] == "body_incomplete" || line["reason"] == "client_cancelled", "{line}");
    }
    upstream.all_closed();
    assert_eq!(seen.load(Ordering::SeqCst), 2 * heads.len());
}

/// How much an endless sender gets rid of before it is held up.
fn sent_before_standstill(mut send: impl FnMut(&[u8]) -> std::io::Result<()>) -> usize {
    const MOST: usize = 256 << 20;
    let block = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while sent < MOST && send(&block).is_ok() {
        sent += block.len();
    }
    sent
}

// Nothing is held whole: who does not read slows down who writes. The kernel's buffers on two hops take a few MiB each.
#[test]
fn a_client_that_does_not_read_holds_up_the_upstream() {
    let sent = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&sent);
    let upstream = Upstream::scripted(move |served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
        served.set_patience(Duration::from_millis(300));
        theirs.store(sent_before_standstill(|block| served.try_send(block)), Ordering::SeqCst);
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send(get("/endless"));
    eventually("the upstream to be held up", || sent.load(Ordering::SeqCst) > 0);
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent < 64 << 20, "{sent} bytes left the upstream for a client that reads nothing");
}

#[test]
fn an_upstream_that_does_not_read_holds_up_the_client() {
    let done = Gate::new();
    let theirs = done.clone();
    let upstream = Upstream::scripted(move |served| {
        served.request_head();
        theirs.wait("the client to be held up");
    });
    let proxy = Proxy::before(upstream.address());
    let mut client: Client = proxy.client();
    client.send("POST /endless HTTP/1.1\r\nHost: app.test\r\nContent-Length: 99999999999\r\n\r\n");
    client.set_patience(Duration::from_millis(300));
    let sent = sent_before_standstill(|block| client.try_send(block));
    done.open();
    assert!(sent < 64 << 20, "{sent} bytes left the client for an upstream that reads nothing");
}
