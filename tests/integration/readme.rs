//! What the README shows of Consul, word for word: an agent in dev mode, a service in it, and the proxy before it.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::support::consul::program;
use crate::support::files::Directory;
use crate::support::namespace::entered;
use crate::support::process::Process;
use crate::support::proxy::binary;
use crate::support::tools::{needed, run};
use crate::support::wait::eventually_some;

const README: &str = include_str!("../../README.md");

#[test]
fn consul_in_one_screen_works_as_it_is_shown() {
    // The ports are those of the README, so they have to be free.
    if !entered("readme::consul_in_one_screen_works_as_it_is_shown") {
        return;
    }
    run(Command::new("ip").args(["link", "set", "lo", "up"]));
    needed("curl", Command::new("curl").arg("--version"), &["curl"]);
    let (_, rest) = README.split_once("**Consul in one screen.**").unwrap();
    let shown = rest.split("```").nth(1).unwrap().strip_prefix("sh\n").unwrap();
    assert!(shown.contains("--listen 127.0.0.1:8080 --upstream consul://web"), "{shown}");
    let programs = BTreeMap::from([("consul", program()), ("outrigger", binary())]);
    let directory = Directory::new();
    let mut background = Vec::new();
    for line in shown.lines() {
        let (line, stays) = line.strip_suffix(" &").map_or((line, false), |line| (line, true));
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = Command::new(programs.get(words[0]).cloned().unwrap_or_else(|| words[0].into()));
        command.args(&words[1..]).current_dir(directory.path());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CONSUL")) {
            command.env_remove(name);
        }
        if stays {
            let name = format!("{}-{}", words[0], background.len());
            background.push(Process::start(&name, &mut command, &directory));
            continue;
        }
        // Who types takes longer than this; who has just started may not listen yet.
        let output = eventually_some(line, || {
            let output = command.stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success() && (words[0] != "curl" || said.starts_with("HTTP/1.1 200"))).then_some(said)
        });
        if words[0] == "curl" {
            assert!(output.contains("Directory listing"), "it comes from the service: {output}");
        }
    }
    assert_eq!(background.len(), 3, "an agent, a service and a proxy");
}
