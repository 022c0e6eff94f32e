//! An upstream that fails as a whole is spared, and looked at again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::upstream::OK;
use crate::support::wait::{Gate, eventually};
use crate::support::{Proxy, Upstream};

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// One that fails until it is told to be well.
fn ailing() -> (Upstream, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let upstream = Upstream::scripted(move |served| {
        while served.request().is_some() {
            served.send(if is_well.load(Ordering::SeqCst) { OK } else { UNAVAILABLE });
        }
    });
    (upstream, well)
}

fn proxy(endpoint: &Upstream, breaker: &str, more: &str) -> Proxy {
    Proxy::start(
        "
workers: 2
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"], circuit_breaker: @breaker }
@more
",
        &[("@app", &endpoint.address()), ("@breaker", &breaker), ("@more", &more)],
    )
}

fn breaker(proxy: &Proxy) -> Value {
    let all: Value = serde_json::from_str(&proxy.admin_get("/upstreams").text()).unwrap();
    all["upstreams"][0]["circuit_breaker"].clone()
}

#[test]
fn it_opens_says_for_how_long_and_closes_when_the_upstream_is_well() {
    let (upstream, well) = ailing();
    let proxy = proxy(&upstream, "{ min_requests: 10, open_for: 1s, probes: 2 }", "");
    let mut client = proxy.client();
    let answers: Vec<_> = (0..20).map(|_| client.get("/")).collect();
    assert_eq!(upstream.requests().len(), 10, "nothing reaches it from then on");
    let refused = answers.last().unwrap();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.head.get("x-outrigger-reason"), Some("breaker_open; hop=inbound"));
    assert_eq!(refused.head.get("retry-after"), Some("1"));
    let shown = breaker(&proxy);
    assert_eq!((&shown["state"], &shown["opened"], &shown["refused"]), (&"open".into(), &1.into(), &10.into()));
    let state = |state| proxy.metric("outrigger_circuit_breaker_state", &[("upstream", "app"), ("state", state)]);
    assert_eq!((state("open"), state("closed"), state("half_open")), (1.0, 0.0, 0.0));
    well.store(true, Ordering::SeqCst);
    eventually("the breaker to close", || client.get("/").status == 200 && breaker(&proxy)["state"] == "closed");
    assert!((0..20).all(|_| client.get("/").status == 200));
}

#[test]
fn probes_are_few() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            if request.target == "/probe" {
                held.wait("the probes' end");
                served.send(OK);
            } else {
                served.send(UNAVAILABLE);
            }
        }
    });
    // A round of probes lasts as long: until then, nobody else is let through.
    let proxy = proxy(&upstream, "{ min_requests: 5, open_for: 3s, probes: 2 }", "");
    let mut client = proxy.client();
    (0..5).for_each(|_| drop(client.get("/")));
    assert_eq!(client.get("/").status, 503);
    let address = proxy.address("inbound");
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = crate::support::Client::connect(address);
                    // Until it is let through: then it is held.
                    while client.get("/probe").status != 200 {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                })
            })
            .collect();
        eventually("two probes at the upstream", || upstream.count("/probe") == 2);
        let refused = client.get("/other");
        assert_eq!(refused.head.get("x-outrigger-reason"), Some("breaker_open; hop=inbound"));
        assert_eq!(breaker(&proxy)["state"], "half_open");
        gate.open();
        asking.into_iter().for_each(|asking| asking.join().unwrap());
    });
    assert_eq!(breaker(&proxy)["state"], "closed");
    assert_eq!(upstream.count("/other"), 0);
}

#[test]
fn slow_answers_open_it() {
    let upstream = Upstream::scripted(|served| {
        while served.request().is_some() {
            std::thread::sleep(Duration::from_millis(60));
            served.send(OK);
        }
    });
    let proxy = proxy(&upstream, "{ min_requests: 5, slow: 50ms }", "");
    let mut client = proxy.client();
    let statuses: Vec<u16> = (0..8).map(|_| client.get("/").status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 503, 503, 503]);
}

#[test]
fn another_upstream_stands_in() {
    let (upstream, _) = ailing();
    let reserve = Upstream::scripted(|served| {
        while served.request().is_some() {
            served.send(OK);
        }
    });
    let more = format!("  reserve: \"{}\"", reserve.address());
    let proxy = proxy(&upstream, "{ min_requests: 5, fallback: reserve }", &more);
    let mut client = proxy.client();
    let statuses: Vec<u16> = (0..10).map(|_| client.get("/").status).collect();
    assert_eq!(statuses, [503, 503, 503, 503, 503, 200, 200, 200, 200, 200]);
    assert_eq!(reserve.requests().len(), 5);
    proxy.metric_reaches("outrigger_requests_total", &[("upstream", "reserve"), ("code", "200")], 5.0);
}

#[test]
fn a_fixed_answer_stands_in() {
    let (upstream, _) = ailing();
    let fallback =
        "{ min_requests: 5, fallback: { respond: { status: 200, body: \"[]\", content_type: application/json } } }";
    let proxy = proxy(&upstream, fallback, "");
    let mut client = proxy.client();
    (0..5).for_each(|_| assert_eq!(client.get("/").status, 503));
    let answer = client.get("/");
    assert_eq!((answer.status, answer.text()), (200, "[]".to_owned()));
    assert_eq!(upstream.requests().len(), 5);
}

#[test]
fn the_shadow_counts_and_refuses_nothing() {
    let (upstream, _) = ailing();
    let proxy = proxy(&upstream, "{ min_requests: 5, shadow: true }", "");
    let mut client = proxy.client();
    (0..20).for_each(|_| drop(client.get("/")));
    assert_eq!(upstream.requests().len(), 20);
    assert_eq!(proxy.metric("outrigger_circuit_breaker_refused_total", &[("upstream", "app")]), 15.0);
}

#[test]
fn one_dead_endpoint_of_two_does_not_open_it() {
    let (dead, _) = ailing();
    let alive = Upstream::scripted(|served| {
        while served.request().is_some() {
            served.send(OK);
        }
    });
    let proxy = Proxy::start(
        "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@dead\", \"@alive\"], circuit_breaker: { min_requests: 2, failure_ratio: 0.2 } }
",
        &[("@dead", &dead.address()), ("@alive", &alive.address())],
    );
    let mut client = proxy.client();
    let statuses: Vec<u16> = (0..50).map(|_| client.get("/").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 5, "{statuses:?}");
    assert_eq!(breaker(&proxy)["opened"], 0);
}
