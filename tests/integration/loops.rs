//! No listener forwards to the proxy's own addresses: such a request would come back for ever.

use crate::support::proxy::Setup;
use crate::support::rng::{free_low_port, own_loopback_ip};
use crate::support::{Client, Proxy};

#[track_caller]
fn refused(response: &crate::support::Response) {
    assert_eq!((response.status, response.reason()), (508, Some("loop_detected; hop=inbound")), "{}", response.head);
}

#[test]
fn a_listener_does_not_forward_to_itself() {
    let address = format!("{}:15006", own_loopback_ip());
    let proxy =
        Proxy::start("listeners:\n  inbound: { address: \"@self\", upstream: \"@self\" }\n", &[("@self", &address)]);
    refused(&proxy.client().get("/"));
}

#[test]
fn a_listener_does_not_forward_to_another_one() {
    let (inbound, other) = (own_loopback_ip(), own_loopback_ip());
    let proxy = Proxy::start(
        "
listeners:
  inbound: { address: \"@inbound:15006\", upstream: \"@other:15001\" }
  outbound: { address: \"@other:15001\", routes: [{ respond: { status: 200 } }] }
",
        &[("@inbound", &inbound), ("@other", &other)],
    );
    refused(&proxy.client().get("/"));
}

#[test]
fn a_listener_for_all_interfaces_is_one_on_each_of_them() {
    let port = free_low_port();
    for endpoint in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let proxy = Proxy::start(
            "listeners:\n  inbound: { address: \":@port\", upstream: \"@endpoint\" }\n",
            &[("@port", &port), ("@endpoint", &endpoint)],
        );
        refused(&proxy.client().get("/"));
    }
}

#[test]
fn the_admin_and_metrics_addresses_are_not_reached_through_a_listener() {
    let (admin, metrics) = (format!("{}:9901", own_loopback_ip()), format!("{}:9902", own_loopback_ip()));
    let proxy = Proxy::start(
        "
admin: { address: \"@admin\" }
metrics: { address: \"@metrics\" }
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { match: { path: /config }, upstream: \"@admin\" }
      - { match: { path: /metrics }, upstream: \"@metrics\" }
",
        &[("@admin", &admin), ("@metrics", &metrics)],
    );
    refused(&proxy.client().get("/config"));
    refused(&proxy.client().get("/metrics"));
    assert_eq!(proxy.admin_get("/livez").status, 200);
}

#[test]
fn unix_sockets_of_the_proxy_are_its_own_addresses_too() {
    let proxy = Setup::new(
        "
admin: { address: \"127.0.0.1:0\", socket: \"@directory/admin.sock\" }
listeners:
  inbound:
    address: \"unix:@directory/in.sock\"
    routes:
      - { match: { path: /config }, upstream: admin }
      - { match: { path: /detour }, upstream: detour }
      - { upstream: me }
upstreams:
  admin: { static: [\"unix:@directory/admin.sock\"] }
  detour: { static: [\"unix:@directory/link.sock\"] }
  me: { static: [\"unix:@directory/in.sock\"] }
",
        &[],
    )
    .start();
    let socket = proxy.directory().join("in.sock");
    refused(&Client::connect_unix(&socket).get("/"));
    refused(&Client::connect_unix(&socket).get("/config"));
    std::os::unix::fs::symlink("admin.sock", proxy.directory().join("link.sock")).unwrap();
    refused(&Client::connect_unix(&socket).get("/detour"));
}
