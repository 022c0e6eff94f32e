//! A line a request, with what happened to it.

use std::os::unix::fs::symlink;

use crate::support::client::once;
use crate::support::files::Directory;
use crate::support::h2::{self, H2Client};
use crate::support::{Proxy, Upstream, eventually};

const FIELDS: [&str; 22] = [
    "time",
    "listener",
    "client",
    "route",
    "upstream",
    "endpoint",
    "method",
    "host",
    "path",
    "protocol",
    "code",
    "grpc_code",
    "reason",
    "attempts",
    "bytes_in",
    "bytes_out",
    "ms",
    "tls",
    "identity",
    "trace_id",
    "request_id",
    "generation",
];

#[test]
fn a_line_says_what_happened() {
    let upstream = Upstream::answering("HTTP/1.1 201 Created\r\nContent-Length: 6\r\n\r\nanswer");
    let proxy = Proxy::start(
        "
listeners:
  inbound: { address: 127.0.0.1:0, routes: [{ name: main, upstream: app }] }
upstreams:
  app: { static: [\"@app\"] }
",
        &[("@app", &upstream.address())],
    );
    let request = "POST /logged?token=secret HTTP/1.1\r\nHost: app.test:81\r\nX-Request-Id: id-7\r\nContent-Length: 4\r\n\
                   traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\nbody";
    assert_eq!(once(proxy.address("inbound"), request).status, 201);
    let line = proxy.log_line("/logged");
    let object = line.as_object().unwrap();
    for field in FIELDS {
        assert!(object.contains_key(field), "{field} is missing in {line}");
    }
    let expected = serde_json::json!({
        "listener": "inbound", "client": "127.0.0.1", "route": "main", "upstream": "app", "endpoint": upstream.address().to_string(), "method": "POST",
        "path": "/logged", "protocol": "h1", "code": 201, "grpc_code": null, "reason": null, "attempts": 1,
        "bytes_in": 4, "bytes_out": 6, "tls": null, "identity": null,
        "trace_id": "0af7651916cd43dd8448eb211c80319c", "request_id": "id-7",
    });
    for (field, value) in expected.as_object().unwrap() {
        if field == "protocol" {
            assert!(line["protocol"].as_str().is_some_and(|name| name.contains('1')), "{line}");
            continue;
        }
        assert_eq!(&line[field], value, "{field}: {line}");
    }
    assert!(line["host"].as_str().unwrap().starts_with("app.test"), "{line}");
    for part in ["queued", "connect", "first_byte", "total"] {
        assert!(line["ms"][part].as_f64().is_some_and(|ms| (0.0..60_000.0).contains(&ms)), "ms.{part}: {line}");
    }
    assert!(line["ms"]["total"].as_f64() >= line["ms"]["first_byte"].as_f64(), "{line}");
    assert!(line["generation"].is_u64(), "{line}");
    assert!(!line.to_string().contains("secret"), "the query was logged: {line}");
}

#[test]
fn what_could_not_be_read_is_no_get() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    assert_eq!(once(proxy.address("inbound"), "nonsense\r\n\r\n").status, 400);
    let line = proxy.log_line("");
    let known = (&line["method"], &line["host"], &line["reason"]);
    assert_eq!(known, (&"_OTHER".into(), &serde_json::Value::Null, &"bad_request".into()), "{line}");
    proxy.metric_reaches("outrigger_requests_total", &[("method", "_OTHER"), ("reason", "bad_request")], 1.0);
}

#[tokio::test]
async fn http_2_is_named() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    H2Client::connect(proxy.address("inbound")).await.exchange(h2::get("/two"), "").await;
    let line = tokio::task::spawn_blocking(move || proxy.log_line("/two")).await.unwrap();
    assert_eq!((&line["protocol"], &line["host"]), (&"h2".into(), &"app.test".into()), "{line}");
}

#[test]
fn a_line_shows_who_asked_and_the_headers_that_were_asked_for() {
    let upstream = Upstream::ok();
    let proxy = Proxy::start(
        "
telemetry:
  access_log: { path: \"@directory/access.log\", only: all, fields: [client, path], headers: [user-agent, accept, x-none] }
listeners:
  inbound:
    address: 127.0.0.1:0
    trust: { hops: 1 }
    routes:
      - { match: { path: /gone }, rewrite: { path_prefix: /elsewhere }, request_headers: { remove: [user-agent] }, upstream: app }
upstreams:
  app: { static: [\"@app\"] }
",
        &[("@app", &upstream.address())],
    );
    let request = "GET /gone HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 2001:db8::7\r\nUser-Agent: a \"b\"\r\n\
                   Accept: text/html\r\nAccept: */*\r\n\r\n";
    assert_eq!(once(proxy.address("inbound"), request).status, 200);
    let expected = serde_json::json!({
        "client": "2001:db8::7", "path": "/gone", "headers": { "user-agent": "a \"b\"", "accept": "text/html, */*" },
    });
    assert_eq!(proxy.log_line("/gone"), expected);
}

// Whatever a client writes, a line stays one line of JSON.
#[test]
fn nothing_a_client_sends_breaks_a_line() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    once(
        proxy.address("inbound"),
        b"GET /a\"b\\c%0a HTTP/1.1\r\nHost: app.test\r\nX-Request-Id: q\"\\\xff\xfe\r\n\r\n".as_slice(),
    );
    once(proxy.address("inbound"), "GET /after HTTP/1.1\r\nHost: app.test\r\n\r\n");
    proxy.log_line("/after");
    assert_eq!(proxy.log_lines().len(), 2);
}

#[test]
fn by_default_only_errors_are_logged() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let broken = Upstream::answering("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::start(
        "
telemetry: { access_log: { path: \"@directory/access.log\" } }
listeners:
  inbound:
    address: 127.0.0.1:0
    routes: [{ match: { path: /fine }, upstream: \"@app\" }, { match: { path: /broken }, upstream: \"@broken\" }]
",
        &[("@app", &upstream.address()), ("@broken", &broken.address())],
    );
    let mut client = proxy.client();
    assert_eq!((client.get("/fine").status, client.get("/none").status, client.get("/broken").status), (200, 404, 500));
    proxy.log_line("/broken");
    let paths: Vec<String> = proxy.log_lines().iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(paths, ["/none", "/broken"]);
}

#[test]
fn the_log_may_go_to_stdout() {
    let upstream = Upstream::ok();
    let mut proxy = Proxy::start(
        "
telemetry: { access_log: { path: stdout, only: all } }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: \"@app\" }
",
        &[("@app", &upstream.address())],
    );
    assert_eq!(proxy.client().get("/out").status, 200);
    let process = proxy.process();
    crate::support::eventually("the line on stdout", || process.stdout().contains("\"path\":\"/out\""));
}

#[test]
fn no_line_is_lost_at_the_end() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    for nth in 0..100 {
        assert_eq!(client.get(&format!("/{nth}")).status, 200);
    }
    drop(client);
    let copy = proxy.directory().join("access.log");
    let kept = std::fs::File::open(&copy).unwrap();
    proxy.stop();
    let text = std::io::read_to_string(kept).unwrap();
    assert_eq!(text.lines().count(), 100);
}

/// A disk that is full, and not a slow one.
#[test]
fn lines_that_cannot_be_written_are_said_to_be_so() {
    let (upstream, directory) = (Upstream::ok(), Directory::new());
    let config = "
telemetry: { access_log: { path: \"@log\", only: all } }
listeners: { inbound: { address: 127.0.0.1:0, upstream: \"@app\" } }
";
    let path = directory.join("access.log");
    symlink("/dev/full", &path).unwrap();
    let mut proxy = Proxy::start(config, &[("@app", &upstream.address()), ("@log", &path.display())]);
    assert_eq!(proxy.client().get("/").status, 200);
    eventually("a warning", || proxy.admin_get("/readyz").text().contains("lines dropped"));
    assert!(proxy.admin_get("/readyz").text().contains("too slow, or refuses them"));
    let log = proxy.process().stderr();
    let line = log.lines().find(|line| line.contains("the access log cannot be written")).unwrap();
    assert!(line.contains("access.log") && line.contains("No space left") && !line.contains("LogFile"), "{line}");
    // Another cause is told at once, too.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    eventually("the other cause", || {
        assert_eq!(proxy.client().get("/").status, 200);
        proxy.process().stderr().contains("Is a directory")
    });
}
