//! The proxy puts itself into Consul when it is ready, stays there, and leaves before its listener closes.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::consul_watch::before;
use crate::support::consul::Consul;
use crate::support::liar::Liar;
use crate::support::proxy::Setup;
use crate::support::traffic::{Traffic, named};
use crate::support::{Proxy, Upstream, eventually};
use crate::swap::{swap, text};

/// A proxy before this upstream that registers itself as `orders`.
fn registered(consul: &Consul, upstream: &Upstream, keys: &str) -> Proxy {
    let config = "
service: orders
consul: { address: \"@consul\" }
register: { address: 127.0.0.1, @keys }
drain: { delay: 1s, timeout: 5s }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: \"@app\" }
";
    Setup::new(config, &[("@consul", &consul.url()), ("@keys", &keys), ("@app", &upstream.address())]).start()
}

/// What Consul says of `orders`.
fn orders(consul: &Consul) -> Vec<Value> {
    let said = consul.ask("GET", "/v1/health/service/orders", "");
    said.as_array().cloned().unwrap_or_default()
}

fn passing(consul: &Consul) -> bool {
    orders(consul).iter().any(|entry| {
        let checks = entry["Checks"].as_array().unwrap();
        checks.len() == 2 && checks.iter().all(|check| check["Status"] == "passing")
    })
}

#[test]
fn a_registered_proxy_comes_and_goes_without_a_failed_request() {
    let consul = Consul::start();
    let (a, b) = (named("a"), named("b"));
    let first = registered(&consul, &a, "tags: [v1], meta: { team: shop }, check: { ttl: 3s }");
    eventually("the first is registered", || passing(&consul));
    let entry = &orders(&consul)[0]["Service"];
    assert_eq!(entry["Port"], first.address("inbound").port(), "{entry}");
    assert_eq!((&entry["Tags"][0], &entry["Meta"]["team"]), (&"v1".into(), &"shop".into()), "{entry}");
    let caller = before(&consul, "consul://orders");
    eventually("the first is called", || caller.client().get("/").text() == "a");
    let traffic = Traffic::start(caller.address("inbound"), 500);
    let second = registered(&consul, &b, "check: { ttl: 3s }");
    let change = Instant::now();
    let (window, soon) = (Duration::from_millis(100), Duration::from_secs(4));
    traffic.becomes("the second is called", change, window, soon, |seen| seen.len() == 2);
    first.stop();
    assert_eq!(orders(&consul).len(), 1, "the first has taken itself out");
    traffic.becomes("only the second is called", Instant::now(), window, soon, |seen| seen.keys().eq(["b"]));
    // Longer than the check's time: the proxy has spoken up meanwhile.
    let seen = traffic.count();
    eventually("a while", || traffic.count() > seen + 2_000);
    assert!(passing(&consul));
    traffic.stop();
    second.stop();
    assert_eq!(orders(&consul).len(), 0);
}

#[test]
fn a_swap_changes_what_is_registered() {
    let consul = Consul::start();
    let a = named("a");
    let proxy = registered(&consul, &a, "id: orders-1, tags: [v1]");
    eventually("registered", || passing(&consul));
    let tags = || orders(&consul).iter().map(|entry| entry["Service"]["Tags"][0].clone()).collect::<Vec<_>>();
    let ids = || orders(&consul).iter().map(|entry| entry["Service"]["ID"].clone()).collect::<Vec<_>>();
    swap(&proxy, &text(&proxy).replace("tags: [v1]", "tags: [v2]"));
    eventually("other tags", || tags() == ["v2"] && passing(&consul));
    swap(&proxy, &text(&proxy).replace("id: orders-1", "id: orders-2"));
    eventually("another id, and only that", || ids() == ["orders-2"] && passing(&consul));
    let register = text(&proxy).lines().find(|line| line.starts_with("register:")).unwrap().to_owned();
    swap(&proxy, &text(&proxy).replace(&register, ""));
    eventually("nobody", || orders(&consul).is_empty());
    swap(&proxy, &(text(&proxy) + &register + "\n"));
    eventually("again", || ids() == ["orders-2"] && passing(&consul));
    proxy.stop();
    assert_eq!(orders(&consul).len(), 0);
}

#[test]
fn an_agent_that_has_forgotten_is_told_again() {
    let mut consul = Consul::start();
    let a = named("a");
    let mut proxy = registered(&consul, &a, "id: orders-1, check: { ttl: 1s }");
    eventually("the first time", || passing(&consul));
    consul.deregister("orders-1");
    eventually("the second time", || passing(&consul));
    consul.stop();
    consul.start_again();
    eventually("the third time", || passing(&consul));
    // Consul knows it a moment before the log does.
    eventually("three lines in the log", || proxy.process().stderr().matches("\"registered in Consul\"").count() == 3);
    let log = proxy.process().stderr();
    assert_eq!(log.matches("Consul has forgotten this service").count(), 2, "{log}");
    // An agent that is away keeps nobody from ending.
    consul.stop();
    proxy.stop();
}

#[test]
fn who_is_not_let_in_says_so_and_does_not_take_it_for_forgetting() {
    let liar = Liar::new("403 Forbidden", "", "Permission denied");
    let config = "
service: orders
consul: { address: \"@consul\" }
register: { address: 127.0.0.1, check: { ttl: 1s } }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: \"127.0.0.1:1\" }
";
    let mut proxy = Setup::new(config, &[("@consul", &liar.url())]).start();
    let warned = |proxy: &Proxy| {
        let readyz = proxy.admin_get("/readyz").text();
        readyz.contains("this proxy is not in Consul as it should be (the Consul agent at http://127.")
            && readyz.contains("403 Forbidden: Permission denied")
    };
    eventually("the warning", || warned(&proxy));
    liar.says("200 OK", "", "");
    eventually("it is registered", || !warned(&proxy));
    liar.says("403 Forbidden", "", "Permission denied");
    eventually("another warning", || warned(&proxy));
    let registrations = || liar.questions().iter().filter(|question| question.contains("/service/register")).count();
    let (before, asked) = (registrations(), liar.questions().len());
    eventually("a while", || liar.questions().len() > asked + 5);
    assert_eq!(registrations(), before);
    let log = proxy.process().stderr();
    assert!(log.contains("cannot register in Consul: the Consul agent"), "{log}");
    assert!(log.contains("Consul cannot be told that this service is well: the Consul agent"), "{log}");
    assert!(!log.contains("forgotten"), "{log}");
    liar.says("404 Not Found", "", "Unknown check ID \"service:orders\"");
    eventually("it is forgotten", || proxy.process().stderr().contains("Consul has forgotten this service"));
}

#[test]
fn the_agent_can_make_the_check() {
    let consul = Consul::start();
    let a = named("a");
    let keys = format!("check: {{ tcp: \"{}\", every: 1s, timeout: 500ms }}", a.address());
    let proxy = registered(&consul, &a, &keys);
    eventually("registered", || passing(&consul));
    a.stop_accepting();
    eventually("ill", || !orders(&consul).is_empty() && !passing(&consul));
    proxy.stop();
    assert_eq!(orders(&consul).len(), 0);
}

#[test]
fn until_the_agent_has_looked_there_are_no_calls() {
    let consul = Consul::start();
    let a = named("a");
    a.stop_accepting();
    // Its first look comes at a random time within this.
    let keys = format!("check: {{ tcp: \"{}\", every: 1m }}", a.address());
    let proxy = registered(&consul, &a, &keys);
    eventually("registered", || !orders(&consul).is_empty());
    assert!(!passing(&consul));
    proxy.stop();
}

#[test]
fn who_is_not_ready_is_not_registered() {
    let consul = Consul::start();
    let config = "
service: orders
consul: { address: \"@consul\" }
register: { address: 127.0.0.1 }
wait_for_discovery: 30s
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { consul: app }
";
    // It follows an agent that accepts and says nothing, and would register there.
    consul.pause();
    let proxy = Setup::new(config, &[("@consul", &consul.url())]).start();
    let readyz = proxy.admin_get("/readyz");
    assert_eq!((readyz.status, &readyz.json()["phase"]), (503, &"starting".into()), "{}", readyz.text());
    consul.resume();
    // An empty answer counts: nobody waits for a service that waits for this one.
    eventually("ready", || proxy.admin_get("/readyz").status == 200);
    assert!(proxy.admin_get("/readyz").text().contains("upstream app: its source names no endpoint"));
    eventually("registered", || passing(&consul));
    proxy.stop();
}
