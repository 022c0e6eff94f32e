//! Commands that ask a running proxy, and those that need none, as the shell sees them: output and exit code.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Clippy takes functions beside the tests for no tests.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Whoever does not come within this does not come.
const PATIENCE: Duration = Duration::from_secs(30);

fn outrigger(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command.args(args).env_remove("OUTRIGGER_ADMIN").env_remove("OUTRIGGER_ADMIN_TOKEN").stdin(Stdio::null());
    command
}

/// What a command said, and its exit code.
struct Said {
    code: i32,
    output: String,
    errors: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            code: output.status.code().expect("ended by a signal"),
            output: String::from_utf8(output.stdout).unwrap(),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.output).unwrap_or_else(|error| panic!("{error} in {}", self.output))
    }
}

fn say(args: &[&str]) -> Said {
    outrigger(args).output().unwrap().into()
}

/// Waits for what must come soon.
#[track_caller]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The next connection; a test that waits for one that never comes fails.
#[track_caller]
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    eventually("a connection", || listener.accept().ok()).0
}

/// A process that ends with the test, be it by a failure.
struct Running(Option<Child>);

impl Running {
    fn start(command: &mut Command) -> Self {
        Running(Some(command.spawn().unwrap()))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.0.as_ref().unwrap()), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child().wait().unwrap().code()
    }

    /// What it says until it ends.
    fn said(mut self) -> Said {
        self.0.take().unwrap().wait_with_output().unwrap().into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A folder of a test's own; gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("outrigger-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running proxy whose inbound and admin are Unix sockets in its folder, and whose app is this process.
struct Proxy {
    folder: Folder,
    config: String,
    process: Running,
    app: TcpListener,
}

/// `@folder` and `@app` stand for what they say.
const CONFIG: &str = "
admin: { address: none, socket: @folder/run/admin.sock }
drain: { delay: 0s, timeout: 200ms }
listeners:
  inbound: { address: \"unix:@folder/inbound.sock\", upstream: \"@app\" }
";

impl Proxy {
    fn start(config: &str) -> Self {
        let folder = Folder::new();
        let app = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = app.local_addr().unwrap().to_string();
        let text = config.replace("@folder", &folder.0.display().to_string()).replace("@app", &address);
        folder.file("token", "let-me-in\n");
        let config = folder.file("outrigger.yaml", &text);
        let process = Running::start(outrigger(&["run", &config]).stdout(Stdio::null()).stderr(Stdio::null()));
        let proxy = Proxy { folder, config, process, app };
        let ready = say(&["ready", "--wait", "30s", "--config", &proxy.config]);
        assert_eq!((ready.code, ready.output.as_str()), (0, "ready\n"), "{}", ready.errors);
        proxy
    }

    fn socket(&self) -> String {
        format!("unix:{}/run/admin.sock", self.folder.0.display())
    }

    /// A request that its app has and does not answer; the connections to both sides.
    fn hold_request(&self) -> (UnixStream, TcpStream) {
        let mut client = UnixStream::connect(self.folder.0.join("inbound.sock")).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").unwrap();
        (client, accept(&self.app))
    }

    /// Runs `drain --wait` beside the test.
    fn drain_and_wait(&self) -> JoinHandle<Said> {
        let mut command = outrigger(&["drain", "--wait", "--config", &self.config]);
        std::thread::spawn(move || command.output().unwrap().into())
    }
}

#[test]
fn nobody_is_not_ready() {
    let folder = Folder::new();
    let nobody = format!("unix:{}/nobody.sock", folder.0.display());
    let said = say(&["ready", "--admin", &nobody]);
    assert_eq!(said.code, 1);
    assert!(said.errors.starts_with(&format!("error: nobody answers at {nobody} (")), "{}", said.errors);
    let said = say(&["ready", "--json", "--wait", "1ms", "--admin", &nobody]);
    assert_eq!((said.code, said.json()["ready"].as_bool()), (1, Some(false)));
    assert_eq!(say(&["drain", "--admin", &nobody]).code, 1);
}

#[test]
fn who_answers_without_being_a_proxy_is_not_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let other = std::thread::spawn(move || {
        let mut stream = accept(&listener);
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
    });
    let said = say(&["ready", "--admin", &address]);
    assert_eq!(said.code, 1);
    assert!(said.errors.contains("is not that of an outrigger"), "{}", said.errors);
    other.join().unwrap();
}

#[test]
fn mistakes_on_the_command_line_are_usage() {
    for args in [
        &["ready", "--wait", "3"][..],
        &["ready", "--admin", ":1", "--config", "a"],
        &["drain", "--never"],
        &["completions", "cmd.exe"],
        &["demo", "--rate", "0"],
        &["run"],
        &["run", "config/minimal.yaml", "--admin", "none"],
        &["run", "--config", "config/minimal.yaml", "--admin", "none"],
        &["tap", "--sample", "2"],
        &["tap", "--bodies", "1GiB"],
        &["tap", "--status", "700"],
        // Nobody is asked, so nothing that is about whom.
        &["diff", "config/minimal.yaml", "config/minimal.yaml", "--token-file", "t"],
        &["diff", "config/minimal.yaml", "config/minimal.yaml", "--admin", ":1"],
        &["explain", "config/minimal.yaml", "GET", "/", "--token-file", "t"],
        &["explain", "config/minimal.yaml", "GET", "/", "--config", "config/minimal.yaml"],
        &[],
    ] {
        assert_eq!(say(args).code, 2, "{args:?}");
    }
    let said = say(&["ready", "--admin", "nonsense"]);
    assert_eq!(said.code, 1);
    assert!(said.errors.contains("`nonsense` is not an admin address"), "{}", said.errors);
}

#[test]
fn what_is_wrong_with_flags_is_said_of_the_flags() {
    let said = say(&["run", "--listen", "127.0.0.1:0", "--upstream", "dns://localhost:1"]);
    assert_eq!(said.code, 1);
    assert!(said.errors.starts_with("error: --upstream: ") && said.errors.lines().count() == 1, "{}", said.errors);
}

#[test]
fn an_archive_that_cannot_be_written_is_said_before_anybody_listens() {
    let said = say(&["tap", "--har", "/nowhere/seen.har", "--for", "1h"]);
    assert_eq!(said.code, 1);
    assert!(said.errors.contains("cannot write /nowhere/seen.har"), "{}", said.errors);
}

/// As in `outrigger schema | head`: whoever reads no further is no error.
#[test]
fn nobody_complains_of_a_reader_who_has_left() {
    for args in [&["schema"][..], &["version", "--json"], &["completions", "bash"], &["demo", "--for", "100ms"]] {
        let mut child = outrigger(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let said = Said::from(child.wait_with_output().unwrap());
        // What a shell says of programs that SIGPIPE has ended.
        assert_eq!((said.code, said.errors.as_str()), (141, ""), "{args:?}");
    }
}

/// Without a file, too, two proxies can run on one machine.
#[test]
fn the_admin_of_flags_can_be_elsewhere_or_nowhere() {
    let folder = Folder::new();
    let start = |name: &str, admin: &str| {
        let path = folder.0.join(name);
        let flags = ["run", "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1", "--admin", admin, "--ready-file"];
        (Running::start(outrigger(&flags).arg(&path).stderr(Stdio::null())), path)
    };
    let started = [("elsewhere", "127.0.0.1:0"), ("nowhere", "none")].map(|(name, admin)| start(name, admin));
    let admins = started.each_ref().map(|(_, path)| {
        let ready = || serde_json::from_slice::<Value>(&std::fs::read(path).ok()?).ok();
        eventually("the file that says where it listens", ready)["admin"].clone()
    });
    assert!(admins[0].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{admins:?}");
    assert_eq!(admins[1], Value::Null);
}

#[test]
fn a_drain_makes_unready_and_ends_what_runs() {
    let mut proxy = Proxy::start(&CONFIG.replace("timeout: 200ms", "timeout: 30s"));
    let socket = proxy.socket();
    let (mut client, mut app) = proxy.hold_request();
    let started = say(&["drain", "--admin", &socket]);
    assert_eq!((started.code, started.output.as_str()), (0, "draining; `--wait` waits for the end\n"));
    let unready = outrigger(&["ready"]).env("OUTRIGGER_ADMIN", &socket).output().unwrap();
    let unready = Said::from(unready);
    assert_eq!((unready.code, unready.output.starts_with("not ready: drain")), (1, true), "{}", unready.output);
    app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
    drop(client);
    let drained = say(&["drain", "--wait", "--json", "--config", &proxy.config]);
    assert_eq!((drained.code, &drained.json()["drained"]), (0, &Value::Bool(true)), "{}", drained.output);
    // It runs on until it is told to end, and then has nothing to wait for.
    assert!(proxy.process.child().try_wait().unwrap().is_none());
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.exit_code(), Some(0));
    assert!(!Path::new(socket.trim_start_matches("unix:")).exists(), "the admin's socket file is left");
}

/// A configuration that was broken meanwhile is no reason to end a pod without a drain.
#[test]
fn a_proxy_is_found_by_a_file_that_has_mistakes_by_now() {
    let proxy = Proxy::start(CONFIG);
    let text = std::fs::read_to_string(&proxy.config).unwrap();
    let broken = proxy.folder.file("broken.yaml", &text.replace("upstream:", "upstraem:"));
    assert_eq!(say(&["check", &broken]).code, 1);
    assert_eq!(say(&["ready", "--config", &broken]).code, 0);
    for unreadable in ["socket: [a]", "socket: \"${NOWHERE_SET}\"", "address: nonsense, socket: /a"] {
        let text = text.replace("address: none, socket", "x-old").replace("x-old:", &format!("{unreadable}, x-old:"));
        let said = say(&["drain", "--config", &proxy.folder.file("unreadable.yaml", &text)]);
        assert_eq!(said.code, 1, "{text}");
        assert!(said.errors.contains("has mistakes; `outrigger check"), "{}", said.errors);
    }
    let drained = say(&["drain", "--wait", "--config", &broken]);
    assert_eq!((drained.code, drained.output.as_str()), (0, "drained\n"), "{}", drained.errors);
}

#[test]
fn a_drain_that_is_too_long_is_said() {
    let proxy = Proxy::start(CONFIG);
    let held = proxy.hold_request();
    let said = proxy.drain_and_wait().join().unwrap();
    assert_eq!(said.code, 3, "{}{}", said.output, said.errors);
    assert_eq!(said.output, "not drained in time: inbound requests that are left: 1\n");
    drop(held);
}

// What kubelet does when preStop takes too long: both must come to their end.
#[test]
fn sigterm_while_a_drain_is_waited_for_answers_who_waits() {
    let config = CONFIG.replace("delay: 0s, timeout: 200ms", "delay: 100ms, timeout: 30s");
    let mut proxy = Proxy::start(&config);
    let (client, app) = proxy.hold_request();
    let waiting = proxy.drain_and_wait();
    eventually("the drain to begin", || (say(&["ready", "--config", &proxy.config]).code != 0).then_some(()));
    proxy.process.signal(Signal::TERM);
    drop((client, app));
    let said = waiting.join().unwrap();
    assert_eq!((said.code, said.output.as_str()), (0, "drained\n"), "{}", said.errors);
    assert_eq!(proxy.process.exit_code(), Some(0));
}

#[test]
fn the_network_needs_the_token() {
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let admin = format!("admin: {{ address: \"0.0.0.0:{port}\", token_file: @folder/token }}");
    let config = CONFIG.replace("admin: { address: none, socket: @folder/run/admin.sock }", &admin);
    let proxy = Proxy::start(&config);
    let address = format!(":{port}");
    let without = say(&["drain", "--admin", &address]);
    assert_eq!(without.code, 1);
    assert!(without.errors.contains("the proxy refused (401 Unauthorized)"), "{}", without.errors);
    let wrong = outrigger(&["drain", "--admin", &address]).env("OUTRIGGER_ADMIN_TOKEN", "nope").output().unwrap();
    assert_eq!(Said::from(wrong).code, 1);
    assert_eq!(say(&["ready", "--admin", &address]).code, 0, "a refused drain drained");
    let file = format!("{}/token", proxy.folder.0.display());
    assert_eq!(say(&["drain", "--admin", &address, "--token-file", &file]).code, 0);
    let right = outrigger(&["drain", "--admin", &address]).env("OUTRIGGER_ADMIN_TOKEN", "let-me-in").output().unwrap();
    assert_eq!(Said::from(right).code, 0);
    assert_eq!(say(&["drain", "--config", &proxy.config]).code, 0);
}

#[test]
fn a_token_that_is_none_ends_the_start() {
    let folder = Folder::new();
    let token = folder.file("token", " \n");
    let text = format!("admin: {{ address: \"127.0.0.1:0\", token_file: {token} }}\nlisteners:\n  inbound: ");
    let text = text + "{ address: \"127.0.0.1:0\", upstream: \"127.0.0.1:1\" }\n";
    let said = say(&["run", &folder.file("outrigger.yaml", &text)]);
    assert_eq!(said.code, 1);
    assert!(
        said.errors.contains(&format!("cannot read the admin token {token}: the file is empty")),
        "{}",
        said.errors
    );
}

#[test]
fn a_command_takes_no_large_file_for_a_token() {
    let folder = Folder::new();
    let said = say(&["drain", "--admin", "127.0.0.1:1", "--token-file", &folder.file("log", &"x".repeat(5_000))]);
    assert_eq!(said.code, 1);
    assert!(said.errors.contains("log: the file is larger than 4 KiB"), "{}", said.errors);
}

#[test]
fn the_version_is_said() {
    let version = env!("CARGO_PKG_VERSION");
    let said = say(&["version"]);
    assert!(said.output.starts_with(&format!("outrigger {version} (")), "{}", said.output);
    let facts = say(&["version", "--json"]).json();
    assert_eq!((&facts["version"], facts["features"].is_array()), (&Value::from(version), true));
}

#[test]
fn shells_get_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = say(&["completions", shell]);
        assert!(said.code == 0 && said.output.contains("completions"), "{shell}");
    }
}

#[test]
fn every_command_shows_an_example() {
    let help = say(&["--help"]).output;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<_> =
        commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(names.contains(&"run") && names.contains(&"demo"), "{help}");
    for name in names {
        let said = say(&[name, "--help"]);
        assert!(said.output.contains(&format!("outrigger {name}")), "{name}: {}", said.output);
        assert!(said.output.contains("Example"), "{name} has no example");
    }
}

#[test]
fn the_demo_serves_and_says_what() {
    // Two at a time: whoever comes second takes other ports.
    let demo = || outrigger(&["demo", "--for", "1s"]);
    let demos = [(); 2].map(|()| Running::start(demo().stdout(Stdio::piped()).stderr(Stdio::piped())));
    for demo in demos {
        let said = demo.said();
        assert_eq!((said.code, said.errors.as_str()), (0, ""), "{}", said.output);
        for words in ["/hello", "/metrics", "Served ", "p99", "\n  fast  ", "\n  slow  ", "attempts", "127.0.0.1:"] {
            assert!(said.output.contains(words), "{words} is not in {}", said.output);
        }
        assert!(!said.output.contains('\x1b'), "colours where there is no terminal");
    }
}

#[test]
fn the_demo_ends_when_told_to() {
    let mut demo = Running::start(outrigger(&["demo"]).stdout(Stdio::piped()));
    let mut output = demo.child().stdout.take().unwrap();
    let mut said = String::new();
    while !said.contains("Ctrl-C ends it.") {
        let mut more = [0; 256];
        let count = output.read(&mut more).unwrap();
        assert!(count > 0, "it ended by itself: {said}");
        said.push_str(std::str::from_utf8(&more[..count]).unwrap());
    }
    demo.signal(Signal::INT);
    output.read_to_string(&mut said).unwrap();
    assert!(said.contains("Served "), "{said}");
    assert_eq!(demo.exit_code(), Some(0));
}

#[test]
fn a_program_starts_once_the_proxy_is_ready() {
    let folder = Folder::new();
    let socket = folder.0.join("admin.sock");
    let admin = format!("unix:{}", socket.display());
    let program = ["/bin/sh", "-c", "echo started; exit 7"];
    let waiting = [&["await", "--admin", &admin, "--"][..], &program].concat();
    let waiting = Running::start(outrigger(&waiting).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let config = folder.file(
        "outrigger.yaml",
        &format!(
            "admin: {{ address: none, socket: {} }}\nlisteners: {{ in: {{ address: \"127.0.0.1:0\", upstream: \"127.0.0.1:1\" }} }}\n",
            socket.display()
        ),
    );
    let proxy = Running::start(outrigger(&["run", &config]).stderr(Stdio::null()));
    let said = waiting.said();
    assert_eq!((said.code, said.output.as_str()), (7, "started\n"), "{}", said.errors);
    drop(proxy);
    let late = say(&["await", "--admin", &admin, "--timeout", "50ms", "--", "/bin/true"]);
    assert_eq!(late.code, 1);
    assert!(late.errors.contains("the proxy was not ready within 50ms"), "{}", late.errors);
}

#[test]
fn the_configuration_of_the_demo_is_a_file_like_any() {
    let folder = Folder::new();
    let config = folder.file("demo.yaml", &say(&["demo", "--print-config"]).output);
    let said = say(&["check", "--strict", &config]);
    assert_eq!(said.code, 0, "{}", said.errors);
}
