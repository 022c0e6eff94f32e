//! Streams and tunnels of a route that is gone end within the drain's time; those of routes that stay go on.

use std::time::{Duration, Instant};

use super::{swap, text};
use crate::support::client::get;
use crate::support::h2::{self, H2Client};
use crate::support::message::Framing;
use crate::support::wait::{PATIENCE, bounded};
use crate::support::{Client, Proxy, Served, Upstream, eventually};

const CONFIG: &str = "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { name: gone, match: { path: /gone }, upstream: app }
      - { name: main, upstream: app }
upstreams:
  app: { static: [\"@app\"] }
drain: { delay: 0s, timeout: 2s }
";
const GONE: &str = "      - { name: gone, match: { path: /gone }, upstream: app }\n";

/// A tunnel that sends back what comes, or an answer that begins and never goes on.
fn script(served: &mut Served) {
    let Some(request) = served.request_head() else { return };
    if request.target.ends_with("/socket") {
        served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    } else {
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    }
    loop {
        let bytes = served.some();
        if bytes.is_empty() || served.try_send(&bytes).is_err() {
            return;
        }
    }
}

fn tunnel(proxy: &Proxy, path: &str) -> Client {
    let mut client = proxy.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"));
    assert_eq!(client.response().status, 101);
    client
}

fn lives(client: &mut Client) {
    client.send("still");
    client.expect("still");
}

#[test]
fn they_end_in_time_and_nobody_elses() {
    let upstream = Upstream::scripted(script);
    let proxy = Proxy::start(CONFIG, &[("@app", &upstream.address())]);
    let (mut gone, mut stays) = (tunnel(&proxy, "/gone/socket"), tunnel(&proxy, "/socket"));
    let mut stream = proxy.client();
    stream.send(get("/gone/stream"));
    assert!(stream.head().is_some());
    let began = Instant::now();
    swap(&proxy, &text(&proxy).replace(GONE, ""));
    lives(&mut gone);
    gone.expect_end();
    let body = stream.body(Framing::Chunked);
    assert_eq!((body.complete, body.data.as_slice()), (false, &b"first"[..]));
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
    assert!(began.elapsed() < PATIENCE);
    lives(&mut stays);
    let cut = |path: &str| proxy.log_lines().iter().any(|line| line["path"] == path && line["reason"] == "draining");
    eventually("the reasons in the log", || cut("/gone/socket") && cut("/gone/stream"));
}

#[test]
fn a_route_that_comes_back_in_time_keeps_them() {
    let upstream = Upstream::scripted(script);
    let proxy = Proxy::start(CONFIG, &[("@app", &upstream.address())]);
    let (mut kept, mut later) = (tunnel(&proxy, "/gone/socket"), tunnel(&proxy, "/socket"));
    let with = text(&proxy);
    swap(&proxy, &with.replace(GONE, ""));
    swap(&proxy, &with);
    // A swap that comes later and removes another one shows that the time of the first is over.
    let other = with.replace("name: main,", "name: other, match: { path: /socket },");
    swap(&proxy, &other);
    later.expect_end();
    lives(&mut kept);
    // What began since lives by the route that is there now.
    let mut new = tunnel(&proxy, "/socket");
    lives(&mut new);
}

#[test]
fn a_route_that_only_has_another_name_or_upstream_keeps_them() {
    let (first, second) = (Upstream::scripted(script), Upstream::scripted(script));
    let config = "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { match: { path: /old }, upstream: first }
      - { match: { path: /x }, split: { first: 1 } }
      - { match: { path: /y }, upstream: first }
upstreams:
  first: [\"@first\"]
  second: [\"@second\"]
drain: { delay: 0s, timeout: 500ms }
";
    let proxy = Proxy::start(config, &[("@first", &first.address()), ("@second", &second.address())]);
    let mut gone = tunnel(&proxy, "/old/socket");
    let (mut split, mut plain) = (tunnel(&proxy, "/x/socket"), tunnel(&proxy, "/y/socket"));
    // The split's name came from its position, and those of the others from their upstream.
    let without = text(&proxy).replace("      - { match: { path: /old }, upstream: first }\n", "");
    swap(&proxy, &without.replace("path: /y }, upstream: first", "path: /y }, upstream: second"));
    gone.expect_end();
    lives(&mut split);
    lives(&mut plain);
}

#[tokio::test]
async fn silent_streams_of_http_2_end_too() {
    let upstream = Upstream::scripted(script);
    let proxy = Proxy::start(CONFIG, &[("@app", &upstream.address())]);
    let mut client = H2Client::connect(proxy.address("inbound")).await;
    let (response, _) = client.start(h2::get("/gone/stream"), true).await;
    let mut body = bounded("headers", response).await.unwrap().into_body();
    assert_eq!(h2::next(&mut body).await.unwrap().unwrap(), "first");
    let text = text(&proxy).replace(GONE, "");
    let began = Instant::now();
    std::fs::write(proxy.directory().join("outrigger.yaml"), text).unwrap();
    assert!(h2::next(&mut body).await.is_err(), "it must not look whole");
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
    drop(client);
    assert_eq!(proxy.log_line("/gone/stream")["reason"], "draining");
}
