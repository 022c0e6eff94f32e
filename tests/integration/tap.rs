//! `GET /tap` and `outrigger tap`: requests as they pass.

use std::process::Command;

use crate::events::Stream;
use crate::support::client::once;
use crate::support::files::Directory;
use crate::support::process::Process;
use crate::support::proxy::binary;
use crate::support::{Proxy, Upstream, eventually};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nSet-Cookie: id=secret\r\nContent-Length: 6\r\n\r\nanswer";

#[track_caller]
fn post(proxy: &Proxy, target: &str, lines: &str) -> u16 {
    let request = format!("POST {target} HTTP/1.1\r\nHost: app.test\r\n{lines}Content-Length: 4\r\n\r\nbody");
    once(proxy.address("inbound"), request).status
}

#[test]
fn a_request_is_shown_with_its_secrets_hidden() {
    let upstream = Upstream::answering(ANSWER);
    let proxy = Proxy::before(upstream.address());
    let (mut hidden, mut revealed) = (Stream::open(&proxy, "/tap"), Stream::open(&proxy, "/tap?reveal&bodies=3"));
    assert_eq!(post(&proxy, "/v1?token=secret", "Authorization: Bearer secret\r\nX-User: 7\r\n"), 200);
    let shown = hidden.next().unwrap();
    assert!(!shown.to_string().contains("secret"), "{shown}");
    assert_eq!(
        (&shown["listener"], &shown["upstream"], &shown["code"]),
        (&"inbound".into(), &"app".into(), &200.into())
    );
    assert_eq!(shown["endpoint"], upstream.address().to_string());
    assert!(shown["request_headers"].as_array().unwrap().contains(&serde_json::json!(["x-user", "7"])), "{shown}");
    assert!(shown["ms"]["total"].as_f64() > Some(0.0) && shown.get("request_body").is_none(), "{shown}");
    let shown = revealed.next().unwrap();
    assert_eq!(shown["target"], "/v1?token=secret");
    assert_eq!((&shown["request_body"], &shown["response_body"]), (&"bod".into(), &"ans".into()));
}

#[test]
fn each_listener_sees_what_it_asked_for() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut errors = Stream::open(&proxy, "/tap?errors");
    let mut users = Stream::open(&proxy, "/tap?header=x-user:7&status=2xx");
    assert_eq!(post(&proxy, "/plain", ""), 200);
    assert_eq!(post(&proxy, "/mine", "X-User: 7\r\n"), 200);
    upstream.stop_accepting();
    upstream.drop_connections(false);
    eventually("a failure", || post(&proxy, "/fails", "X-User: 7\r\n") == 503);
    assert_eq!(users.next().unwrap()["target"], "/mine");
    let failed = errors.next().unwrap();
    assert_eq!((&failed["target"], failed["reason"].is_string()), (&"/fails".into(), true), "{failed}");
    assert_eq!(proxy.admin_get("/tap?statos=5xx").status, 400);
}

#[test]
fn the_command_prints_lines_and_writes_an_archive() {
    let upstream = Upstream::answering(ANSWER);
    let proxy = Proxy::before(upstream.address());
    let directory = Directory::new();
    let har = directory.join("seen.har");
    let mut command = Command::new(binary());
    command.args(["tap", "--admin", &proxy.admin().to_string(), "--count", "2", "--bodies", "1KiB", "--har"]).arg(&har);
    let mut tap = Process::start("tap", &mut command, &directory);
    // Requests that begin before it listens are not shown.
    eventually("two lines", || {
        post(&proxy, "/seen?token=secret", "Cookie: secret\r\n");
        tap.ended().is_some()
    });
    assert_eq!(tap.exit_code(), Some(0), "{}", tap.stderr());
    let lines = tap.stdout();
    assert!(lines.lines().next().unwrap().contains("POST app.test/seen?(hidden)  inbound/app"), "{lines}");
    assert!(lines.contains("    < answer") && !lines.contains("secret"), "{lines}");
    let archive: serde_json::Value = serde_json::from_slice(&std::fs::read(&har).unwrap()).unwrap();
    let entries = archive["log"]["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0]["response"]["content"]["text"], "answer");
    assert_eq!(entries[0]["request"]["postData"]["text"], "body");
}

#[test]
fn a_refusal_is_said() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let directory = Directory::new();
    let mut command = Command::new(binary());
    command.args(["tap", "--admin", &proxy.admin().to_string(), "--header", "no name"]);
    let mut tap = Process::start("tap", &mut command, &directory);
    assert_eq!(tap.exit_code(), Some(1));
    assert!(tap.stderr().contains("header is `NAME` or `NAME:VALUE`, not `no name`"), "{}", tap.stderr());
}

#[test]
fn a_name_that_nothing_has_is_said_and_waited_for() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let directory = Directory::new();
    let tap = |name: &str, args: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["tap", "--admin", &proxy.admin().to_string()]).args(args);
        Process::start(name, &mut command, &directory)
    };
    let mut typo = tap("typo", &["--route", "ap", "--upstream", "ap", "--listener", "inbound"]);
    eventually("both names", || typo.stderr().matches('\n').count() == 2);
    let said = typo.stderr();
    for what in ["route", "upstream"] {
        let line = format!("warning: generation 1 has no {what} `ap` here; did you mean `app`?");
        assert!(said.lines().any(|said| said == line), "{said}");
    }
    assert!(typo.ended().is_none(), "it goes on");
    let mut right = tap("right", &["--route", "app", "--upstream", "app", "--listener", "inbound", "--count", "1"]);
    eventually("a line", || {
        post(&proxy, "/seen", "");
        right.ended().is_some()
    });
    assert_eq!(right.stderr(), "");
}
