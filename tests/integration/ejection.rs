//! Endpoints that fail too often are left out, and nobody else suffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::upstream::OK;
use crate::support::wait::eventually;
use crate::support::{Proxy, Upstream};

const BROKEN: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// Of the proxy before an endpoint.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nX-Outrigger-Reason: concurrency_limited; hop=inbound\r\n\
    Content-Length: 0\r\n\r\n";

fn answering(answer: &'static [u8]) -> Upstream {
    Upstream::scripted(move |served| {
        while served.request().is_some() {
            served.send(answer);
        }
    })
}

/// One that answers 503 until it is told to be well.
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

fn proxy(endpoints: &[&Upstream], keys: &str) -> Proxy {
    let list: Vec<String> = endpoints.iter().map(|upstream| format!("\"{}\"", upstream.address())).collect();
    Proxy::start(
        "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [@list]@keys }
",
        &[("@list", &list.join(", ")), ("@keys", &keys)],
    )
}

fn statuses(proxy: &Proxy, count: usize) -> Vec<u16> {
    let mut client = proxy.client();
    (0..count).map(|_| client.get("/").status).collect()
}

fn upstream(proxy: &Proxy) -> Value {
    let all: Value = serde_json::from_str(&proxy.admin_get("/upstreams").text()).unwrap();
    all["upstreams"][0].clone()
}

#[test]
fn five_gateway_failures_in_a_row_are_enough_by_default() {
    let (good, bad) = (answering(OK), answering(UNAVAILABLE));
    let proxy = proxy(&[&good, &bad], "");
    let statuses = statuses(&proxy, 100);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 5, "{statuses:?}");
    assert!(statuses[10..].iter().all(|status| *status == 200), "{statuses:?}");
    let shown = upstream(&proxy);
    assert_eq!(
        (&shown["endpoints"][0]["state"], &shown["endpoints"][1]["state"]),
        (&"ready".into(), &"ejected".into())
    );
    let left = shown["endpoints"][1]["ejection"]["seconds_left"].as_f64().unwrap();
    assert_eq!(shown["endpoints"][1]["ejection"]["cause"], "consecutive");
    assert!(left > 20.0 && left <= 30.0, "{left}");
    let labels = [("upstream", "app"), ("cause", "consecutive")];
    assert_eq!(proxy.metric("outrigger_endpoint_ejections_total", &labels), 1.0);
    assert_eq!(proxy.metric("outrigger_endpoints", &[("upstream", "app"), ("state", "ejected")]), 1.0);
}

#[test]
fn whoever_sheds_load_is_not_ejected_for_it() {
    let (good, full) = (answering(OK), answering(FULL));
    let proxy = proxy(&[&good, &full], ", circuit_breaker: { failure_ratio: 0.2, min_requests: 5 }");
    let statuses = statuses(&proxy, 40);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 20, "{statuses:?}");
    assert_eq!(upstream(&proxy)["endpoints"][1]["state"], "ready");
    let shed = [("outcome", "concurrency_limited")];
    assert_eq!(proxy.metric("outrigger_attempt_duration_seconds_count", &shed), 20.0);
}

#[test]
fn the_last_one_stays() {
    let (bad, worse) = (answering(UNAVAILABLE), answering(UNAVAILABLE));
    let proxy = proxy(&[&bad, &worse], "");
    assert!(statuses(&proxy, 40).iter().all(|status| *status == 503));
    let ejected = [("upstream", "app"), ("state", "ejected")];
    assert_eq!(proxy.metric("outrigger_endpoints", &ejected), 1.0);
    assert!(bad.requests().len() + worse.requests().len() == 40, "nobody is refused");
}

#[test]
fn an_endpoint_that_nobody_can_connect_to_is_out_too() {
    let (good, gone) = (answering(OK), answering(OK));
    gone.stop_accepting();
    let proxy = proxy(&[&good, &gone], "");
    let statuses = statuses(&proxy, 60);
    assert!(statuses[12..].iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(upstream(&proxy)["endpoints"][1]["state"], "ejected");
}

#[test]
fn an_answer_of_500_is_none_of_these_unless_a_ratio_is_asked_for() {
    let (good, bad) = (answering(OK), answering(BROKEN));
    let plain = proxy(&[&good, &bad], "");
    let seen = statuses(&plain, 60);
    assert_eq!(seen.iter().filter(|status| **status == 500).count(), 30, "{seen:?}");
    let strict = proxy(&[&good, &bad], ", ejection: { failure_ratio: 0.5, min_requests: 10 }");
    let seen = statuses(&strict, 60);
    assert_eq!(seen.iter().filter(|status| **status == 500).count(), 10, "{seen:?}");
    assert_eq!(strict.metric("outrigger_endpoint_ejections_total", &[("cause", "failure_ratio")]), 1.0);
}

#[test]
fn it_comes_back_by_itself_and_little_by_little() {
    let (good, (bad, well)) = (answering(OK), ailing());
    let proxy = proxy(&[&good, &bad], ", ejection: { for: 300ms, max_for: 300ms }, slow_start: 1h");
    statuses(&proxy, 20);
    assert_eq!(bad.requests().len(), 5);
    well.store(true, Ordering::SeqCst);
    eventually("the endpoint to be back", || upstream(&proxy)["endpoints"][1]["state"] == "warming");
    assert!(statuses(&proxy, 400).iter().all(|status| *status == 200));
    let share = bad.requests().len() - 5;
    assert!((1..=80).contains(&share), "a tenth of its share, and it got {share} of 400");
}

#[test]
fn the_shadow_counts_and_leaves_nobody_out() {
    let (good, bad) = (answering(OK), answering(UNAVAILABLE));
    let proxy = proxy(&[&good, &bad], ", ejection: { shadow: true }");
    let statuses = statuses(&proxy, 40);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 20, "{statuses:?}");
    assert_eq!(proxy.metric("outrigger_endpoint_ejections_total", &[("cause", "consecutive")]), 1.0);
}

#[test]
fn it_can_be_switched_off() {
    let (good, bad) = (answering(OK), answering(UNAVAILABLE));
    let proxy = proxy(&[&good, &bad], ", ejection: none");
    let statuses = statuses(&proxy, 40);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 20, "{statuses:?}");
}
