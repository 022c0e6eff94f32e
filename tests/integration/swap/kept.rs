//! What a swap does not touch is kept.

use super::{start, swap, text};
use crate::support::{Upstream, eventually};

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
