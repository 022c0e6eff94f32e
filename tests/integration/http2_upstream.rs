//! HTTP/2 to the upstream: from HTTP/1 and HTTP/2, multiplexed, with GOAWAY and refused streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::Response;

use crate::support::frames;
use crate::support::h2::{H2Client, H2Upstream, answer, get, request};
use crate::support::{Proxy, Upstream};

/// A proxy whose upstream is spoken to in HTTP/2.
fn before_h2(upstream: &H2Upstream) -> Proxy {
    Proxy::before_upstream(upstream.address(), ", protocol: http2")
}

async fn client(proxy: &Proxy) -> H2Client {
    H2Client::connect(proxy.address("inbound")).await
}

#[tokio::test]
async fn http_1_goes_to_an_http_2_upstream() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        let (body, _) = stream.read().await;
        stream.ok(format!("got {}", String::from_utf8_lossy(&body))).await;
    });
    let proxy = before_h2(&upstream);
    let mut client = proxy.client();
    let response = client.exchange("POST /a?b HTTP/1.1\r\nHOST: app.test\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nX-Stays: 1\r\nTE: trailers, gzip\r\nKeep-Alive: 5\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
    assert_eq!((response.status, response.text().as_str()), (200, "got body"));
    let head = upstream.head(0);
    assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("POST", "http://app.test/a?b"));
    for name in ["connection", "keep-alive", "x-hop", "transfer-encoding", "upgrade", "host"] {
        assert!(!head.headers.contains_key(name), "{name}: {:?}", head.headers);
    }
    assert!(head.headers.get("te").is_none_or(|te| te == "trailers"), "RFC 9113, 8.2.2: {:?}", head.headers);
    assert_eq!(head.headers["x-stays"], "1");
    assert_eq!(client.get("/again").status, 200);
    assert_eq!(upstream.connection_count(), 1);
    let made = [("upstream", "app"), ("outcome", "success")];
    assert_eq!(proxy.metric("outrigger_upstream_connects_total", &made), 1.0);
    let connect = |path: &str| proxy.log_line(path)["ms"]["connect"].as_f64().unwrap();
    assert!(connect("/a") > 0.0 && connect("/again") == 0.0, "{} {}", connect("/a"), connect("/again"));
}

#[tokio::test]
async fn an_answer_over_http_2_takes_no_longer_than_response() {
    let upstream = H2Upstream::streams(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", protocol: http2, timeouts: { response: 200ms }");
    let mut client = client(&proxy).await;
    let answer = client.exchange(get("/without-body"), "").await;
    assert_eq!((answer.status, answer.header("x-outrigger-reason")), (504, Some("response_timeout; hop=inbound")));
    let answer = client.exchange(request("POST", "/with-body").body(()).unwrap(), "body").await;
    assert_eq!((answer.status, answer.header("x-outrigger-reason")), (504, Some("response_timeout; hop=inbound")));
}

#[tokio::test]
async fn many_requests_share_a_connection_to_an_http_2_upstream() {
    let upstream = H2Upstream::streams(|stream| async move { stream.ok("ok").await });
    let proxy = Proxy::start(
        "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"], protocol: http2 }
",
        &[("@app", &upstream.address())],
    );
    let mut client = client(&proxy).await;
    let mut responses = Vec::new();
    for _ in 0..50 {
        responses.push(client.start(get("/"), true).await.0);
    }
    for response in responses {
        assert_eq!(answer(response).await.unwrap().status, 200);
    }
    // One, or two where several requests found none: never one a request.
    assert!(upstream.connection_count() <= 2, "{} connections", upstream.connection_count());
}

#[tokio::test]
async fn the_upstreams_limit_of_streams_is_kept() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (theirs, peak) = (now.clone(), most.clone());
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(3);
    let upstream = H2Upstream::streams_with(builder, move |stream| {
        let (now, most) = (theirs.clone(), peak.clone());
        async move {
            if stream.connection == 0 {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, SeqCst);
            }
            stream.ok("ok").await;
        }
    });
    let proxy = before_h2(&upstream);
    let mut client = client(&proxy).await;
    let mut responses = Vec::new();
    for _ in 0..30 {
        responses.push(client.start(get("/"), true).await.0);
    }
    for response in responses {
        assert_eq!(answer(response).await.unwrap().status, 200);
    }
    assert!(most.load(SeqCst) <= 3);
}

/// Two is as many as go out before an endpoint has said how many it takes.
#[tokio::test]
async fn an_upstream_that_takes_two_streams_gets_another_connection_for_the_third() {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(2);
    let (before, all) = (AtomicUsize::new(0), Arc::new(tokio::sync::Barrier::new(4)));
    let upstream = H2Upstream::streams_with(builder, move |stream| {
        let (first, all) = (before.fetch_add(1, SeqCst) == 0, all.clone());
        async move {
            if !first {
                all.wait().await;
            }
            stream.ok("ok").await;
        }
    });
    let proxy = Proxy::start(
        "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"], protocol: http2 }
",
        &[("@app", &upstream.address())],
    );
    let mut client = client(&proxy).await;
    assert_eq!(client.exchange(get("/"), "").await.status, 200);
    let mut responses = Vec::new();
    for _ in 0..4 {
        responses.push(client.start(get("/"), true).await.0);
    }
    for response in responses {
        assert_eq!(answer(response).await.unwrap().status, 200);
    }
    assert_eq!(upstream.connection_count(), 2);
}

#[tokio::test]
async fn an_upstream_that_goes_away_costs_nothing() {
    // Each connection serves three streams, then says GOAWAY and lets what runs end.
    let upstream = H2Upstream::scripted(|number, mut connection, recorder| async move {
        let mut nth = 0;
        while let Some(Ok(pair)) = connection.accept().await {
            let stream = recorder.stream(number, pair);
            nth += 1;
            tokio::task::spawn_local(stream.ok("ok"));
            if nth == 3 {
                connection.graceful_shutdown();
            }
        }
    });
    let proxy = before_h2(&upstream);
    let mut client = client(&proxy).await;
    for nth in 0..20 {
        let answer = client.exchange(get(&format!("/{nth}")), "").await;
        assert_eq!(answer.status, 200, "request {nth}: {:?} {}", answer.headers, answer.text());
    }
    assert!(upstream.connection_count() >= 5);
}

// RFC 9113, 6.8: streams above the last one named were not processed, and may be sent again, whatever their method.
#[tokio::test]
async fn streams_above_the_last_one_of_goaway_go_out_again() {
    let (address, _) = going_away_at(1).await;
    let proxy = Proxy::before_upstream(address, ", protocol: http2");
    let mut client = client(&proxy).await;
    let answer = client.exchange(request("POST", "/").header("content-length", "0").body(()).unwrap(), "").await;
    assert_eq!(answer.status, 200, "{:?} {}", answer.headers, answer.text());
}

#[tokio::test]
async fn streams_that_a_goaway_leaves_share_their_next_connection() {
    const STREAMS: usize = 40;
    let (address, connections) = going_away_at(STREAMS).await;
    let proxy = Proxy::before_upstream(address, ", protocol: http2");
    let mut client = client(&proxy).await;
    let mut responses = Vec::new();
    for _ in 0..STREAMS {
        responses.push(client.start(get("/"), true).await.0);
    }
    for response in responses {
        assert_eq!(answer(response).await.unwrap().status, 200);
    }
    assert_eq!(connections.load(SeqCst), 2);
}

/// An upstream and how many connections it has had. The first one says at the HEADERS of this number GOAWAY, with 0 as
/// the last stream. Later ones work.
async fn going_away_at(streams: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let accepted = connections.clone();
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        accepted.fetch_add(1, SeqCst);
        first.write_all(&frames::frame(frames::SETTINGS, 0, 0, &[])).await.unwrap();
        let mut preface = [0; 24];
        first.read_exact(&mut preface).await.unwrap();
        let mut seen = 0;
        while seen < streams {
            let mut head = [0; 9];
            first.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
            first.read_exact(&mut payload).await.unwrap();
            if head[3] == frames::SETTINGS && head[4] == 0 {
                first.write_all(&frames::frame(frames::SETTINGS, frames::ACK, 0, &[])).await.unwrap();
            }
            seen += usize::from(head[3] == frames::HEADERS);
        }
        first.write_all(&frames::frame(frames::GOAWAY, 0, 0, &[0; 8])).await.unwrap();
        let mut sink = Vec::new();
        let rest = tokio::spawn(async move { first.read_to_end(&mut sink).await });
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            accepted.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let _ = respond.send_response(Response::builder().status(200).body(()).unwrap(), true);
                }
            });
            let _ = &rest;
        }
    });
    (address, connections)
}

// An endpoint that refuses streams is busy: new connections would add to that, and so would what no budget bounds.
#[tokio::test]
async fn refused_streams_make_no_connections() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        stream.respond.send_reset(h2::Reason::REFUSED_STREAM);
    });
    let proxy =
        Proxy::before_upstream(upstream.address(), ", protocol: http2, retries: { max: 1, budget: { ratio: 0 } }");
    let mut client = client(&proxy).await;
    for _ in 0..20 {
        assert_eq!(client.exchange(get("/"), "").await.status, 503);
    }
    assert_eq!(upstream.connection_count(), 1);
    assert!(upstream.heads().len() < 40, "{} streams for 20 requests", upstream.heads().len());
    assert_eq!(proxy.metric("outrigger_stale_connection_replays_total", &[("upstream", "app")]), 0.0);
}

#[tokio::test]
async fn a_stream_that_is_always_refused_is_an_error_with_its_reason() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        stream.respond.send_reset(h2::Reason::REFUSED_STREAM);
    });
    let proxy = before_h2(&upstream);
    let answer = client(&proxy).await.exchange(get("/"), "").await;
    assert_eq!((answer.status, answer.header("x-outrigger-reason")), (503, Some("refused_stream; hop=inbound")));
}

#[tokio::test]
async fn a_stream_that_is_reset_is_an_error_with_its_reason() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        stream.respond.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let proxy = before_h2(&upstream);
    let mut client = client(&proxy).await;
    let answer = client.exchange(get("/"), "").await;
    assert_eq!((answer.status, answer.header("x-outrigger-reason")), (502, Some("upstream_reset; hop=inbound")));
    assert_eq!(upstream.heads().len(), 1, "a stream that may have been processed was sent again");
}

#[tokio::test]
async fn idle_http_2_connections_of_an_upstream_that_closes_them_cost_nothing() {
    for abrupt in [false, true] {
        // Each connection that saw no stream for 20 ms ends: with GOAWAY, or without a word.
        let upstream = H2Upstream::scripted(move |number, mut connection, recorder| async move {
            const IDLE: Duration = Duration::from_millis(20);
            while let Ok(Some(Ok(pair))) = tokio::time::timeout(IDLE, connection.accept()).await {
                let stream = recorder.stream(number, pair);
                tokio::task::spawn_local(stream.ok("ok"));
            }
            if !abrupt {
                connection.graceful_shutdown();
                while let Some(Ok(pair)) = connection.accept().await {
                    tokio::task::spawn_local(recorder.stream(number, pair).ok("ok"));
                }
            }
        });
        let proxy = before_h2(&upstream);
        let mut client = client(&proxy).await;
        for nth in 0..15 {
            let answer = client.exchange(get(&format!("/{nth}")), "").await;
            assert_eq!(answer.status, 200, "abrupt {abrupt}, request {nth}: {:?}", answer.headers);
            tokio::time::sleep(Duration::from_millis([0, 15, 20, 25, 40][nth % 5])).await;
        }
    }
}

// The first rule of the house holds on streams as well: no answer on a connection that had served before, and then its
// end, without GOAWAY: what is idempotent goes out once more, on a fresh connection.
#[tokio::test]
async fn a_get_survives_an_http_2_connection_that_dies_as_it_is_used() {
    let upstream = dying_at_the_second_stream(|number| number == 0);
    let proxy = Proxy::start(
        "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"], protocol: http2 }
",
        &[("@app", &upstream.address())],
    );
    let mut client = client(&proxy).await;
    assert_eq!(client.exchange(get("/first"), "").await.status, 200);
    let answer = client.exchange(get("/second"), "").await;
    assert_eq!((answer.status, upstream.connection_count()), (200, 2), "{:?}", answer.headers);
}

#[tokio::test]
async fn a_post_is_not_replayed_on_another_http_2_connection() {
    let upstream = dying_at_the_second_stream(|_| true);
    let proxy = before_h2(&upstream);
    let mut client = client(&proxy).await;
    assert_eq!(client.exchange(get("/first"), "").await.status, 200);
    let answer = client.exchange(request("POST", "/second").body(()).unwrap(), "body").await;
    let times = upstream.heads().iter().filter(|head| head.uri.path() == "/second").count();
    assert_eq!((answer.status, times), (502, 1), "{:?}", answer.headers);
}

/// Where `which` says so, a connection answers one stream and ends without a word when it has read the next.
fn dying_at_the_second_stream(which: fn(usize) -> bool) -> H2Upstream {
    H2Upstream::scripted(move |number, mut connection, recorder| async move {
        let mut streams = 0;
        while let Some(Ok(pair)) = connection.accept().await {
            let stream = recorder.stream(number, pair);
            streams += 1;
            if streams == 2 && which(number) {
                return;
            }
            tokio::task::spawn_local(stream.ok("ok"));
        }
    })
}

#[tokio::test]
async fn what_is_no_http_2_is_an_upstream_protocol_error() {
    let upstream = Upstream::scripted(|served| {
        served.some();
        served.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        served.rest();
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", protocol: http2");
    let response = tokio::task::spawn_blocking(move || proxy.client().get("/")).await.unwrap();
    assert_eq!((response.status, response.reason()), (502, Some("upstream_protocol_error; hop=inbound")));
}
