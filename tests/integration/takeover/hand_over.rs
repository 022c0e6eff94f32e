//! A new process takes the sockets of the old one over (`--take-over`): nothing is refused, nothing is cut, and whatever
//! is wrong with the new one, the old one serves on.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::load::{Done, KEPT, Load, NEW, SLOW, script};
use crate::support::client::{get, once};
use crate::support::consul::Consul;
use crate::support::files::Directory;
use crate::support::process::Process;
use crate::support::proxy::{Setup, binary};
use crate::support::wait::eventually_some;
use crate::support::{Client, Gate, Proxy, Upstream, eventually};

const CONFIG: &str = "
telemetry: { access_log: { path: none } }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
  outbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"] }
drain: { delay: 60s, timeout: @timeout }
";

/// Processes that follow each other at one place.
struct Line {
    directory: Directory,
    upstream: SocketAddr,
    timeout: &'static str,
}

impl Line {
    fn before(upstream: &Upstream, timeout: &'static str) -> Self {
        Line { directory: Directory::new(), upstream: upstream.address(), timeout }
    }

    fn place(&self) -> PathBuf {
        self.directory.join("take-over.sock")
    }

    fn setup(&self, config: &str) -> Setup {
        let setup = Setup::new(config, &[("@app", &self.upstream), ("@timeout", &self.timeout)]);
        setup.argument("--take-over").argument(&self.place().display().to_string())
    }

    fn start(&self) -> Proxy {
        self.setup(CONFIG).start()
    }
}

fn ends(mut old: Proxy, code: i32) {
    assert_eq!(old.process().exit_code_within(Duration::from_secs(20)), Some(code), "the old process' exit code");
}

/// Without `drain.delay`, which a hand-over does not wait for either.
fn finished(mut proxy: Proxy) {
    proxy.process().signal(Signal::INT);
    assert_eq!(proxy.process().exit_code(), Some(0));
}

#[test]
fn the_program_is_upgraded_again_and_again_under_load_and_nothing_fails() {
    const UPGRADES: usize = 4;
    let upstream = Upstream::scripted(script);
    let line = Line::before(&upstream, "15s");
    let first = line.start();
    let (address, outbound) = (first.address("inbound"), first.address("outbound"));
    let load = Load::default();
    let last = std::thread::scope(|scope| {
        let _end = Done(&load);
        let load = &load;
        for number in 0..KEPT.0 {
            scope.spawn(move || load.kept(if number % 4 == 0 { outbound } else { address }, number));
        }
        for number in 0..NEW.0 {
            scope.spawn(move || load.anew(if number % 2 == 0 { outbound } else { address }, number));
        }
        scope.spawn(move || load.streams(address));
        scope.spawn(move || load.sockets(address));
        eventually("load on the first process", || load.served.load(SeqCst) > 500);
        let mut current = first;
        for _ in 0..UPGRADES {
            let slow = load.slow_under_way.load(SeqCst);
            for _ in 0..SLOW {
                scope.spawn(move || load.slow(address));
            }
            eventually("the slow streams", || load.slow_under_way.load(SeqCst) == slow + SLOW);
            let next = line.start();
            assert_eq!((next.address("inbound"), next.address("outbound")), (address, outbound));
            ends(std::mem::replace(&mut current, next), 0);
            let before = load.served.load(SeqCst);
            eventually("load on the next process", || load.served.load(SeqCst) > before + 500);
        }
        current
    });
    let failures = load.failures.lock().unwrap();
    let served = load.served.load(SeqCst);
    assert!(failures.is_empty(), "{} of {served} failed: {:#?}", failures.len(), &failures[..failures.len().min(10)]);
    assert!(load.messages.load(SeqCst) > 100, "{} messages", load.messages.load(SeqCst));
    assert!(last.metric("outrigger_requests_total", &[("code", "200")]) >= 500.0);
}

#[test]
fn whatever_is_wrong_with_the_new_process_the_old_one_serves_on() {
    let upstream = Upstream::ok();
    let line = Line::before(&upstream, "5s");
    let old = line.start();
    let mut kept = old.client();
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("listeners:\n  more: {{ address: \"{}\", upstream: app }}\n", squatter.local_addr().unwrap());
    let wrong = [
        // It never asks for the sockets.
        (CONFIG.replace("static", "statics"), "unknown key `statics`"),
        // It has them, and fails at the next one.
        (CONFIG.replace("listeners:\n", &taken), "cannot listen on"),
    ];
    for (config, said) in wrong {
        let mut process = start_alone(&line, &config);
        assert_eq!(process.exit_code(), Some(1));
        assert!(process.stderr().contains(said), "{}", process.stderr());
        assert_eq!(kept.get("/").status, 200);
        assert!(!kept.get("/").head.lists("connection", "close"));
        assert_eq!(old.client().get("/").status, 200);
        assert_eq!(old.admin_get("/readyz").status, 200);
    }
    // It has them, and dies before it serves: this one talks as a proxy would, and goes.
    let rude = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1]); s.recv(99)";
    crate::support::tools::run(Command::new("python3").args(["-c", rude]).arg(line.place()));
    assert_eq!(old.client().get("/").status, 200);
    // And a good one still takes over.
    let new = line.start();
    ends(old, 0);
    assert_eq!(new.client().get("/").status, 200);
    finished(new);
    assert!(!line.place().exists());
}

// What was offered stays the new process', whatever becomes of the old one: it may not close the doors behind itself.
#[test]
fn the_old_process_may_end_while_the_new_one_still_looks_for_its_endpoints() {
    let answer = Gate::new();
    let agent = late_agent(&answer);
    let upstream = Upstream::ok();
    let line = Line::before(&upstream, "5s");
    let paths = ["in.sock", "metrics.sock"].map(|name| line.directory.join(name));
    let [listener, metrics] = paths.each_ref().map(|path| path.display().to_string());
    let config = CONFIG
        .replace("60s", "0s")
        .replace("listeners:\n", &format!("listeners:\n  files: {{ address: \"unix:{listener}\", upstream: app }}\n"))
        + &format!("metrics: \"unix:{metrics}\"\n");
    let old = line.setup(&config).start();
    let (inbound, outbound) = (old.address("inbound"), old.address("outbound"));
    let new = start_alone(&line, &waiting_for(&agent, &config));
    eventually("the question to the agent", || agent.connections() > 0);
    // What was offered stays as it is, and whoever would change it hears so at once.
    let put = once(
        old.admin(),
        "PUT /config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    );
    assert_eq!(put.status, 409, "{}", put.text());
    assert!(put.text().contains("another process is about to take this one's place"), "{}", put.text());
    old.terminate();
    ends(old, 0);
    for path in paths.iter().chain([&line.place()]) {
        assert!(path.exists(), "{} is gone", path.display());
    }
    answer.open();
    for address in [inbound, outbound] {
        assert_eq!(Client::connect(address).get("/").status, 200);
    }
    assert_eq!(Client::connect_unix(&paths[0]).get("/").status, 200);
    let next = line.setup(&config).start();
    assert_eq!(next.address("inbound"), inbound);
    drop(new);
    finished(next);
}

#[test]
fn a_drain_by_hand_does_not_keep_the_new_process_from_taking_over() {
    let answer = Gate::new();
    let agent = late_agent(&answer);
    let upstream = Upstream::ok();
    let line = Line::before(&upstream, "5s");
    let config = CONFIG.replace("60s", "0s");
    let old = line.setup(&config).start();
    let (inbound, outbound) = (old.address("inbound"), old.address("outbound"));
    let new = start_alone(&line, &waiting_for(&agent, &config));
    eventually("the question to the agent", || agent.connections() > 0);
    let drain = "POST /drain?wait=true HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(once(old.admin(), drain).status, 200);
    assert_eq!(Client::connect(outbound).get("/").status, 200);
    answer.open();
    ends(old, 0);
    for address in [inbound, outbound] {
        assert_eq!(Client::connect(address).get("/").status, 200);
    }
    drop(new);
}

/// One that answers once the gate is open, and knows of nobody.
fn late_agent(answer: &Gate) -> Upstream {
    let answer = answer.clone();
    Upstream::scripted(move |served| {
        while served.request().is_some() {
            answer.wait("the test to let it answer");
            if served.try_send("HTTP/1.1 200 OK\r\nX-Consul-Index: 1\r\nContent-Length: 2\r\n\r\n[]").is_err() {
                return;
            }
        }
    })
}

/// A configuration whose process serves once the agent has answered.
fn waiting_for(agent: &Upstream, config: &str) -> String {
    config.replace("upstreams:\n", "upstreams:\n  late: { consul: late }\n")
        + &format!("consul: {{ address: \"http://{}\" }}\nwait_for_discovery: 30s\n", agent.address())
}

#[test]
fn a_stream_that_does_not_end_is_cut_when_drain_timeout_is_over() {
    let upstream = Upstream::scripted(|served| {
        while served.head().is_some() {
            served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        }
    });
    let line = Line::before(&upstream, "1s");
    let old = line.start();
    let mut client = old.client();
    client.send(get("/endless"));
    assert!(client.head().is_some());
    let began = Instant::now();
    let new = line.start();
    ends(old, 3);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    finished(new);
}

#[test]
fn unix_sockets_and_the_admin_go_along_and_only_the_last_one_removes_their_files() {
    let upstream = Upstream::ok();
    let line = Line::before(&upstream, "5s");
    let paths = ["in.sock", "admin.sock", "metrics.sock"].map(|name| line.directory.join(name));
    let [listener, admin, metrics] = paths.each_ref().map(|path| path.display().to_string());
    let config = CONFIG
        .replace("listeners:\n", &format!("listeners:\n  files: {{ address: \"unix:{listener}\", upstream: app }}\n"))
        + &format!("admin: {{ address: 127.0.0.1:0, socket: \"{admin}\" }}\nmetrics: \"unix:{metrics}\"\n");
    let old = line.setup(&config).start();
    let address = old.admin();
    assert_eq!(std::fs::metadata(line.place()).unwrap().permissions().mode() & 0o777, 0o600);
    let new = line.setup(&config).start();
    ends(old, 0);
    assert_eq!(new.admin(), address);
    for path in &paths {
        assert!(UnixStream::connect(path).is_ok(), "{} is gone", path.display());
    }
    assert_eq!(new.admin_get("/readyz").status, 200);
    finished(new);
    for path in paths.iter().chain([&line.place()]) {
        assert!(!path.exists(), "{} is left", path.display());
    }
}

#[test]
fn listeners_may_come_and_go_with_the_new_process() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            if request.target == "/hold" {
                opened.wait("the test to let the request go");
            }
            if served.try_send(crate::support::upstream::OK).is_err() {
                return;
            }
        }
    });
    let line = Line::before(&upstream, "10s");
    let old = line.start();
    let outbound = old.address("outbound");
    let mut held = Client::connect(outbound);
    held.send(get("/hold"));
    upstream.request(0);
    let more = CONFIG.replace("outbound:", "more:");
    let new = line.setup(&more).start();
    assert_eq!(new.address("inbound"), old.address("inbound"));
    assert_eq!(Client::connect(new.address("more")).get("/").status, 200);
    eventually("the old listener to close", || Client::try_connect(outbound).is_err());
    gate.open();
    assert_eq!(held.response().status, 200);
    ends(old, 0);
    finished(new);
}

#[test]
fn the_service_stays_in_the_registry() {
    let consul = Consul::start();
    let registered = || consul.ask("GET", "/v1/health/service/orders", "").as_array().map_or(0, Vec::len);
    let upstream = Upstream::ok();
    let line = Line::before(&upstream, "5s");
    let config = format!(
        "{CONFIG}consul: {{ address: \"{}\" }}\nregister: {{ name: orders, address: 127.0.0.1, check: {{ ttl: 3s }} }}\n",
        consul.url()
    );
    let mut old = line.setup(&config).start();
    eventually("the service", || registered() == 1);
    let new = line.setup(&config).start();
    eventually("the old process' end", || {
        assert_eq!(registered(), 1);
        old.process().ended().is_some()
    });
    assert_eq!(old.process().exit_code(), Some(0));
    assert!(!old.process().stderr().contains("deregistered"), "{}", old.process().stderr());
    assert_eq!(registered(), 1);
    finished(new);
    assert_eq!(registered(), 0);
}

// As a service manager's unit does it: one signal, and the program that is installed now takes over.
#[test]
fn a_signal_starts_the_next_process() {
    let upstream = Upstream::ok();
    let line = Line::before(&upstream, "5s");
    let mut old = line.start();
    let address = old.address("inbound");
    let before = ready_pid(old.directory()).unwrap();
    old.process().signal(Signal::USR2);
    // Known as soon as there is one, so that it ends with the test, be it that it never gets ready.
    let next = eventually_some("the next process", || child_of(before));
    let _end = Ended(next);
    eventually("the next process to be ready", || ready_pid(old.directory()) == Some(next));
    assert_eq!(old.process().exit_code_within(Duration::from_secs(20)), Some(0));
    assert_eq!(Client::connect(address).get("/").status, 200);
    assert_eq!(old.admin_get("/readyz").status, 200);
}

#[test]
fn without_a_place_to_take_over_at_the_signal_changes_nothing() {
    let upstream = Upstream::ok();
    let mut proxy = Proxy::before(upstream.address());
    proxy.process().signal(Signal::USR2);
    eventually("the log", || proxy.process().stderr().contains("started without --take-over"));
    assert_eq!(proxy.client().get("/").status, 200);
    proxy.stop();
}

/// A process that is no child of ours; ended with this.
struct Ended(u32);

impl Drop for Ended {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.cast_signed()).unwrap();
        let _ = kill_process(pid, Signal::INT);
        let gone = |stat: std::io::Result<String>| stat.map_or(true, |stat| stat.contains(") Z "));
        eventually("its end", || gone(std::fs::read_to_string(format!("/proc/{}/stat", self.0))));
    }
}

/// The first child of any of its threads.
fn child_of(pid: u32) -> Option<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    children.filter_map(|children| children.split_whitespace().next()?.parse().ok()).next()
}

fn ready_pid(directory: &Path) -> Option<u32> {
    let ready = std::fs::read(directory.join("ready.json")).ok()?;
    let ready: Value = serde_json::from_slice(&ready).ok()?;
    u32::try_from(ready["pid"].as_u64()?).ok()
}

/// One that will not become ready.
fn start_alone(line: &Line, config: &str) -> Process {
    let file = line.directory.write("outrigger.yaml", line.setup(config).text());
    let mut command = Command::new(binary());
    command.arg("run").arg(file).arg("--take-over").arg(line.place());
    Process::start("outrigger", &mut command, &line.directory)
}
