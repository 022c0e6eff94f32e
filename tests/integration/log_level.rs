//! `PUT /log`: the level of the proxy's own log, while it runs.

use crate::support::client::once;
use crate::support::{Proxy, Response, Upstream, eventually};

/// Before an endpoint that nobody can connect to.
fn proxy() -> Proxy {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    drop(upstream);
    proxy
}

#[track_caller]
fn ask(proxy: &Proxy, line: &str, body: &str) -> Response {
    let host = proxy.admin();
    let length = body.len();
    once(
        host,
        format!("{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"),
    )
}

/// True where the log has a line at `debug` of this request, which fails.
#[track_caller]
fn says(proxy: &mut Proxy, id: &str) -> bool {
    let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\nX-Request-Id: {id}\r\nConnection: close\r\n\r\n");
    assert_eq!(once(proxy.address("inbound"), request).status, 503);
    proxy.process().stderr().lines().any(|line| line.contains("\"DEBUG\"") && line.contains(id))
}

#[test]
fn the_level_changes_and_changes_back() {
    let mut proxy = proxy();
    assert!(!says(&mut proxy, "one"));
    let answer = ask(&proxy, "PUT /log", "{\"level\":\"debug\"}");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.json(),
        serde_json::json!({ "level": "debug", "configured": "info", "override": { "seconds_left": null } })
    );
    assert!(says(&mut proxy, "two"));
    assert_eq!(ask(&proxy, "DELETE /log", "").json()["override"], serde_json::Value::Null);
    assert!(!says(&mut proxy, "three"));

    assert_eq!(ask(&proxy, "PUT /log?for=1s", "debug\n").status, 200);
    assert!(says(&mut proxy, "four"));
    eventually("the level to go back by itself", || ask(&proxy, "GET /log", "").json()["level"] == "info");
    assert!(!says(&mut proxy, "five"));

    for (line, body) in [("PUT /log", "loud"), ("PUT /log?for=ever", "debug"), ("PUT /log", "")] {
        assert_eq!(ask(&proxy, line, body).status, 400, "{line} {body}");
    }
    assert!(!says(&mut proxy, "six"));
}

/// What is laid over stays when the configuration is swapped, and what it says then holds afterwards.
#[test]
fn a_swap_does_not_change_it() {
    let mut proxy = proxy();
    assert_eq!(ask(&proxy, "PUT /log", "debug").status, 200);
    let config = std::fs::read_to_string(proxy.directory().join("outrigger.yaml")).unwrap();
    let config = config.replace("telemetry: {", "telemetry: { log: { level: error },");
    assert_eq!(ask(&proxy, "PUT /config", &config).status, 200);
    let log = ask(&proxy, "GET /log", "").json();
    assert_eq!((&log["level"], &log["configured"]), (&"debug".into(), &"error".into()));
    assert!(says(&mut proxy, "over"));
    assert_eq!(ask(&proxy, "DELETE /log", "").json()["level"], "error");
    assert!(!says(&mut proxy, "under"));
}
