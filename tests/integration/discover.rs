//! Services that are found when first called: by the names that Consul's DNS has, and by DNS; within the lists and bounds
//! of their route.

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::Value;

use crate::support::client::once;
use crate::support::consul::Consul;
use crate::support::dnsmasq::Dnsmasq;
use crate::support::nameserver::{Nameserver, Reply};
use crate::support::recorder::Recorder;
use crate::support::traffic::named;
use crate::support::wait::eventually_some;
use crate::support::{Client, Proxy, Response, eventually};
use crate::swap::{swap, text};

/// A proxy that finds services as `discover` says; `consul` and `dns` are sections.
fn finding(sections: &str, discover: &str) -> Proxy {
    let config = "
@sections
listeners:
  outbound:
    address: 127.0.0.1:0
    routes:
      - { discover: @discover, timeouts: { connect: 5s } }
";
    Proxy::start(config, &[("@sections", &sections), ("@discover", &discover)])
}

fn by_consul(consul: &Consul, discover: &str) -> Proxy {
    finding(&format!("consul: {{ address: \"{}\" }}", consul.url()), discover)
}

fn by_dns(nameserver: SocketAddr, discover: &str) -> Proxy {
    finding(&format!("dns: {{ servers: \"{nameserver}\" }}"), discover)
}

fn call(proxy: &Proxy, host: &str) -> Response {
    once(proxy.address("outbound"), format!("GET /{host} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

/// The status and the reason.
fn refused(proxy: &Proxy, host: &str) -> (u16, String) {
    let response = call(proxy, host);
    let reason =
        response.head.get("x-outrigger-reason").unwrap_or("none").split(';').next().unwrap_or_default().to_owned();
    (response.status, reason)
}

fn shown(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.admin_get("/upstreams").text()).unwrap()
}

/// Names of the services that are known now.
fn known(proxy: &Proxy) -> Vec<String> {
    let shown = shown(proxy);
    let found = shown["upstreams"].as_array().unwrap().iter().filter(|upstream| upstream["found_by"].is_string());
    found.map(|upstream| upstream["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
}

#[test]
fn consuls_names_lead_to_its_services() {
    let consul = Consul::start();
    let (orders, v1) = (named("orders"), named("v1"));
    consul.register("orders", "orders-1", orders.address());
    consul.register_with("orders", "orders-2", v1.address(), serde_json::json!({ "Tags": ["v1"] }));
    consul.deregister("orders-1");
    let proxy = by_consul(&consul, "consul");
    for host in ["orders", "orders.consul", "ORDERS.service.consul:80", "v1.orders.service.consul."] {
        assert_eq!(call(&proxy, host).text(), "v1", "{host}");
    }
    assert_eq!(call(&proxy, "orders.service.dc1.consul").text(), "v1");
    assert_eq!(known(&proxy), ["orders", "orders?dc=dc1", "orders?tag=v1"]);
    assert_eq!(refused(&proxy, "v2.orders.service.consul"), (503, "no_endpoint".to_owned()));
    assert_eq!(refused(&proxy, "orders.example.org"), (404, "no_route".to_owned()));
    // It is followed as any other.
    consul.register("orders", "orders-1", orders.address());
    eventually("the other instance", || call(&proxy, "orders").text() == "orders");

    // Nobody's host is a label; a log may tell.
    let labels = [("upstream", "outbound/discover-consul"), ("route", "discover-consul")];
    assert!(proxy.metric("outrigger_requests_total", &labels) >= 6.0);
    // Two of `orders`, the same two in `dc1`, and the one that has the tag.
    proxy.metric_reaches("outrigger_endpoints", &[("upstream", "outbound/discover-consul")], 5.0);
    assert!(!proxy.admin_get("/metrics").text().contains("orders"));
    assert_eq!(proxy.log_line("/orders")["upstream"], "outbound/discover-consul/orders");
    assert_eq!(proxy.log_line("/orders.example.org")["reason"], "no_route");
    assert!(shown(&proxy)["on_demand"][0]["services"].as_u64() >= Some(3));
    proxy.stop();
}

#[test]
fn a_hundred_first_calls_are_one_query() {
    let consul = Consul::start();
    let orders = named("orders");
    consul.register("orders", "orders-1", orders.address());
    let recorder = Recorder::before(consul.address());
    let proxy = finding(&format!("consul: {{ address: \"{}\" }}", recorder.url()), "consul");
    let ready = Arc::new(Barrier::new(100));
    let callers = (0..100).map(|_| {
        let (ready, address) = (Arc::clone(&ready), proxy.address("outbound"));
        std::thread::spawn(move || {
            let mut client = Client::connect(address);
            ready.wait();
            client.exchange("GET / HTTP/1.1\r\nHost: orders\r\n\r\n").text()
        })
    });
    let callers: Vec<_> = callers.collect();
    callers.into_iter().for_each(|caller| assert_eq!(caller.join().unwrap(), "orders"));
    let asked = recorder.asked("/v1/health/service/orders");
    let first = asked.iter().filter(|target| !target.contains("index=")).count();
    assert_eq!(first, 1, "{asked:?}");
    assert!(asked.len() <= 2, "after the first, one that waits for a change: {asked:?}");
}

#[test]
fn lists_keep_out_what_they_do_not_name() {
    let consul = Consul::start();
    let orders = named("orders");
    for service in ["orders-api", "orders-secret", "stock"] {
        consul.register(service, service, orders.address());
    }
    let recorder = Recorder::before(consul.address());
    let consul = format!("consul: {{ address: \"{}\" }}", recorder.url());
    let proxy = finding(&consul, "{ from: consul, allow: [\"orders-*\"], deny: [orders-secret] }");
    assert_eq!(call(&proxy, "orders-api.service.consul").status, 200);
    for host in ["orders-secret", "v1.orders-secret.service.consul", "stock", "consul.service.consul"] {
        assert_eq!(refused(&proxy, host), (403, "denied".to_owned()), "{host}");
    }
    assert_eq!(recorder.asked("/v1/health/service/").iter().filter(|asked| !asked.contains("orders-api")).count(), 0);
    assert_eq!(known(&proxy), ["orders-api"]);
}

#[test]
fn the_unknown_is_remembered_and_found_once_it_comes() {
    let consul = Consul::start();
    let recorder = Recorder::before(consul.address());
    let proxy = finding(&format!("consul: {{ address: \"{}\" }}", recorder.url()), "consul");
    for _ in 0..20 {
        assert_eq!(refused(&proxy, "orders"), (503, "no_endpoint".to_owned()));
    }
    let asked = recorder.asked("/v1/health/service/orders");
    assert_eq!(asked.iter().filter(|target| !target.contains("index=")).count(), 1, "{asked:?}");
    let orders = named("orders");
    consul.register("orders", "orders-1", orders.address());
    eventually("the service that came", || call(&proxy, "orders").text() == "orders");
    // Whoever is called no more is forgotten, and with it its query.
    refused(&proxy, "stock");
    assert!(known(&proxy).contains(&"stock".to_owned()));
    eventually("what nobody knows is forgotten", || known(&proxy) == ["orders"]);
}

#[test]
fn a_registry_that_fails_is_told_from_one_that_knows_nobody() {
    let proxy = finding("consul: { address: \"http://127.0.0.1:1\" }", "consul");
    assert_eq!(refused(&proxy, "orders"), (503, "discovery_failed".to_owned()));
    let warnings = proxy.admin_get("/readyz").text();
    assert!(warnings.contains("outbound/discover-consul: 1 of 1 services cannot be looked up"), "{warnings}");
    assert!(!warnings.contains("orders"), "{warnings}");
}

#[test]
fn there_are_no_more_than_the_bound_and_the_unused_make_room() {
    let consul = Consul::start();
    let web = named("web");
    for service in ["a", "b", "c"] {
        consul.register(service, service, web.address());
    }
    let proxy = by_consul(&consul, "{ from: consul, max: 2 }");
    assert_eq!((call(&proxy, "a").status, call(&proxy, "b").status), (200, 200));
    assert_eq!(refused(&proxy, "c"), (503, "overflow".to_owned()), "both were called a moment ago");
    let last = std::time::Instant::now();
    let answered = eventually_some("c to have room", || {
        assert_eq!(call(&proxy, "b").status, 200);
        (call(&proxy, "c").status == 200).then(|| last.elapsed())
    });
    assert!(answered > Duration::from_secs(4), "{answered:?}");
    assert_eq!(known(&proxy), ["b", "c"]);
}

#[test]
fn the_unused_are_forgotten_and_leave_nothing_behind() {
    let consul = Consul::start();
    let web = named("web");
    consul.register("a", "a", web.address());
    let proxy = by_consul(&consul, "{ from: consul, idle: 1s }");
    assert_eq!(call(&proxy, "a").status, 200);
    assert_eq!(known(&proxy), ["a"]);
    eventually("it is forgotten", || known(&proxy).is_empty());
    eventually("its connections are closed", || web.open_connections() == 0);
    let count = |name: &str| proxy.metric(name, &[("upstream", "outbound/discover-consul")]);
    assert_eq!(count("outrigger_discovery_updates_total"), 1.0, "what was counted is not taken back");
    assert_eq!(count("outrigger_endpoints"), 0.0);
    assert_eq!(call(&proxy, "a").status, 200);
    eventually("it is counted on", || count("outrigger_discovery_updates_total") == 2.0);
}

#[test]
fn a_swap_keeps_what_was_found() {
    let consul = Consul::start();
    let web = named("web");
    consul.register("a", "a", web.address());
    let recorder = Recorder::before(consul.address());
    let proxy = finding(&format!("consul: {{ address: \"{}\" }}", recorder.url()), "consul");
    let mut client = Client::connect(proxy.address("outbound"));
    let mut get = || client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text();
    assert_eq!(get(), "web");
    let more = text(&proxy) + "x-note: 1\ndefaults: { timeouts: { response: 3s }, ejection: none }\n";
    swap(&proxy, &more);
    assert_eq!(get(), "web");
    let shown = shown(&proxy);
    assert_eq!(shown["upstreams"][0]["endpoints"][0]["requests"], 2, "the endpoint is the one it was: {shown}");
    assert_eq!(web.connections(), 1, "and so is the connection to it");
    let asked = recorder.asked("/v1/health/service/a");
    assert_eq!(asked.iter().filter(|target| !target.contains("index=")).count(), 1, "{asked:?}");
    // A list that is new holds for what is known already.
    swap(&proxy, &more.replace("discover: consul", "discover: { from: consul, deny: a }"));
    assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 403);
    swap(&proxy, &more.replace("timeouts: { connect: 5s }", "name: discover-consul"));
    assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert_eq!(web.connections(), 1);
}

#[test]
fn an_instance_that_dies_costs_no_request_of_a_found_service() {
    let consul = Consul::start();
    let (a, b) = (named("a"), named("b"));
    consul.register("app", "a", a.address());
    consul.register("app", "b", b.address());
    let proxy = by_consul(&consul, "consul");
    assert_eq!(call(&proxy, "app").status, 200);
    drop(a);
    // A connection that fails is made elsewhere, and who fails again and again is ejected: as in any upstream.
    for _ in 0..40 {
        assert_eq!(call(&proxy, "app").text(), "b");
    }
    let endpoints = shown(&proxy)["upstreams"][0]["endpoints"].clone();
    assert!(endpoints.as_array().unwrap().iter().any(|endpoint| endpoint["state"] == "ejected"), "{endpoints}");
    assert_eq!(proxy.metric("outrigger_endpoint_ejections_total", &[("upstream", "outbound/discover-consul")]), 1.0);
}

#[test]
fn dns_has_the_hosts_name_and_port() {
    let web = named("web");
    let port = web.address().port();
    let dnsmasq = Dnsmasq::start("127.0.0.1 orders.test\n127.0.0.1 secret.test\n", "");
    let proxy = by_dns(dnsmasq.address(), "{ from: dns, allow: [\"*.test\"], deny: [secret.test] }");
    assert_eq!(call(&proxy, &format!("orders.test:{port}")).text(), "web");
    assert_eq!(refused(&proxy, &format!("secret.test:{port}")), (403, "denied".to_owned()));
    assert_eq!(refused(&proxy, &format!("unknown.test:{port}")), (503, "no_endpoint".to_owned()));
    assert_eq!(refused(&proxy, &format!("127.0.0.1:{port}")), (404, "no_route".to_owned()));
    assert_eq!(known(&proxy), [format!("orders.test:{port}"), format!("unknown.test:{port}")]);
    let only = by_dns(dnsmasq.address(), &format!("{{ from: dns, port: {port} }}"));
    assert_eq!(call(&only, "orders.test").text(), "web");
    assert_eq!(refused(&only, "orders.test:22"), (403, "denied".to_owned()));
}

#[test]
fn a_hundred_first_calls_ask_dns_once() {
    let web = named("web");
    let server = Nameserver::start();
    server.say("orders.test. A", Reply::records(&["orders.test. 60 A 127.0.0.1"]));
    server.say("orders.test. AAAA", Reply::no_data(60));
    server.say("down.test. A", Reply::code(2));
    server.say("down.test. AAAA", Reply::code(2));
    let proxy = by_dns(server.address(), "dns");
    let host = format!("orders.test.:{}", web.address().port());
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (address, host) = (proxy.address("outbound"), host.clone());
            std::thread::spawn(move || once(address, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).text())
        })
        .collect();
    callers.into_iter().for_each(|caller| assert_eq!(caller.join().unwrap(), "web"));
    assert_eq!((server.asked("orders.test. A"), server.asked("orders.test. AAAA")), (1, 1));
    for _ in 0..5 {
        assert_eq!(refused(&proxy, "nobody.test."), (503, "no_endpoint".to_owned()));
    }
    assert!(server.asked("nobody.test. A") <= 2, "the zone says for how long it does not know it: a second");
    assert_eq!(refused(&proxy, "down.test."), (503, "discovery_failed".to_owned()));
}
