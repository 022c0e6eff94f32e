//! Three proxies in a row before an app that fails: retries must not make an outage worse, and must be over with it.
//! Shorter than an outage and as real.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::get;
use crate::support::upstream::OK;
use crate::support::{Client, Proxy, Upstream};

const TIER: &str = "
workers: 1
telemetry: { access_log: { path: none } }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: next }
upstreams:
  next:
    static: [\"@next\"]
    retries: { max: 3, when: [connect_failure, refused_stream, upstream_reset, 5xx], budget: { window: 2s } }
";

/// An app of which this many percent of the answers are failures.
fn failing(percent: &Arc<AtomicU32>) -> Upstream {
    let (percent, nth) = (percent.clone(), AtomicU32::new(0));
    Upstream::scripted(move |served| {
        while served.request().is_some() {
            let busy = nth.fetch_add(1, Ordering::SeqCst).wrapping_mul(37) % 100 < percent.load(Ordering::SeqCst);
            let busy_answer = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".as_bytes();
            if served.try_send(if busy { busy_answer } else { OK }).is_err() {
                return;
            }
        }
    })
}

/// Clients that send at a steady rate whatever becomes of it, and how often they got 200.
struct Load {
    sent: AtomicU64,
    answered: AtomicUsize,
    end: Instant,
}

fn steadily(load: &Arc<Load>, address: std::net::SocketAddr, per_second: u32) -> Vec<std::thread::JoinHandle<()>> {
    const CLIENTS: u32 = 10;
    let began = Instant::now();
    let clients = (0..CLIENTS).map(|number| {
        let load = load.clone();
        std::thread::spawn(move || {
            let mut client = Client::connect(address);
            for nth in 0.. {
                let due = began + Duration::from_secs(1) * (nth * CLIENTS + number) / per_second;
                if due >= load.end {
                    return;
                }
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                load.sent.fetch_add(1, Ordering::SeqCst);
                let response = client.exchange(get("/"));
                load.answered.fetch_add(usize::from(response.status == 200), Ordering::SeqCst);
            }
        })
    });
    clients.collect()
}

#[track_caller]
fn a_storm_stays_outside(per_second: u32, most: f64) {
    let percent = Arc::new(AtomicU32::new(0));
    let app = failing(&percent);
    let third = Proxy::start(TIER, &[("@next", &app.address())]);
    let second = Proxy::start(TIER, &[("@next", &third.address("inbound"))]);
    let first = Proxy::start(TIER, &[("@next", &second.address("inbound"))]);
    let phase = Duration::from_secs(4);
    let load =
        Arc::new(Load { sent: AtomicU64::new(0), answered: AtomicUsize::new(0), end: Instant::now() + phase * 4 });
    let clients = steadily(&load, first.address("inbound"), per_second);
    // What happens in each phase: attempts per request, and the share of good answers.
    let mut seen = Vec::new();
    for failing in [0, 50, 100, 0] {
        percent.store(failing, Ordering::SeqCst);
        let before = (load.sent.load(Ordering::SeqCst), app.count("/"), load.answered.load(Ordering::SeqCst));
        std::thread::sleep(phase - Duration::from_millis(100));
        let sent = (load.sent.load(Ordering::SeqCst) - before.0) as f64;
        let attempts = (app.count("/") - before.1) as f64;
        let answered = (load.answered.load(Ordering::SeqCst) - before.2) as f64;
        seen.push((attempts / sent, answered / sent));
        std::thread::sleep(Duration::from_millis(100));
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    let [healthy, half, down, recovered] = seen[..] else { panic!("{seen:?}") };
    assert!((healthy.0 - 1.0).abs() < 0.1 && healthy.1 > 0.9, "healthy: {seen:?}");
    assert!(half.0 <= most && half.1 > 0.5, "half of it fails: {seen:?}");
    assert!(down.0 <= most && down.1 < 0.05, "all of it fails: {seen:?}");
    assert!(recovered.1 > 0.9, "over: {seen:?}");
    let retries = |proxy: &Proxy| proxy.metric("outrigger_retries_total", &[("outcome", "failure")]);
    assert!(retries(&third) > 0.0, "the hop next to the failure retries");
    assert_eq!((retries(&second), retries(&first)), (0.0, 0.0), "and no other");
}

#[test]
fn at_200_requests_a_second() {
    a_storm_stays_outside(200, 1.25);
}

#[test]
fn at_20_requests_a_second() {
    a_storm_stays_outside(20, 1.3);
}
