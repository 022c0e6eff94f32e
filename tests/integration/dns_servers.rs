//! Endpoints by DNS from nameservers of another make, while requests pass: dnsmasq, and Consul's own DNS.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::dns_cases::{shown, upstream};
use crate::support::consul::Consul;
use crate::support::dnsmasq::Dnsmasq;
use crate::support::traffic::{Traffic, named};
use crate::support::{Proxy, Upstream, eventually};

/// The TTL is a second, and so is the floor; machines that run tests are busy.
const SOON: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_millis(200);

fn before(nameserver: SocketAddr, upstream: &str) -> Proxy {
    let config = "
dns: { servers: \"@server\" }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: @upstream
";
    Proxy::start(config, &[("@server", &nameserver), ("@upstream", &upstream)])
}

/// Endpoints of the same port at addresses of their own, which say who they are.
fn neighbours(names: &[&'static str]) -> (u16, Vec<Upstream>) {
    let first = named(names[0]);
    let port = first.address().port();
    let mut all = vec![first];
    for (name, last) in names[1..].iter().zip(2..) {
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        all.push(Upstream::at(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port)), move |served| {
            while served.request().is_some() {
                served.send(&response);
            }
        }));
    }
    (port, all)
}

#[test]
fn hosts_come_and_go_in_dnsmasq_and_no_request_fails() {
    let (port, _endpoints) = neighbours(&["a", "b", "c"]);
    let mut dnsmasq = Dnsmasq::start("127.0.0.1 web.test\n127.0.0.2 web.test\n", "");
    let proxy = before(dnsmasq.address(), &format!("dns://web.test:{port}"));
    let traffic = Traffic::start(proxy.address("inbound"), 500);
    let names = |names: &'static [&'static str]| {
        move |seen: &std::collections::BTreeMap<String, usize>| {
            seen.keys().map(String::as_str).eq(names.iter().copied())
        }
    };
    traffic.becomes("both", Instant::now(), WINDOW, SOON, names(&["a", "b"]));
    let change = Instant::now();
    dnsmasq.knows("127.0.0.2 web.test\n127.0.0.3 web.test\n");
    let changed = traffic.becomes("a for c", change, WINDOW, SOON, names(&["b", "c"]));
    let change = Instant::now();
    dnsmasq.knows("127.0.0.3 other.test\n");
    eventually("there is nobody, and who was there is kept", || {
        upstream(&proxy, "app")["discovery"]["kept_for_seconds"].is_number()
    });
    dnsmasq.stop();
    eventually("the server is gone", || upstream(&proxy, "app")["discovery"]["error"].is_string());
    traffic.becomes("nobody is lost", change, WINDOW, SOON, names(&["b", "c"]));
    let change = Instant::now();
    dnsmasq.start_again("");
    dnsmasq.knows("127.0.0.1 web.test\n");
    let back = traffic.becomes("a alone", change, WINDOW, Duration::from_secs(12), names(&["a"]));
    println!("changed after {changed:?}, back after {back:?}, {} requests", traffic.stop());
}

#[test]
fn service_records_of_dnsmasq_bring_ports_and_weights() {
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let record = |upstream: &Upstream, priority: u16, weight: u16| {
        format!("srv-host=_http._tcp.web.test,one.test,{},{priority},{weight}\n", upstream.address().port())
    };
    let both = record(&a, 1, 3) + &record(&b, 1, 1) + &record(&c, 2, 9);
    let mut dnsmasq = Dnsmasq::start("127.0.0.1 one.test\n", &both);
    let proxy = before(dnsmasq.address(), "srv://_http._tcp.web.test");
    let traffic = Traffic::start(proxy.address("inbound"), 500);
    traffic.becomes("three to one", Instant::now(), WINDOW, SOON, |seen| {
        let of = |name: &str| seen.get(name).copied().unwrap_or_default();
        of("c") == 0 && of("b") > 0 && of("a").abs_diff(of("b") * 3) <= 8
    });
    let change = Instant::now();
    dnsmasq.start_again(&record(&c, 2, 9));
    traffic.becomes("the next priority", change, WINDOW, SOON, |seen| seen.keys().eq(["c"]));
    traffic.stop();
}

#[test]
fn the_next_priority_stands_in_for_one_whose_endpoints_are_all_out() {
    let (a, b, spare) = (named("a"), named("b"), named("spare"));
    let record = |upstream: &Upstream, priority: u16| {
        format!("srv-host=_http._tcp.web.test,one.test,{},{priority},1\n", upstream.address().port())
    };
    let records = record(&a, 1) + &record(&b, 1) + &record(&spare, 2);
    let dnsmasq = Dnsmasq::start("127.0.0.1 one.test\n", &records);
    let proxy = before(dnsmasq.address(), "{ srv: _http._tcp.web.test, retries: { max: 2 }, ejection: { for: 1s } }");
    let traffic = Traffic::start(proxy.address("inbound"), 200);
    traffic.becomes("the first priority", Instant::now(), WINDOW, SOON, |seen| seen.keys().eq(["a", "b"]));
    let [a_at, b_at] = [&a, &b].map(Upstream::address);
    for endpoint in [a, b] {
        endpoint.stop_accepting();
        endpoint.close_idle();
    }
    // Not one request fails: it is sent again, twice at most. Then both are out, whatever share that is.
    traffic.becomes("the next one alone", Instant::now(), WINDOW, SOON, |seen| seen.keys().eq(["spare"]));
    eventually("both are ejected", || {
        let app = upstream(&proxy, "app");
        app["endpoints"].as_array().unwrap().iter().filter(|endpoint| endpoint["state"] == "ejected").count() == 2
    });
    let [_a, _b] = [("a", a_at), ("b", b_at)].map(|(name, address)| {
        Upstream::at(address, move |served| {
            while served.request().is_some() {
                served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}"));
            }
        })
    });
    traffic
        .becomes("they are back", Instant::now(), WINDOW, Duration::from_secs(30), |seen| !seen.contains_key("spare"));
    traffic.stop();
}

#[test]
fn aliases_of_dnsmasq_lead_on() {
    let endpoint = named("a");
    let dnsmasq = Dnsmasq::start("127.0.0.1 real.test\n", "cname=alias.test,real.test,60\n");
    let proxy = before(dnsmasq.address(), &format!("dns://alias.test:{}", endpoint.address().port()));
    assert_eq!(proxy.client().get("/").text(), "a");
    dnsmasq.knows("127.0.0.2 real.test\n");
    eventually("the target's TTL counts, too", || shown(&upstream(&proxy, "app")).starts_with("127.0.0.2:"));
}

#[test]
fn the_dns_of_consul_works_as_it_stands() {
    let consul = Consul::start();
    let (a, b) = (named("a"), named("b"));
    consul.register("web", "web-a", a.address());
    let dns = SocketAddr::new(consul.address().ip(), 8600);
    let proxy = before(dns, "{ srv: web.service.consul }");
    eventually("the first instance", || proxy.client().get("/").text() == "a");
    let traffic = Traffic::start(proxy.address("inbound"), 500);
    let change = Instant::now();
    consul.register("web", "web-b", b.address());
    traffic.becomes("b comes", change, WINDOW, SOON, |seen| seen.contains_key("b"));
    let change = Instant::now();
    consul.check("web-a", "critical");
    traffic.becomes("a falls ill", change, WINDOW, SOON, |seen| !seen.contains_key("a"));
    traffic.stop();
    let config = "
dns: { servers: \"@server\" }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: \"dns://web.service.consul:@port\" }
";
    let proxy = Proxy::start(config, &[("@server", &dns), ("@port", &b.address().port())]);
    eventually("its addresses alone", || proxy.client().get("/").text() == "b");
}

#[test]
fn instances_on_one_host_change_nothing_by_being_looked_up() {
    let consul = Consul::start();
    let (a, b) = (named("a"), named("b"));
    let other = Upstream::at("127.0.0.2:0".parse().unwrap(), |served| while served.request().is_some() {});
    for (id, upstream) in [("web-a", &a), ("web-b", &b), ("web-c", &other)] {
        consul.register("web", id, upstream.address());
    }
    let dns = SocketAddr::new(consul.address().ip(), 8600);
    let proxy = before(dns, "{ srv: web.service.consul }");
    eventually("all three", || upstream(&proxy, "app")["endpoints"].as_array().unwrap().len() == 3);
    let updates = || upstream(&proxy, "app")["discovery"]["updates"].as_u64().unwrap();
    let age = || upstream(&proxy, "app")["discovery"]["age_seconds"].as_f64().unwrap();
    let (before, mut last, mut answers) = (updates(), age(), 0);
    // Consul's TTL is 0 and ours a second; an answer that is younger than the last is another one.
    eventually("three more answers", || {
        let now = age();
        answers += usize::from(now < last);
        last = now;
        answers == 3
    });
    assert_eq!(updates(), before, "nobody has come or gone");
}
