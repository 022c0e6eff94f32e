//! The traffic follows a service in Consul: who comes, who goes, who is ill, and what each weighs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::consul::Consul;
use crate::support::proxy::Setup;
use crate::support::traffic::{Traffic, named};
use crate::support::upstream::OK;
use crate::support::{Proxy, Upstream, eventually};

/// Consul's and ours together, at 500 requests a second; the contract says 0.5 s, and machines that run tests are busy.
const SOON: Duration = Duration::from_secs(2);
/// What is looked at to tell that a change has come: 50 requests.
const WINDOW: Duration = Duration::from_millis(100);

/// A proxy before this upstream, followed at this agent.
pub fn before(consul: &Consul, upstream: &str) -> Proxy {
    let config = "
consul: { address: \"@consul\" }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: @upstream
";
    Setup::new(config, &[("@consul", &consul.url()), ("@upstream", &upstream)]).start()
}

#[test]
fn who_comes_and_goes_shows_in_the_traffic() {
    let consul = Consul::start();
    let (a, b) = (named("a"), named("b"));
    consul.register("web", "web-a", a.address());
    let proxy = before(&consul, "consul://web");
    eventually("the first instance", || proxy.client().get("/").text() == "a");
    let traffic = Traffic::start(proxy.address("inbound"), 500);

    let change = Instant::now();
    consul.register("web", "web-b", b.address());
    let came = traffic.becomes("b comes", change, WINDOW, SOON, |seen| seen.contains_key("b"));
    let change = Instant::now();
    consul.check("web-a", "critical");
    let fell = traffic.becomes("a falls ill", change, WINDOW, SOON, |seen| !seen.contains_key("a"));
    let change = Instant::now();
    consul.check("web-a", "passing");
    let rose = traffic.becomes("a is well again", change, WINDOW, SOON, |seen| seen.contains_key("a"));
    let change = Instant::now();
    consul.deregister("web-b");
    let left = traffic.becomes("b leaves", change, WINDOW, SOON, |seen| !seen.contains_key("b"));
    println!("came {came:?}, fell {fell:?}, rose {rose:?}, left {left:?}, {} requests", traffic.stop());

    let upstreams: serde_json::Value = serde_json::from_str(&proxy.admin_get("/upstreams").text()).unwrap();
    let app = &upstreams["upstreams"][0];
    assert_eq!(app["endpoints"][0]["address"], a.address().to_string(), "{app}");
    assert_eq!(app["endpoints"][0]["zone"], "dc1", "{app}");
    assert_eq!((&app["discovery"]["answered"], &app["discovery"]["updates"]), (&json!(true), &json!(5)), "{app}");
    assert_eq!(proxy.metric("outrigger_discovery_updates_total", &[("upstream", "app")]), 5.0);
    assert_eq!(proxy.metric("outrigger_discovery_errors_total", &[("upstream", "app")]), 0.0);
    proxy.stop();
}

#[test]
fn weights_and_tags_are_followed() {
    let consul = Consul::start();
    let (a, b) = (named("a"), named("b"));
    let weighing = |weight: u32| json!({ "Tags": ["v1"], "Weights": { "Passing": weight, "Warning": 1 } });
    consul.register_with("web", "web-a", a.address(), weighing(1));
    consul.register_with("web", "web-b", b.address(), weighing(1));
    let proxy = before(&consul, "consul://web?tag=v1&passing=warning");
    eventually("the first instance", || proxy.client().get("/").status == 200);
    let traffic = Traffic::start(proxy.address("inbound"), 500);
    let share = |low: f64, high: f64| {
        move |seen: &std::collections::BTreeMap<String, usize>| {
            let of = |name: &str| seen.get(name).copied().unwrap_or_default() as f64;
            let share = of("a") / (of("a") + of("b"));
            (low..=high).contains(&share)
        }
    };
    let window = Duration::from_millis(200);
    let change = Instant::now();
    consul.register_with("web", "web-a", a.address(), weighing(9));
    traffic.becomes("nine tenths to a", change, window, SOON, share(0.85, 0.95));
    let change = Instant::now();
    consul.check("web-a", "warning");
    traffic.becomes("half to a while it warns", change, window, SOON, share(0.4, 0.6));
    let change = Instant::now();
    consul.register_with("web", "web-b", b.address(), json!({ "Tags": ["v2"] }));
    traffic.becomes("b loses its tag", change, window, SOON, |seen| !seen.contains_key("b"));
    traffic.stop();
}

#[test]
fn what_instances_say_of_their_protocol_is_spoken() {
    let consul = Consul::start();
    let upstream = Upstream::ok();
    consul.register("web", "web", upstream.address());
    let proxy = before(&consul, "consul://web");
    eventually("the first instance", || proxy.client().get("/").status == 200);
    consul.register_with("web", "web", upstream.address(), json!({ "Meta": { "protocol": "http2" } }));
    eventually("HTTP/2", || {
        let _ = proxy.client().get("/");
        upstream.received_text().contains("PRI * HTTP/2.0")
    });
}

#[test]
fn two_hundred_come_and_go_at_once() {
    const MANY: u16 = 200;
    let consul = Consul::start();
    let everywhere =
        Upstream::at(
            "0.0.0.0:0".parse().unwrap(),
            |served| {
                while served.head().is_some() && served.try_send(OK).is_ok() {}
            },
        );
    let port = everywhere.address().port();
    let address = |number: u16| SocketAddr::from((Ipv4Addr::from(0x7f60_0000 + u32::from(number)), port));
    consul.register("web", "web-0", address(1));
    let proxy = before(&consul, "consul://web");
    eventually("the first instance", || proxy.client().get("/").status == 200);
    let traffic = Traffic::start(proxy.address("inbound"), 500);
    let endpoints = || proxy.metric("outrigger_endpoints", &[("upstream", "app")]);
    let all_at_once = |action: &(dyn Fn(u16) + Sync)| {
        std::thread::scope(|scope| {
            for part in 0..8 {
                scope.spawn(move || (1..=MANY).filter(|number| number % 8 == part).for_each(action));
            }
        });
        Instant::now()
    };
    let told = all_at_once(&|number| consul.register("web", &format!("web-{number}"), address(1 + number)));
    eventually("all have come", || endpoints() == f64::from(1 + MANY));
    let came = told.elapsed();
    let told = all_at_once(&|number| consul.deregister(&format!("web-{number}")));
    eventually("all have gone", || endpoints() == 1.0);
    println!("200 came {came:?} and went {:?} after the last was told; {} requests", told.elapsed(), traffic.stop());
}

#[test]
fn who_dies_unannounced_costs_no_request() {
    let consul = Consul::start();
    let (a, b) = (named("a"), named("b"));
    consul.register("web", "web-a", a.address());
    consul.register("web", "web-b", b.address());
    let proxy = before(&consul, "consul://web");
    eventually("the first instances", || proxy.client().get("/").status == 200);
    let traffic = Traffic::start(proxy.address("inbound"), 500);
    let seen = traffic.count();
    eventually("a while", || traffic.count() > seen + 500);
    // Nobody has told Consul: only the proxy itself meets a closed port.
    b.stop_accepting();
    b.close_idle();
    let died = Instant::now();
    traffic.becomes("only a answers", died, WINDOW, SOON, |seen| seen.keys().eq(["a"]));
    traffic.stop();
}
