//! The admin and metrics addresses: what they show, and to whom.

use std::os::unix::fs::PermissionsExt;

use crate::support::client::once;
use crate::support::proxy::{Setup, sum_of};
use crate::support::{Client, Proxy, Response, Upstream, eventually};

const CONFIG: &str = "
admin: { address: \"127.0.0.1:0\", socket: \"@directory/admin.sock\", token_file: \"@directory/token\" }
metrics: { address: \"127.0.0.1:0\" }
listeners:
  inbound:
    address: 127.0.0.1:0
    routes: [{ name: main, upstream: app, request_headers: { set: { x-secret: \"${TEST_SECRET}\" } } }]
upstreams:
  app: { static: [{ address: \"@app\", weight: 7 }] }
drain: { delay: 10s, timeout: 1s }
";

fn proxy(upstream: &Upstream) -> Proxy {
    Setup::new(CONFIG, &[("@app", &upstream.address())])
        .environment("TEST_SECRET", "swordfish")
        .file("token", "let-me-in\n")
        .start()
}

/// A request at the admin address with these header lines.
fn ask(proxy: &Proxy, line: &str, fields: &str) -> Response {
    once(proxy.admin(), format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"))
}

#[test]
fn metrics_count_what_passed() {
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/secret-path?q").status, 200);
    }
    assert_eq!(client.exchange("BREW /secret-path HTTP/1.1\r\nHost: app.test\r\n\r\n").status, 200);
    let labels = [
        ("listener", "inbound"),
        ("route", "main"),
        ("upstream", "app"),
        ("method", "GET"),
        ("code", "200"),
        ("grpc_code", ""),
        ("reason", ""),
    ];
    proxy.metric_reaches("outrigger_requests_total", &labels, 3.0);
    assert_eq!(proxy.metric("outrigger_requests_total", &labels), 3.0);
    assert_eq!(proxy.metric("outrigger_requests_total", &[("method", "_OTHER")]), 1.0);
    let duration = [("listener", "inbound"), ("route", "main"), ("upstream", "app"), ("code_class", "2xx")];
    assert_eq!(proxy.metric("outrigger_request_duration_seconds_count", &duration), 4.0);
    let text = proxy.admin_get("/metrics").text();
    assert!(!text.contains("secret-path"), "a raw path became a label");
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<f64>());
        assert!(matches!(value, Some(Ok(_))), "{line}");
    }
    assert!(text.contains("outrigger_build_info{"), "no outrigger_build_info");
    assert_eq!(sum_of(&text, "outrigger_attempt_duration_seconds_count", &[("upstream", "app")]), 4.0);
}

#[test]
fn every_metric_has_the_proxys_prefix() {
    let upstream = Upstream::ok();
    let text = proxy(&upstream).admin_get("/metrics").text();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert!(line.starts_with("outrigger_"), "{line}");
    }
}

#[test]
fn probes_tell_alive_and_ready() {
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream);
    for address in [proxy.admin(), proxy.metrics_address()] {
        for path in ["/livez", "/readyz"] {
            // A probe comes with whatever Host its sender likes.
            let response =
                once(address, format!("GET {path} HTTP/1.1\r\nHost: 10.1.2.3:9902\r\nConnection: close\r\n\r\n"));
            assert_eq!(response.status, 200, "{path} at {address}");
        }
    }
    let head = ask(&proxy, "HEAD /readyz", "Host: localhost\r\n");
    assert_eq!(head.status, 200);
}

#[test]
fn the_configuration_is_shown_without_secrets() {
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream);
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(upstream.request(0).head.get("x-secret"), Some("swordfish"));
    let config = proxy.admin_get("/config");
    assert_eq!(config.status, 200);
    let text = config.text();
    for word in ["inbound", "main", "${TEST_SECRET}", "weight"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    assert!(!text.contains("swordfish"), "{text}");
    assert!(!text.contains("let-me-in"), "{text}");
}

#[test]
fn upstreams_are_shown_with_their_endpoints() {
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream);
    let response = proxy.admin_get("/upstreams");
    assert_eq!(response.status, 200);
    let text = response.json().to_string();
    for word in ["\"app\"", &upstream.address().to_string(), "\"weight\":7"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
}

// Loopback address, loopback Host, no foreign Origin: a page in somebody's browser has none of the last two.
#[test]
fn a_browser_that_was_tricked_gets_nothing() {
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream);
    let port = proxy.admin().port();
    let refused = [
        "Host: evil.test\r\n".to_owned(),
        format!("Host: evil.test:{port}\r\n"),
        format!("Host: 127.0.0.1.evil.test:{port}\r\n"),
        format!("Host: localhost:{port}\r\nOrigin: http://evil.test\r\n"),
        format!("Host: localhost:{port}\r\nOrigin: null\r\n"),
        format!("Host: localhost:{port}\r\nOrigin: http://localhost.evil.test:{port}\r\n"),
        "Host: evil.test\r\nAuthorization: Bearer wrong\r\n".to_owned(),
        "Host: evil.test\r\nAuthorization: Bearer \r\n".to_owned(),
        "Host: evil.test\r\nAuthorization: Basic let-me-in\r\n".to_owned(),
    ];
    for fields in &refused {
        for line in ["GET /config", "GET /upstreams", "POST /drain", "PUT /log"] {
            let response = ask(&proxy, line, fields);
            assert!([401, 403].contains(&response.status), "{line} with {fields:?}: {}", response.head);
            assert!(!response.text().contains("inbound"), "{line} with {fields:?}: {}", response.text());
        }
    }
    assert_eq!(ask(&proxy, "GET /readyz", "Host: localhost\r\n").status, 200, "a refused POST /drain drained");
    let allowed = [
        format!("Host: localhost:{port}\r\n"),
        format!("Host: 127.0.0.1:{port}\r\n"),
        format!("Host: [::1]:{port}\r\n"),
        format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n"),
        "Host: evil.test\r\nAuthorization: Bearer let-me-in\r\n".to_owned(),
        "Host: evil.test\r\nauthorization: bearer let-me-in\r\n".to_owned(),
    ];
    for fields in &allowed {
        assert_eq!(ask(&proxy, "GET /config", fields).status, 200, "{fields:?}");
    }
}

#[test]
fn a_public_address_asks_for_the_token() {
    let upstream = Upstream::ok();
    let config = CONFIG.replace("address: \"127.0.0.1:0\", socket", "address: \"0.0.0.0:0\", socket");
    let proxy = Setup::new(&config, &[("@app", &upstream.address())])
        .environment("TEST_SECRET", "swordfish")
        .file("token", "let-me-in")
        .start();
    for line in ["GET /config", "GET /upstreams", "POST /drain"] {
        for fields in
            ["Host: localhost\r\n", "Host: 10.0.0.7:9901\r\n", "Host: localhost\r\nAuthorization: Bearer nope\r\n"]
        {
            let response = ask(&proxy, line, fields);
            assert!([401, 403].contains(&response.status), "{line} with {fields:?}: {}", response.head);
        }
    }
    assert_eq!(ask(&proxy, "GET /config", "Host: 10.0.0.7:9901\r\nAuthorization: Bearer let-me-in\r\n").status, 200);
    assert_eq!(ask(&proxy, "GET /livez", "Host: 10.0.0.7:9901\r\n").status, 200);
}

#[test]
fn the_unix_socket_needs_no_token_and_is_its_owners() {
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream);
    let socket = proxy.directory().join("admin.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    let response =
        Client::connect_unix(&socket).exchange("GET /config HTTP/1.1\r\nHost: outrigger\r\nConnection: close\r\n\r\n");
    assert_eq!(response.status, 200);
    assert!(response.text().contains("inbound"));
}

#[test]
fn the_metrics_address_shows_nothing_else_ever() {
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream);
    let address = proxy.metrics_address();
    let ask = |line: &str| {
        once(
            address,
            format!(
                "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer let-me-in\r\nConnection: close\r\n\r\n"
            ),
        )
    };
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(ask(&format!("GET {path}")).status, 200, "{path}");
    }
    for line in [
        "GET /",
        "GET /config",
        "GET /upstreams",
        "GET /tap",
        "POST /drain",
        "PUT /config",
        "PUT /log",
        "GET /probe/app/readiness",
    ] {
        let response = ask(line);
        assert!([404, 405].contains(&response.status), "{line}: {}", response.head);
    }
    assert_eq!(ask("GET /readyz").status, 200);
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream);
    for (line, status) in [
        ("GET /nothing", 404),
        ("GET /drain", 405),
        ("POST /config", 405),
        ("DELETE /upstreams", 405),
        ("POST /metrics", 405),
    ] {
        assert_eq!(ask(&proxy, line, "Host: localhost\r\nContent-Length: 0\r\n").status, status, "{line}");
    }
}

// A misspelt `dry_run` must not become the real thing.
#[test]
fn parameters_that_nobody_knows_are_refused() {
    let upstream = Upstream::ok();
    let proxy = proxy(&upstream);
    for (line, said) in [
        ("PUT /config?dryrun=true", "`dryrun` is no parameter of PUT /config; there are dry_run, for, format"),
        ("PUT /config?dry_run=true&dry-run=true", "`dry-run` is no parameter of PUT /config"),
        ("POST /drain?wiat=true", "`wiat` is no parameter of POST /drain; there are wait"),
        ("POST /config/rollback?too=1", "`too` is no parameter of POST /config/rollback; there are to, format"),
        ("GET /config?format=xml", "`format` is json, yaml or text, not `xml`"),
        ("GET /upstreams?name=app", "GET /upstreams takes no parameters, and there is `name`"),
    ] {
        let answer = ask(&proxy, line, "Host: localhost\r\nContent-Length: 0\r\n");
        assert_eq!(answer.status, 400, "{line}");
        assert!(answer.text().contains(said), "{line}: {}", answer.text());
    }
    assert_eq!(proxy.admin_get("/readyz?verbose").status, 200, "probes may say what they like");
    assert_eq!(proxy.admin_get("/config?format=json").json()["generation"], 1, "nothing has happened");
}

// A drain by hand: unready at once, served on, until SIGTERM goes straight to the end.
#[test]
fn post_drain_makes_unready_and_serves_on() {
    let upstream = Upstream::ok();
    let mut proxy = proxy(&upstream);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    let drained = ask(&proxy, "POST /drain", "Host: localhost\r\nContent-Length: 0\r\n");
    assert!([200, 202].contains(&drained.status), "{}", drained.head);
    assert_eq!(proxy.admin_get("/readyz").status, 503);
    assert_eq!(
        once(proxy.metrics_address(), "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").status,
        503
    );
    assert_eq!(proxy.admin_get("/livez").status, 200);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(proxy.client().get("/").status, 200);
    assert!(proxy.process().ended().is_none());
}

#[test]
fn what_the_proxy_has_open_is_counted() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.rest();
    });
    let proxy = proxy(&upstream);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    upstream.request(0);
    let in_flight = |proxy: &Proxy| proxy.metric("outrigger_requests_in_flight", &[]);
    eventually("one request in flight", || in_flight(&proxy) == 1.0);
    client.reset();
    eventually("no request in flight", || in_flight(&proxy) == 0.0);
}

#[test]
fn histograms_have_the_buckets_that_were_asked_for() {
    let upstream = Upstream::ok();
    let config = "
metrics: { address: \"127.0.0.1:0\", buckets: [0.25, 2.5, 60] }
listeners: { inbound: { address: \"127.0.0.1:0\", upstream: \"@app\" } }
";
    let proxy = Setup::new(config, &[("@app", &upstream.address())]).start();
    assert_eq!(proxy.client().get("/").status, 200);
    let bounds = |family: &str| -> Vec<String> {
        let text = proxy.admin_get("/metrics").text();
        let lines = text.lines().filter(|line| line.starts_with(&format!("{family}_bucket")));
        lines.filter_map(|line| Some(line.split("le=\"").nth(1)?.split('"').next()?.to_owned())).collect()
    };
    for family in ["outrigger_request_duration_seconds", "outrigger_attempt_duration_seconds"] {
        assert_eq!(bounds(family), ["0.25", "2.5", "60", "+Inf"], "{family}");
    }
    // Others are taken over by the next start, and the answer says so.
    let config = std::fs::read_to_string(proxy.directory().join("outrigger.yaml")).unwrap().replace("0.25", "0.5");
    let length = config.len();
    let head = format!("PUT /config?format=json HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n");
    let answer = once(proxy.admin(), format!("{head}Connection: close\r\n\r\n{config}"));
    assert_eq!((answer.status, &answer.json()["needs_restart"]), (200, &serde_json::json!(["metrics.buckets"])));
    assert_eq!(bounds("outrigger_request_duration_seconds")[0], "0.25");
}
