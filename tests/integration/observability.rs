//! What Prometheus makes of the metrics, and the files of `examples/observability/`: with Debian's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use regex::Regex;
use serde_json::Value;

use crate::support::client::once;
use crate::support::files::Directory;
use crate::support::process::Process;
use crate::support::tools::needed;
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
        let ready = within(START, || std::net::TcpStream::connect(address).ok());
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
    // Every question of the README, and every panel of the dashboard, is one that Prometheus understands.
    let row = Regex::new(r"(?m)^\| .+\? \| `([^`]+)` \|$").unwrap();
    let questions: Vec<String> = row.captures_iter(README).map(|row| row[1].replace("\\|", "|")).collect();
    assert!(questions.len() >= 20, "only {} questions were found", questions.len());
    let dashboard: Value = serde_json::from_slice(&std::fs::read(example("grafana.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let exprs = targets.map(|target| {
        let expr = target["expr"].as_str().unwrap();
        expr.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")
    });
    let known = proxy.admin_get("/metrics").text();
    let name = Regex::new(r"outrigger_[a-z_]+").unwrap();
    for query in questions.into_iter().chain(exprs) {
        prometheus.query(&query);
        for name in name.find_iter(&query) {
            let family = name.as_str().trim_end_matches("_bucket").trim_end_matches("_count").trim_end_matches("_sum");
            assert!(known.contains(&format!("# TYPE {family} ")), "{query}: there is no {family}");
        }
    }
}
