//! Connections to upstreams that are used again: which, how long, and which never.

use std::time::{Duration, Instant};

use crate::support::client::get;
use crate::support::upstream::OK;
use crate::support::{Client, Gate, Proxy, Upstream, eventually};

const ONE_WORKER: &str = "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"] }
";

fn one_worker(upstream: &Upstream) -> Proxy {
    Proxy::start(ONE_WORKER, &[("@app", &upstream.address())])
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody")
}

#[test]
fn one_connection_serves_request_after_request() {
    let upstream = Upstream::ok();
    let proxy = one_worker(&upstream);
    let mut client = proxy.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").status, 200);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn the_connection_last_given_back_is_taken_first() {
    let gates = [Gate::new(), Gate::new()];
    let theirs = gates.clone();
    let upstream = Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            match request.target.as_str() {
                "/hold-0" => theirs[0].wait("the first"),
                "/hold-1" => theirs[1].wait("the second"),
                _ => {}
            }
            let body = served.index.to_string();
            served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let proxy = one_worker(&upstream);
    let (mut first, mut second) = (proxy.client(), proxy.client());
    first.send(get("/hold-0"));
    upstream.request(0);
    second.send(get("/hold-1"));
    upstream.request(1);
    gates[0].open();
    let first_used = first.response().text();
    gates[1].open();
    let second_used = second.response().text();
    assert_ne!(first_used, second_used);
    // The second came back last. One request at a time: it always goes there, and the other may grow old.
    for _ in 0..5 {
        assert_eq!(first.get("/next").text(), second_used);
    }
}

// The upstream says how long it keeps a connection: then no request goes out on one whose time is up, be it a POST.
#[test]
fn an_announced_timeout_is_honoured() {
    let upstream = Upstream::scripted(|served| {
        while served.request().is_some() {
            served.send(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=1\r\nConnection: keep-alive\r\n\r\nok",
            );
            if served.silent_for(Duration::from_secs(1)) {
                return served.reset();
            }
        }
    });
    let proxy = Proxy::before(upstream.address());
    let address = proxy.address("inbound");
    std::thread::scope(|scope| {
        for number in 0..8u32 {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                assert_eq!(client.exchange(post("/first")).status, 200);
                std::thread::sleep(Duration::from_millis(996) + Duration::from_micros(1_000) * number);
                let response = client.exchange(post("/second"));
                assert_eq!(response.status, 200, "{}", response.head);
            });
        }
    });
    assert_eq!(upstream.count("/second"), 8);
}

#[test]
fn a_connection_goes_stale_a_second_before_the_announced_end() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=2\r\n\r\nok");
    let proxy = one_worker(&upstream);
    let mut client = proxy.client();
    assert_eq!((client.get("/").status, client.get("/").status), (200, 200));
    assert_eq!(upstream.connections(), 1, "a connection with 2 s to live was not used again at once");
    std::thread::sleep(Duration::from_millis(1_300));
    assert_eq!(client.get("/").status, 200);
    assert_eq!(upstream.connections(), 2, "a connection was used in the last second of its announced life");
}

#[test]
fn a_connection_is_not_used_again_after_a_client_left() {
    let upstream = Upstream::scripted(|served| {
        while let Some(request) = served.request() {
            if request.target == "/left" {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
                served.rest();
                return;
            }
            served.send(OK);
        }
    });
    let proxy = one_worker(&upstream);
    let mut client = proxy.client();
    client.send(get("/left"));
    client.until("part");
    client.reset();
    upstream.all_closed();
    assert_eq!(proxy.client().get("/next").text(), "ok");
}

#[test]
fn a_connection_that_the_upstream_will_close_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        // It stays open, so that only what was said can keep the proxy from using it.
        let upstream = Upstream::answering(answer);
        let proxy = one_worker(&upstream);
        for _ in 0..3 {
            assert_eq!(proxy.client().get("/").text(), "ok");
        }
        assert_eq!(upstream.connections(), 3, "{answer:?}");
    }
}

#[test]
fn an_http_1_0_upstream_can_keep_its_connection() {
    let upstream = Upstream::answering("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok");
    let proxy = one_worker(&upstream);
    for _ in 0..3 {
        assert_eq!(proxy.client().get("/").text(), "ok");
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn an_upstream_may_be_a_unix_socket() {
    let directory = crate::support::files::Directory::new();
    let path = directory.join("app.sock");
    let upstream = Upstream::unix(&path, |served| {
        while served.request().is_some() {
            served.send(OK);
        }
    });
    let proxy = Proxy::start(ONE_WORKER, &[("@app", &format!("unix:{}", path.display()))]);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(upstream.connections(), 1);
    assert!(upstream.request(0).head.has("host"));
}

#[test]
fn a_connection_that_died_in_the_pool_is_let_go() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        served.request();
        opened.wait("all connections to be in use");
        served.send(OK);
    });
    let mut proxy = one_worker(&upstream);
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.send(get("/"));
        upstream.request(index);
    }
    let busy = proxy.process().open_files();
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    eventually("the sockets of dead connections to be closed", || proxy.process().open_files() + 20 <= busy);
}

#[test]
fn idle_connections_are_closed_some_time() {
    // The bound itself is the proxy's own choice; a removed one would keep the upstream's descriptors for ever.
    let started = Instant::now();
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=3\r\n\r\nok");
    let proxy = one_worker(&upstream);
    assert_eq!(proxy.client().get("/").status, 200);
    upstream.all_closed();
    assert!(started.elapsed() < Duration::from_secs(9));
}
