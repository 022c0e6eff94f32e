//! TLS to endpoints: Python's ssl, grpcio and another proxy at the other end.

use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::peers::{port_of, script, succeeds};
use crate::support::client::once;
use crate::support::dnsmasq::Dnsmasq;
use crate::support::files::Directory;
use crate::support::pki::{Authority, Issued};
use crate::support::process::Process;
use crate::support::proxy::Setup;
use crate::support::{Client, Proxy, Upstream, eventually};

const CONFIG: &str = "listeners:
  outbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app:
    static: [\"127.0.0.1:@port\"]
    protocol: @protocol
    timeouts: { connect: 10s }
    tls: { @keys }
";

/// A proxy that speaks TLS to this port of ours.
struct Caller<'a> {
    port: u16,
    protocol: &'static str,
    trusted: &'a Authority,
    own: Option<&'a Issued>,
    keys: &'static str,
}

impl Caller<'_> {
    fn start(self) -> Proxy {
        let mut keys = format!("ca_file: @directory/ca.pem{}", self.keys);
        if self.own.is_some() {
            keys.push_str(", cert_file: @directory/own.crt, key_file: @directory/own.key");
        }
        let values: [(&str, &dyn std::fmt::Display); 3] =
            [("@port", &self.port), ("@protocol", &self.protocol), ("@keys", &keys)];
        let mut setup = Setup::new(CONFIG, &values).file("ca.pem", &self.trusted.pem());
        if let Some(own) = self.own {
            setup = setup.file("own.crt", &own.certificate).file("own.key", &own.key);
        }
        setup.start()
    }
}

/// A proxy that takes TLS and sends it on in the clear.
pub fn callee(upstream: &Upstream, shown: &Issued, clients: Option<&Authority>) -> Proxy {
    let keys = if clients.is_some() { ", client_ca_file: @directory/clients.pem" } else { "" };
    let config = "listeners:
  inbound:
    address: 127.0.0.1:0
    upstream: \"@app\"
    tls: { cert_file: @directory/tls.crt, key_file: @directory/tls.key@keys }
";
    let clients = clients.map(Authority::pem).unwrap_or_default();
    Setup::new(config, &[("@app", &upstream.address()), ("@keys", &keys)])
        .file("tls.crt", &shown.certificate)
        .file("tls.key", &shown.key)
        .file("clients.pem", &clients)
        .start()
}

/// Python's server, showing `shown`.
fn python(directory: &Directory, shown: &Issued, clients: Option<&Authority>) -> (Process, u16) {
    let mut server = script("tls_server.py");
    server.arg(directory.write("tls.crt", &shown.certificate)).arg(directory.write("tls.key", &shown.key));
    if let Some(clients) = clients {
        server.arg(directory.write("clients.pem", &clients.pem()));
    }
    let mut server = Process::start("tls_server", &mut server, directory);
    let port = port_of(&mut server);
    (server, port)
}

fn get(proxy: &Proxy, path: &str) -> crate::support::Response {
    once(proxy.address("outbound"), format!("GET {path} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"))
}

fn reason(response: &crate::support::Response) -> String {
    response.head.get("x-outrigger-reason").unwrap_or_default().split(';').next().unwrap_or_default().to_owned()
}

#[test]
fn python_is_met_by_its_name_and_sees_ours() {
    let directory = Directory::new();
    let authority = Authority::new("all");
    let (_server, port) = python(&directory, &authority.issue(&["app.test"]), Some(&authority));
    let own = authority.issue(&["spiffe://mesh/ns/a/sa/web"]);
    let caller =
        Caller { port, protocol: "auto", trusted: &authority, own: Some(&own), keys: ", server_name: app.test" };
    let proxy = caller.start();
    let mut client = Client::connect(proxy.address("outbound"));
    for expected in 1..=3 {
        // A POST is looked after twice. Session tickets that nobody has read are no reason to leave the connection.
        let response = client.exchange("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody");
        let seen: Value = serde_json::from_str(&response.text()).unwrap();
        assert_eq!(seen["sni"], "app.test");
        assert_eq!(seen["client"][0], "spiffe://mesh/ns/a/sa/web");
        assert_eq!(seen["requests"], expected, "the connection was not used again");
        sleep(Duration::from_millis(150)); // Longer than a connection counts as just used.
    }
    assert_eq!(proxy.metric("outrigger_upstream_connects_total", &[("outcome", "success")]), 1.0);
}

#[test]
fn an_endpoint_without_a_name_is_its_address() {
    let directory = Directory::new();
    let authority = Authority::new("all");
    let (_server, port) = python(&directory, &authority.issue(&["127.0.0.1"]), None);
    let caller = Caller { port, protocol: "http1", trusted: &authority, own: None, keys: "" };
    let response = get(&caller.start(), "/");
    assert_eq!(serde_json::from_str::<Value>(&response.text()).unwrap()["sni"], Value::Null);
}

#[test]
fn an_endpoint_by_dns_is_whom_dns_was_asked_for() {
    let directory = Directory::new();
    let authority = Authority::new("all");
    let (_server, port) = python(&directory, &authority.issue(&["web.test"]), None);
    let dnsmasq = Dnsmasq::start(
        "127.0.0.1 web.test\n127.0.0.1 one.test\n",
        &format!("srv-host=_https._tcp.web.test,one.test,{port},1,1\n"),
    );
    for source in [format!("dns: \"web.test.:{port}\""), "srv: _https._tcp.web.test".to_owned()] {
        let config = CONFIG.replace("static: [\"127.0.0.1:@port\"]", &source) + "dns: { servers: \"@server\" }\n";
        let values: [(&str, &dyn std::fmt::Display); 3] =
            [("@server", &dnsmasq.address()), ("@protocol", &"http1"), ("@keys", &"ca_file: @directory/ca.pem")];
        let proxy = Setup::new(&config, &values).file("ca.pem", &authority.pem()).start();
        let response = get(&proxy, "/");
        let seen: Value = serde_json::from_str(&response.text()).unwrap_or_else(|_| panic!("{source}: {response:?}"));
        assert_eq!(seen["sni"], "web.test", "{source}");
    }
}

#[test]
fn endpoints_that_are_not_who_they_should_be_get_no_request() {
    let (good, other) = (Authority::new("good"), Authority::new("other"));
    let upstream = Upstream::ok();
    let cases = [
        (other.issue(&["app.test"]), "UnknownIssuer"),
        (good.issue_expired(&["app.test"]), "expired"),
        (good.issue(&["other.test"]), "not valid for name"),
        (good.issue(&["spiffe://mesh/ns/a/sa/web"]), "not valid for name"),
    ];
    for (shown, cause) in cases {
        let callee = callee(&upstream, &shown, None);
        let port = callee.address("inbound").port();
        let caller = Caller { port, protocol: "auto", trusted: &good, own: None, keys: ", server_name: app.test" };
        let mut proxy = caller.start();
        let response = get(&proxy, "/refused");
        assert_eq!((response.status, reason(&response).as_str()), (503, "tls_error"), "{cause}");
        assert_eq!(proxy.log_line("/refused")["reason"], "tls_error");
        assert!(proxy.metric("outrigger_upstream_connects_total", &[("outcome", "tls_error")]) >= 1.0);
        let log = proxy.process().stderr();
        assert!(log.contains(cause) && log.contains(&format!("127.0.0.1:{port}")), "{cause} is not in {log}");
        let refused = [("outcome", "refused_by_client")];
        eventually("the other side to hear of it", || {
            callee.metric("outrigger_downstream_tls_handshakes_total", &refused) >= 1.0
        });
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn an_endpoint_that_speaks_no_tls_is_told_from_one_that_is_gone() {
    let authority = Authority::new("all");
    let upstream = Upstream::scripted(|served| served.send("HTTP/1.1 200 OK\r\n\r\n"));
    let port = upstream.address().port();
    let mut proxy = Caller { port, protocol: "auto", trusted: &authority, own: None, keys: "" }.start();
    assert_eq!(reason(&get(&proxy, "/")), "tls_error");
    let log = proxy.process().stderr();
    assert!(log.contains("the endpoint does not speak TLS") && log.contains("\"upstream\":\"app\""), "{log}");
    upstream.stop_accepting();
    assert_eq!(reason(&get(&proxy, "/")), "connect_failure");
}

#[test]
fn endpoints_that_do_not_like_our_certificate_say_so() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let upstream = Upstream::ok();
    let callee = callee(&upstream, &servers.issue(&["app.test"]), Some(&clients));
    let port = callee.address("inbound").port();
    let stranger = servers.issue(&["spiffe://mesh/ns/a/sa/web"]);
    let expired = clients.issue_expired(&["spiffe://mesh/ns/a/sa/web"]);
    for protocol in ["http1", "http2", "auto"] {
        for own in [Some(&stranger), Some(&expired)] {
            let caller = Caller { port, protocol, trusted: &servers, own, keys: ", server_name: app.test" };
            let mut caller = caller.start();
            assert_eq!(reason(&get(&caller, "/")), "tls_error", "{protocol}");
            eventually("a line of it", || caller.process().stderr().contains("TLS handshake with an endpoint failed"));
        }
        let caller = Caller { port, protocol, trusted: &servers, own: None, keys: ", server_name: app.test" };
        let mut caller = caller.start();
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
        let response = once(caller.address("outbound"), post);
        assert_eq!((response.status, reason(&response).as_str()), (503, "tls_error"), "{protocol}, without one");
        let asks = "the endpoint asks for a certificate; `tls.cert_file` and `tls.key_file` show one";
        eventually("a line that says what is missing", || caller.process().stderr().contains(asks));
    }
    let good = clients.issue(&["spiffe://mesh/ns/a/sa/web"]);
    for (protocol, spoken) in [("http1", "h1.1"), ("http2", "h2"), ("auto", "h2")] {
        let caller = Caller { port, protocol, trusted: &servers, own: Some(&good), keys: ", server_name: app.test" };
        let path = format!("/{protocol}");
        assert_eq!(get(&caller.start(), &path).status, 200);
        let line = callee.log_line(&path);
        assert_eq!((&line["protocol"], &line["tls"]), (&spoken.into(), &"1.3".into()));
        assert_eq!(line["identity"], "spiffe://mesh/ns/a/sa/web");
    }
}

#[test]
fn endpoints_can_be_known_by_their_identity() {
    let authority = Authority::new("mesh");
    let upstream = Upstream::ok();
    let callee = callee(&upstream, &authority.issue(&["spiffe://mesh/ns/a/sa/orders"]), None);
    let port = callee.address("inbound").port();
    for (keys, expected) in [
        (", allow: [\"spiffe://mesh/ns/*/sa/orders\"]", 200),
        (", allow: [\"spiffe://mesh/ns/*/sa/other\", \"spiffe://mesh/**\"]", 200),
        (", allow: [\"spiffe://mesh/ns/*/sa/other\"]", 503),
        (", allow: [orders]", 503),
    ] {
        let caller = Caller { port, protocol: "auto", trusted: &authority, own: None, keys };
        let mut proxy = caller.start();
        assert_eq!(get(&proxy, "/").status, expected, "{keys}");
        if expected == 503 {
            let words = "it is `spiffe://mesh/ns/a/sa/orders`, whom `tls.allow` does not name";
            eventually("whom it found in the log", || proxy.process().stderr().contains(words));
        }
    }
}

#[test]
fn a_new_certificate_is_shown_and_connections_with_the_old_one_end() {
    let authority = Authority::new("mesh");
    let upstream = Upstream::ok();
    let callee = callee(&upstream, &authority.issue(&["app.test"]), Some(&authority));
    let port = callee.address("inbound").port();
    for protocol in ["http1", "auto"] {
        let (first, second) = (authority.issue(&["spiffe://mesh/first"]), authority.issue(&["spiffe://mesh/second"]));
        let caller = Caller { port, protocol, trusted: &authority, own: Some(&first), keys: ", server_name: app.test" };
        let proxy = caller.start();
        let path = format!("/{protocol}/first");
        assert_eq!(get(&proxy, &path).status, 200);
        assert_eq!(callee.log_line(&path)["identity"], "spiffe://mesh/first");
        std::fs::write(proxy.directory().join("own.crt"), &second.certificate).unwrap();
        std::fs::write(proxy.directory().join("own.key"), &second.key).unwrap();
        let mut asked = 0;
        eventually("the new certificate to be shown", || {
            asked += 1;
            let path = format!("/{protocol}/{asked}");
            assert_eq!(get(&proxy, &path).status, 200);
            callee.log_line(&path)["identity"] == "spiffe://mesh/second"
        });
        let open = || proxy.metric("outrigger_upstream_connections_open", &[("upstream", "app")]);
        // Each of two workers may have one of its own.
        eventually("the old connection to end", || open() <= 2.0);
    }
}

#[test]
fn grpcio_speaks_through_two_proxies_with_tls_on_every_way() {
    let directory = Directory::new();
    let authority = Authority::new("all");
    let shown = authority.issue(&["app.test"]);
    let mut server = script("grpc_server.py");
    server.arg(directory.write("tls.crt", &shown.certificate)).arg(directory.write("tls.key", &shown.key));
    let mut server = Process::start("grpc_server", &mut server, &directory);
    let port = port_of(&mut server);
    let config = "listeners:
  inbound:
    address: 127.0.0.1:0
    upstream: app
    tls: { cert_file: @directory/tls.crt, key_file: @directory/tls.key }
upstreams:
  app:
    static: [\"127.0.0.1:@port\"]
    tls: { ca_file: @directory/ca.pem, server_name: app.test }
";
    let proxy = Setup::new(config, &[("@port", &port)])
        .file("ca.pem", &authority.pem())
        .file("tls.crt", &shown.certificate)
        .file("tls.key", &shown.key)
        .start();
    let mut client = script("grpc_client.py");
    client.arg(proxy.address("inbound").to_string()).arg(directory.write("ca.pem", &authority.pem()));
    succeeds("grpc_client", &mut client, &directory);
}

#[test]
fn an_upgrade_goes_as_http1_to_an_endpoint_that_likes_http2_better() {
    let authority = Authority::new("all");
    let upstream = Upstream::scripted(|served| {
        while let Some(request) = served.request_head() {
            if request.head.has("upgrade") {
                served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
                let word = served.exactly(5);
                served.send(word);
                return;
            }
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let callee = callee(&upstream, &authority.issue(&["app.test"]), None);
    let port = callee.address("inbound").port();
    let caller = Caller { port, protocol: "auto", trusted: &authority, own: None, keys: ", server_name: app.test" };
    let proxy = caller.start();
    assert_eq!(get(&proxy, "/plain").status, 200);
    assert_eq!(callee.log_line("/plain")["protocol"], "h2");
    let mut client = Client::connect(proxy.address("outbound"));
    client.send("GET /upgraded HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.response().status, 101);
    client.send("hello");
    assert_eq!(client.exactly(5), b"hello");
}
