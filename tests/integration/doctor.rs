//! The proxy notices where the app does not pass its callers' trace on.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use crate::support::client::once;
use crate::support::{Proxy, Upstream, eventually};

/// A proxy around an app that makes a call for each of its requests, with the trace or without.
fn around(passes_on: bool) -> (Proxy, Upstream, Upstream) {
    let server = Upstream::ok();
    let outbound = Arc::new(OnceLock::<SocketAddr>::new());
    let app = Upstream::scripted({
        let outbound = outbound.clone();
        move |served| {
            while let Some(request) = served.request() {
                let trace = request.head.get("traceparent").filter(|_| passes_on);
                let line = trace.map_or(String::new(), |value| format!("traceparent: {value}\r\n"));
                once(*outbound.wait(), format!("GET / HTTP/1.1\r\nHost: payments\r\n{line}\r\n"));
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    let config = "
telemetry: { traces: { otlp: \"http://127.0.0.1:1\", sample: 0 } }
listeners:
  inbound: { address: \"127.0.0.1:0\", upstream: \"@app\" }
  outbound: { address: \"127.0.0.1:0\", upstream: \"@server\" }
";
    let proxy = Proxy::start(config, &[("@app", &app.address()), ("@server", &server.address())]);
    outbound.set(proxy.address("outbound")).unwrap();
    let mut client = proxy.client();
    for _ in 0..25 {
        assert_eq!(client.get("/").status, 200);
    }
    (proxy, app, server)
}

#[test]
fn an_app_that_drops_the_trace_is_found() {
    let (mut proxy, _app, _server) = around(false);
    assert!(proxy.metric("outrigger_calls_without_trace_total", &[]) >= 25.0);
    let ready = proxy.admin_get("/readyz");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("does not pass `traceparent` on"), "{}", ready.text());
    let process = proxy.process();
    eventually("a line in the log", || process.stderr().contains("does not pass `traceparent` on"));
    assert_eq!(process.stderr().matches("does not pass `traceparent` on").count(), 1, "said once");
}

#[test]
fn an_app_that_passes_it_on_is_not() {
    let (proxy, _app, _server) = around(true);
    assert_eq!(proxy.metric("outrigger_calls_without_trace_total", &[]), 0.0);
    assert!(!proxy.admin_get("/readyz").text().contains("traceparent"));
}
