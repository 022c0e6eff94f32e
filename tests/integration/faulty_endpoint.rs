//! One of three endpoints goes wrong under load, in five ways: once that is noticed, next to no request fails, and the
//! slowest are hardly slower than before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::upstream::OK;
use crate::support::wait::within;
use crate::support::{Client, Gate, Proxy, Upstream};

const BROKEN: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
const CLIENTS: usize = 8;
/// Of each client, in each phase.
const REQUESTS: usize = 250;
/// What a busy machine adds to the slowest requests of either phase. What goes wrong costs at least twice that.
const NOISE: Duration = Duration::from_millis(100);
const TIMEOUTS: &str = "{ connect: 200ms, response: 200ms }";
/// Of the endpoint that answers slowly. No endpoint that is well ever takes that long, however busy the machine is.
const SLOW: Duration = Duration::from_secs(1);
const PATIENCE: &str = "{ response: 10s }";
/// What was slow is tried again when its latency has faded; that of a busy machine's worst moment takes that long at most.
const NOTICED: Duration = Duration::from_secs(60);

/// Answers until it is told to go wrong; then does `fault` to each request.
fn turning(
    fault: impl Fn(&mut crate::support::upstream::Served) + Send + Sync + 'static,
) -> (Upstream, Arc<AtomicBool>) {
    let wrong = Arc::new(AtomicBool::new(false));
    let is_wrong = wrong.clone();
    let upstream = Upstream::scripted(move |served| {
        while served.head().is_some() {
            if is_wrong.load(Ordering::SeqCst) {
                fault(served);
            } else if served.try_send(OK).is_err() {
                return;
            }
        }
    });
    (upstream, wrong)
}

/// Whom an endpoint holds, it holds until the test is over, however it ends.
struct Held(Gate);

impl Held {
    fn new() -> (Self, impl Fn() + Send + Sync + 'static) {
        let gate = Gate::new();
        let held = gate.clone();
        let hold = move || {
            while !held.is_open() {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        (Held(gate), hold)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// How many requests failed, and how long the slowest hundredth took.
fn load(address: SocketAddr, requests: usize) -> (usize, Duration) {
    let client = || {
        let mut client = Client::connect(address);
        let one = |_| {
            let began = Instant::now();
            let well = client.get("/").status == 200;
            (well, began.elapsed())
        };
        (0..requests).map(one).collect::<Vec<_>>()
    };
    let outcomes: Vec<(bool, Duration)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let mut times: Vec<Duration> = outcomes.iter().map(|(_, took)| *took).collect();
    times.sort_unstable();
    (outcomes.iter().filter(|(well, _)| !well).count(), times[times.len() * 99 / 100])
}

/// `noticed` says whether the proxy has found it out.
#[track_caller]
fn survives(
    what: &str,
    (faulty, wrong): (Upstream, Arc<AtomicBool>),
    timeouts: &str,
    keys: &str,
    noticed: impl Fn(&Proxy) -> bool,
) {
    let others = [turning(|_| ()).0, turning(|_| ()).0];
    let proxy = Proxy::start(
        "
telemetry: { access_log: { path: none } }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app:
    static: [\"@a\", \"@b\", \"@c\"]
    timeouts: @timeouts
    retries: { max: 2, when: [connect_failure, refused_stream, upstream_reset, gateway_error, 5xx], backoff: { base: 0s } }
@keys
",
        &[
            ("@a", &others[0].address()),
            ("@b", &faulty.address()),
            ("@c", &others[1].address()),
            ("@timeouts", &timeouts),
            ("@keys", &keys),
        ],
    );
    let address = proxy.address("inbound");
    let (failed, healthy) = load(address, REQUESTS);
    assert_eq!(failed, 0, "{what}: before anything went wrong");
    wrong.store(true, Ordering::SeqCst);
    // Several at a time: whoever is slower than both others by a hair gets nothing from one who asks alone.
    let noticed = || {
        load(address, 1);
        noticed(&proxy).then_some(())
    };
    assert!(within(NOTICED, noticed).is_some(), "{what}: not noticed within {NOTICED:?}");
    let (failed, p99) = load(address, REQUESTS);
    let all = CLIENTS * REQUESTS;
    assert!(failed * 1_000 <= all, "{what}: {failed} of {all} requests failed after it was noticed");
    assert!(p99 <= healthy * 2 + NOISE, "{what}: p99 is {p99:?} where it was {healthy:?}");
    eprintln!("{what}: {failed} of {all} failed, p99 {p99:?} (healthy: {healthy:?})");
}

fn ejected(proxy: &Proxy) -> bool {
    proxy.metric("outrigger_endpoints", &[("upstream", "app"), ("state", "ejected")]) == 1.0
}

#[test]
fn one_that_hangs() {
    let (_held, hold) = Held::new();
    survives("hangs", turning(move |_: &mut _| hold()), TIMEOUTS, "", ejected);
}

#[test]
fn one_that_resets() {
    survives("resets", turning(|served| served.reset()), TIMEOUTS, "", ejected);
}

#[test]
fn one_that_answers_500() {
    let keys = "    ejection: { failure_ratio: 0.5 }";
    survives("answers 500", turning(|served| drop(served.try_send(BROKEN))), TIMEOUTS, keys, ejected);
}

#[test]
fn one_that_answers_slowly() {
    let slow = turning(|served| {
        std::thread::sleep(SLOW);
        let _ = served.try_send(OK);
    });
    let noticed = |proxy: &Proxy| {
        let all: serde_json::Value = serde_json::from_str(&proxy.admin_get("/upstreams").text()).unwrap();
        all["upstreams"][0]["endpoints"][1]["latency_ms"]
            .as_f64()
            .is_some_and(|latency| latency >= SLOW.as_secs_f64() * 500.0)
    };
    survives("answers slowly", slow, PATIENCE, "    load_balancer: peak_ewma", noticed);
}

#[test]
fn one_that_accepts_and_never_answers() {
    let (_held, hold) = Held::new();
    let mute = turning(move |served| {
        served.close();
        hold();
    });
    let keys = "    health: { http: /, every: 50ms, timeout: 50ms, down: 2 }";
    survives("accepts and never answers", mute, TIMEOUTS, keys, |proxy| {
        proxy.metric("outrigger_endpoints", &[("upstream", "app"), ("state", "down")]) == 1.0 || ejected(proxy)
    });
}
