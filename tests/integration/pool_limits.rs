//! How many connections and requests an upstream gets, who waits, and who is refused at once.

use std::sync::Arc;

use crate::support::client::get;
use crate::support::h2::H2Upstream;
use crate::support::upstream::OK;
use crate::support::{Client, Gate, Proxy, Upstream, eventually};

/// Holds every `/hold…` until the gate opens.
fn holding(gate: &Gate) -> Upstream {
    let opened = gate.clone();
    Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            if request.target.starts_with("/hold") {
                opened.wait("the end of the test");
            }
            served.send(OK);
        }
    })
}

fn limited(upstream: &Upstream, limits: &str) -> Proxy {
    Proxy::start(
        "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"], limits: { @limits } }
",
        &[("@app", &upstream.address()), ("@limits", &limits)],
    )
}

/// Clients with a request each that the upstream has received.
fn in_flight(proxy: &Proxy, upstream: &Upstream, count: usize) -> Vec<Client> {
    let clients = (0..count).map(|index| {
        let mut client = proxy.client();
        client.send(get(&format!("/hold-{index}")));
        upstream.request(index);
        client
    });
    clients.collect()
}

#[test]
fn no_more_connections_than_allowed_and_the_others_wait() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let proxy = limited(&upstream, "connections: 2");
    let mut first = in_flight(&proxy, &upstream, 2);
    let mut waiting: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut waiting {
        client.send(get("/waits"));
    }
    assert!(waiting[2].silent_for(std::time::Duration::from_millis(100)));
    assert_eq!(upstream.connections(), 2);
    gate.open();
    for client in first.iter_mut().chain(&mut waiting) {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn who_finds_the_queue_full_is_refused_at_once() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let proxy = limited(&upstream, "connections: 1, waiting: 1");
    let mut first = in_flight(&proxy, &upstream, 1);
    let mut second = proxy.client();
    second.send(get("/waits"));
    // Which of the two waits is the proxy's to say; one of them is refused while the first is still held.
    let mut third = proxy.client();
    assert!(second.silent_for(std::time::Duration::from_millis(100)));
    let refused = third.get("/refused");
    assert_eq!((refused.status, refused.reason()), (503, Some("overflow; hop=inbound")));
    gate.open();
    assert_eq!(first[0].response().status, 200);
    assert_eq!(second.response().status, 200);
    assert_eq!(third.get("/now").status, 200);
}

#[test]
fn nobody_waits_where_no_queue_is_allowed() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let proxy = limited(&upstream, "connections: 1, waiting: 0");
    let mut first = in_flight(&proxy, &upstream, 1);
    let refused = proxy.client().get("/refused");
    assert_eq!((refused.status, refused.reason()), (503, Some("overflow; hop=inbound")));
    gate.open();
    assert_eq!(first[0].response().status, 200);
}

#[test]
fn no_more_requests_than_allowed_are_in_flight() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let proxy = limited(&upstream, "requests: 2");
    let mut first = in_flight(&proxy, &upstream, 2);
    let mut client = proxy.client();
    let refused = client.get("/refused");
    assert_eq!((refused.status, refused.reason()), (503, Some("overflow; hop=inbound")));
    gate.open();
    for client in &mut first {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(client.get("/now").status, 200);
    assert_eq!(upstream.count("/refused"), 0);
}

#[test]
fn limits_hold_for_all_workers_together() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let proxy = Proxy::start(
        "
workers: 4
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"], limits: { requests: 8 } }
",
        &[("@app", &upstream.address())],
    );
    let mut first = in_flight(&proxy, &upstream, 8);
    for _ in 0..8 {
        let refused = proxy.client().get("/refused");
        assert_eq!((refused.status, refused.reason()), (503, Some("overflow; hop=inbound")));
    }
    gate.open();
    for client in &mut first {
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let proxy = limited(&upstream, "requests: 1");
    for _ in 0..3 {
        let before = upstream.requests().len();
        let mut client = proxy.client();
        client.send(get("/hold"));
        upstream.request(before);
        client.reset();
        eventually("the place to be free again", || proxy.client().get("/next").status == 200);
    }
    gate.open();
}

#[test]
fn a_waiting_client_that_leaves_gives_its_place_back() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let proxy = limited(&upstream, "connections: 1, waiting: 1");
    let mut first = in_flight(&proxy, &upstream, 1);
    let mut second = proxy.client();
    second.send(get("/waits"));
    assert!(second.silent_for(std::time::Duration::from_millis(100)));
    second.reset();
    // Refused while the place is taken, waiting once it is free.
    eventually("the place in the queue to be free again", || {
        let mut third = proxy.client();
        third.send(get("/third"));
        third.silent_for(std::time::Duration::from_millis(100))
    });
    gate.open();
    assert_eq!(first[0].response().status, 200);
}

#[test]
fn the_place_of_an_idle_http_2_connection_goes_to_whichever_worker_waits() {
    let upstream = H2Upstream::streams(|stream| async move { stream.ok("ok").await });
    let proxy = Proxy::start(
        "
workers: 3
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"], protocol: http2, limits: { connections: 1 } }
",
        &[("@app", &upstream.address())],
    );
    // Open at once, so that each worker has some; then one request at a time.
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    for round in 0..3 {
        for client in &mut clients {
            assert_eq!(client.get("/").status, 200, "round {round}");
        }
    }
    assert!(upstream.connection_count() > 1, "one worker had all clients");
}

#[tokio::test]
async fn who_waits_for_room_on_an_http_2_connection_gets_it_at_once() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = gate.clone();
    let mut one = h2::server::Builder::new();
    one.max_concurrent_streams(1);
    let upstream = H2Upstream::streams_with(one, move |stream| {
        let (opened, holds) = (opened.clone(), stream.body.is_end_stream());
        async move {
            if !holds {
                opened.notified().await;
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
  app: { static: [\"@app\"], protocol: http2, limits: { connections: 1 } }
",
        &[("@app", &upstream.address())],
    );
    // The first one brings the word of how many streams may be open.
    let (mut first, mut second) = (proxy.client(), proxy.client());
    assert_eq!(first.get("/").status, 200);
    first.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nheld");
    upstream.head(1);
    second.send(get("/waits"));
    assert!(second.silent_for(std::time::Duration::from_millis(100)));
    gate.notify_one();
    assert_eq!((first.response().status, second.response().status), (200, 200));
    assert_eq!(upstream.connection_count(), 1);
}
