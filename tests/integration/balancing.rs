//! Shares: over 10,000 requests each endpoint's is within 1 % of its weight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::get;
use crate::support::upstream::OK;
use crate::support::{Client, Proxy, Upstream};

const REQUESTS: usize = 10_000;

/// Endpoints that count; they know nothing but GET without a body, and are quick.
fn counting(count: usize) -> Vec<(Upstream, Arc<AtomicUsize>)> {
    let endpoint = |_| {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let upstream = Upstream::scripted(move |served| {
            while served.head().is_some() {
                counter.fetch_add(1, Ordering::Relaxed);
                if served.try_send(OK).is_err() {
                    return;
                }
            }
        });
        (upstream, requests)
    };
    (0..count).map(endpoint).collect()
}

fn load(proxy: &Proxy, connections: usize) {
    let address = proxy.address("inbound");
    let each = REQUESTS / connections;
    const BATCH: usize = 10;
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for _ in 0..each / BATCH {
                    client.send(get("/").repeat(BATCH));
                    for _ in 0..BATCH {
                        assert_eq!(client.response().status, 200);
                    }
                }
            });
        }
    });
}

#[track_caller]
fn shares(endpoints: &[(Upstream, Arc<AtomicUsize>)], weights: &[usize], case: &str) {
    let counts: Vec<usize> = endpoints.iter().map(|(_, count)| count.swap(0, Ordering::Relaxed)).collect();
    assert_eq!(counts.iter().sum::<usize>(), REQUESTS, "{case}: {counts:?}");
    let total: usize = weights.iter().sum();
    for (count, weight) in counts.iter().zip(weights) {
        let (share, due) = (*count as f64 / REQUESTS as f64, *weight as f64 / total as f64);
        assert!((share - due).abs() <= 0.01, "{case}: {counts:?} for weights {weights:?}");
        assert!(*weight > 0 || *count == 0, "{case}: weight 0 got {count}");
    }
}

const WEIGHTS: [usize; 4] = [5, 3, 1, 0];

fn weighted(workers: usize, endpoints: &[(Upstream, Arc<AtomicUsize>)]) -> Proxy {
    let list: Vec<String> = endpoints
        .iter()
        .zip(WEIGHTS)
        .map(|((upstream, _), weight)| format!("{{ address: \"{}\", weight: {weight} }}", upstream.address()))
        .collect();
    Proxy::start(
        "
workers: @workers
telemetry: { access_log: { path: none } }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [@list] }
",
        &[("@workers", &workers), ("@list", &list.join(", "))],
    )
}

#[test]
fn weights_hold_with_one_worker() {
    let endpoints = counting(WEIGHTS.len());
    let proxy = weighted(1, &endpoints);
    for connections in [1, 20] {
        load(&proxy, connections);
        shares(&endpoints, &WEIGHTS, &format!("one worker, {connections} connections"));
    }
}

#[test]
fn weights_hold_with_several_workers() {
    let endpoints = counting(WEIGHTS.len());
    let proxy = weighted(4, &endpoints);
    for connections in [1, 20] {
        load(&proxy, connections);
        shares(&endpoints, &WEIGHTS, &format!("four workers, {connections} connections"));
    }
}

// As many connections as a real service sees, with a request or two each: the workers' pickers must not start in step.
#[test]
fn weights_hold_over_short_connections() {
    let endpoints = counting(2);
    let list: Vec<String> = endpoints.iter().map(|(upstream, _)| format!("\"{}\"", upstream.address())).collect();
    let proxy = Proxy::start(
        "
workers: 4
telemetry: { access_log: { path: none } }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [@list] }
",
        &[("@list", &list.join(", "))],
    );
    load(&proxy, 500);
    shares(&endpoints, &[1, 1], "500 connections");
}

#[test]
fn a_heavy_endpoint_is_not_hit_in_bursts() {
    let order = Arc::new(std::sync::Mutex::new(String::new()));
    let endpoints: Vec<Upstream> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let order = Arc::clone(&order);
            Upstream::scripted(move |served| {
                while served.head().is_some() {
                    order.lock().unwrap().push_str(name);
                    served.send(OK);
                }
            })
        })
        .collect();
    let proxy = Proxy::start(
        "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [{ address: \"@a\", weight: 5 }, { address: \"@b\", weight: 1 }, { address: \"@c\", weight: 1 }] }
",
        &[("@a", &endpoints[0].address()), ("@b", &endpoints[1].address()), ("@c", &endpoints[2].address())],
    );
    let mut client = proxy.client();
    for _ in 0..70 {
        assert_eq!(client.get("/").status, 200);
    }
    let order = order.lock().unwrap().clone();
    assert_eq!(
        (order.matches('a').count(), order.matches('b').count(), order.matches('c').count()),
        (50, 10, 10),
        "{order}"
    );
    // Smooth weighted round robin of 5:1:1 is a a b a c a a: never more than four of the heavy one in a row.
    assert!(!order.contains("aaaaa"), "{order}");
}

#[test]
fn a_split_divides_by_weight() {
    let endpoints = counting(2);
    let proxy = Proxy::start(
        "
telemetry: { access_log: { path: none } }
listeners:
  inbound: { address: 127.0.0.1:0, routes: [{ split: { stable: 95, next: 5 } }] }
upstreams:
  stable: { static: [\"@a\"] }
  next: { static: [\"@b\"] }
",
        &[("@a", &endpoints[0].0.address()), ("@b", &endpoints[1].0.address())],
    );
    load(&proxy, 20);
    shares(&endpoints, &[95, 5], "a split");
}

// The latency of one is what it takes to answer; the other balancers see its requests pile up.
#[test]
fn a_slow_endpoint_gets_little_where_the_balancer_looks() {
    for load_balancer in ["least_requests", "peak_ewma"] {
        let mut endpoints = counting(2);
        let (requests, counter) = (Arc::new(AtomicUsize::new(0)), endpoints[1].1.clone());
        let slow = Upstream::scripted(move |served| {
            while served.head().is_some() {
                counter.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(50));
                if served.try_send(OK).is_err() {
                    return;
                }
            }
        });
        endpoints.push((slow, requests));
        let list: Vec<String> = [0, 2].map(|index: usize| format!("\"{}\"", endpoints[index].0.address())).to_vec();
        let proxy = Proxy::start(
            "
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [@list], load_balancer: @balancer }
",
            &[("@list", &list.join(", ")), ("@balancer", &load_balancer)],
        );
        load(&proxy, 20);
        let [quick, slow] = [0, 1].map(|index: usize| endpoints[index].1.load(Ordering::Relaxed));
        assert_eq!(quick + slow, REQUESTS);
        assert!(slow * 4 < quick, "{load_balancer}: {quick} at the quick one, {slow} at the slow one");
    }
}

#[test]
fn the_own_zone_comes_first() {
    let endpoints = counting(2);
    let proxy = Proxy::start(
        "
zone: eu-1a
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [{ address: \"@a\", zone: eu-1b }, { address: \"@b\", zone: eu-1a }], prefer_zone: true }
",
        &[("@a", &endpoints[0].0.address()), ("@b", &endpoints[1].0.address())],
    );
    load(&proxy, 4);
    shares(&endpoints, &[0, 1], "the own zone");
}
