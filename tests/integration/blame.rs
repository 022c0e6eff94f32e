//! Whose fault it is: endpoints and breakers answer for what endpoints did, and for nothing that clients do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::h2::H2Upstream;
use crate::support::upstream::{OK, Served};
use crate::support::wait::eventually;
use crate::support::{Client, Gate, Proxy, Upstream};

/// Answers each request that has come whole.
fn well() -> Upstream {
    Upstream::scripted(|served| {
        while served.request().is_some() {
            served.send(OK);
        }
    })
}

fn proxy(endpoints: &[String], keys: &str) -> Proxy {
    let config = "
workers: 1
listeners:
  inbound: { address: \"127.0.0.1:0\", upstream: app }
upstreams:
  app: { static: [@list]@keys }
";
    let list: Vec<String> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    Proxy::start(config, &[("@list", &list.join(", ")), ("@keys", &keys)])
}

/// Nobody is ejected, and the breaker is closed.
fn nobody_is_blamed(proxy: &Proxy) {
    for cause in ["consecutive", "failure_ratio", "success_rate"] {
        assert_eq!(
            proxy.metric("outrigger_endpoint_ejections_total", &[("upstream", "app"), ("cause", cause)]),
            0.0,
            "{cause}"
        );
    }
    assert_eq!(proxy.metric("outrigger_circuit_breaker_opened_total", &[("upstream", "app")]), 0.0);
    assert_eq!(proxy.client().get("/").status, 200);
}

/// Clients that begin a body and go silent, until each has its answer.
fn fall_silent(proxy: &Proxy, status: u16, reason: &str) {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    let mut clients: Vec<Client> = (0..12).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(request);
    }
    for client in &mut clients {
        let response = client.response();
        assert_eq!(response.status, status);
        assert!(response.reason().is_some_and(|shown| shown.starts_with(reason)), "{:?}", response.reason());
    }
}

const BREAKER: &str = "circuit_breaker: { min_requests: 3 }";

#[test]
fn silent_clients_of_an_http_1_endpoint() {
    let (one, other) = (well(), well());
    let endpoints = [one.address().to_string(), other.address().to_string()];
    for (timeouts, reason) in [("idle: 300ms", "idle_timeout"), ("per_try: 300ms", "per_try_timeout")] {
        let proxy = proxy(&endpoints, &format!(", timeouts: {{ {timeouts} }}, {BREAKER}"));
        fall_silent(&proxy, 504, reason);
        nobody_is_blamed(&proxy);
    }
}

#[test]
fn silent_clients_of_an_http_2_endpoint() {
    let [one, other] = [(); 2].map(|()| {
        H2Upstream::streams(|mut stream| async move {
            let _ = stream.read().await;
            stream.ok("ok").await;
        })
    });
    let endpoints = [one.address().to_string(), other.address().to_string()];
    let proxy = proxy(&endpoints, &format!(", protocol: http2, timeouts: {{ idle: 300ms }}, {BREAKER}"));
    fall_silent(&proxy, 504, "idle_timeout");
    nobody_is_blamed(&proxy);
}

/// Its request ends with it, although nothing that could be read says so.
#[test]
fn a_client_that_resets_while_nobody_reads_its_body() {
    let over = Gate::new();
    let until = over.clone();
    let deaf = Upstream::scripted(move |served| {
        if served.head().is_some() {
            until.wait("the end of the test");
        }
    });
    let proxy = proxy(&[deaf.address().to_string()], "");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    client.socket().set_nonblocking(true).unwrap();
    while client.try_send([b'x'; 65_536]).is_ok() {}
    let in_flight = [("listener", "inbound")];
    proxy.metric_reaches("outrigger_requests_in_flight", &in_flight, 1.0);
    client.reset();
    eventually("its request to end", || proxy.metric("outrigger_requests_in_flight", &in_flight) == 0.0);
    over.open();
    assert_eq!(proxy.log_line("/")["reason"], "client_cancelled");
}

/// An endpoint that takes the request and says nothing is at fault, also where the client is slow.
#[test]
fn a_silent_endpoint() {
    let silent = || Upstream::scripted(|served: &mut Served| while served.request().is_some() {});
    let (one, other) = (silent(), silent());
    let endpoints = [one.address().to_string(), other.address().to_string()];
    let proxy = proxy(&endpoints, ", timeouts: { response: 200ms }, retries: { max: 0 }");
    let mut client = proxy.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 504);
    }
    let labels = [("upstream", "app"), ("cause", "consecutive")];
    assert_eq!(proxy.metric("outrigger_endpoint_ejections_total", &labels), 1.0);
}

/// Begins a chunked answer and goes on once the gate opens.
fn streaming(over: &Gate) -> impl Fn(&mut Served) + Send + Sync + 'static {
    let until = over.clone();
    move |served| {
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        until.wait("the end of the test");
    }
}

#[test]
fn an_endpoint_that_has_nothing_more_to_say_just_now() {
    let over = Gate::new();
    let endpoints = [(); 2].map(|()| {
        let stream = streaming(&over);
        Upstream::scripted(move |served| {
            if served.request().is_some() {
                stream(served);
            }
        })
    });
    let addresses = endpoints.each_ref().map(|endpoint| endpoint.address().to_string());
    let proxy = proxy(&addresses, &format!(", timeouts: {{ idle: 300ms }}, {BREAKER}"));
    let mut clients: Vec<Client> = (0..12).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET /quiet HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut clients {
        client.until("first");
        while !client.some().is_empty() {}
    }
    over.open();
    assert_eq!(proxy.log_line("/quiet")["reason"], "idle_timeout");
    for endpoint in 0..2 {
        let shown: serde_json::Value = serde_json::from_str(&proxy.admin_get("/upstreams").text()).unwrap();
        assert_eq!(shown["upstreams"][0]["endpoints"][endpoint]["state"], "ready");
    }
    assert_eq!(proxy.metric("outrigger_circuit_breaker_opened_total", &[("upstream", "app")]), 0.0);
}

/// Probes that are answered close the breaker, however long their answers stream.
#[test]
fn a_breaker_whose_probes_are_streams() {
    let over = Gate::new();
    let (well, stream) = (Arc::new(AtomicBool::new(false)), streaming(&over));
    let is_well = well.clone();
    let endpoint = Upstream::scripted(move |served| {
        if served.request().is_some() && is_well.load(Ordering::SeqCst) {
            stream(served);
        }
    });
    let keys = ", ejection: none, circuit_breaker: { min_requests: 3, open_for: 500ms, probes: 2 }";
    let proxy = proxy(&[endpoint.address().to_string()], keys);
    let state = |state| proxy.metric("outrigger_circuit_breaker_state", &[("upstream", "app"), ("state", state)]);
    eventually("it to open", || proxy.client().get("/").status == 503 && state("open") == 1.0);
    well.store(true, Ordering::SeqCst);
    let mut streams = Vec::new();
    eventually("it to close", || {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.head().unwrap();
        streams.push(head.start.contains(" 200 ").then_some(client));
        state("closed") == 1.0
    });
    assert!(streams.iter().flatten().count() >= 2);
    over.open();
}

#[test]
fn an_endpoint_that_breaks_its_answers_off() {
    let breaking = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf");
        }
    });
    let good = well();
    let proxy = proxy(&[breaking.address().to_string(), good.address().to_string()], "");
    let mut broken = 0;
    for _ in 0..40 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut answer = Vec::new();
        while let more @ [_, ..] = &*client.some() {
            answer.extend_from_slice(more);
        }
        broken += usize::from(!answer.ends_with(b"ok"));
    }
    assert_eq!(broken, 5, "then it is out");
    let labels = [("upstream", "app"), ("cause", "consecutive")];
    assert_eq!(proxy.metric("outrigger_endpoint_ejections_total", &labels), 1.0);
}

#[test]
fn a_client_that_sends_slowly_makes_no_slow_endpoint() {
    let one = well();
    let keys = ", circuit_breaker: { min_requests: 2, slow: 2s, slow_ratio: 0.5 }";
    let proxy = proxy(&[one.address().to_string()], keys);
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    }
    // How slow they are.
    std::thread::sleep(Duration::from_millis(2_300));
    for client in &mut clients {
        client.send("defghij");
        assert_eq!(client.response().status, 200);
    }
    nobody_is_blamed(&proxy);
}

/// What its client has sent long since is not waited for.
#[test]
fn an_endpoint_that_reads_slowly_is_slow() {
    // More than the kernel's buffers on the way take, so that the last of it is sent after the pause.
    const BODY: usize = 48 << 20;
    const PAUSE: Duration = Duration::from_millis(1_500);
    let http1 = Upstream::scripted(|served| {
        while served.head().is_some() {
            std::thread::sleep(PAUSE);
            served.swallow(BODY as u64);
            served.send(OK);
        }
    });
    let http2 = H2Upstream::streams(|mut stream| async move {
        tokio::time::sleep(PAUSE).await;
        let _ = stream.read().await;
        stream.ok("ok").await;
    });
    for (endpoint, protocol) in [(http1.address(), "http1"), (http2.address(), "http2")] {
        let breaker = "circuit_breaker: { min_requests: 1, slow: 300ms, slow_ratio: 0.1, shadow: true }";
        let proxy = proxy(&[endpoint.to_string()], &format!(", protocol: {protocol}, {breaker}"));
        let opened = || proxy.metric("outrigger_circuit_breaker_opened_total", &[("upstream", "app")]) > 0.0;
        // A client that a busy machine keeps from sending may be waited for, once or twice.
        let noticed = (0..4).any(|_| {
            let mut client = proxy.client();
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"));
            client.send(vec![b'x'; BODY]);
            assert_eq!(client.response().status, 200);
            opened()
        });
        assert!(noticed, "{protocol}");
    }
}

/// One that works on what it was asked and then ends the connection was not dead before.
#[test]
fn a_connection_that_ends_over_its_request() {
    let dying = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.send(OK);
        }
        if served.request().is_some() {
            std::thread::sleep(Duration::from_millis(1_300));
        }
    });
    let proxy = proxy(&[dying.address().to_string()], ", retries: { max: 0 }");
    let mut client = proxy.client();
    assert_eq!(client.get("/first").status, 200);
    let response = client.get("/second");
    assert_eq!(response.status, 502);
    assert!(response.reason().is_some_and(|reason| reason.starts_with("upstream_reset")), "{:?}", response.reason());
    assert_eq!(dying.requests().len(), 2, "it may have been done, so it is not done again");
}

#[test]
fn clients_that_read_none_of_the_proxys_own_answers() {
    let config = "
workers: 1
listeners:
  inbound:
    address: \"127.0.0.1:0\"
    limits: { idle: 500ms }
    routes: [{ match: { path: /there }, respond: { status: 200 } }]
";
    let proxy = Proxy::start(config, &[]);
    let asks = "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1_000);
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.socket().set_nonblocking(true).unwrap();
        // Until neither side takes more.
        while client.try_send(&asks).is_ok() {}
    }
    let open = [("listener", "inbound"), ("protocol", "h1")];
    eventually("them to be let go", || proxy.metric("outrigger_downstream_connections_open", &open) <= 1.0);
}
