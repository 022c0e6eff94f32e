//! What protects a service from its clients: rate limits and limits of concurrency; and what its owners do to it on
//! purpose: copies of requests, and faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::client::{get, once};
use crate::support::upstream::OK;
use crate::support::{Client, Gate, Proxy, Response, Upstream, eventually};

const GRPC: &str = "POST /grpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0";

fn keyed(path: &str, field: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n")
}

fn retry_after(response: &Response) -> u64 {
    response.head.get("retry-after").unwrap_or_else(|| panic!("no Retry-After in {}", response.head)).parse().unwrap()
}

#[test]
fn clients_that_come_too_often_hear_when_they_may_come_again() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", rate_limit: { per_second: 1, burst: 3 }");
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/in").status, 200);
    }
    let refused = client.get("/out");
    assert_eq!((refused.status, refused.reason()), (429, Some("rate_limited; hop=inbound")));
    assert_eq!(retry_after(&refused), 1);
    let grpc = client.exchange(GRPC);
    assert_eq!((grpc.status, grpc.head.get("grpc-status")), (200, Some("8")));
    assert_eq!(upstream.count("/in"), 3);
    assert_eq!(upstream.count("/out"), 0);
    let began = Instant::now();
    while client.get("/later").status == 429 {
        assert!(began.elapsed() < Duration::from_secs(5), "tokens come back");
        std::thread::sleep(Duration::from_millis(50));
    }
    proxy.metric_reaches("outrigger_requests_total", &[("reason", "rate_limited"), ("code", "429")], 1.0);
}

#[test]
fn each_client_has_its_own_rate() {
    let upstream = Upstream::ok();
    let limit = ", trust: { hops: 1 }, rate_limit: { per_second: 1, burst: 2, key: @key }";
    for (key, field) in [("client", "X-Forwarded-For: 10.0.0."), ("\"header:x-user\"", "x-user: ")] {
        let proxy = Proxy::before_with(upstream.address(), &limit.replace("@key", key));
        let mut client = proxy.client();
        for user in 1..6 {
            let request = keyed("/", &format!("{field}{user}\r\n"));
            let statuses: Vec<u16> = (0..3).map(|_| client.exchange(&request).status).collect();
            assert_eq!(statuses, [200, 200, 429], "{key}, user {user}");
        }
        let statuses: Vec<u16> = (0..3).map(|_| client.exchange(keyed("/", "")).status).collect();
        assert_eq!(statuses, [200, 200, 429], "{key}: nobody in particular");
    }
}

#[test]
fn a_route_has_its_own_rate() {
    let upstream = Upstream::ok();
    let config = "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { match: { path: /few }, upstream: \"@app\", rate_limit: { per_second: 1 } }
      - { name: many, upstream: \"@app\" }
";
    let proxy = Proxy::start(config, &[("@app", &upstream.address())]);
    let mut client = proxy.client();
    let statuses: Vec<u16> = ["/few", "/few", "/many", "/many"].map(|path| client.get(path).status).to_vec();
    assert_eq!(statuses, [200, 429, 200, 200]);
}

#[test]
fn a_shadow_refuses_nothing_and_counts() {
    let upstream = Upstream::ok();
    let limits = ", rate_limit: { per_second: 1, shadow: true }, concurrency: { max: 1, shadow: true }";
    let proxy = Proxy::before_with(upstream.address(), limits);
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(proxy.metric("outrigger_shadow_refusals_total", &[("reason", "rate_limited")]) >= 3.0);
    assert_eq!(proxy.metric("outrigger_requests_total", &[("reason", "rate_limited")]), 0.0);
}

#[test]
fn one_request_too_many_is_refused_at_once_until_another_has_ended() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        while served.request().is_some() {
            opened.wait("the end of the test");
            served.send(OK);
        }
    });
    let proxy = Proxy::before_with(upstream.address(), ", concurrency: { max: 2 }");
    let address = proxy.address("inbound");
    let mut held: Vec<Client> = (0..2).map(|_| Client::connect(address)).collect();
    for client in &mut held {
        client.send(get("/held"));
    }
    eventually("both at the upstream", || upstream.count("/held") == 2);
    let refused = once(address, get("/refused"));
    assert_eq!((refused.status, refused.reason()), (503, Some("concurrency_limited; hop=inbound")));
    assert_eq!(retry_after(&refused), 1);
    gate.open();
    for client in &mut held {
        assert_eq!(client.response().status, 200);
    }
    eventually("room again", || once(address, get("/again")).status == 200);
    assert_eq!(proxy.metric("outrigger_concurrency_limit", &[("listener", "inbound")]), 2.0);
}

#[test]
fn an_adaptive_limit_holds_a_slow_service_upright() {
    let upstream = Upstream::scripted(|served| {
        while served.request().is_some() {
            std::thread::sleep(Duration::from_millis(1_500));
            served.send(OK);
        }
    });
    let proxy = Proxy::before_with(upstream.address(), ", concurrency: adaptive");
    let address = proxy.address("inbound");
    let limit = || proxy.metric("outrigger_concurrency_limit", &[("listener", "inbound")]);
    assert_eq!(limit(), 50.0);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..60).map(|_| scope.spawn(move || once(address, get("/")).status)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert_eq!(refused, 10, "{statuses:?}");
    // All fifty took as long as ever: there is room for a few more. A window's end is seen by the next answer.
    for _ in 0..2 {
        std::thread::scope(|scope| {
            (0..50).for_each(|_| {
                scope.spawn(move || once(address, get("/")));
            });
        });
    }
    eventually("the limit to move", || once(address, get("/")).status == 200 && limit() > 50.0);
}

#[test]
fn an_adaptive_limit_shrinks_where_answers_take_longer() {
    let millis = Arc::new(AtomicU64::new(100));
    let takes = millis.clone();
    let upstream = Upstream::scripted(move |served| {
        while served.request().is_some() {
            std::thread::sleep(Duration::from_millis(takes.load(SeqCst)));
            if served.try_send(OK).is_err() {
                return;
            }
        }
    });
    let proxy = Proxy::before_with(upstream.address(), ", concurrency: adaptive");
    let address = proxy.address("inbound");
    let limit = || proxy.metric("outrigger_concurrency_limit", &[("listener", "inbound")]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&done);
        for _ in 0..40 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    if once(address, get("/")).status == 503 {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
        eventually("the limit to grow", || limit() > 52.0);
        millis.store(500, SeqCst);
        eventually("the limit to shrink", || limit() < 50.0);
    });
}

#[test]
fn streams_that_live_on_do_not_fill_a_limit_that_adapts() {
    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    let upstream = Upstream::scripted(|served| {
        while let Some(request) = served.request() {
            served.send(if request.target == "/stream" { STREAM } else { OK });
        }
    });
    let proxy = Proxy::before_with(upstream.address(), ", concurrency: adaptive");
    let address = proxy.address("inbound");
    // More than may be in flight at first.
    let _streams: Vec<Client> = (0..60)
        .map(|_| {
            let mut client = Client::connect(address);
            client.send(get("/stream"));
            client.until("data: 1\n\n");
            client
        })
        .collect();
    assert_eq!(once(address, get("/")).status, 200);
}

/// Ends those who ask, also where an assertion fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn copies_go_to_the_mirror_and_nobody_waits_for_it() {
    let app = Upstream::ok();
    // Answers never: nobody hears of it.
    let shadow = Upstream::scripted(|served| while served.request().is_some() {});
    let config = "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { match: { path: /nobody }, upstream: \"@app\", mirror: { upstream: nobody } }
      - { upstream: \"@app\", mirror: { upstream: \"@shadow\" } }
upstreams:
  nobody: { static: [\"127.0.0.1:1\"], health: { tcp: true, initial: down } }
";
    let proxy = Proxy::start(config, &[("@app", &app.address()), ("@shadow", &shadow.address())]);
    let post = |body: &str| format!("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(once(proxy.address("inbound"), post("some words")).status, 200);
    let copy = shadow.request(0);
    assert_eq!((copy.method.as_str(), copy.target.as_str(), copy.text().as_str()), ("POST", "/post", "some words"));
    assert_eq!(copy.head.get("x-outrigger-mirror"), Some("1"));
    assert!(!app.request(0).head.has("x-outrigger-mirror"));
    // Too long to be kept beside: not copied, and counted.
    assert_eq!(once(proxy.address("inbound"), post(&"x".repeat((64 << 10) + 1))).status, 200);
    proxy.metric_reaches("outrigger_mirrored_requests_total", &[("outcome", "skipped")], 1.0);
    // So is one for which there is no endpoint.
    assert_eq!(once(proxy.address("inbound"), get("/nobody")).status, 200);
    let skipped = &[("upstream", "nobody"), ("outcome", "skipped")];
    proxy.metric_reaches("outrigger_mirrored_requests_total", skipped, 1.0);
    // One that is down costs nothing either.
    shadow.stop_accepting();
    shadow.drop_connections(true);
    for _ in 0..20 {
        assert_eq!(once(proxy.address("inbound"), get("/get")).status, 200);
    }
    assert_eq!(app.requests().len(), 23);
}

#[test]
fn faults_are_injected_where_they_are_asked_for() {
    let upstream = Upstream::ok();
    let config = "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { name: abort, match: { path: /abort }, upstream: \"@app\", fault: { abort: 418, headers: { x-game: day } } }
      - { name: delay, match: { path: /delay }, upstream: \"@app\", fault: { delay: 300ms } }
      - { name: half, match: { path: /half }, upstream: \"@app\", fault: { abort: 500, ratio: 0.5 } }
      - { name: rest, upstream: \"@app\", fault: { abort: 503 } }
";
    let proxy = Proxy::start(config, &[("@app", &upstream.address())]);
    let mut client = proxy.client();
    assert_eq!(client.get("/abort").status, 200);
    let aborted = client.exchange(keyed("/abort", "x-game: day\r\n"));
    assert_eq!((aborted.status, aborted.reason()), (418, Some("fault_injected; hop=inbound")));
    assert_eq!(upstream.count("/abort"), 1);
    let began = Instant::now();
    assert_eq!(client.get("/delay").status, 200);
    assert!(began.elapsed() >= Duration::from_millis(300));
    let failed = (0..200).filter(|_| client.get("/half").status == 500).count();
    assert!((50..=150).contains(&failed), "{failed} of 200");
    let grpc = client.exchange(GRPC);
    assert_eq!((grpc.status, grpc.head.get("grpc-status")), (200, Some("14")));
}
