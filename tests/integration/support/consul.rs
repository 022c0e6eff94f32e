//! A real Consul agent in dev mode: a server with an empty memory, on a loopback address of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::client::Client;
use super::files::Directory;
use super::process::Process;
use super::wait::within;

/// How long an agent may take to elect itself on a busy machine.
const START: Duration = Duration::from_secs(30);

/// A running agent. It forgets everything when it is stopped.
pub struct Consul {
    process: Option<Process>,
    ip: Ipv4Addr,
    /// Sent with what a test itself asks.
    token: Option<&'static str>,
    arguments: Vec<String>,
    directory: Directory,
}

impl Consul {
    #[track_caller]
    pub fn start() -> Self {
        Consul::start_with(&[], None)
    }

    /// With more arguments of `consul agent`, and a token for what the test itself asks.
    #[track_caller]
    pub fn start_with(arguments: &[&str], token: Option<&'static str>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // Linux takes all of 127.0.0.0/8 for this machine, so each agent has its usual ports at an address of its own.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let ip = Ipv4Addr::new(127, 1 + (process / 250 % 250) as u8, (process % 250) as u8, number as u8);
        let directory = Directory::new();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut consul = Consul { process: None, ip, token, arguments, directory };
        consul.start_again();
        consul
    }

    /// Starts it at the same address, with an empty memory, and waits until it leads.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.start_unready();
        let leads = within(START, || {
            let answer = self.try_ask("GET", "/v1/health/state/passing", "")?;
            answer.as_array().is_some_and(|checks| !checks.is_empty()).then_some(())
        });
        assert!(leads.is_some(), "the Consul agent at {} does not lead", self.ip);
    }

    /// The same without waiting.
    #[track_caller]
    pub fn start_unready(&mut self) {
        let ip = self.ip.to_string();
        let mut command = Command::new(program());
        command.args(["agent", "-dev", "-log-level=warn", "-bind", &ip, "-client", &ip]).args(&self.arguments);
        // What is for a Consul of the machine's own is not for this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CONSUL")) {
            command.env_remove(name);
        }
        self.process = Some(Process::start("consul", &mut command, &self.directory));
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// It still accepts connections, and says nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("the agent was stopped").signal(signal);
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((self.ip, 8500))
    }

    /// As the configuration has it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Asks the agent, expects a 2xx, and returns the answer's JSON (`null` where it is empty).
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: impl ToString) -> Value {
        let response = self.exchange(&mut Client::connect(self.address()), method, path, &body.to_string());
        assert!(response.0 < 300, "{method} {path}: {} {}", response.0, response.1);
        serde_json::from_str(&response.1).unwrap_or(Value::Null)
    }

    fn try_ask(&self, method: &str, path: &str, body: &str) -> Option<Value> {
        let mut client = Client::try_connect(self.address()).ok()?;
        let (status, text) = self.exchange(&mut client, method, path, body);
        serde_json::from_str(&text).ok().filter(|_| status < 300)
    }

    fn exchange(&self, client: &mut Client, method: &str, path: &str, body: &str) -> (u16, String) {
        let token = self.token.map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
        let response = client.exchange(format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{token}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address(),
            body.len()
        ));
        (response.status, response.text())
    }

    /// Registers an instance whose check passes until [`Consul::check`] says something else.
    #[track_caller]
    pub fn register(&self, service: &str, id: &str, address: SocketAddr) {
        self.register_with(service, id, address, json!({}));
    }

    /// The same with more of what a registration has: `Tags`, `Weights`, `Meta`.
    #[track_caller]
    pub fn register_with(&self, service: &str, id: &str, address: SocketAddr, more: Value) {
        let mut registration = json!({
            "Name": service,
            "ID": id,
            "Address": address.ip().to_string(),
            "Port": address.port(),
            "Check": { "CheckID": check_of(id), "TTL": "1h", "Status": "passing" },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            registration[key] = value.clone();
        }
        self.ask("PUT", "/v1/agent/service/register", registration);
    }

    #[track_caller]
    pub fn deregister(&self, id: &str) {
        self.ask("PUT", &format!("/v1/agent/service/deregister/{id}"), "");
    }

    /// Sets an instance's check: `passing`, `warning`, `critical`.
    #[track_caller]
    pub fn check(&self, id: &str, status: &str) {
        self.ask("PUT", &format!("/v1/agent/check/update/{}", check_of(id)), json!({ "Status": status }));
    }
}

fn check_of(id: &str) -> String {
    format!("check-{id}")
}

impl Drop for Consul {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            // A paused process would not see its end.
            process.signal(Signal::CONT);
        }
    }
}

/// The program: what `OUTRIGGER_CONSUL` names, else Debian's last package of it, unpacked once below `target/`.
pub fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("OUTRIGGER_CONSUL") {
        return program.into();
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.join("consul");
    let program = folder.join("usr/bin/consul");
    std::fs::create_dir_all(target).unwrap();
    // The lock is the kernel's, so whoever dies while holding it lets it go.
    let lock = File::create(target.join("consul.lock")).unwrap();
    lock.lock().unwrap();
    if !works(&program) {
        let _ = std::fs::remove_dir_all(&folder);
        fetch(&folder);
    }
    assert!(works(&program), "{} does not run; OUTRIGGER_CONSUL can name a Consul", program.display());
    program
}

fn works(program: &Path) -> bool {
    let mut version = Command::new(program);
    version.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// Debian 11 is the last that has Consul. Its package is one static program, so it is unpacked and not installed, from
/// lists of our own: those of this machine stay as they are. apt checks it against Debian's signatures, as always.
fn fetch(folder: &Path) {
    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    assert!(
        Path::new(KEYRING).exists(),
        "no {KEYRING}: install debian-archive-keyring, or let OUTRIGGER_CONSUL name a Consul"
    );
    let state = Directory::new();
    for part in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(state.join(part)).unwrap();
    }
    let source = format!("deb [signed-by={KEYRING}] {} bullseye main\n", mirror());
    let sources = state.write("sources.list", &source);
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.current_dir(state.path())
            .args(["-qq", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root"])
            .args([
                "-o",
                "Dir::Etc::sourceparts=-",
                "-o",
                "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
            ])
            .arg("-o")
            .arg(format!("Dir::Etc::sourcelist={}", sources.display()))
            .arg("-o")
            .arg(format!("Dir::State::lists={}", state.join("lists").display()))
            .arg("-o")
            .arg(format!("Dir::Cache={}", state.join("cache").display()))
            .args(arguments);
        run(&mut apt);
    };
    apt(&["update"]);
    apt(&["download", "consul"]);
    let package = std::fs::read_dir(state.path())
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .expect("apt-get download left no package");
    run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(folder));
}

/// Where this machine gets its packages from.
fn mirror() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let lists = read("/etc/apt/sources.list.d/debian.sources") + "\n" + &read("/etc/apt/sources.list");
    let words = lists.lines().filter(|line| line.starts_with("URIs:") || line.starts_with("deb "));
    let mirror = words.flat_map(str::split_whitespace).find(|word| word.starts_with("http"));
    mirror.map(str::to_owned).expect("this machine has no Debian mirror: let OUTRIGGER_CONSUL name a Consul")
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
