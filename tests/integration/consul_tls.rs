//! Consul behind TLS: a listener that ends it stands before a real agent.

use crate::support::client::once;
use crate::support::consul::Consul;
use crate::support::pki::Authority;
use crate::support::proxy::Setup;
use crate::support::{Proxy, Upstream, eventually};

#[test]
fn agents_are_asked_over_tls_with_a_certificate_of_ours() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let consul = Consul::start();
    let upstream = Upstream::ok();
    consul.register("payments", "payments-1", upstream.address());
    let shown = servers.issue(&["127.0.0.1"]);
    let door = Setup::new(
        "listeners:
  inbound:
    address: 127.0.0.1:0
    mode: tcp
    upstream: \"@consul\"
    tls: { cert_file: @directory/tls.crt, key_file: @directory/tls.key, client_ca_file: @directory/clients.pem }
",
        &[("@consul", &consul.address())],
    )
    .file("tls.crt", &shown.certificate)
    .file("tls.key", &shown.key)
    .file("clients.pem", &clients.pem())
    .start();
    let asker = |trusted: &Authority| -> Proxy {
        let own = clients.issue(&["spiffe://mesh/outrigger"]);
        let config = "listeners:
  outbound: { address: 127.0.0.1:0, upstream: payments }
upstreams:
  payments: consul://payments
consul:
  address: https://@door
  tls: { ca_file: @directory/ca.pem, cert_file: @directory/own.crt, key_file: @directory/own.key }
wait_for_discovery: 100ms
";
        Setup::new(config, &[("@door", &door.address("inbound"))])
            .file("ca.pem", &trusted.pem())
            .file("own.crt", &own.certificate)
            .file("own.key", &own.key)
            .start()
    };
    let get = |proxy: &Proxy| once(proxy.address("outbound"), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let proxy = asker(&servers);
    eventually("the service to be found", || get(&proxy).status == 200);
    let stranger = asker(&clients);
    eventually("the agent's certificate to be refused", || {
        stranger.admin_get("/upstreams").text().contains("UnknownIssuer")
    });
    assert_eq!(get(&stranger).status, 503);
}
