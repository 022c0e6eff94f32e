//! Like to like: ring hash and Maglev over real requests, by header, cookie and address.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::client::once;
use crate::support::upstream::OK;
use crate::support::{Proxy, Upstream};

/// Endpoints that answer anything.
fn endpoints(count: usize) -> Vec<Upstream> {
    let answering = |_| {
        Upstream::scripted(|served| {
            while served.request().is_some() {
                served.send(OK);
            }
        })
    };
    (0..count).map(answering).collect()
}

fn proxy(load_balancer: &str, endpoints: &[Upstream]) -> Proxy {
    let list: Vec<String> = endpoints.iter().map(|upstream| format!("\"{}\"", upstream.address())).collect();
    Proxy::start(
        "
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app, trust: { hops: 1 } }
upstreams:
  app: { static: [@list], load_balancer: @balancer }
",
        &[("@list", &list.join(", ")), ("@balancer", &load_balancer)],
    )
}

/// Sends each key thrice, over as many connections, and says where each has gone.
fn places(proxy: &Proxy, endpoints: &[Upstream], field: &str, keys: usize) -> BTreeMap<usize, BTreeSet<usize>> {
    let mut places: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for key in (0..keys).cycle().take(3 * keys) {
        let before: Vec<usize> = endpoints.iter().map(|endpoint| endpoint.requests().len()).collect();
        let field = field.replace('@', &key.to_string());
        let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\n{field}\r\nConnection: close\r\n\r\n");
        assert_eq!(once(proxy.address("inbound"), request).status, 200);
        let place = endpoints.iter().zip(before).position(|(endpoint, before)| endpoint.requests().len() > before);
        places.entry(key).or_default().insert(place.expect("somebody was asked"));
    }
    places
}

#[track_caller]
fn assert_like_to_like(places: &BTreeMap<usize, BTreeSet<usize>>, case: &str) {
    assert!(places.values().all(|places| places.len() == 1), "{case}: {places:?}");
    let used: BTreeSet<usize> = places.values().flatten().copied().collect();
    assert!(used.len() > 1, "{case}: all keys at one endpoint: {places:?}");
}

#[test]
fn the_same_key_goes_to_the_same_endpoint() {
    let endpoints = endpoints(3);
    for (load_balancer, field) in [
        ("{ ring_hash: { header: x-user } }", "X-User: user-@"),
        ("{ maglev: { header: x-user } }", "X-User: user-@"),
        ("{ ring_hash: { cookie: session } }", "Cookie: theme=dark; session=s@"),
        ("{ maglev: client_address }", "X-Forwarded-For: 10.0.0.@"),
        ("ring_hash", "X-Forwarded-For: 2001:db8::@"),
    ] {
        let proxy = proxy(load_balancer, &endpoints);
        assert_like_to_like(&places(&proxy, &endpoints, field, 12), load_balancer);
    }
}

#[test]
fn requests_without_a_key_go_everywhere() {
    let endpoints = endpoints(2);
    let proxy = proxy("{ ring_hash: { header: x-user } }", &endpoints);
    let places = places(&proxy, &endpoints, "X-Other: @", 20);
    let used: BTreeSet<usize> = places.values().flatten().copied().collect();
    assert_eq!(used.len(), 2);
}

#[test]
fn another_proxy_sends_a_key_to_the_same_endpoint() {
    let endpoints = endpoints(3);
    let [one, other] = [(); 2].map(|()| {
        let proxy = proxy("{ maglev: { header: x-user } }", &endpoints);
        places(&proxy, &endpoints, "X-User: user-@", 12)
    });
    assert_eq!(one, other);
}
