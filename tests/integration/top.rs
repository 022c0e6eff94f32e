//! `outrigger top`, and `outrigger tap`, in a real terminal before a proxy under load.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::dashboard::Traffic;
use crate::support::files::Directory;
use crate::support::process::Process;
use crate::support::proxy::{Setup, binary};
use crate::support::terminal::Terminal;
use crate::support::{Proxy, Upstream};

const CONFIG: &str = "
service: orders
admin: { address: \"127.0.0.1:0\", socket: \"@socket\" }
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { name: alpha, match: { path: /gone }, upstream: gone }
      - { name: beta, match: { path: / }, upstream: app }
upstreams:
  app: \"@app\"
  gone: { static: [\"127.0.0.1:1\"], circuit_breaker: { failure_ratio: 0.5, min_requests: 5, open_for: 1h } }
";

fn proxy(upstream: &Upstream, socket: &Path) -> Proxy {
    Setup::new(CONFIG, &[("@app", &upstream.address()), ("@socket", &socket.display())]).start()
}

fn top(socket: &Path, size: (u32, u32), variables: &[(&str, &str)]) -> Terminal {
    let admin = format!("unix:{}", socket.display());
    let program = [binary().into_os_string(), "top".into(), "--admin".into(), admin.into()];
    Terminal::run(size.0, size.1, &program, variables)
}

/// The first row of the table, and what stands above it.
fn first_row(screen: &str) -> Option<&str> {
    let mut lines = screen.lines().skip_while(|line| !line.contains("SUCCESS") && !line.contains("STATE"));
    lines.nth(1)
}

/// The number in the title row's column, such as `RATE/s`.
fn rate(screen: &str, route: &str) -> Option<f64> {
    let row = screen.lines().find(|line| line.trim_start().starts_with(route))?;
    row.split_whitespace().nth(2)?.replace(',', "").parse().ok()
}

#[test]
fn it_shows_what_happens_and_does_what_keys_say() {
    let (upstream, directory) = (Upstream::ok(), Directory::new());
    let socket = directory.join("admin.sock");
    let proxy = proxy(&upstream, &socket);
    let _traffic = Traffic::through(&proxy, &["/", "/", "/", "/gone"]);
    let terminal = top(&socket, (80, 24), &[]);

    terminal.shows("beta's rate", |screen| rate(screen, "beta").is_some_and(|rate| rate > 0.0));
    let screen = terminal.shows("why alpha fails", |screen| screen.contains("breaker open"));
    assert!(screen.starts_with(" outrigger orders unix:"), "{screen}");
    assert!(first_row(&screen).unwrap().starts_with(" beta"), "the busiest first:\n{screen}");
    assert!(terminal.is_taken());
    assert!(terminal.coloured().contains("38;5;1m"), "red is what fails");

    terminal.press(&["r"]);
    terminal.shows("the order turned", |screen| first_row(screen).is_some_and(|row| row.starts_with(" alpha")));
    terminal.press(&["Right"]);
    terminal.shows("another column of the sort", |screen| screen.contains("SUCCESS▼"));
    terminal.press(&["/", "bet", "Enter"]);
    terminal.shows("one row", |screen| screen.contains("/bet") && !screen.contains(" alpha"));
    terminal.press(&["Escape"]);
    terminal.shows("all rows again", |screen| screen.contains(" alpha"));
    terminal.press(&["Tab"]);
    terminal.shows("the open breaker", |screen| screen.contains("BREAKER") && screen.contains("open "));
    terminal.press(&["Tab"]);
    terminal
        .shows("the endpoints", |screen| screen.contains(&upstream.address().to_string()) && screen.contains("STATE"));
    terminal.press(&["p"]);
    terminal.shows("the pause", |screen| screen.contains("paused"));
    terminal.press(&["q"]);
    assert_eq!(terminal.exit_code(), 0);
    assert!(!terminal.is_taken(), "the terminal is given back");
}

#[test]
fn it_finds_a_proxy_again_that_was_restarted() {
    let (upstream, directory) = (Upstream::ok(), Directory::new());
    let socket = directory.join("admin.sock");
    let first = proxy(&upstream, &socket);
    assert_eq!(first.client().get("/").status, 200);
    let terminal = top(&socket, (200, 60), &[("NO_COLOR", "1")]);
    terminal.shows("the proxy", |screen| screen.contains("● ready"));
    first.stop();
    terminal.shows("that it is gone", |screen| screen.contains("connection lost"));
    let _second = proxy(&upstream, &socket);
    terminal.shows("that it is back", |screen| screen.contains("the proxy has restarted"));
    let coloured = terminal.coloured();
    assert!(!coloured.contains("38;5;"), "NO_COLOR: {coloured:?}");
    kill_process(Pid::from_raw(i32::try_from(terminal.program()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(terminal.exit_code(), 0);
    assert!(!terminal.is_taken(), "the terminal is given back");
}

#[test]
fn without_a_terminal_it_is_one_look() {
    let (upstream, directory) = (Upstream::ok(), Directory::new());
    let socket = directory.join("admin.sock");
    let proxy = proxy(&upstream, &socket);
    let look = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["top", "--admin", &proxy.admin().to_string()]).args(arguments);
        let mut top = Process::start(name, &mut command, &directory);
        (top.exit_code(), top.stdout(), top.stderr())
    };
    assert_eq!(proxy.client().get("/").status, 200);
    let (code, text, _) = look("text", &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("outrigger orders ") && text.contains("\nROUTE") && text.contains("beta"), "{text}");
    assert!(text.contains(&upstream.address().to_string()) && !text.contains('\u{1b}'), "{text}");
    let (code, json, _) = look("json", &["--json"]);
    let event: Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!((code, &event["service"]), (Some(0), &"orders".into()));
    let mut command = Command::new(binary());
    let mut nobody = Process::start("nobody", command.args(["top", "--admin", "127.0.0.1:1"]), &directory);
    assert_eq!(nobody.exit_code(), Some(1));
    assert!(nobody.stderr().contains("nobody answers at 127.0.0.1:1"), "{}", nobody.stderr());
}

#[test]
fn tap_shows_requests_in_a_terminal() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let _traffic = Traffic::through(&proxy, &["/seen"]);
    let admin = proxy.admin().to_string();
    let program = [binary().into_os_string(), "tap".into(), "--admin".into(), admin.into()];
    let terminal = Terminal::run(100, 24, &program, &[]);
    terminal.shows("requests", |screen| screen.matches("GET app.test/seen  inbound/app").count() > 5);
    assert!(terminal.coloured().contains("\u{1b}[32m200"), "{:?}", terminal.coloured());
    terminal.press(&["C-c"]);
    assert_eq!(terminal.exit_code(), 0);
}
