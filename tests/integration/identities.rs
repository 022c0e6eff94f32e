//! Who may call whom: lists of identities, and what the app is told of its caller.

use crate::support::files::Directory;
use crate::support::pki::{Authority, Issued};
use crate::support::proxy::Setup;
use crate::support::tls::{TlsClient, client_config};
use crate::support::{Proxy, Upstream};

const CONFIG: &str = "listeners:
  inbound:
    address: 127.0.0.1:0
    edge: @edge
    tls:
      cert_file: @directory/tls.crt
      key_file: @directory/tls.key
      client_ca_file: @directory/clients.pem
      client: optional
      plaintext: allow
      forward_client_cert: @forward
    allow: [\"spiffe://mesh/ns/*/sa/web\", \"spiffe://mesh/ns/ops/**\", old.internal]
    routes:
      - match: { path: /admin }
        allow: \"spiffe://mesh/ns/ops/**\"
        upstream: \"@app\"
      - upstream: \"@app\"
        request_headers: { set: { x-caller: \"%{client.identity} over %{client.tls}\" } }
";

fn start(upstream: &Upstream, authority: &Authority, edge: bool, forward: bool) -> Proxy {
    let shown = authority.issue(&["spiffe://mesh/ns/a/sa/app", "app.test"]);
    Setup::new(CONFIG, &[("@app", &upstream.address()), ("@edge", &edge), ("@forward", &forward)])
        .file("tls.crt", &shown.certificate)
        .file("tls.key", &shown.key)
        .file("clients.pem", &authority.pem())
        .start()
}

fn ask(proxy: &Proxy, authority: &Authority, own: Option<&Issued>, request: &str) -> String {
    let config = client_config(authority, own);
    let mut client = TlsClient::connect(proxy.address("inbound"), "app.test", &config).unwrap();
    client.send(request).unwrap();
    String::from_utf8_lossy(&client.read_to_end().unwrap()).into_owned()
}

fn get(path: &str) -> String {
    let forged = "X-Forwarded-Client-Cert: By=forged\r\nX_Forwarded_Client-Cert: By=forged";
    format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n{forged}\r\nConnection: close\r\n\r\n")
}

#[test]
fn only_those_on_the_list_get_in() {
    let authority = Authority::new("mesh");
    let upstream = Upstream::ok();
    let proxy = start(&upstream, &authority, false, false);
    let cases: [(&[&str], &str, u16); 9] = [
        (&["spiffe://mesh/ns/a/sa/web"], "/", 200),
        (&["spiffe://mesh/ns/b/sa/web"], "/", 200),
        (&["spiffe://mesh/ns/b/sa/web2"], "/", 403),
        (&["spiffe://other/ns/a/sa/web"], "/", 403),
        (&["old.internal"], "/", 200),
        // Two URIs are nobody's identity.
        (&["spiffe://mesh/ns/a/sa/web", "spiffe://mesh/ns/b/sa/web"], "/", 403),
        (&["spiffe://mesh/ns/a/sa/web"], "/admin", 403),
        (&["spiffe://mesh/ns/ops/sa/oncall"], "/admin", 200),
        (&["spiffe://mesh/ns/ops/sa/oncall"], "/", 200),
    ];
    for (names, path, expected) in cases {
        let answer = ask(&proxy, &authority, Some(&authority.issue(names)), &get(path));
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{names:?} {path}: {answer}");
        assert_eq!(answer.contains("x-outrigger-reason: denied; hop=inbound"), expected == 403, "{answer}");
    }
    let unknown = ask(&proxy, &authority, None, &get("/unknown"));
    assert!(unknown.starts_with("HTTP/1.1 403 "), "{unknown}");
    assert_eq!(proxy.client().get("/plain").status, 403);
    assert_eq!(proxy.log_line("/plain")["reason"], "denied");
    assert_eq!(proxy.metric("outrigger_requests_total", &[("reason", "denied")]), 6.0);
    assert_eq!(upstream.requests().len(), 5);
    assert_eq!(upstream.requests()[0].head.get("x-caller"), Some("spiffe://mesh/ns/a/sa/web over 1.3"));
}

#[test]
fn the_app_is_told_of_its_caller_and_never_by_the_caller() {
    let authority = Authority::new("mesh");
    let own = authority.issue(&["spiffe://mesh/ns/a/sa/web", "web.internal"]);
    let directory = Directory::new();
    for (edge, forward) in [(false, true), (true, true), (false, false), (true, false)] {
        let upstream = Upstream::ok();
        let proxy = start(&upstream, &authority, edge, forward);
        assert!(ask(&proxy, &authority, Some(&own), &get("/")).starts_with("HTTP/1.1 200 "));
        let requests = upstream.requests();
        assert_eq!(requests[0].head.get("x_forwarded_client-cert"), None);
        let told = requests[0].head.get("x-forwarded-client-cert");
        if !forward {
            assert_eq!(told, None);
            continue;
        }
        let told = told.expect("the app was told nothing");
        let file = directory.write("own.crt", &own.certificate);
        let openssl = std::process::Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
            .arg(file)
            .output()
            .unwrap();
        let fingerprint = String::from_utf8_lossy(&openssl.stdout).to_lowercase().replace(':', "");
        let hash = fingerprint.trim().rsplit('=').next().unwrap().to_owned();
        assert_eq!(
            told,
            format!("By=spiffe://mesh/ns/a/sa/app;Hash={hash};URI=spiffe://mesh/ns/a/sa/web;DNS=web.internal")
        );
    }
}
