//! CONNECT: only on a loopback outbound listener, only to hosts that a route names.

use crate::support::client::once;
use crate::support::wire::End;
use crate::support::{Client, Proxy, Upstream};

const CONFIG: &str = "
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
  outbound:
    address: @address
    routes:
      - { match: { host: payments.test }, upstream: app }
      - { match: { path: /any }, upstream: app }
  captured: { address: 127.0.0.1:0, mode: transparent, direction: inbound, upstream: app }
upstreams:
  app: { static: [\"@app\"] }
";

fn proxy(address: &str, upstream: &Upstream) -> Proxy {
    Proxy::start(CONFIG, &[("@address", &address), ("@app", &upstream.address())])
}

fn connect(authority: &str) -> String {
    format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")
}

#[test]
fn a_tunnel_leads_to_the_endpoint_of_the_route() {
    let upstream = Upstream::scripted(|served| {
        served.expect("any bytes");
        served.send("HTTP/1.1 are not looked at");
        let (rest, _) = served.rest();
        assert_eq!(rest, b", and more");
        served.send(", bye");
    });
    let proxy = proxy("127.0.0.1:0", &upstream);
    let mut client = Client::connect(proxy.address("outbound"));
    client.send(connect("payments.test:443"));
    let response = client.response_to("CONNECT");
    assert_eq!(response.status, 200);
    assert!(
        !response.head.has("content-length") && !response.head.has("transfer-encoding"),
        "RFC 9110, 9.3.6: {}",
        response.head
    );
    client.send("any bytes");
    client.expect("HTTP/1.1 are not looked at");
    client.send(", and more");
    client.fin();
    client.expect(", bye");
    client.expect_end();
}

#[test]
fn bytes_that_come_with_connect_are_not_lost() {
    let upstream = Upstream::scripted(|served| {
        served.expect("early");
        served.send("heard");
        served.rest();
    });
    let proxy = proxy("127.0.0.1:0", &upstream);
    let mut client = Client::connect(proxy.address("outbound"));
    client.send(format!("{}early", connect("payments.test:80")));
    assert_eq!(client.response_to("CONNECT").status, 200);
    client.expect("heard");
}

#[test]
fn an_endpoint_that_resets_a_tunnel_resets_its_client() {
    let upstream = Upstream::scripted(|served| {
        served.send("part");
        served.expect("go");
        served.reset();
    });
    let proxy = proxy("127.0.0.1:0", &upstream);
    let mut client = Client::connect(proxy.address("outbound"));
    client.send(connect("payments.test:80"));
    assert_eq!(client.response_to("CONNECT").status, 200);
    client.expect("part");
    client.send("go");
    assert_eq!(client.expect_end(), End::Reset, "a part looks like the whole");
}

#[test]
fn elsewhere_connect_is_not_allowed() {
    let upstream = Upstream::ok();
    let inner = proxy("127.0.0.1:0", &upstream);
    let open = proxy("0.0.0.0:0", &upstream);
    let cases = [
        ("an inbound listener", inner.address("inbound"), "payments.test:80", "inbound"),
        ("a transparent inbound listener", inner.address("captured"), "payments.test:80", "captured"),
        ("a host that no route names", inner.address("outbound"), "other.test:80", "outbound"),
        ("a listener for everybody", open.address("outbound"), "payments.test:80", "outbound"),
    ];
    for (what, address, authority, hop) in cases {
        let mut client = Client::connect(address);
        client.send(connect(authority));
        let response = client.response();
        assert_eq!(
            (response.status, response.reason()),
            (405, Some(format!("connect_not_allowed; hop={hop}").as_str())),
            "{what}"
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_tunnel_to_nobody_is_an_error_before_it_begins() {
    let upstream = Upstream::ok();
    let proxy = proxy("127.0.0.1:0", &upstream);
    let address = proxy.address("outbound");
    upstream.stop_accepting();
    let mut client = Client::connect(address);
    client.send(connect("payments.test:80"));
    let response = client.response();
    assert_eq!((response.status, response.reason()), (503, Some("connect_failure; hop=outbound")));
}

#[test]
fn what_is_no_authority_is_a_bad_request() {
    let upstream = Upstream::ok();
    let proxy = proxy("127.0.0.1:0", &upstream);
    for target in ["/path", "payments.test", "http://payments.test:80/", "payments.test:99999", "user@payments.test:80"]
    {
        let response =
            once(proxy.address("outbound"), format!("CONNECT {target} HTTP/1.1\r\nHost: payments.test\r\n\r\n"));
        assert!([400, 405].contains(&response.status), "CONNECT {target}: {}", response.head);
    }
    assert_eq!(upstream.connections(), 0);
}

// Whoever asks for a tunnel goes on with what belongs into it, which is no request of ours.
#[test]
fn nothing_after_a_refused_connect_is_a_request() {
    let upstream = Upstream::ok();
    let proxy = proxy("127.0.0.1:0", &upstream);
    let mut client = Client::connect(proxy.address("inbound"));
    client.send(format!("{}GET /inside HTTP/1.1\r\nHost: app.test\r\n\r\n", connect("payments.test:80")));
    let response = client.response();
    assert_eq!((response.status, response.head.get("connection")), (405, Some("close")));
    client.expect_end();
    assert_eq!(upstream.connections(), 0, "{}", upstream.received_text());
}
