//! A network of a test's own: the test in one namespace, a pod in another, a cable between them.
//!
//! | | IPv4 | IPv6 |
//! | --- | --- | --- |
//! | the world, where the test's own sockets are | 10.77.0.1 to .3 | fd77::1 |
//! | the pod, whose route to everything is the world | 10.77.0.2 | fd77::2 |

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::tools::{needed, run};
use super::wait::eventually;

const INSIDE: &str = "OUTRIGGER_TEST_NAMESPACE";

/// True inside the namespace. Outside, runs the test of this name once more inside, and is false when that has passed.
#[track_caller]
pub fn entered(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    needed("ip", Command::new("ip").arg("-V"), &["iproute2"]);
    let mut command = match rustix::process::geteuid().is_root() {
        true => Command::new("unshare"),
        false => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "--preserve-env", "unshare"]);
            sudo
        }
    };
    command.arg("--net").arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "inside a network namespace: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// The other end of the cable. Gone with this.
pub struct Pod(Child);

impl Pod {
    pub fn new() -> Self {
        let holder = Command::new("unshare").args(["--net", "sleep", "infinity"]).stdin(Stdio::null()).spawn().unwrap();
        let pod = Pod(holder);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        eventually("a namespace for the pod", || {
            std::fs::read_link(format!("/proc/{}/ns/net", pod.0.id())).is_ok_and(|link: PathBuf| link != own)
        });
        let id = pod.0.id().to_string();
        let ip = |words: &str| run(Command::new("ip").args(words.split(' ')));
        ip("link set lo up");
        ip(&format!("link add world type veth peer name eth0 netns {id}"));
        for address in ["10.77.0.1/24", "10.77.0.3/24"] {
            ip(&format!("address add {address} dev world"));
        }
        ip("address add fd77::1/64 dev world nodad");
        ip("link set world up");
        let inside = |words: &str| run(pod.command("ip").args(words.split(' ')));
        inside("link set lo up");
        inside("address add 10.77.0.2/24 dev eth0");
        inside("address add fd77::2/64 dev eth0 nodad");
        inside("link set eth0 up");
        inside("route add default via 10.77.0.1");
        inside("-6 route add default via fd77::1");
        pod
    }

    /// What has to stand before a command for it to run in the pod, as this user.
    pub fn prefix(&self, user: u32) -> Vec<String> {
        let (id, user) = (self.0.id().to_string(), user.to_string());
        ["nsenter", "--net", "--target", &id, "setpriv", "--reuid", &user, "--clear-groups"].map(str::to_owned).to_vec()
    }

    /// A command in the pod, as root.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string(), program]);
        command
    }

    /// What curl prints in the pod, with the status at the end; what it complains about where it fails.
    pub fn curl(&self, arguments: &[&str]) -> String {
        needed("curl", Command::new("curl").arg("--version"), &["curl"]);
        let mut curl = self.command("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "10", "-w", " %{http_code}"]).args(arguments);
        let output = curl.stdin(Stdio::null()).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
