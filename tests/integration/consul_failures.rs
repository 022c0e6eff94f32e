//! Consul restarts, lies, lags and vanishes, and no request fails.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::consul_watch::before;
use crate::support::consul::Consul;
use crate::support::liar::{Liar, instances};
use crate::support::proxy::Setup;
use crate::support::traffic::{Traffic, named};
use crate::support::upstream::OK;
use crate::support::{Proxy, Upstream, eventually};

/// From Consul's recovery to ours the contract allows 2 s; the rest is for busy machines.
const RECOVERY: Duration = Duration::from_secs(4);
const WINDOW: Duration = Duration::from_millis(100);

fn before_liar(liar: &Liar, keys: &str) -> Proxy {
    let config = "
consul: { address: \"@liar\" }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { consul: web@keys }
";
    Setup::new(config, &[("@liar", &liar.url()), ("@keys", &keys)]).start()
}

fn errors(proxy: &Proxy) -> f64 {
    proxy.metric("outrigger_discovery_errors_total", &[("upstream", "app")])
}

#[test]
fn an_agent_that_comes_back_empty_handed_costs_no_request() {
    let mut consul = Consul::start();
    let (a, b) = (named("a"), named("b"));
    consul.register("web", "web-a", a.address());
    let mut proxy = before(&consul, "consul://web");
    eventually("the first instance", || proxy.client().get("/").text() == "a");
    let traffic = Traffic::start(proxy.address("inbound"), 500);
    consul.stop();
    eventually("failed look-ups", || errors(&proxy) >= 3.0);
    assert!(proxy.admin_get("/readyz").text().contains("cannot be looked up"), "{}", proxy.admin_get("/readyz").text());
    consul.start_again();
    // It knows nobody, and that is not believed.
    eventually("an empty answer", || proxy.admin_get("/readyz").text().contains("names no endpoint; the 1 known last"));
    let upstreams = proxy.admin_get("/upstreams").text();
    let upstreams: serde_json::Value = serde_json::from_str(&upstreams).unwrap();
    let kept = upstreams["upstreams"][0]["discovery"]["kept_for_seconds"].as_f64().unwrap();
    assert!(kept > 200.0, "after a reconnect, 5 m: {kept}");
    let change = Instant::now();
    consul.register("web", "web-b", b.address());
    // Beside the one that is still there, and only has to register again.
    let recovered = traffic.becomes("b is found", change, WINDOW, RECOVERY, |seen| seen.keys().eq(["a", "b"]));
    println!("recovered {recovered:?} after a registration, {} requests", traffic.stop());
    let log = proxy.process().stderr();
    assert!(log.contains("its endpoints cannot be looked up: no Consul agent answers at http://127."), "{log}");
    assert!(log.contains("its endpoints can be looked up again"), "{log}");
    assert!(log.contains("its source names no endpoint; those known last are kept for now"), "{log}");
}

#[test]
fn the_first_that_registers_again_does_not_get_the_work_of_all() {
    let mut consul = Consul::start();
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let register = |consul: &Consul, name: &str, instance: &Upstream| {
        consul.register("web", &format!("web-{name}"), instance.address());
    };
    for (name, instance) in [("a", &a), ("b", &b), ("c", &c)] {
        register(&consul, name, instance);
    }
    let proxy = before(&consul, "consul://web");
    let traffic = Traffic::start(proxy.address("inbound"), 500);
    let all = |seen: &std::collections::BTreeMap<String, usize>| seen.keys().eq(["a", "b", "c"]);
    traffic.becomes("all are called", Instant::now(), WINDOW, RECOVERY, all);
    let warned = |what: &str| proxy.admin_get("/readyz").text().contains(what);
    consul.stop();
    eventually("failed look-ups", || errors(&proxy) >= 1.0);
    consul.start_again();
    eventually("an empty answer", || warned("names no endpoint; the 3 known last"));
    register(&consul, "a", &a);
    eventually("one is there again", || {
        warned("its source has lost its memory and names 1 again; 2 others are kept for")
    });
    traffic.becomes("all are called still", Instant::now(), WINDOW, RECOVERY, all);
    register(&consul, "b", &b);
    eventually("two are", || warned("names 2 again; 1 others are kept for"));
    // Whoever has been there again leaves when it leaves.
    consul.deregister("web-b");
    let gone = |seen: &std::collections::BTreeMap<String, usize>| seen.keys().eq(["a", "c"]);
    traffic.becomes("b has left", Instant::now(), WINDOW, RECOVERY, gone);
    register(&consul, "c", &c);
    eventually("nobody is kept", || !warned("upstream app"));
    consul.deregister("web-c");
    traffic.becomes("c has left", Instant::now(), WINDOW, RECOVERY, |seen| seen.keys().eq(["a"]));
    traffic.stop();
}

#[test]
fn another_cause_is_told_wherever_somebody_asks() {
    let liar = Liar::new("500 Internal Server Error", "", "No cluster leader");
    let mut proxy = before_liar(&liar, "");
    eventually("the first cause", || proxy.process().stderr().contains("No cluster leader"));
    liar.says("403 Forbidden", "", "ACL not found");
    eventually("the second cause", || proxy.process().stderr().contains("ACL not found"));
    let readyz = proxy.admin_get("/readyz").text();
    assert!(readyz.contains("could never be looked up (the Consul agent at http://127."), "{readyz}");
    assert!(readyz.contains("ACL not found"), "{readyz}");
    let response = proxy.client().get("/");
    assert!(response.text().contains("ACL not found"), "{}", response.text());
    // And not time after time.
    let seen = errors(&proxy);
    eventually("more failures", || errors(&proxy) > seen + 2.0);
    assert_eq!(proxy.process().stderr().matches("ACL not found").count(), 1, "{}", proxy.process().stderr());
}

#[test]
fn all_is_well_when_every_datacenter_answers() {
    let consul = Consul::start();
    let (a, b) = (named("a"), named("b"));
    consul.register("web", "web-a", a.address());
    let mut proxy = before(&consul, "{ consul: { service: web, datacenters: [dc9, dc1] } }");
    eventually("the other datacenter", || proxy.client().get("/").text() == "a");
    eventually("that one fails", || errors(&proxy) >= 1.0);
    let updates = |proxy: &Proxy| proxy.metric("outrigger_discovery_updates_total", &[("upstream", "app")]);
    for round in 0..2 {
        let seen = updates(&proxy);
        consul.register("web", "web-b", b.address());
        eventually(&format!("b comes in round {round}"), || updates(&proxy) > seen);
        assert!(proxy.admin_get("/readyz").text().contains("datacenter dc9"), "{}", proxy.admin_get("/readyz").text());
        consul.deregister("web-b");
        eventually(&format!("b goes in round {round}"), || updates(&proxy) > seen + 1.0);
    }
    let log = proxy.process().stderr();
    assert!(!log.contains("can be looked up"), "{log}");
    assert_eq!(log.matches("datacenter dc9").count(), 1, "{log}");
}

#[test]
fn a_service_that_nobody_knows_is_said_once() {
    let consul = Consul::start();
    let mut proxy = before(&consul, "consul://misspelt");
    let named = "Consul knows no instance of `misspelt` that passes its checks";
    let count = |proxy: &mut Proxy| proxy.process().stderr().matches(named).count();
    eventually("the warning", || count(&mut proxy) > 0);
    // Another answer without anybody is no news.
    let critical = json!({ "Check": { "TTL": "1h", "Status": "critical" } });
    let app = Upstream::ok();
    consul.register_with("misspelt", "failing", ([127, 0, 0, 1], 1).into(), critical);
    consul.register("misspelt", "passing", app.address());
    eventually("somebody at last", || proxy.client().get("/").status == 200);
    assert_eq!(count(&mut proxy), 1, "{}", proxy.process().stderr());
}

#[test]
fn a_paused_agent_is_waited_for() {
    let consul = Consul::start();
    let (a, b) = (named("a"), named("b"));
    consul.register("web", "web-a", a.address());
    let proxy = before(&consul, "consul://web");
    eventually("the first instance", || proxy.client().get("/").text() == "a");
    let traffic = Traffic::start(proxy.address("inbound"), 500);
    consul.pause();
    let paused = traffic.count();
    eventually("requests go on", || traffic.count() > paused + 1_000);
    consul.resume();
    let change = Instant::now();
    consul.register("web", "web-b", b.address());
    traffic.becomes("b is found", change, WINDOW, RECOVERY, |seen| seen.contains_key("b"));
    traffic.stop();
}

#[test]
fn what_cannot_be_used_changes_nothing() {
    let (a, b) = (named("a"), named("b"));
    let whole = instances(&[a.address()]);
    let liar = Liar::new("200 OK", "X-Consul-Index: 10\r\n", &whole);
    let mut proxy = before_liar(&liar, ", on_empty: drop");
    eventually("the first instance", || proxy.client().get("/").text() == "a");
    let traffic = Traffic::start(proxy.address("inbound"), 200);
    let index = "X-Consul-Index: 11\r\n";
    let no_port = whole.replace(&format!("\"Port\":{}", a.address().port()), "\"Port\":0");
    let named_address = whole.replace("\"Address\":\"127.0.0.1\"", "\"Address\":\"web.internal\"");
    assert!(no_port != whole && named_address != whole);
    let filtered = "X-Consul-Index: 11\r\nX-Consul-Results-Filtered-By-ACLs: true\r\n";
    for (status, headers, body) in [
        ("500 Internal Server Error", "", "No cluster leader"),
        ("429 Too Many Requests", "", ""),
        ("403 Forbidden", "", "ACL not found"),
        ("404 Not Found", "", ""),
        ("200 OK", index, "<html>"),
        ("200 OK", index, ""),
        ("200 OK", index, "null"),
        ("200 OK", index, "[{}]"),
        ("200 OK", index, &whole[..whole.len() - 1]),
        ("200 OK", index, &no_port),
        ("200 OK", index, &named_address),
        ("200 OK", filtered, "[]"),
    ] {
        let seen = errors(&proxy);
        liar.says(status, headers, body);
        eventually(&format!("a failure for {status} {body}"), || errors(&proxy) > seen);
    }
    // A truth at last, with an index that went backwards.
    let change = Instant::now();
    liar.says("200 OK", "X-Consul-Index: 3\r\n", &instances(&[b.address()]));
    traffic.becomes("b is found", change, WINDOW, RECOVERY, |seen| seen.keys().eq(["b"]));
    eventually("a blocking query", || liar.questions().last().is_some_and(|question| question.contains("index=3&")));
    let questions = liar.questions();
    let blocking = questions.iter().filter(|question| question.contains("index=")).count();
    assert_eq!(blocking, 2, "after a failure, the next question does not block: {questions:?}");
    assert!(
        questions.iter().filter(|question| question.contains("index=")).all(|question| question.contains("wait=60s"))
    );
    traffic.stop();
    let log = proxy.process().stderr();
    assert!(log.contains("answered 500 Internal Server Error: No cluster leader"), "{log}");
    assert!(log.contains("Consul's index went backwards"), "{log}");
    // And a truth that is empty is taken at once, as it was asked for.
    liar.says("200 OK", "X-Consul-Index: 4\r\n", "[]");
    eventually("nobody is there", || proxy.client().get("/").status == 503);
}

#[test]
fn consul_is_asked_as_often_as_it_should_be() {
    let a = named("a");
    let liar = Liar::new("200 OK", "X-Consul-Index: 10\r\n", &instances(&[a.address()]));
    let proxy = before_liar(&liar, "");
    eventually("a blocking query", || liar.questions().len() == 2);
    let traffic = Traffic::start(proxy.address("inbound"), 500);
    eventually("a while", || traffic.count() > 1_000);
    assert_eq!(liar.questions().len(), 2, "nothing has changed");
    // Then something changes with each look.
    let began = Instant::now();
    let mut number = 11;
    while began.elapsed() < Duration::from_secs(6) {
        let seen = liar.questions().len();
        liar.says("200 OK", &format!("X-Consul-Index: {number}\r\n"), &instances(&[a.address()]));
        number += 1;
        crate::support::wait::within(Duration::from_millis(50), || (liar.questions().len() > seen).then_some(()));
    }
    let asked = liar.questions().len() - 2;
    assert!((10..=18).contains(&asked), "ten at once and one a second: {asked}");
    traffic.stop();
}

#[test]
fn a_service_of_ten_thousand_instances_is_followed() {
    let everywhere =
        Upstream::at(
            "0.0.0.0:0".parse().unwrap(),
            |served| {
                while served.head().is_some() && served.try_send(OK).is_ok() {}
            },
        );
    let port = everywhere.address().port();
    let address = |number: u16| SocketAddr::from((Ipv4Addr::from(0x7f50_0000 + u32::from(number)), port));
    let all: Vec<SocketAddr> = (1..=10_000).map(address).collect();
    let liar = Liar::new("200 OK", "X-Consul-Index: 10\r\n", &instances(&all));
    let mut proxy = before_liar(&liar, "");
    let endpoints = |proxy: &Proxy| proxy.metric("outrigger_endpoints", &[("upstream", "app")]);
    eventually("all instances", || endpoints(&proxy) == 10_000.0);
    let traffic = Traffic::start(proxy.address("inbound"), 500);
    let change = Instant::now();
    liar.says("200 OK", "X-Consul-Index: 11\r\n", &instances(&all[10..]));
    eventually("ten have left", || endpoints(&proxy) == 9_990.0);
    let took = change.elapsed();
    eventually("a while", || traffic.count() > 1_000);
    let resident = proxy.process().resident_bytes() >> 20;
    println!("an update of 10,000 took {took:?}; {resident} MiB; {} requests", traffic.stop());
}
