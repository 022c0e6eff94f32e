//! Active checks: who does not answer them gets no requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::h2::H2Upstream;
use crate::support::upstream::OK;
use crate::support::wait::eventually;
use crate::support::{Gate, Proxy, Upstream};

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// One that answers requests, and checks by what it is told.
fn checked(path: &'static str) -> (Upstream, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let is_well = well.clone();
    let upstream = Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            served.send(if request.target != path || is_well.load(Ordering::SeqCst) { OK } else { UNAVAILABLE });
        }
    });
    (upstream, well)
}

fn proxy(endpoints: &[std::net::SocketAddr], keys: &str) -> Proxy {
    let list: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    Proxy::start(
        "
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [@list], health: { @keys } }
",
        &[("@list", &list.join(", ")), ("@keys", &keys)],
    )
}

fn endpoint(proxy: &Proxy, position: usize) -> Value {
    let all: Value = serde_json::from_str(&proxy.admin_get("/upstreams").text()).unwrap();
    all["upstreams"][0]["endpoints"][position].clone()
}

#[track_caller]
fn becomes(proxy: &Proxy, position: usize, state: &str) {
    eventually(&format!("endpoint {position} to be {state}"), || endpoint(proxy, position)["state"] == state);
}

#[test]
fn who_fails_its_checks_gets_nothing_until_it_passes_again() {
    let ((one, one_well), (other, _)) = (checked("/healthz?deep"), checked("/healthz?deep"));
    let proxy = proxy(&[one.address(), other.address()], "http: /healthz?deep, every: 20ms, up: 2, down: 3");
    proxy.metric_reaches("outrigger_health_checks_total", &[("upstream", "app"), ("result", "passed")], 2.0);
    one_well.store(false, Ordering::SeqCst);
    becomes(&proxy, 0, "down");
    let before = one.count("/request");
    let mut client = proxy.client();
    (0..20).for_each(|_| assert_eq!(client.get("/request").status, 200));
    assert_eq!((one.count("/request"), other.count("/request")), (before, 20));
    let health = &endpoint(&proxy, 0)["health"];
    assert_eq!((&health["state"], &health["error"]), (&"down".into(), &"status 503".into()));
    assert_eq!(proxy.metric("outrigger_endpoints", &[("upstream", "app"), ("state", "down")]), 1.0);
    let head = one.request(0).head;
    assert_eq!(head.get("host"), Some(one.address().to_string().as_str()));
    assert!(head.get("user-agent").unwrap().contains("health check"));
    one_well.store(true, Ordering::SeqCst);
    becomes(&proxy, 0, "ready");
    (0..20).for_each(|_| assert_eq!(client.get("/request").status, 200));
    assert!(one.count("/request") > 0);
}

#[test]
fn where_all_are_down_the_reason_says_so() {
    let (one, well) = checked("/healthz");
    let proxy = proxy(&[one.address()], "http: /healthz, every: 20ms, down: 1");
    well.store(false, Ordering::SeqCst);
    becomes(&proxy, 0, "down");
    let answer = proxy.client().get("/");
    assert_eq!((answer.status, answer.reason()), (503, Some("no_healthy_endpoint; hop=inbound")));
    let warning = "upstream app: none of its 1 endpoints is well; 1 fail their health check, 0 are ejected";
    assert!(proxy.admin_get("/readyz").text().contains(warning), "{}", proxy.admin_get("/readyz").text());
}

#[test]
fn a_connection_can_be_all_that_is_asked_for() {
    let (one, other) = (Upstream::ok(), Upstream::ok());
    let proxy = proxy(&[one.address(), other.address()], "tcp: true, every: 20ms, down: 2");
    proxy.metric_reaches("outrigger_health_checks_total", &[("result", "passed")], 2.0);
    other.stop_accepting();
    becomes(&proxy, 1, "down");
    assert_eq!(endpoint(&proxy, 0)["state"], "ready");
}

#[test]
fn who_accepts_and_never_answers_is_down() {
    let gate = Gate::new();
    let held = gate.clone();
    let mute = Upstream::scripted(move |served| {
        let _ = served.request_head();
        held.wait("the test's end");
    });
    let proxy = proxy(&[mute.address()], "http: /, every: 20ms, timeout: 50ms, down: 1");
    becomes(&proxy, 0, "down");
    assert_eq!(endpoint(&proxy, 0)["health"]["error"], "no answer within 50ms");
    gate.open();
}

#[test]
fn a_port_of_its_own_is_asked() {
    let (app, (health, well)) = (Upstream::ok(), checked("/live"));
    let keys = format!("http: /live, every: 20ms, down: 1, port: {}", health.address().port());
    let proxy = proxy(&[app.address()], &keys);
    well.store(false, Ordering::SeqCst);
    becomes(&proxy, 0, "down");
    assert_eq!(app.requests().len(), 0);
}

#[test]
fn initially_down_is_down_until_the_first_check_passes() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            if request.target == "/healthz" {
                held.wait("the test to let the check pass");
            }
            served.send(OK);
        }
    });
    let proxy = proxy(&[upstream.address()], "http: /healthz, every: 20ms, timeout: 9s, initial: down");
    assert_eq!(proxy.client().get("/").reason(), Some("no_healthy_endpoint; hop=inbound"));
    gate.open();
    becomes(&proxy, 0, "ready");
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn grpcs_health_protocol_is_spoken() {
    let serving = Arc::new(AtomicBool::new(true));
    let is_serving = serving.clone();
    let upstream = H2Upstream::streams(move |mut stream| {
        let status = if is_serving.load(Ordering::SeqCst) { b"\x08\x01" } else { b"\x08\x02" };
        async move {
            let (body, _) = stream.read().await;
            assert_eq!(&body[..], b"\x00\x00\x00\x00\x0a\x0a\x08my.Store");
            stream.grpc_ok(status).await;
        }
    });
    let proxy = proxy(&[upstream.address()], "grpc: my.Store, every: 20ms, down: 1, up: 1");
    proxy.metric_reaches("outrigger_health_checks_total", &[("result", "passed")], 1.0);
    assert_eq!(endpoint(&proxy, 0)["health"]["state"], "up");
    serving.store(false, Ordering::SeqCst);
    becomes(&proxy, 0, "down");
    assert_eq!(endpoint(&proxy, 0)["health"]["error"], "serving status 2");
    serving.store(true, Ordering::SeqCst);
    becomes(&proxy, 0, "ready");
    assert_eq!(upstream.head(0).uri.path(), "/grpc.health.v1.Health/Check");
}
