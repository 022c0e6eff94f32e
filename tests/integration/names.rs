//! Hosts that are named: a collector, a Consul agent, the admin of a proxy. Each test has a network and an `/etc` of its
//! own, as a pod has.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::receiver::Receiver;
use crate::support::client::once;
use crate::support::eventually;
use crate::support::files::Directory;
use crate::support::nameserver::{Nameserver, Reply};
use crate::support::namespace::entered;
use crate::support::process::Process;
use crate::support::proxy::{Setup, binary};
use crate::support::tools::run;

const NAMESERVER: [u8; 4] = [127, 0, 0, 53];
const RESOLV_CONF: &str = "nameserver 127.0.0.53\nsearch shop.svc.test svc.test\noptions ndots:5\n";

/// What has to stand before a command for it to find these two files in `/etc`.
fn with(directory: &Directory, hosts: &str) -> Vec<String> {
    let bind = |path: &Path, name: &str| format!("mount --bind {} /etc/{name}", path.display());
    let resolv_conf = bind(&directory.write("resolv.conf", RESOLV_CONF), "resolv.conf");
    let hosts = bind(&directory.write("hosts", hosts), "hosts");
    let script = format!("{resolv_conf} && {hosts} && exec \"$0\" \"$@\"");
    ["unshare", "--mount", "sh", "-c", &script].map(str::to_owned).to_vec()
}

fn ready(prefix: &[String], arguments: &[&str], directory: &Directory) -> Process {
    let mut command = Command::new(&prefix[0]);
    command.args(&prefix[1..]).arg(binary()).args(["ready", "--admin"]).args(arguments);
    Process::start("ready", &mut command, directory)
}

#[test]
fn hosts_are_found_as_a_pod_finds_them() {
    if !entered("names::hosts_are_found_as_a_pod_finds_them") {
        return;
    }
    run(Command::new("ip").args(["link", "set", "lo", "up"]));
    let nameserver = Nameserver::at(NAMESERVER);
    nameserver.say("collector.svc.test. A", Reply::records(&["collector.svc.test. 5 A 127.0.0.1"]));
    nameserver.say("collector.svc.test. AAAA", Reply::no_data(5));
    let (receiver, files) = (Receiver::start(&["grpc"]), Directory::new());
    let config = "
metrics: { otlp: { url: \"http://collector:@port\", interval: 50ms } }
consul: { address: \"http://agent.shop:@port\" }
listeners: { inbound: { address: \"127.0.0.1:0\", upstream: app } }
upstreams: { app: consul://app }
";
    let prefix = with(&files, "127.0.0.1 localhost\n127.0.0.1 agent.shop admin.shop # by hand\n");
    let proxy = Setup::new(config, &[("@port", &receiver.port)]).within(prefix.clone()).start();
    eventually("metrics at the collector", || !receiver.points("outrigger_build_info").is_empty());
    assert!(nameserver.asked("collector.shop.svc.test. A") > 0 && nameserver.asked("collector. A") == 0);
    // The agent was reached, and is none: what answers there speaks gRPC.
    let upstreams =
        once(proxy.admin(), "GET /upstreams HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").text();
    assert!(!upstreams.contains("there is no host"), "{upstreams}");
    assert_eq!(nameserver.asked("agent.shop. A") + nameserver.asked("agent.shop.shop.svc.test. A"), 0);

    let directory = Directory::new();
    let mut found = ready(&prefix, &[&format!("admin.shop:{}", proxy.admin().port()), "--wait", "20s"], &directory);
    assert_eq!(found.exit_code(), Some(0), "{}", found.stderr());
    let mut nobody = ready(&prefix, &["nobody:9901"], &directory);
    assert_eq!(nobody.exit_code(), Some(1));
    assert!(nobody.stderr().contains("nobody answers at nobody:9901 (there is no host nobody)"), "{}", nobody.stderr());
}

/// The system's resolver would have held the process for half a minute.
#[test]
fn nameservers_that_say_nothing_hold_nobody_up() {
    if !entered("names::nameservers_that_say_nothing_hold_nobody_up") {
        return;
    }
    run(Command::new("ip").args(["link", "set", "lo", "up"]));
    let nameserver = Nameserver::at(NAMESERVER);
    for question in ["admin.shop.svc.test. A", "admin.shop.svc.test. AAAA"] {
        nameserver.say(question, Reply::silence());
    }
    let (files, directory) = (Directory::new(), Directory::new());
    let began = Instant::now();
    let mut ready = ready(&with(&files, ""), &["admin:9901"], &directory);
    assert_eq!(ready.exit_code(), Some(1));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "a probe that gives up after 2 s took {took:?}");
    assert!(nameserver.asked("admin.shop.svc.test. A") > 0);
}
