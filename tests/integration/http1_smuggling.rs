//! Messages whose end two parsers could see in two places: refused, never passed on. RFC 9112, sections 2.2, 5 and 6.

use crate::support::message::visible;
use crate::support::upstream::OK;
use crate::support::{Gate, Proxy, Upstream};

/// The head lines are put into a POST; the reply must be 400 and the connection must end.
#[track_caller]
fn refused(proxy: &Proxy, lines: &str) {
    let mut client = proxy.client();
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";
    client.send(format!("POST /outer HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n{smuggled}"));
    let Some(response) = client.response_or_end("POST") else { panic!("no answer to {lines:?}") };
    assert_eq!((response.status, response.reason()), (400, Some("bad_request; hop=inbound")), "{lines:?}");
    client.expect_end();
}

#[test]
fn requests_with_doubtful_framing_are_refused() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let cases = [
        // 6.1: both framings.
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\ntransfer-encoding: chunked\r\n",
        // 6.3, rule 5: lengths that differ or are none.
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5a\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: \r\n",
        "Content-Length: 5,\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        // 6.3, rule 4: chunked is not the final coding.
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \r\n",
        // 6.1: chunked is applied once.
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
        // 5.1: no blank before the colon.
        "Transfer-Encoding : chunked\r\n",
        "Content-Length : 5\r\n",
        "X-Field : a\r\n",
        // 2.2 and 5.5: bare CR, and controls around the name of a coding.
        "X-Field: a\rb\r\n",
        "X-Field: a\rTransfer-Encoding: chunked\r\n",
        "\rTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding: chunked\x0c\r\n",
        "Transfer-Encoding: \x00chunked\r\n",
        // 5.2: folded framing.
        "Transfer-Encoding:\r\n chunked\r\n",
        "Content-Length:\r\n 5\r\n",
        " Transfer-Encoding: chunked\r\n",
    ];
    for lines in cases {
        refused(&proxy, lines);
    }
    assert_eq!(upstream.connections(), 0, "{}", upstream.received_text());
}

// RFC 9112, 6.1: a Transfer-Encoding in HTTP/1.0 is faulty framing.
#[test]
fn http_1_0_with_transfer_encoding_is_refused() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(client.response().status, 400);
    client.expect_end();
    assert_eq!(upstream.connections(), 0, "{}", upstream.received_text());
}

// RFC 9112, 5.2: 400, or each fold becomes blanks.
#[test]
fn a_folded_field_is_refused_or_unfolded() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    let response = client.exchange("GET / HTTP/1.1\r\nHost: app.test\r\nX-Folded: a\r\n Content-Length: 5\r\n\r\n");
    match response.status {
        400 => assert_eq!(upstream.connections(), 0),
        status => {
            assert_eq!(status, 200);
            let head = upstream.request(0).head;
            assert!(!head.has("content-length"), "{head}");
            assert_eq!(head.get("x-folded").map(|value| value.replace(' ', "")), Some("aContent-Length:5".into()));
        }
    }
}

// RFC 9112, 6.3, rule 5: the same number several times may count once.
#[test]
fn equal_lengths_collapse_or_are_refused() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut served = 0;
    for lines in ["Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n"] {
        let mut client = proxy.client();
        let response = client.exchange(format!("POST / HTTP/1.1\r\nHost: app.test\r\n{lines}\r\nhello"));
        if response.status == 400 {
            client.expect_end();
            continue;
        }
        let request = upstream.request(served);
        served += 1;
        assert_eq!(request.head.all("content-length"), ["5"], "{lines:?}");
        assert_eq!(request.text(), "hello");
    }
    assert_eq!(upstream.requests().len(), served);
}

#[test]
fn chunks_that_are_none_never_complete_a_request() {
    let upstream = Upstream::scripted(|served| {
        let Some(request) = served.request() else { return };
        assert!(!request.body.complete, "a whole request arrived: {} {:?}", request.head, request.text());
    });
    let proxy = Proxy::before(upstream.address());
    let cases: [&[u8]; 12] = [
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff1\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
    ];
    for bytes in cases {
        let mut client = proxy.client();
        client.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(bytes);
        let response = client.response_or_end("POST");
        let status = response.map_or(400, |response| response.status);
        assert_eq!(status, 400, "{}", visible(bytes));
        client.expect_end();
    }
    upstream.all_closed();
}

#[test]
fn chunk_extensions_are_dropped_and_sizes_may_have_zeros() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    let chunks = "005;name=value;flag\r\nhello\r\nA\r\n0123456789\r\n0;last\r\n\r\n";
    let response =
        client.exchange(format!("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
    assert_eq!(response.status, 200);
    assert_eq!(upstream.request(0).text(), "hello0123456789");
    assert!(!upstream.received_text().contains("name=value"), "{}", upstream.received_text());
}

/// The upstream answers the first request with these bytes; the client must get 502 and the connection must end.
#[track_caller]
fn answer_is_502(answer: &[u8]) {
    let bytes = answer.to_vec();
    let upstream = Upstream::scripted(move |served| {
        served.request();
        if served.index == 0 {
            served.send(&bytes);
            served.rest();
        } else {
            served.send(OK);
            served.request();
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    let response = client.get("/");
    let case = visible(answer);
    assert_eq!((response.status, response.reason()), (502, Some("upstream_protocol_error; hop=inbound")), "{case}");
    // The next request has another connection: what this one carries next is anybody's guess.
    let mut next = proxy.client();
    assert_eq!(next.get("/next").status, 200, "{case}");
    assert_eq!(upstream.connections(), 2, "{case}");
}

#[test]
fn responses_that_are_none_become_502_and_their_connection_ends() {
    let cases: [&[u8]; 15] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok",
        b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 99 Few\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"ok\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-\x00: a\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ];
    for answer in cases {
        answer_is_502(answer);
    }
}

// RFC 9112, 2.2, 5.1, 5.2 and 6.3: refuse, or repair so that nobody behind the proxy can see it otherwise.
#[test]
fn responses_in_doubt_are_refused_or_repaired() {
    let cases: [(&[u8], &str); 5] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        (b"HTTP/1.1 200 OK\r\nX-Field : a\r\nContent-Length: 2\r\n\r\nok", "ok"),
        (b"HTTP/1.1 200 OK\r\nX-Field: a\r\n b\r\nContent-Length: 2\r\n\r\nok", "ok"),
        (b"HTTP/1.1 200 OK\r\nX-Field: a\rContent-Length: 9\r\nContent-Length: 2\r\n\r\nok", "ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "ok"),
    ];
    for (answer, body) in cases {
        let upstream = Upstream::answering(answer);
        let proxy = Proxy::before(upstream.address());
        let mut client = proxy.client();
        let response = client.get("/");
        let case = visible(answer);
        if response.status == 502 {
            continue;
        }
        assert_eq!((response.status, response.text().as_str()), (200, body), "{case}");
        let lengths = response.head.all("content-length").len() + response.head.all("transfer-encoding").len();
        assert_eq!(lengths, 1, "{case}: {}", response.head);
        assert!(!response.head.names().iter().any(|name| name.ends_with(' ')), "{case}: {}", response.head);
        assert!(
            !response.head.raw.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n'),
            "{case}: {}",
            response.head
        );
    }
}

// What an upstream sends beyond its answer must never become the answer to somebody else's request.
#[test]
fn bytes_after_an_answer_poison_nobody() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n",
    ];
    for answer in answers {
        let first = format!("{answer}{poison}");
        let upstream = Upstream::scripted(move |served| {
            while let Some(request) = served.request() {
                let answer = if request.target == "/first" { first.as_bytes() } else { OK };
                if served.try_send(answer).is_err() {
                    return;
                }
            }
        });
        let proxy = Proxy::before(upstream.address());
        let mut client = proxy.client();
        assert!(client.get("/first").status < 400, "{answer}");
        for _ in 0..4 {
            let response = client.get("/next");
            assert_eq!((response.status, response.text().as_str()), (200, "ok"), "after {answer}");
        }
    }
}

// The same where the surplus arrives once the connection is idle in the pool.
#[test]
fn bytes_on_an_idle_connection_poison_nobody() {
    let (gate, sent) = (Gate::new(), Gate::new());
    let (opened, told) = (gate.clone(), sent.clone());
    let upstream = Upstream::scripted(move |served| {
        served.request();
        served.send(OK);
        if served.index == 0 {
            opened.wait("the first answer to be read");
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
            told.open();
        }
        while served.request().is_some() {
            if served.try_send(OK).is_err() {
                return;
            }
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    assert_eq!(client.get("/first").text(), "ok");
    gate.open();
    sent.wait("the poison to be sent");
    for _ in 0..3 {
        assert_eq!(client.get("/next").text(), "ok");
    }
}

#[test]
fn a_body_on_an_answer_to_head_poisons_nobody() {
    let upstream = Upstream::scripted(|served| {
        while let Some(request) = served.request() {
            let answer = if request.method == "HEAD" {
                "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            };
            if served.try_send(answer).is_err() {
                return;
            }
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    let head = client.exchange("HEAD / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!((head.status, head.head.get("content-length")), (200, Some("6")));
    for _ in 0..3 {
        assert_eq!(client.get("/next").text(), "ok");
    }
}
