//! Listeners that pass bytes on as they are.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::support::pki::{Authority, Issued};
use crate::support::proxy::Setup;
use crate::support::tls::{TlsClient, client_config};
use crate::support::wait::PATIENCE;
use crate::support::wire::End;
use crate::support::{Client, Proxy, Upstream, eventually};

const PLAIN: &str = "listeners:
  database: { address: 127.0.0.1:0, mode: tcp, upstream: app }
upstreams:
  app: { static: [\"@app\"]@keys }
";

/// Greets, and then says everything twice until the client has ended.
fn greeter(name: &'static str) -> Upstream {
    Upstream::scripted(move |served| {
        served.send(format!("{name} here\n"));
        while let Some(word) = served.exactly_or_end(5) {
            served.send([word.clone(), word].concat());
        }
        served.send("bye");
    })
}

#[test]
fn bytes_go_both_ways_and_who_speaks_first_does_not_matter() {
    let upstream = greeter("one");
    let proxy = Proxy::start(PLAIN, &[("@app", &upstream.address()), ("@keys", &"")]);
    let mut client = TcpStream::connect(proxy.address("database")).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut read = [0; 9];
    client.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"one here\n");
    let labels = [("listener", "database"), ("protocol", "tcp")];
    assert_eq!(proxy.metric("outrigger_downstream_connections_open", &labels), 1.0);
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "hellohellobye");
    let line = crate::support::wait::eventually_some("a line in the access log", || proxy.log_lines().pop());
    assert_eq!(
        (&line["listener"], &line["upstream"], &line["method"]),
        (&"database".into(), &"app".into(), &"CONNECT".into())
    );
    assert_eq!((&line["bytes_in"], &line["bytes_out"], &line["code"]), (&5.into(), &22.into(), &200.into()));
    assert_eq!(proxy.metric("outrigger_downstream_connections_total", &labels), 1.0);
    assert_eq!(proxy.metric("outrigger_downstream_connections_open", &labels), 0.0);
}

/// Whether a connection is reset, be it before the client knows that there is one.
fn is_reset(address: SocketAddr) -> bool {
    let connected = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read(&mut [0])
    });
    connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn what_cannot_be_passed_on_is_reset_and_counted() {
    let upstream = greeter("one");
    let values: [(&str, &dyn std::fmt::Display); 2] =
        [("@app", &upstream.address()), ("@keys", &", limits: { requests: 1 }")];
    let proxy = Proxy::start(PLAIN, &values);
    let mut first = Client::connect(proxy.address("database"));
    first.expect("one here\n");
    assert!(is_reset(proxy.address("database")), "an overflow looks like a proper end");
    assert_eq!(proxy.metric("outrigger_requests_total", &[("listener", "database"), ("reason", "overflow")]), 1.0);
    first.send("hello");
    first.expect("hellohello");
    first.fin();
    first.expect("bye");
    upstream.stop_accepting();
    // Until the first is over, its place is taken.
    eventually("the first is over", || {
        proxy.metric("outrigger_requests_in_flight", &[("listener", "database")]) == 0.0
    });
    assert!(is_reset(proxy.address("database")));
    proxy.metric_reaches("outrigger_requests_total", &[("reason", "connect_failure")], 1.0);
}

#[test]
fn who_finds_no_room_at_the_door_is_reset_too() {
    let upstream = greeter("one");
    let config = PLAIN.replace("mode: tcp", "mode: tcp, limits: { connections: 1 }");
    let proxy = Proxy::start(&config, &[("@app", &upstream.address()), ("@keys", &"")]);
    let mut first = Client::connect(proxy.address("database"));
    first.expect("one here\n");
    assert!(is_reset(proxy.address("database")), "a listener that is full looks like a proper end");
}

// Whoever is cut off in the middle must not leave a part that looks like the whole.
#[test]
fn a_reset_at_one_end_is_a_reset_at_the_other() {
    let (ended, ends) = std::sync::mpsc::channel();
    let upstream = Upstream::scripted(move |served| {
        served.send("part");
        match served.exactly(4).as_slice() {
            b"mine" => ended.send(served.rest().1).unwrap(),
            _ => served.reset(),
        }
    });
    let config = format!("{PLAIN}workers: 1\n");
    let proxy = Proxy::start(&config, &[("@app", &upstream.address()), ("@keys", &"")]);
    let mut client = Client::connect(proxy.address("database"));
    client.expect("part");
    client.send("mine");
    eventually("the endpoint to have heard", || upstream.received_text().contains("mine"));
    client.reset();
    assert_eq!(ends.recv_timeout(PATIENCE), Ok(End::Reset));
    let mut client = Client::connect(proxy.address("database"));
    client.expect("part");
    client.send("your");
    assert_eq!(client.expect_end(), End::Reset);
    eventually("two lines in the access log", || proxy.log_lines().len() == 2);
    let reasons: Vec<_> = proxy.log_lines().iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(reasons, ["client_cancelled", "upstream_reset"]);
}

#[test]
fn connections_take_turns_and_outlive_the_drains_beginning() {
    let upstreams = [greeter("one"), greeter("two")];
    let config = "listeners:
  database: { address: 127.0.0.1:0, mode: tcp, upstream: app }
upstreams:
  app: [\"@one\", \"@two\"]
workers: 1
";
    let mut proxy = Proxy::start(config, &[("@one", &upstreams[0].address()), ("@two", &upstreams[1].address())]);
    let mut clients = [0; 4].map(|_| Client::connect(proxy.address("database")));
    let mut greetings: Vec<_> = clients.iter_mut().map(|client| client.exactly(9)).collect();
    greetings.sort();
    assert_eq!(greetings, [b"one here\n", b"one here\n", b"two here\n", b"two here\n"]);
    proxy.terminate();
    eventually("the drain to begin", || TcpStream::connect(proxy.address("database")).is_err());
    for client in &mut clients {
        client.send("hello");
        client.expect("hellohello");
        client.fin();
        client.expect("bye");
    }
    assert_eq!(proxy.process().exit_code(), Some(0));
}

/// A proxy that takes TLS for this name.
fn server(upstream: &Upstream, shown: &Issued, clients: Option<&Authority>) -> Proxy {
    let keys = if clients.is_some() { ", client_ca_file: @directory/clients.pem" } else { "" };
    let config = "listeners:
  inbound:
    address: 127.0.0.1:0
    upstream: \"@app\"
    tls: { cert_file: @directory/tls.crt, key_file: @directory/tls.key@keys }
";
    Setup::new(config, &[("@app", &upstream.address()), ("@keys", &keys)])
        .file("tls.crt", &shown.certificate)
        .file("tls.key", &shown.key)
        .file("clients.pem", &clients.map(Authority::pem).unwrap_or_default())
        .start()
}

#[test]
fn tls_passes_through_by_the_name_that_is_asked_for() {
    let authority = Authority::new("all");
    let upstream = Upstream::ok();
    let first = server(&upstream, &authority.issue(&["first.test"]), Some(&authority));
    let second = server(&upstream, &authority.issue(&["a.second.test"]), None);
    let plain = greeter("plain");
    let config = "listeners:
  edge:
    address: 127.0.0.1:0
    mode: tcp
    routes:
      - { match: { host: first.test }, upstream: \"@first\" }
      - { match: { host: \"*.second.test\" }, upstream: \"@second\" }
      - { upstream: \"@plain\" }
";
    let values: [(&str, &dyn std::fmt::Display); 3] =
        [("@first", &first.address("inbound")), ("@second", &second.address("inbound")), ("@plain", &plain.address())];
    let proxy = Proxy::start(config, &values);
    let own = authority.issue(&["spiffe://mesh/ns/a/sa/web"]);
    for (name, path) in [("first.test", "/first"), ("a.second.test", "/second")] {
        let config = client_config(&authority, Some(&own));
        let mut client = TlsClient::connect(proxy.address("edge"), name, &config).unwrap();
        assert!(client.get(path).unwrap().starts_with("HTTP/1.1 200"), "{name}");
    }
    assert_eq!(first.log_line("/first")["identity"], "spiffe://mesh/ns/a/sa/web", "the handshake is the client's own");
    second.log_line("/second");
    eventually("lines in the access log", || proxy.log_lines().len() == 2);
    assert!(proxy.log_lines().iter().any(|line| line["host"] == "first.test"));
    let mut client = Client::connect(proxy.address("edge"));
    client.send("hello");
    client.expect("plain here\nhellohello");
}

#[test]
fn tls_can_end_here_and_begin_again() {
    let authority = Authority::new("all");
    let upstream = greeter("inner");
    let (shown, own) = (authority.issue(&["app.test"]), authority.issue(&["spiffe://mesh/outer"]));
    let inner_config = "listeners:
  inner:
    address: 127.0.0.1:0
    mode: tcp
    tls: { cert_file: @directory/tls.crt, key_file: @directory/tls.key, client_ca_file: @directory/ca.pem }
    allow: [\"spiffe://mesh/@allowed\"]
    upstream: \"@app\"
";
    let outer_config = "listeners:
  outer:
    address: 127.0.0.1:0
    mode: tcp
    tls: { cert_file: @directory/tls.crt, key_file: @directory/tls.key }
    routes:
      - { match: { host: app.test }, upstream: inner }
upstreams:
  inner:
    static: [\"@inner\"]
    tls: { ca_file: @directory/ca.pem, server_name: app.test, cert_file: @directory/own.crt, key_file: @directory/own.key }
";
    let start = |config: &str, values: &[(&str, &dyn std::fmt::Display)]| {
        Setup::new(config, values)
            .file("tls.crt", &shown.certificate)
            .file("tls.key", &shown.key)
            .file("own.crt", &own.certificate)
            .file("own.key", &own.key)
            .file("ca.pem", &authority.pem())
            .start()
    };
    let ask = |allowed: &str| {
        let inner = start(inner_config, &[("@app", &upstream.address()), ("@allowed", &allowed)]);
        let outer = start(outer_config, &[("@inner", &inner.address("inner"))]);
        // What is spoken inside is none of ours, so any protocol may be asked for.
        let mut config = rustls::ClientConfig::clone(&client_config(&authority, None));
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        let mut client = TlsClient::connect(outer.address("outer"), "app.test", &config.into()).unwrap();
        // Who is refused may be so before anything is sent.
        let sent = client.send("hello").and_then(|()| client.finish());
        let heard = sent.and_then(|()| client.read_to_end());
        if allowed != "outer" {
            assert_eq!(inner.metric("outrigger_requests_total", &[("reason", "denied")]), 1.0);
        }
        heard
    };
    assert_eq!(ask("outer").unwrap(), b"inner here\nhellohellobye");
    assert!(ask("somebody-else").is_err(), "a refusal looks like a proper end");
}
