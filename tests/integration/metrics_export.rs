//! Metrics at a collector that is not ours.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::receiver::Receiver;
use crate::support::client::once;
use crate::support::proxy::Setup;
use crate::support::wait::within;
use crate::support::{Proxy, Upstream, eventually};

/// Far above what the tries of one export take where nobody is there: 10.5 s.
const TRIES: Duration = Duration::from_secs(40);

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A proxy that sends its metrics there; `rest` is what else is said of it.
fn exporting(port: u16, upstream: &Upstream, rest: &str) -> Setup {
    let config = "
service: orders
drain: { delay: 0s, timeout: 1s }
metrics: { otlp: { url: \"http://127.0.0.1:@port\", @rest, headers: { x-api-key: key }, resource: { team: red } } }
telemetry:
  access_log: { path: none }
  traces: { otlp: \"http://127.0.0.1:@port\", @protocol }
listeners:
  inbound: { address: \"127.0.0.1:0\", routes: [{ name: rest, upstream: app }] }
upstreams:
  app: { static: [\"@app\"] }
";
    let protocol = rest.split(',').next().unwrap_or_default();
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("@port", &port), ("@rest", &rest), ("@protocol", &protocol), ("@app", &upstream.address())];
    Setup::new(config, &values)
}

fn ask(proxy: &Proxy) {
    let request = format!("GET / HTTP/1.1\r\nHost: app\r\ntraceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n\r\n");
    assert_eq!(once(proxy.address("inbound"), request).status, 200);
}

/// The latest data point of this metric whose attributes hold these.
#[track_caller]
fn point(receiver: &Receiver, metric: &str, attributes: &[(&str, &str)], found: impl Fn(&Value) -> bool) -> Value {
    let is_it = |point: &Value| attributes.iter().all(|(name, value)| point["attributes"][*name] == *value);
    let latest = || receiver.points(metric).into_iter().rfind(is_it);
    eventually(metric, || latest().is_some_and(|point| found(&point)));
    latest().unwrap()
}

#[test]
fn metrics_arrive_over_grpc() {
    metrics_arrive("grpc");
}

#[test]
fn metrics_arrive_over_http() {
    metrics_arrive("http");
}

fn metrics_arrive(protocol: &str) {
    let (receiver, upstream) = (Receiver::start(&[protocol]), Upstream::ok());
    let proxy = exporting(receiver.port, &upstream, &format!("protocol: {protocol}, interval: 50ms")).start();
    (0..3).for_each(|_| ask(&proxy));

    let requests =
        point(&receiver, "outrigger_requests_total", &[("route", "rest"), ("code", "200")], |it| it["value"] == 3.0);
    // 2 is cumulative.
    assert_eq!((&requests["kind"], &requests["temporality"]), (&"sum".into(), &2.into()));
    assert_eq!(
        (&requests["resource"]["service.name"], &requests["resource"]["team"]),
        (&"orders".into(), &"red".into())
    );
    assert_eq!((&requests["scope"], &requests["headers"]["x-api-key"]), (&"outrigger".into(), &"key".into()));
    assert!(requests["nanos"].as_u64().unwrap() > 0, "{requests}");

    let durations = point(&receiver, "outrigger_request_duration_seconds", &[("route", "rest")], |it| it["count"] == 3);
    assert_eq!((&durations["kind"], &durations["unit"]), (&"histogram".into(), &"s".into()));
    let (bounds, counts) = (durations["bounds"].as_array().unwrap(), durations["counts"].as_array().unwrap());
    assert_eq!(counts.len(), bounds.len() + 1);
    assert_eq!(counts.iter().map(|count| count.as_u64().unwrap()).sum::<u64>(), 3, "{durations}");
    assert!(durations["exemplars"].as_array().unwrap().contains(&TRACE.into()), "{durations}");

    let build = point(&receiver, "outrigger_build_info", &[], |it| it["value"] == 1.0);
    assert_eq!(build["kind"], "gauge");
    let process =
        point(&receiver, "outrigger_process_resident_memory_bytes", &[], |it| it["value"].as_f64() > Some(0.0));
    assert_eq!(process["unit"], "By");
}

/// What was counted since the last export leaves with the proxy.
#[test]
fn the_last_metrics_are_sent_at_the_end() {
    let (receiver, upstream) = (Receiver::start(&["grpc"]), Upstream::ok());
    let mut proxy = exporting(receiver.port, &upstream, "protocol: grpc, interval: 1h").start();
    ask(&proxy);
    assert!(receiver.points("outrigger_requests_total").is_empty());
    proxy.process().signal(Signal::TERM);
    point(&receiver, "outrigger_requests_total", &[("code", "200")], |it| it["value"] == 1.0);
}

/// One that takes connections and says nothing is waited for once, and not for metrics and then for spans.
#[test]
fn the_last_exports_do_not_wait_for_each_other() {
    let (silent, upstream) = (TcpListener::bind("127.0.0.1:0").unwrap(), Upstream::ok());
    let port = silent.local_addr().unwrap().port();
    let mut proxy = exporting(port, &upstream, "protocol: grpc, interval: 1h").start();
    ask(&proxy);
    proxy.process().signal(Signal::TERM);
    assert_eq!(proxy.process().exit_code(), Some(0));
    let log = proxy.process().stderr();
    let second_of_the_day = |what: &str| {
        let line = log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what} in {log}"));
        let (_, time) = line.split_once('T').unwrap();
        let number = |at: std::ops::Range<usize>| time[at].parse::<f64>().unwrap();
        number(0..2) * 3600.0 + number(3..5) * 60.0 + number(6..12)
    };
    let between = second_of_the_day("the last spans could not") - second_of_the_day("the last metrics could not");
    assert!(between.rem_euclid(86_400.0) < 0.5 || (-between).rem_euclid(86_400.0) < 0.5, "{between} s: {log}");
}

/// A collector that is not there costs a line a minute, and nothing else; that it is back is worth another, and so is
/// that it refuses by now.
#[test]
fn nobody_waits_for_a_collector_that_is_gone() {
    // Bound, so that nobody else takes the port, and not listening, so that connecting is refused.
    let gone = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    gone.set_reuse_port(true).unwrap();
    gone.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = gone.local_addr().unwrap().as_socket().unwrap();
    let upstream = Upstream::ok();
    let mut proxy = exporting(address.port(), &upstream, "protocol: http, interval: 50ms").start();
    ask(&proxy);
    let tells = |proxy: &mut Proxy, words: [&str; 2]| {
        let mut told = || proxy.process().stderr().lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(within(TRIES, || told().then_some(())).is_some(), "nothing was said of {words:?}");
    };
    tells(&mut proxy, ["metrics cannot be exported", "no connection"]);
    ask(&proxy);
    let refuses = Arc::new(AtomicBool::new(true));
    let _back = Upstream::at(address, {
        let refuses = refuses.clone();
        move |served| {
            while served.request().is_some() {
                let status = if refuses.load(Ordering::SeqCst) { "403 Forbidden" } else { "200 OK" };
                served.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
            }
        }
    });
    tells(&mut proxy, ["metrics cannot be exported", "it answered 403 Forbidden"]);
    refuses.store(false, Ordering::SeqCst);
    tells(&mut proxy, ["metrics are exported again", ""]);
}
