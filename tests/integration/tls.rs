//! TLS from clients, as `openssl`, curl and rustls meet it.

use std::io::Read as _;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use crate::peers::{curl, succeeds};
use crate::support::files::Directory;
use crate::support::pki::Authority;
use crate::support::proxy::Setup;
use crate::support::tls::{TlsClient, client_config};
use crate::support::tools::needed;
use crate::support::wait::PATIENCE;
use crate::support::{Client, Proxy, Upstream, eventually};

const CONFIG: &str = "listeners:
  inbound:
    address: 127.0.0.1:0
    upstream: \"@app\"
    tls: { cert_file: @directory/tls.crt, key_file: @directory/tls.key@keys }
    limits: { header_timeout: @timeout }
";

/// A proxy whose listener shows a certificate for `app.test`, with more keys of its `tls`.
fn proxy(upstream: &Upstream, server: &Authority, clients: &Authority, keys: &str) -> Proxy {
    let shown = server.issue(&["app.test"]);
    Setup::new(CONFIG, &[("@app", &upstream.address()), ("@keys", &keys), ("@timeout", &"10s")])
        .file("tls.crt", &shown.certificate)
        .file("tls.key", &shown.key)
        .file("clients.pem", &clients.pem())
        .start()
}

const MUTUAL: &str = ", client_ca_file: @directory/clients.pem";

fn handshakes(proxy: &Proxy, outcome: &str) -> f64 {
    proxy.metric("outrigger_downstream_tls_handshakes_total", &[("listener", "inbound"), ("outcome", outcome)])
}

#[test]
fn curl_chooses_version_and_protocol() {
    let (directory, authority) = (Directory::new(), Authority::new("servers"));
    let trusted = directory.write("ca.pem", &authority.pem());
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream, &authority, &authority, "");
    let address = proxy.address("inbound");
    for (tls, version) in [(&["--tls-max", "1.2"][..], "1.2"), (&["--tlsv1.3"], "1.3")] {
        for (http, protocol, shown) in [("--http1.1", "h1.1", "1.1"), ("--http2", "h2", "2")] {
            let path = format!("/{version}/{protocol}");
            let mut curl = curl();
            curl.args(tls).arg("--cacert").arg(&trusted).arg("--resolve");
            curl.arg(format!("app.test:{}:127.0.0.1", address.port())).args([
                http,
                "-w",
                " %{http_code} %{http_version}",
            ]);
            curl.arg(format!("https://app.test:{}{path}", address.port()));
            assert_eq!(succeeds("curl", &mut curl, &directory), format!("ok 200 {shown}"));
            let line = proxy.log_line(&path);
            assert_eq!((&line["tls"], &line["protocol"]), (&version.into(), &protocol.into()));
            assert!(line["identity"].is_null());
        }
        let labels = [("listener", "inbound"), ("version", version)];
        assert_eq!(proxy.metric("outrigger_downstream_tls_connections_total", &labels), 2.0);
    }
    assert!(upstream.requests().iter().all(|request| request.head.get("x-forwarded-proto") == Some("https")));
    assert_eq!(handshakes(&proxy, "success"), 4.0);
    assert!(proxy.metric("outrigger_tls_certificate_not_after_timestamp_seconds", &[]) > 3.7e9, "the year 2090");
}

#[test]
fn the_oldest_version_is_bounded() {
    let authority = Authority::new("servers");
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream, &authority, &authority, ", min_version: 1.3");
    let directory = Directory::new();
    let mut curl = curl();
    curl.args(["--tls-max", "1.2", "-k", &format!("https://{}/", proxy.address("inbound"))]);
    let mut process = crate::support::process::Process::start("curl", &mut curl, &directory);
    // 35: the handshake failed.
    assert_eq!(process.exit_code_within(PATIENCE), Some(35));
    eventually("the failure to be counted", || handshakes(&proxy, "incompatible") == 1.0);
}

#[test]
fn the_name_that_a_client_asks_for_picks_the_certificate() {
    needed("openssl", Command::new("openssl").arg("version"), &["openssl"]);
    let authority = Authority::new("servers");
    let upstream = Upstream::ok();
    let names = [["first.test", "*.wild.test"], ["second.test", "exact.wild.test"]];
    let [first, second] = names.map(|names| authority.issue(&names));
    let config = "listeners:
  inbound:
    address: 127.0.0.1:0
    upstream: \"@app\"
    tls:
      certificates:
        - { cert_file: @directory/1.crt, key_file: @directory/1.key }
        - { cert_file: @directory/2.crt, key_file: @directory/2.key }
";
    let proxy = Setup::new(config, &[("@app", &upstream.address())])
        .file("1.crt", &first.certificate)
        .file("1.key", &first.key)
        .file("2.crt", &second.certificate)
        .file("2.key", &second.key)
        .start();
    let shown = |name: Option<&str>| {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &proxy.address("inbound").to_string()]);
        match name {
            Some(name) => openssl.args(["-servername", name]),
            None => openssl.arg("-noservername"),
        };
        let output = openssl.stdin(std::process::Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let pem = |issued: &str| issued.trim().replace('\r', "");
        match (text.contains(&pem(&first.certificate)), text.contains(&pem(&second.certificate))) {
            (true, false) => 1,
            (false, true) => 2,
            _ => panic!("no certificate of ours: {text}"),
        }
    };
    let cases = [
        (Some("first.test"), 1),
        (Some("SECOND.test"), 2),
        (Some("any.wild.test"), 1),
        (Some("exact.wild.test"), 2),
        (Some("two.labels.wild.test"), 1),
        (Some("nobody.test"), 1),
        (None, 1),
    ];
    for (name, expected) in cases {
        assert_eq!(shown(name), expected, "{name:?}");
    }
}

#[test]
fn clients_without_a_good_certificate_are_told_so() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let upstream = Upstream::ok();
    let mut proxy = proxy(&upstream, &servers, &clients, MUTUAL);
    let address = proxy.address("inbound");
    let good = clients.issue(&["spiffe://mesh/ns/a/sa/web"]);
    let mut client = TlsClient::connect(address, "app.test", &client_config(&servers, Some(&good))).unwrap();
    assert!(client.get("/good").unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(proxy.log_line("/good")["identity"], "spiffe://mesh/ns/a/sa/web");

    let cases = [
        (None, "no_certificate", "CertificateRequired"),
        (Some(servers.issue(&["spiffe://mesh/ns/a/sa/web"])), "bad_certificate", "UnknownCA"),
        (Some(clients.issue_expired(&["spiffe://mesh/ns/a/sa/web"])), "bad_certificate", "CertificateExpired"),
    ];
    for (own, outcome, alert) in cases {
        let before = handshakes(&proxy, outcome);
        let config = client_config(&servers, own.as_ref());
        // In TLS 1.3 the client is done first; it hears of the refusal when it reads.
        let heard = TlsClient::connect(address, "app.test", &config).and_then(|mut client| client.get("/bad"));
        let heard = heard.expect_err("the handshake was not refused").to_string();
        assert!(heard.contains(alert), "{alert}: {heard}");
        eventually("the failure to be counted", || handshakes(&proxy, outcome) == before + 1.0);
    }
    // The other way round: a client that does not trust us.
    let strangers = client_config(&clients, Some(&good));
    let refused = TlsClient::connect(address, "app.test", &strangers).err().expect("the server is trusted");
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    let wrong_name = client_config(&servers, Some(&good));
    let refused = TlsClient::connect(address, "other.test", &wrong_name).err().expect("the name is trusted");
    assert!(refused.to_string().contains("not valid for name"), "{refused}");
    assert_eq!(upstream.count("/bad"), 0);
    let log = proxy.process().stderr();
    for reason in ["peer sent no certificates", "certificate expired", "UnknownIssuer"] {
        assert!(log.contains(reason), "{reason} is not in the log:\n{log}");
    }
    assert!(log.contains("127.0.0.1:"), "the log names no peer:\n{log}");
}

#[test]
fn a_client_certificate_can_be_optional() {
    let authority = Authority::new("all");
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream, &authority, &authority, &format!("{MUTUAL}, client: optional"));
    for (own, path) in [(None, "/without"), (Some(authority.issue(&["client.test"])), "/with")] {
        let config = client_config(&authority, own.as_ref());
        let mut client = TlsClient::connect(proxy.address("inbound"), "app.test", &config).unwrap();
        assert!(client.get(path).unwrap().starts_with("HTTP/1.1 200"), "{path}");
    }
    assert!(proxy.log_line("/without")["identity"].is_null());
    assert_eq!(proxy.log_line("/with")["identity"], "client.test");
}

#[test]
fn one_port_can_take_both() {
    let authority = Authority::new("all");
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream, &authority, &authority, &format!("{MUTUAL}, plaintext: allow"));
    let own = authority.issue(&["client.test"]);
    let config = client_config(&authority, Some(&own));
    let mut client = TlsClient::connect(proxy.address("inbound"), "app.test", &config).unwrap();
    assert!(client.get("/tls").unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(proxy.client().get("/plain").status, 200);
    assert!(proxy.log_line("/plain")["tls"].is_null());
    for version in ["1.3", "none"] {
        let labels = [("version", version)];
        assert_eq!(proxy.metric("outrigger_downstream_tls_connections_total", &labels), 1.0, "{version}");
    }
    let schemes: Vec<_> =
        upstream.requests().iter().map(|request| request.head.get("x-forwarded-proto").map(str::to_owned)).collect();
    assert_eq!(schemes, [Some("https".to_owned()), Some("http".to_owned())]);
}

#[test]
fn sessions_are_resumed_only_without_client_certificates() {
    let authority = Authority::new("all");
    let upstream = Upstream::ok();
    for (keys, expected) in [("", HandshakeKind::Resumed), (MUTUAL, HandshakeKind::Full)] {
        let proxy = proxy(&upstream, &authority, &authority, keys);
        let own = authority.issue(&["client.test"]);
        let config = client_config(&authority, Some(&own));
        let kinds = [0; 2].map(|_| {
            let mut client = TlsClient::connect(proxy.address("inbound"), "app.test", &config).unwrap();
            client.get("/").unwrap();
            client.session().handshake_kind()
        });
        assert_eq!(kinds[1], Some(expected), "{keys:?}");
    }
}

#[test]
fn who_says_nothing_or_no_tls_is_let_go() {
    let authority = Authority::new("servers");
    let upstream = Upstream::ok();
    let shown = authority.issue(&["app.test"]);
    let proxy = Setup::new(CONFIG, &[("@app", &upstream.address()), ("@keys", &""), ("@timeout", &"300ms")])
        .file("tls.crt", &shown.certificate)
        .file("tls.key", &shown.key)
        .start();
    let mut silent = TcpStream::connect(proxy.address("inbound")).unwrap();
    let mut halfway = TcpStream::connect(proxy.address("inbound")).unwrap();
    std::io::Write::write_all(&mut halfway, b"\x16\x03\x01\x02\x00").unwrap();
    for socket in [&mut silent, &mut halfway] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(socket.read(&mut [0; 16]).unwrap(), 0);
    }
    assert_eq!(handshakes(&proxy, "timeout"), 2.0);
    let mut plain = Client::connect(proxy.address("inbound"));
    plain.send(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert!(plain.response_or_end("GET").is_none());
    eventually("the failure to be counted", || handshakes(&proxy, "not_tls") == 1.0);
    assert_eq!(upstream.requests().len(), 0);
}

// More than may shake hands at once, and none of them goes on.
#[test]
fn clients_that_stop_in_the_middle_of_a_handshake_hold_up_nobody() {
    const CLIENTS: usize = 300;
    let authority = Authority::new("servers");
    let upstream = Upstream::ok();
    let shown = authority.issue(&["app.test"]);
    let config = format!("{CONFIG}workers: 1\n");
    let proxy = Setup::new(&config, &[("@app", &upstream.address()), ("@keys", &""), ("@timeout", &"60s")])
        .file("tls.crt", &shown.certificate)
        .file("tls.key", &shown.key)
        .start();
    let address = proxy.address("inbound");
    let config = client_config(&authority, None);
    let hello = first_word(&config);
    for said in [&hello[..1], &hello] {
        let held: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut socket = TcpStream::connect(address).unwrap();
                std::io::Write::write_all(&mut socket, said).unwrap();
                socket
            })
            .collect();
        let mut client = TlsClient::connect(address, "app.test", &config)
            .unwrap_or_else(|error| panic!("beside {CLIENTS} that said {} bytes: {error}", said.len()));
        assert!(client.get("/").unwrap().starts_with("HTTP/1.1 200"));
        drop(held);
    }
}

/// The hello of a client.
fn first_word(config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut session = ClientConnection::new(config.clone(), "app.test".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut hello).unwrap();
    }
    hello
}

/// hyper#3792: the last answer before the end must be whole, and its end a proper one.
#[test]
fn the_last_answer_before_the_end_is_whole() {
    const SIZE: usize = 8 << 20;
    let authority = Authority::new("servers");
    let upstream = Upstream::scripted(|served| {
        while served.request().is_some() {
            served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
            served.send(vec![b'x'; SIZE]);
        }
    });
    let mut proxy = proxy(&upstream, &authority, &authority, "");
    let config = client_config(&authority, None);
    let mut client = TlsClient::connect(proxy.address("inbound"), "app.test", &config).unwrap();
    client.send("GET /large HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    eventually("the request to arrive", || upstream.count("/large") == 1);
    proxy.terminate();
    let answer = client.read_to_end().expect("an end without goodbye");
    assert_eq!(answer.len() - answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() - 4, SIZE);
    assert_eq!(proxy.process().exit_code(), Some(0));
}
