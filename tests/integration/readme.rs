//! What the README shows of Consul, word for word: an agent in dev mode, a service in it, and the proxy before it.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::consul::program;
use crate::support::files::Directory;
use crate::support::namespace::entered;
use crate::support::process::Process;
use crate::support::proxy::binary;
use crate::support::tools::{needed, run};

const README: &str = include_str!("../../README.md");

/// Processes that end with the test.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

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
    // As whoever pastes it has them: programs by their names, in a folder of their own.
    let directory = Directory::new();
    let programs = directory.path().join("bin");
    std::fs::create_dir(&programs).unwrap();
    for (name, path) in [("consul", program()), ("outrigger", binary())] {
        std::os::unix::fs::symlink(path, programs.join(name)).unwrap();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("bash");
    shell.args(["-e", "-c", shown]).env("PATH", format!("{}:{path}", programs.display())).current_dir(directory.path());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CONSUL")) {
        shell.env_remove(name);
    }
    // What it leaves in the background ends with its group.
    shell.process_group(0);
    let mut shell = Process::start("bash", &mut shell, &directory);
    let _group = Group(shell.pid());
    let code = shell.exit_code_within(Duration::from_secs(60));
    let said = shell.stdout();
    assert_eq!(code, Some(0), "{said}\n{}", shell.stderr());
    assert!(said.contains("HTTP/1.1 200") && said.contains("Directory listing"), "it comes from the service: {said}");
}
