//! What Prometheus makes of the metrics, and the files of `examples/observability/`: with Debian's own.

use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use regex::Regex;
use serde_json::Value;

use crate::support::client::once;
use crate::support::files::Directory;
use crate::support::nameserver::{Nameserver, Reply};
use crate::support::pki::Authority;
use crate::support::process::Process;
use crate::support::proxy::Setup;
use crate::support::tools::needed;
use crate::support::upstream::Served;
use crate::support::wait::within;
use crate::support::{Proxy, Upstream};

const README: &str = include_str!("../../README.md");
const START: Duration = Duration::from_secs(60);

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/observability").join(name)
}

/// Runs promtool to its end; it is to have nothing to say of what is on its standard input.
#[track_caller]
fn promtool(arguments: &[&str], input: &str) -> String {
    needed("promtool", Command::new("promtool").arg("--version"), &["prometheus"]);
    let directory = Directory::new();
    let file = directory.write("input", input);
    let output = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::from(std::fs::File::open(file).unwrap()))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

/// A proxy that has answered well, answered ill and failed.
fn asked() -> (Proxy, Upstream) {
    let upstream = Upstream::ok();
    let config = "
metrics: \"127.0.0.1:0\"
listeners:
  outbound:
    address: \"127.0.0.1:0\"
    routes:
      - { name: pay, match: { path: /pay }, upstream: payments }
      - { name: dead, match: { path: /dead }, upstream: gone }
upstreams:
  payments: { static: [\"@app\"] }
  gone: { static: [\"127.0.0.1:1\"] }
";
    let proxy = Proxy::start(config, &[("@app", &upstream.address())]);
    for (path, count) in [("/pay", 30), ("/dead", 5), ("/none", 2)] {
        for _ in 0..count {
            once(proxy.address("outbound"), format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n"));
        }
    }
    (proxy, upstream)
}

#[test]
fn promtool_has_nothing_to_say_of_the_metrics() {
    let (proxy, _upstream) = asked();
    assert_eq!(promtool(&["check", "metrics"], &proxy.admin_get("/metrics").text()), "");
}

#[test]
fn the_rules_and_the_configuration_are_right() {
    let (rules, alerts) = (example("rules.yaml"), example("alerts.yaml"));
    let said = promtool(&["check", "rules", rules.to_str().unwrap(), alerts.to_str().unwrap()], "");
    assert_eq!(said.matches("SUCCESS").count(), 2, "{said}");
    // What the alerts do of a fault, and of what is none.
    promtool(&["test", "rules", example("alerts.test.yaml").to_str().unwrap()], "");
    let said = promtool(&["check", "config", example("prometheus.yaml").to_str().unwrap()], "");
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn prometheus_gets_exemplars_that_are_traces() {
    let upstream = Upstream::ok();
    let config = "
metrics: \"127.0.0.1:0\"
telemetry: { traces: { otlp: \"http://127.0.0.1:1\" } }
listeners: { inbound: { address: \"127.0.0.1:0\", upstream: \"@app\" } }
";
    let proxy = Proxy::start(config, &[("@app", &upstream.address())]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let line = format!("traceparent: 00-{trace}-b7ad6b7169203331-01");
    let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\n{line}\r\n\r\n");
    assert_eq!(once(proxy.address("inbound"), request).status, 200);
    let prometheus = Prometheus::start(proxy.metrics_address());
    prometheus.eventually("sum(outrigger_requests_total)", &[1.0]);
    let query = "outrigger_request_duration_seconds_bucket";
    let found = within(START, || {
        let answer = prometheus.get(&format!("/api/v1/query_exemplars?query={query}&start=0&end=9999999999"));
        answer.to_string().contains(trace).then_some(())
    });
    assert!(found.is_some(), "{}", prometheus.get("/api/v1/targets"));
}

/// A real Prometheus that scrapes the proxy, with the rules and alerts of the examples.
struct Prometheus {
    _process: Process,
    _directory: Directory,
    address: std::net::SocketAddr,
}

impl Prometheus {
    #[track_caller]
    fn start(target: std::net::SocketAddr) -> Self {
        needed("prometheus", Command::new("prometheus").arg("--version"), &["prometheus"]);
        let directory = Directory::new();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{:?}, {:?}]\n\
             scrape_configs: [{{ job_name: outrigger, static_configs: [{{ targets: [\"{target}\"] }}] }}]\n",
            example("rules.yaml"),
            example("alerts.yaml"),
        );
        let config = directory.write("prometheus.yaml", &config);
        // The port is free when it is asked for, and Prometheus takes it a moment later.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage");
        let process = Process::start("prometheus", &mut command, &directory);
        let ready = within(START, || TcpStream::connect(address).ok());
        assert!(ready.is_some(), "{}", process.stderr());
        Prometheus { _process: process, _directory: directory, address }
    }

    fn get(&self, path: &str) -> Value {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        serde_json::from_str(&once(self.address, request).text()).unwrap_or_default()
    }

    /// The values of a query's series.
    #[track_caller]
    fn query(&self, query: &str) -> Vec<f64> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        // It listens before it can answer.
        let answer = within(START, || {
            Some(self.get(&format!("/api/v1/query?query={encoded}"))).filter(|answer| !answer.is_null())
        });
        let answer = answer.unwrap_or_default();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap();
        series.iter().map(|series| series["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }

    #[track_caller]
    fn eventually(&self, query: &str, expected: &[f64]) {
        let found = within(START, || Some(self.query(query)).filter(|values| values == expected));
        assert!(found.is_some(), "{query}: {:?}, not {expected:?}", self.query(query));
    }
}

#[test]
fn prometheus_counts_what_was_asked() {
    let (proxy, _upstream) = asked();
    let prometheus = Prometheus::start(proxy.metrics_address());
    prometheus.eventually("sum(outrigger_requests_total)", &[37.0]);
    prometheus.eventually("sum(outrigger_requests_total{route=\"pay\",code=\"200\"})", &[30.0]);
    prometheus.eventually("sum(outrigger_requests_total{reason=\"connect_failure\"})", &[5.0]);
    prometheus.eventually("sum(outrigger_request_duration_seconds_count{route=\"pay\"})", &[30.0]);
    prometheus.eventually("sum(outrigger_attempt_duration_seconds_count{upstream=\"gone\"})", &[5.0]);
    let rules = prometheus.get("/api/v1/rules");
    let groups = rules["data"]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 4, "{rules}");
}

/// A proxy with some of everything that is counted, and what it needs.
struct Everything {
    proxy: Proxy,
    _upstreams: Vec<Upstream>,
    _nameserver: Nameserver,
}

impl Everything {
    fn start() -> Self {
        let (app, slow) = (Upstream::ok(), Upstream::scripted(answer_late));
        let failing = Upstream::answering("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
        let torn = Upstream::scripted(|served| {
            if served.request().is_some() {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            }
        });
        let nameserver = Nameserver::start();
        nameserver.say("app.test. A", Reply::records(&["app.test. 1 A 127.0.0.1"]));
        let shown = Authority::new("servers").issue(&["app.test"]);
        let config = "
metrics: \"127.0.0.1:0\"
dns: { servers: \"@nameserver\" }
telemetry: { access_log: { path: none }, traces: { otlp: \"http://127.0.0.1:1\", sample: 1 } }
listeners:
  inbound:
    address: \"127.0.0.1:0\"
    upstream: named
    tls: { cert_file: @directory/tls.crt, key_file: @directory/tls.key, plaintext: allow }
    concurrency: { max: 500 }
  outbound:
    address: \"127.0.0.1:0\"
    routes:
      - { name: pay, match: { path: /pay }, upstream: payments, mirror: { upstream: named, ratio: 1 } }
      - { name: dead, match: { path: /dead }, upstream: gone, rate_limit: { per_second: 1, shadow: true } }
      - { name: slow, match: { path: /slow }, upstream: slow, retries: { hedge: 5ms } }
      - { name: fails, match: { path: /fails }, upstream: fails }
      - { name: torn, match: { path: /torn }, upstream: torn }
upstreams:
  payments: { static: [\"@app\"], health: { tcp: true, every: 1s } }
  gone: { static: [\"127.0.0.1:1\", \"127.0.0.2:1\"] }
  slow: { static: [\"@slow\"] }
  fails: { static: [\"@failing\"], circuit_breaker: { min_requests: 5, open_for: 10m, max_open_for: 10m } }
  torn: { static: [\"@torn\"] }
  named: \"dns://app.test:@port\"
";
        let values: [(&str, &dyn Display); 6] = [
            ("@nameserver", &nameserver.address()),
            ("@app", &app.address()),
            ("@slow", &slow.address()),
            ("@failing", &failing.address()),
            ("@torn", &torn.address()),
            ("@port", &app.address().port()),
        ];
        let setup = Setup::new(config, &values).file("tls.crt", &shown.certificate).file("tls.key", &shown.key);
        let proxy = setup.start();
        Everything { proxy, _upstreams: vec![app, slow, failing, torn], _nameserver: nameserver }
    }

    fn ask(&self, listener: &str, path: &str, times: usize) {
        for _ in 0..times {
            let mut stream = TcpStream::connect(self.proxy.address(listener)).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
}

fn answer_late(served: &mut Served) {
    while served.request().is_some() {
        std::thread::sleep(Duration::from_millis(30));
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
}

/// The README's questions, and the panels of the dashboard.
fn queries() -> Vec<String> {
    let row = Regex::new(r"(?m)^\| .+\? \| `([^`]+)` \|$").unwrap();
    let mut queries: Vec<String> = row.captures_iter(README).map(|row| row[1].replace("\\|", "|")).collect();
    assert!(queries.len() >= 50, "only {} questions were found", queries.len());
    let dashboard: Value = serde_json::from_slice(&std::fs::read(example("grafana.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    queries.extend(targets.map(|target| {
        let expr = target["expr"].as_str().unwrap();
        expr.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")
    }));
    queries
}

#[test]
fn each_question_and_each_panel_has_an_answer() {
    let everything = Everything::start();
    for (listener, path, times) in [
        ("inbound", "/", 10),
        ("outbound", "/pay", 10),
        ("outbound", "/slow", 5),
        ("outbound", "/torn", 5),
        ("outbound", "/dead", 12),
        ("outbound", "/fails", 12),
        ("outbound", "/none", 6),
    ] {
        everything.ask(listener, path, times);
    }
    let prometheus = Prometheus::start(everything.proxy.metrics_address());
    prometheus.eventually("sum(outrigger_requests_total)", &[60.0]);
    prometheus
        .eventually("sum(outrigger_requests_total{route=\"torn\",code=\"200\",reason=\"upstream_reset\"})", &[5.0]);
    // A rate needs two scrapes.
    prometheus.eventually("sum(rate(outrigger_requests_total[5m])) >= bool 0", &[1.0]);
    let limit = Regex::new(r" (?:[<>]=?|==) [0-9.]+$").unwrap();
    let known = everything.proxy.admin_get("/metrics").text();
    let name = Regex::new(r"outrigger_[a-z_]+").unwrap();
    for query in queries() {
        prometheus.query(&query);
        // Whether there is anything to say is what such a question asks; that there is something to compare is ours.
        let compared = limit.replace(&query, "");
        assert!(
            within(START, || Some(()).filter(|()| !prometheus.query(&compared).is_empty())).is_some(),
            "{query}: nothing"
        );
        // Those of the rules have a colon before them.
        for name in name.find_iter(&query).filter(|name| !query[..name.start()].ends_with(':')) {
            let family = name.as_str().trim_end_matches("_bucket").trim_end_matches("_count").trim_end_matches("_sum");
            assert!(known.contains(&format!("# TYPE {family} ")), "{query}: there is no {family}");
        }
    }
    assert_eq!(prometheus.query("sum(outrigger_circuit_breaker_opened_total)"), [1.0]);
    // A third of these requests fail for no fault of their clients: the alert comes as soon as it is reckoned.
    let burns = "count by (listener) (ALERTS{alertname=\"OutriggerBudgetBurnsFast\",alertstate=\"firing\"})";
    everything.ask("outbound", "/torn", 5);
    prometheus.eventually(burns, &[1.0]);
}
