//! The proxy under test: a child process of the built binary, on addresses that the kernel picks.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, once};
use super::files::Directory;
use super::message::Response;
use super::process::Process;
use super::wait::{eventually, eventually_some, within};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(20);

/// A running proxy.
pub struct Proxy {
    process: Process,
    bound: Bound,
    access_log: PathBuf,
    directory: Directory,
}

/// What `--ready-file` holds.
#[derive(Deserialize)]
struct Bound {
    listeners: BTreeMap<String, String>,
    admin: Option<String>,
    metrics: Option<String>,
    pid: u32,
}

/// How to start the proxy.
pub struct Setup {
    config: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    prefix: Vec<String>,
    directory: Directory,
}

impl Setup {
    /// A configuration in YAML, in which each `@name` is replaced, and each section that is not written gets one
    /// that suits a test: admin on a free port, every request in the access log, a drain without delay.
    pub fn new(config: &str, values: &[(&str, &dyn Display)]) -> Self {
        let directory = Directory::new();
        let mut text = config.to_owned();
        for (name, value) in values {
            text = text.replace(name, &value.to_string());
        }
        text = text.replace("@directory", &directory.path().display().to_string());
        let defaults = [
            ("admin", "admin: { address: \"127.0.0.1:0\" }\n".to_owned()),
            ("telemetry", format!("telemetry: {{ access_log: {{ path: \"{}\", only: all }} }}\n", log_in(&directory))),
            ("drain", "drain: { delay: 0s, timeout: 5s }\n".to_owned()),
            ("workers", "workers: 2\n".to_owned()),
        ];
        for (key, section) in defaults {
            if !text.lines().any(|line| line.starts_with(&format!("{key}:"))) {
                text.push_str(&section);
            }
        }
        Setup { config: text, arguments: Vec::new(), environment: Vec::new(), prefix: Vec::new(), directory }
    }

    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it through another command, such as one that enters a namespace.
    #[must_use]
    pub fn within(mut self, prefix: Vec<String>) -> Self {
        self.prefix = prefix;
        // It may run as somebody else there.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(self.directory.path(), everybody).unwrap();
        self
    }

    /// A file beside the configuration, which names it by `@directory/NAME`.
    #[must_use]
    pub fn file(self, name: &str, content: &str) -> Self {
        self.directory.write(name, content);
        self
    }

    /// The configuration, with everything filled in.
    pub fn text(&self) -> &str {
        &self.config
    }

    /// A folder beside the configuration.
    pub fn folder(&mut self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// Starts the proxy and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Proxy {
        let config = self.directory.write("outrigger.yaml", &self.config);
        self.start_with(&config)
    }

    /// The same from another file, which somebody else has written.
    #[track_caller]
    pub fn start_with(self, config: &Path) -> Proxy {
        let ready = self.directory.join("ready.json");
        let mut words = self.prefix.into_iter().map(PathBuf::from).chain([binary()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("run").arg(config).arg("--ready-file").arg(&ready).args(&self.arguments);
        command.env("RUST_BACKTRACE", "1").envs(self.environment);
        let mut process = Process::start("outrigger", &mut command, &self.directory);
        let bound = within(START, || match (std::fs::read(&ready), process.ended()) {
            (Ok(bytes), _) => Some(Some(bytes)),
            (Err(_), Some(_)) => Some(None),
            (Err(_), None) => None,
        });
        let Some(Some(bytes)) = bound else {
            let ended = process.ended();
            panic!("the proxy did not become ready (ended: {ended:?}) with this configuration:\n{}", self.config);
        };
        let bound: Bound = serde_json::from_slice(&bytes)
            .unwrap_or_else(|error| panic!("--ready-file: {error} in {}", String::from_utf8_lossy(&bytes)));
        assert_eq!(bound.pid, process.id(), "--ready-file names another process");
        let access_log = PathBuf::from(log_in(&self.directory));
        Proxy { process, bound, access_log, directory: self.directory }
    }
}

/// The binary under test; `OUTRIGGER_BINARY` names another build of it.
pub fn binary() -> PathBuf {
    std::env::var_os("OUTRIGGER_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_outrigger")), PathBuf::from)
}

fn log_in(directory: &Directory) -> String {
    directory.join("access.log").display().to_string()
}

impl Proxy {
    /// See [`Setup::new`].
    #[track_caller]
    pub fn start(config: &str, values: &[(&str, &dyn Display)]) -> Self {
        Setup::new(config, values).start()
    }

    /// One listener named `inbound` before one upstream named `app`.
    #[track_caller]
    pub fn before(endpoint: impl Display) -> Self {
        Proxy::before_with(endpoint, "")
    }

    /// The same with more keys of the listener, such as `, limits: { idle: 1s }`.
    #[track_caller]
    pub fn before_with(endpoint: impl Display, keys: &str) -> Self {
        let config = "listeners:\n  inbound: { address: \"127.0.0.1:0\", upstream: app@keys }\nupstreams:\n  app: { static: [\"@app\"] }\n";
        Proxy::start(config, &[("@keys", &keys), ("@app", &endpoint)])
    }

    /// The same with more keys of the upstream, such as `, timeouts: { response: 300ms }`.
    #[track_caller]
    pub fn before_upstream(endpoint: impl Display, keys: &str) -> Self {
        let config = "listeners:\n  inbound: { address: \"127.0.0.1:0\", upstream: app }\nupstreams:\n  app: { static: [\"@app\"]@keys }\n";
        Proxy::start(config, &[("@keys", &keys), ("@app", &endpoint)])
    }

    /// Where this listener is really bound.
    #[track_caller]
    pub fn address(&self, listener: &str) -> SocketAddr {
        let Some(address) = self.bound.listeners.get(listener) else {
            panic!("no listener {listener:?} among {:?}", self.bound.listeners);
        };
        let address: SocketAddr = address.parse().unwrap_or_else(|_| panic!("{listener}: not an address: {address}"));
        reachable(address)
    }

    /// A connection to the listener `inbound`.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.address("inbound"))
    }

    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        reachable(self.bound.admin.as_ref().expect("no admin address").parse().unwrap())
    }

    #[track_caller]
    pub fn metrics_address(&self) -> SocketAddr {
        reachable(self.bound.metrics.as_ref().expect("no metrics address").parse().unwrap())
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// `GET path` at the admin address.
    #[track_caller]
    pub fn admin_get(&self, path: &str) -> Response {
        let host = self.admin();
        once(host, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    }

    /// The sum of the metric's series that have all these labels.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum_of(&self.admin_get("/metrics").text(), name, labels)
    }

    /// Waits until the metric's sum is at least this.
    #[track_caller]
    pub fn metric_reaches(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        eventually(&format!("{name}{labels:?} to reach {least}"), || self.metric(name, labels) >= least);
    }

    /// All whole lines of the access log so far.
    pub fn log_lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.access_log).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("access log: {error} in {line}")))
            .collect()
    }

    /// Waits for the access log's line of this path.
    #[track_caller]
    pub fn log_line(&self, path: &str) -> Value {
        eventually_some(&format!("a line of {path} in the access log"), || {
            self.log_lines().into_iter().find(|line| line["path"] == path)
        })
    }

    /// Stops it with SIGTERM and expects exit 0.
    #[track_caller]
    pub fn stop(mut self) {
        self.terminate();
        assert_eq!(self.process.exit_code(), Some(0), "exit code after SIGTERM");
    }
}

/// An address to connect to: one that is bound to all interfaces is reached over loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// The sum of the series of this name with all these labels, in the text format of Prometheus. A family that has not
/// counted anything yet is not in it; one that the README's table does not have will never be, and asking for it is the
/// test's mistake.
#[track_caller]
pub fn sum_of(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let of_histogram = ["_count", "_sum", "_bucket"].iter().find_map(|part| name.strip_suffix(part));
    let known = |family: &str| include_str!("../../../README.md").contains(&format!("\n| `{family}` |"));
    assert!(known(name) || of_histogram.is_some_and(known), "there is no metric {name}");
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| labels.iter().all(|(label, value)| has_label(line, label, value)))
        .filter_map(|line| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok()))
        .sum()
}

/// A label that is not there is the same as an empty one.
fn has_label(line: &str, label: &str, value: &str) -> bool {
    if value.is_empty() && !line.contains(&format!("{label}=")) {
        return true;
    }
    let text = format!("{label}=\"{value}\"");
    line.match_indices(&text).any(|(at, _)| line[..at].ends_with(['{', ',']))
}
