//! Spans at a collector that is not ours: OpenTelemetry's own definitions, over both protocols.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::receiver::Receiver;
use crate::support::client::once;
use crate::support::files::Directory;
use crate::support::pki::Authority;
use crate::support::proxy::Setup;
use crate::support::{Client, Proxy, Upstream, eventually};
use crate::tls_upstream;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const ERROR: u64 = 2;

/// A proxy before this endpoint that exports to this port, at once.
fn exporting(endpoint: &str, traces: &str) -> Setup {
    let config = "
service: orders
telemetry:
  access_log: { path: \"@directory/access.log\", only: all }
  traces: { @traces }
listeners:
  inbound:
    address: \"127.0.0.1:0\"
    routes:
      - { name: users, match: { path: /users }, upstream: app }
      - { name: rest, upstream: app }
upstreams:
  app: { static: [\"@app\"] }
";
    Setup::new(config, &[("@traces", &traces), ("@app", &endpoint)]).environment("OTEL_BSP_SCHEDULE_DELAY", "50")
}

#[track_caller]
fn ask(proxy: &Proxy, path: &str, lines: &str) -> u16 {
    once(proxy.address("inbound"), format!("GET {path} HTTP/1.1\r\nHost: app.test:81\r\n{lines}\r\n")).status
}

fn sampled() -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n")
}

#[test]
fn spans_arrive_over_grpc() {
    spans_arrive("grpc");
}

#[test]
fn spans_arrive_over_http() {
    spans_arrive("http");
}

fn spans_arrive(protocol: &str) {
    let receiver = Receiver::start(&[protocol]);
    let upstream = Upstream::answering("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let traces = format!(
        "otlp: \"http://127.0.0.1:{}\", protocol: {protocol}, headers: {{ x-api-key: key }}, resource: {{ team: red }}",
        receiver.port
    );
    let proxy = exporting(&upstream.address().to_string(), &traces).environment("POD_NAME", "orders-7").start();
    let lines = format!("{}tracestate: a=1\r\nUser-Agent: probe\r\nX-Request-Id: id-7\r\n", sampled());
    assert_eq!(ask(&proxy, "/users/7?token=secret", &lines), 404);
    let spans = receiver.trace(TRACE, 2);
    let [server, client] = &spans[..] else { panic!("{spans:#?}") };
    let sent = upstream.request(0);

    assert_eq!((&server["kind"], &server["name"]), (&SERVER.into(), &"GET /users".into()));
    assert_eq!((&server["parent_span_id"], &server["trace_state"]), (&PARENT.into(), &"a=1".into()));
    assert_eq!(server["flags"].as_u64().unwrap() & 0x301, 0x301, "sampled, and its parent is remote");
    assert_eq!(server["status"], 0, "a client's mistake is no error of a server");
    let local = upstream.address();
    let expected = serde_json::json!({
        "http.request.method": "GET", "url.scheme": "http", "url.path": "/users/7", "http.route": "/users",
        "http.response.status_code": 404, "server.address": "app.test", "server.port": 81,
        "client.address": "127.0.0.1", "network.peer.address": "127.0.0.1", "network.protocol.version": "1.1",
        "user_agent.original": "probe", "outrigger.listener": "inbound", "outrigger.route": "users",
        "outrigger.upstream": "app", "outrigger.request_id": "id-7",
    });
    assert_has(&server["attributes"], &expected);
    assert_eq!(client["kind"], CLIENT);
    assert_eq!((&client["name"], &client["parent_span_id"]), (&"GET".into(), &server["span_id"]));
    assert_eq!(sent.head.get("traceparent"), Some(format!("00-{TRACE}-{}-01", text(&client["span_id"])).as_str()));
    assert_eq!((&client["status"], &client["attributes"]["error.type"]), (&ERROR.into(), &"404".into()));
    let expected = serde_json::json!({
        "http.request.method": "GET", "url.full": "http://app.test:81/users/7", "http.response.status_code": 404,
        "server.address": "app.test", "server.port": 81, "network.peer.address": local.ip().to_string(),
        "network.peer.port": local.port(), "network.protocol.version": "1.1", "outrigger.endpoint": local.to_string(),
    });
    assert_has(&client["attributes"], &expected);
    assert!(client["attributes"].get("http.request.resend_count").is_none());
    let resource = serde_json::json!({ "service.name": "orders", "k8s.pod.name": "orders-7", "team": "red" });
    assert_has(&server["resource"], &resource);
    assert!(!text(&server["resource"]["service.instance.id"]).is_empty(), "{server}");
    assert_eq!(server["scope"], "outrigger");
    assert_eq!(server["headers"]["x-api-key"], "key");
    assert!(!format!("{spans:?}").contains("secret"), "the query is personal data: {spans:?}");
    proxy.metric_reaches("outrigger_trace_spans_exported_total", &[], 2.0);
}

#[test]
fn spans_arrive_over_grpc_and_tls() {
    spans_arrive_over_tls("grpc", false);
}

#[test]
fn spans_arrive_over_http_and_tls() {
    spans_arrive_over_tls("http", true);
}

/// The collector shows a certificate and wants one; the files are named in the configuration, or in the environment.
fn spans_arrive_over_tls(protocol: &str, by_environment: bool) {
    let (directory, authority) = (Directory::new(), Authority::new("collectors"));
    let issued = authority.issue(&["localhost", "127.0.0.1"]);
    let files = [("collector.crt", &issued.certificate), ("collector.key", &issued.key), ("ca.pem", &authority.pem())];
    let files = files.map(|(name, text)| directory.write(name, text).display().to_string());
    let [certificate, key, authorities] = files.each_ref().map(String::as_str);
    let receiver = Receiver::start(&[protocol, certificate, key, authorities]);
    let upstream = Upstream::ok();
    let url = format!("https://localhost:{}", receiver.port);
    let tls = format!(", tls: {{ ca_file: \"{authorities}\", cert_file: \"{certificate}\", key_file: \"{key}\" }}");
    let tls = if by_environment { "" } else { &tls };
    let traces = format!("otlp: \"{url}\", protocol: {protocol}{tls}");
    let mut setup = exporting(&upstream.address().to_string(), &traces);
    if by_environment {
        setup = setup
            .environment("OTEL_EXPORTER_OTLP_CERTIFICATE", authorities)
            .environment("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate)
            .environment("OTEL_EXPORTER_OTLP_CLIENT_KEY", key);
    }
    let proxy = setup.start();
    assert_eq!(ask(&proxy, "/", &sampled()), 200);
    receiver.trace(TRACE, 2);
    proxy.metric_reaches("outrigger_trace_spans_exported_total", &[], 2.0);

    // Whoever is not who it should be gets nothing, which is said at once.
    let traces = format!(
        "otlp: \"{url}\", protocol: {protocol}, tls: {{ server_name: elsewhere.test, ca_file: \"{authorities}\" }}"
    );
    let mut proxy = exporting(&upstream.address().to_string(), &traces).start();
    assert_eq!(ask(&proxy, "/", &sampled()), 200);
    proxy.metric_reaches("outrigger_trace_spans_dropped_total", &[("cause", "export_failed")], 2.0);
    let said = proxy.process().stderr();
    assert!(said.contains("no TLS") && said.contains("not valid for name"), "{said}");
}

#[test]
fn an_attempt_over_tls_is_https() {
    let receiver = Receiver::start(&["http"]);
    let upstream = Upstream::ok();
    let authority = Authority::new("mesh");
    let callee = tls_upstream::callee(&upstream, &authority.issue(&["app.test"]), None);
    let config = "
telemetry: { traces: { otlp: \"http://127.0.0.1:@port\", protocol: http } }
listeners:
  inbound: { address: \"127.0.0.1:0\", upstream: app }
upstreams:
  app: { static: [\"@callee\"], tls: { ca_file: @directory/ca.pem, server_name: app.test } }
";
    let proxy = Setup::new(config, &[("@port", &receiver.port), ("@callee", &callee.address("inbound"))])
        .environment("OTEL_BSP_SCHEDULE_DELAY", "50")
        .file("ca.pem", &authority.pem())
        .start();
    let request = format!("GET /users/7 HTTP/1.1\r\nHost: app.test\r\n{}\r\n", sampled());
    assert_eq!(once(proxy.address("inbound"), request).status, 200);
    let client = &receiver.trace(TRACE, 2)[1]["attributes"];
    assert_has(client, &serde_json::json!({ "url.full": "https://app.test/users/7", "server.port": 443 }));
}

/// client → proxy → app → proxy → server, with an app that passes its headers on.
#[test]
fn a_trace_through_two_hops_has_the_right_parents() {
    let receiver = Receiver::start(&["grpc"]);
    let server = Upstream::ok();
    let outbound = std::sync::Arc::new(std::sync::OnceLock::<std::net::SocketAddr>::new());
    let app = Upstream::scripted({
        let outbound = outbound.clone();
        move |served| {
            while let Some(request) = served.request() {
                let traceparent = request.head.get("traceparent").unwrap();
                let address = *outbound.wait();
                let answer =
                    once(address, format!("GET /pay HTTP/1.1\r\nHost: payments\r\ntraceparent: {traceparent}\r\n\r\n"));
                served.send(format!("HTTP/1.1 {} x\r\nContent-Length: 0\r\n\r\n", answer.status));
            }
        }
    });
    let config = "
telemetry: { traces: { otlp: \"http://127.0.0.1:@port\", sample: 1 } }
listeners:
  inbound: { address: \"127.0.0.1:0\", upstream: \"@app\" }
  outbound: { address: \"127.0.0.1:0\", routes: [{ match: { host: payments }, upstream: payments }] }
upstreams:
  payments: \"@server\"
";
    let values: [(&str, &dyn std::fmt::Display); 3] =
        [("@port", &receiver.port), ("@app", &app.address()), ("@server", &server.address())];
    let proxy = Setup::new(config, &values).environment("OTEL_BSP_SCHEDULE_DELAY", "50").start();
    outbound.set(proxy.address("outbound")).unwrap();
    assert_eq!(ask(&proxy, "/", ""), 200);
    let sent = server.request(0);
    let id = sent.head.get("traceparent").unwrap().split('-').nth(1).unwrap().to_owned();
    let spans = receiver.trace(&id, 4);
    let shown: Vec<_> = spans.iter().map(|span| (span["kind"].as_u64().unwrap(), text(&span["name"]))).collect();
    assert!(shown[0].1.starts_with("GET ") && shown[2].1 == "GET payments", "{shown:?}");
    assert_eq!([shown[0].0, shown[1].0, shown[2].0, shown[3].0], [SERVER, CLIENT, SERVER, CLIENT]);
    assert_eq!(spans[0]["parent_span_id"], "", "it began at the inbound listener");
    for (child, parent) in [(1, 0), (2, 1), (3, 2)] {
        assert_eq!(spans[child]["parent_span_id"], spans[parent]["span_id"], "span {child}: {spans:#?}");
    }
    assert_eq!(sent.head.get("traceparent"), Some(format!("00-{id}-{}-03", text(&spans[3]["span_id"])).as_str()));
}

#[test]
fn what_is_not_sampled_sends_nothing_unless_it_fails_here() {
    let receiver = Receiver::start(&["http"]);
    let upstream = Upstream::ok();
    let traces = format!("otlp: \"http://127.0.0.1:{}\", protocol: http, sample: 0", receiver.port);
    let proxy = exporting(&upstream.address().to_string(), &traces).start();
    assert_eq!(ask(&proxy, "/fine", ""), 200);
    assert_eq!(ask(&proxy, "/fine", &format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n")), 200);
    let undecided = upstream.request(0);
    assert!(undecided.head.get("traceparent").is_some_and(|value| value.ends_with("-02")), "{}", undecided.head);
    upstream.stop_accepting();
    upstream.drop_connections(false);
    eventually("connecting to be refused", || ask(&proxy, "/fails", "") == 503);
    let id = text(&proxy.log_line("/fails")["trace_id"]).to_owned();
    let spans = receiver.trace(&id, 2);
    assert_eq!(spans[0]["attributes"]["error.type"], "connect_failure");
    assert_eq!(
        (&spans[0]["status"], &spans[0]["attributes"]["http.response.status_code"]),
        (&ERROR.into(), &503.into())
    );
    assert_eq!(
        (&spans[1]["status"], &spans[1]["attributes"]["error.type"]),
        (&ERROR.into(), &"connect_failure".into())
    );
    // Whoever asked has decided: not even a failure is recorded.
    assert_eq!(ask(&proxy, "/decided", &format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n")), 503);
    assert_eq!(ask(&proxy, "/last", ""), 503);
    let last = text(&proxy.log_line("/last")["trace_id"]).to_owned();
    receiver.trace(&last, 2);
    let paths: BTreeSet<_> = receiver.spans().iter().map(|span| span["attributes"]["url.path"].to_string()).collect();
    assert!(!paths.contains("\"/fine\"") && !paths.contains("\"/decided\""), "{paths:?}");
}

#[test]
fn each_attempt_is_a_span() {
    let receiver = Receiver::start(&["grpc"]);
    // Answers once on each connection, and closes it without a word when it is asked again.
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        served.request();
        served.close();
    });
    let proxy =
        exporting(&upstream.address().to_string(), &format!("otlp: \"http://127.0.0.1:{}\"", receiver.port)).start();
    let mut client = Client::connect(proxy.address("inbound"));
    assert_eq!(client.get("/first").status, 200);
    client.send(format!("GET /second HTTP/1.1\r\nHost: app.test\r\n{}\r\n", sampled()));
    assert_eq!(client.response().status, 200);
    let spans = receiver.trace(TRACE, 3);
    assert_eq!(spans[1]["attributes"]["error.type"], "upstream_closed_idle");
    assert_eq!(spans[2]["attributes"]["http.request.resend_count"], 1);
    assert_ne!(spans[1]["span_id"], spans[2]["span_id"]);
    for attempt in &spans[1..] {
        assert_eq!(attempt["parent_span_id"], spans[0]["span_id"]);
    }
    let sent: Vec<_> =
        upstream.requests().iter().filter_map(|request| request.head.get("traceparent").map(str::to_owned)).collect();
    for (traceparent, span) in sent.iter().rev().zip(spans.iter().rev()).take(2) {
        assert!(traceparent.contains(text(&span["span_id"])), "{sent:?} {spans:#?}");
    }
}

#[test]
fn an_attempt_that_its_client_gives_up_is_a_span() {
    let receiver = Receiver::start(&["http"]);
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.rest();
    });
    let traces = format!("otlp: \"http://127.0.0.1:{}\", protocol: http, sample: 0", receiver.port);
    let proxy = exporting(&upstream.address().to_string(), &traces).start();
    // Sampled by its caller, and only for how it ends.
    for (path, sampled) in [("/sampled", sampled()), ("/not", String::new())] {
        let mut client = Client::connect(proxy.address("inbound"));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n{sampled}\r\n"));
        let nth = usize::from(path == "/not");
        let traceparent = upstream.request(nth).head.get("traceparent").unwrap().to_owned();
        client.reset();
        let id = text(&proxy.log_line(path)["trace_id"]).to_owned();
        let spans = receiver.trace(&id, 2);
        assert!(traceparent.contains(text(&spans[1]["span_id"])), "{traceparent} {spans:#?}");
        assert_eq!(spans[1]["parent_span_id"], spans[0]["span_id"]);
        assert_eq!(spans[1]["attributes"]["error.type"], "client_cancelled");
        assert_eq!(spans[0]["attributes"]["http.response.status_code"], 499);
    }
    let given_up = [("upstream", "app"), ("outcome", "client_cancelled")];
    assert_eq!(proxy.metric("outrigger_attempt_duration_seconds_count", &given_up), 2.0);
}

#[test]
fn the_environment_is_enough() {
    let receiver = Receiver::start(&["http"]);
    let upstream = Upstream::ok();
    let config = "listeners:\n  inbound: { address: \"127.0.0.1:0\", upstream: \"@app\" }\n";
    let proxy = Setup::new(config, &[("@app", &upstream.address())])
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{}", receiver.port))
        .environment("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .environment("OTEL_SERVICE_NAME", "by-name")
        .environment("OTEL_PROPAGATORS", "tracecontext,b3")
        .environment("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start();
    assert_eq!(ask(&proxy, "/", &format!("b3: {TRACE}-{PARENT}-1\r\n")), 200);
    let spans = receiver.trace(TRACE, 2);
    assert_eq!(
        (&spans[0]["resource"]["service.name"], &spans[0]["parent_span_id"]),
        (&"by-name".into(), &PARENT.into())
    );
    let sent = upstream.request(0).head;
    assert_eq!(sent.get("b3"), Some(format!("{TRACE}-{}-1", text(&spans[1]["span_id"])).as_str()));
    assert!(sent.has("traceparent"));
}

#[test]
fn the_last_spans_are_sent_before_the_end() {
    let receiver = Receiver::start(&["grpc"]);
    let upstream = Upstream::ok();
    let traces = format!("otlp: \"http://127.0.0.1:{}\"", receiver.port);
    let proxy =
        exporting(&upstream.address().to_string(), &traces).environment("OTEL_BSP_SCHEDULE_DELAY", "60000").start();
    assert_eq!(ask(&proxy, "/last", &sampled()), 200);
    proxy.stop();
    receiver.trace(TRACE, 2);
}

/// Whatever the collector does, requests do not notice: nobody there, nobody who answers, one who refuses.
#[test]
fn a_collector_that_fails_costs_spans_and_nothing_else() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refusing = Receiver::start(&["http", "refuse"]);
    let upstream = Upstream::ok();
    for (port, protocol, cause) in [
        (nobody, "grpc", "queue_full"),
        (silent.local_addr().unwrap().port(), "http", "queue_full"),
        (silent.local_addr().unwrap().port(), "grpc", "queue_full"),
        (refusing.port, "http", "export_failed"),
    ] {
        let traces = format!("otlp: \"http://127.0.0.1:{port}\", protocol: {protocol}, sample: 1");
        let mut proxy = exporting(&upstream.address().to_string(), &traces)
            .environment("OTEL_BSP_MAX_QUEUE_SIZE", "256")
            .environment("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64")
            .start();
        let mut client = proxy.client();
        assert_eq!(client.get("/warm").status, 200);
        let before = proxy.process().resident_bytes();
        for nth in 0..600 {
            assert_eq!(client.get("/x").status, 200, "{protocol} {port}: request {nth}");
        }
        proxy.metric_reaches("outrigger_trace_spans_dropped_total", &[("cause", cause)], 1.0);
        let after = proxy.process().resident_bytes();
        assert!(after < before + (8 << 20), "{protocol} {port}: {before} bytes before, {after} after");
        let began = Instant::now();
        proxy.stop();
        assert!(began.elapsed() < Duration::from_secs(5), "{protocol} {port}: the end took {:?}", began.elapsed());
    }
}

#[track_caller]
fn assert_has(attributes: &Value, expected: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&attributes[key], value, "{key} in {attributes:#}");
    }
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}
