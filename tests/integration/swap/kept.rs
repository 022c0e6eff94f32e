//! What a swap does not touch is kept.

use super::{put, start, swap, text};
use crate::support::nameserver::{Nameserver, Reply};
use crate::support::{Proxy, Upstream, eventually};

#[test]
fn connections_to_endpoints_outlive_what_does_not_concern_them() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    let base = text(&proxy);
    let app = format!("static: [\"{}\"]", upstream.address());
    let weighted = format!("static: [{{ address: \"{}\", weight: 3 }}]", upstream.address());
    for changed in [
        base.replace("path: / ", "path: /api "),
        base.replace(&app, &format!("{app}, timeouts: {{ response: 3s }}")),
        base.replace(&app, &format!("{app}, limits: {{ requests: 7 }}")),
        base.replace(&app, &weighted),
        base.replace(&app, &format!("static: [\"{}\", \"127.0.0.1:1\"]", upstream.address())),
        base.replace("listeners:\n", "listeners:\n  extra: { address: \"127.0.0.1:0\", upstream: app }\n"),
        base.clone(),
    ] {
        swap(&proxy, &changed);
        if !changed.contains("127.0.0.1:1\"") {
            assert_eq!(client.get("/api").status, 200);
        }
    }
    assert_eq!(upstream.connections(), 1, "a connection was made for a change that did not concern it");
}

#[test]
fn an_endpoint_that_leaves_is_drained_and_its_requests_finish() {
    let gate = crate::support::Gate::new();
    let leaving = Upstream::scripted({
        let gate = gate.clone();
        move |served| {
            while served.request().is_some() {
                gate.wait("the test");
                if served.try_send(crate::support::upstream::OK).is_err() {
                    return;
                }
            }
        }
    });
    let staying = Upstream::ok();
    let proxy = start(&leaving);
    let mut client = proxy.client();
    client.send(crate::support::client::get("/"));
    eventually("the request to arrive", || leaving.count("/") == 1);
    swap(&proxy, &text(&proxy).replace(&leaving.address().to_string(), &staying.address().to_string()));
    assert_eq!(proxy.client().get("/").status, 200);
    gate.open();
    assert_eq!(client.response().status, 200);
    eventually("its connections to close", || leaving.open_connections() == 0);
    eventually("the old generation to be let go", || proxy.metric("outrigger_config_generations_alive", &[]) == 1.0);
}

#[test]
fn old_generations_go_although_connections_stay() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let base = text(&proxy);
    let mut clients = Vec::new();
    for round in 0..5 {
        swap(&proxy, &base.replace("path: / ", &format!("path: /{round} ")));
        let mut client = proxy.client();
        assert_eq!(client.get(&format!("/{round}")).status, 200);
        clients.push(client);
    }
    eventually("the generations to be let go", || proxy.metric("outrigger_config_generations_alive", &[]) == 1.0);
    assert_eq!(clients[0].get("/4").status, 200);
}

#[test]
fn whom_another_look_up_finds_again_keeps_its_connections() {
    let (upstream, nameserver) = (Upstream::ok(), Nameserver::start());
    nameserver.say("app.test. A", Reply::records(&["app.test. 60 A 127.0.0.1"]));
    nameserver.say("app.test. AAAA", Reply::no_data(60));
    let config = "
dns: { servers: [\"@nameserver\"], stale: 1h }
listeners: { inbound: { address: 127.0.0.1:0, upstream: app } }
upstreams: { app: { dns: { name: app.test, port: @port } } }
";
    let values: [(&str, &dyn std::fmt::Display); 2] =
        [("@nameserver", &nameserver.address()), ("@port", &upstream.address().port())];
    let proxy = Proxy::start(config, &values);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    for stale in ["2h", "3h"] {
        let asked = nameserver.asked("app.test. A");
        let answer = put(&proxy, "", &text(&proxy).replace("stale: 1h", &format!("stale: {stale}")));
        assert!(answer.text().contains("looked up anew") && !answer.text().contains("start"), "{}", answer.text());
        assert_eq!(client.get("/").status, 200);
        assert!(nameserver.asked("app.test. A") > asked, "it was not looked up anew");
    }
    assert_eq!(upstream.connections(), 1, "a connection was made to an endpoint that has stayed");
}

#[test]
fn a_swap_that_is_refused_late_leaves_limits_as_they_were() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let garbage = proxy.directory().join("garbage.pem");
    std::fs::write(&garbage, "no certificate").unwrap();
    let path = garbage.display();
    let tls = format!(
        "  late: {{ address: \"127.0.0.1:0\", upstream: app, tls: {{ cert_file: {path}, key_file: {path} }} }}\n"
    );
    let changed = text(&proxy)
        .replace("upstreams:", &format!("{tls}upstreams:"))
        .replace("static:", "limits: { requests: 7 }, static:");
    let answer = put(&proxy, "", &changed);
    assert_eq!(answer.status, 409, "{}", answer.text());
    let upstreams: serde_json::Value = serde_json::from_slice(&proxy.admin_get("/upstreams").body.data).unwrap();
    assert_eq!(upstreams["upstreams"][0]["limits"]["requests"]["max"], 1024);
}
