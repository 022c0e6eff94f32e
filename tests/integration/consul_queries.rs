//! What Consul is asked for: datacenters in order, filters, prepared queries; and how its agents are reached.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::consul_watch::before;
use crate::support::client::get;
use crate::support::consul::Consul;
use crate::support::proxy::Setup;
use crate::support::traffic::{Traffic, named};
use crate::support::upstream::OK;
use crate::support::{Client, Upstream, eventually};

const WINDOW: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(4);

#[test]
fn datacenters_are_turned_to_in_written_order() {
    let near = Consul::start();
    let far = Consul::start_with(&["-datacenter", "dc2"], None);
    near.ask("PUT", &format!("/v1/agent/join/{}?wan=1", far.address().ip()), "");
    eventually("dc2 to be known", || near.ask("GET", "/v1/catalog/datacenters", "").as_array().unwrap().len() == 2);
    let (a, b) = (named("a"), named("b"));
    far.register("web", "web-b", b.address());
    let proxy = before(&near, "consul://web?dc=dc1&dc=dc2");
    eventually("the second datacenter's", || proxy.client().get("/").text() == "b");
    let traffic = Traffic::start(proxy.address("inbound"), 200);
    let change = Instant::now();
    near.register("web", "web-a", a.address());
    traffic.becomes("the first has one", change, WINDOW, SOON, |seen| seen.keys().eq(["a"]));
    let change = Instant::now();
    near.check("web-a", "critical");
    traffic.becomes("the first has none that is well", change, WINDOW, SOON, |seen| seen.keys().eq(["b"]));
    drop(far);
    // It cannot be asked any more, and what it named last is used.
    let seen = traffic.count();
    eventually("requests go on", || traffic.count() > seen + 400);
    traffic.stop();
}

#[test]
fn filters_and_prepared_queries_choose() {
    let consul = Consul::start();
    let (a, b) = (named("a"), named("b"));
    consul.register_with("web", "web-a", a.address(), json!({ "Meta": { "tier": "gold & co" } }));
    consul.register("web", "web-b", b.address());
    let query = json!({ "Name": "one", "Service": { "Service": "web", "OnlyPassing": true, "ServiceMeta": { "tier": "gold & co" } } });
    consul.ask("POST", "/v1/query", query);
    for source in [
        r#"{ consul: { service: web, near: _agent, filter: 'Service.Meta.tier == "gold & co"' } }"#,
        "{ consul: { prepared_query: one } }",
    ] {
        let proxy = before(&consul, source);
        eventually("an answer", || proxy.client().get("/").status == 200);
        for _ in 0..4 {
            assert_eq!(proxy.client().get("/").text(), "a", "{source}");
        }
        proxy.stop();
    }
}

#[test]
fn a_token_is_read_again_when_it_changes() {
    const TOKEN: &str = "6a1253d2-1785-24fd-91c2-f8e78c745511";
    let acl = format!(
        "acl {{ enabled = true default_policy = \"deny\" tokens {{ master = \"{TOKEN}\" agent = \"{TOKEN}\" }} }}"
    );
    let consul = Consul::start_with(&["-hcl", &acl], Some(TOKEN));
    let a = named("a");
    consul.register("web", "web-a", a.address());
    let config = "
consul: { address: \"@consul\", token_file: \"@directory/token\" }
listeners: { inbound: { address: 127.0.0.1:0, upstream: \"consul://web\" } }
";
    let setup =
        Setup::new(config, &[("@consul", &consul.url())]).file("token", "b1253d2a-1785-24fd-91c2-f8e78c745512\n");
    let mut proxy = setup.start();
    eventually("a refusal", || proxy.process().stderr().contains("answered 403 Forbidden"));
    assert!(proxy.process().stderr().contains("look at the token: consul.token_file"));
    assert!(!proxy.process().stderr().contains("b1253d2a"), "tokens are not logged");
    std::fs::write(proxy.directory().join("token"), format!("{TOKEN}\n")).unwrap();
    eventually("the right token", || proxy.client().get("/").text() == "a");
}

#[test]
fn agents_are_tried_in_turn_also_over_a_unix_socket() {
    let consul = Consul::start();
    let a = named("a");
    consul.register("web", "web-a", a.address());
    let directory = crate::support::files::Directory::new();
    let socket = directory.join("consul.sock");
    // Passes on to the agent what comes over the socket.
    let agent = consul.address();
    let _relay = Upstream::unix(&socket, move |served| {
        while let Some(request) = served.request() {
            let mut client = Client::connect(agent);
            client.send(get(&request.target));
            let answer = client.response();
            let index = answer.head.get("x-consul-index").unwrap_or("0");
            let head = format!("HTTP/1.1 {} OK\r\nX-Consul-Index: {index}\r\n", answer.status);
            served.send(format!("{head}Content-Length: {}\r\n\r\n{}", answer.text().len(), answer.text()));
        }
    });
    let dead = Upstream::answering(OK);
    dead.stop_accepting();
    let config = "
consul: { address: [\"http://@dead\", \"unix://@socket\"] }
listeners: { inbound: { address: 127.0.0.1:0, upstream: \"consul://web\" } }
";
    let proxy = Setup::new(config, &[("@dead", &dead.address()), ("@socket", &socket.display())]).start();
    eventually("the second agent's answer", || proxy.client().get("/").text() == "a");
    assert_eq!(proxy.metric("outrigger_discovery_errors_total", &[]), 0.0);
}

#[test]
fn the_environment_says_where_consul_is() {
    let consul = Consul::start();
    let a = named("a");
    consul.register("web", "web-a", a.address());
    let config = "listeners: { inbound: { address: 127.0.0.1:0, upstream: \"consul://web\" } }\n";
    let proxy = Setup::new(config, &[]).environment("CONSUL_HTTP_ADDR", &consul.address().to_string()).start();
    assert_eq!(proxy.client().get("/").text(), "a", "the first request waits for the first answer");
}
