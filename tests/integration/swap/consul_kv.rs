//! A key in Consul as the source of truth.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::{config, generation, setup};
use crate::support::consul::Consul;
use crate::support::process::Process;
use crate::support::{Proxy, Upstream, eventually};

const KEY: &str = "/v1/kv/outrigger/orders%20eu";

/// A proxy that follows the key, and what the key holds.
fn start(consul: &Consul, upstream: &Upstream) -> (Proxy, String) {
    let setup = setup(upstream).environment("CONSUL_HTTP_ADDR", &consul.url());
    let text = setup.text().to_owned();
    consul.ask("PUT", KEY, &text);
    (setup.start_with(Path::new("consul-kv://outrigger/orders eu")), text)
}

#[test]
fn what_is_put_there_is_in_force_and_a_consul_that_restarts_changes_nothing() {
    let upstream = Upstream::ok();
    let mut consul = Consul::start();
    let (proxy, base) = start(&consul, &upstream);
    assert_eq!(config(&proxy)["source"], "consul-kv://outrigger/orders eu");
    let next = base.replace("path: / ", "path: /api ");
    consul.ask("PUT", KEY, &next);
    eventually("the new value", || generation(&proxy) == 2);
    assert_eq!(proxy.client().get("/elsewhere").status, 404);

    // What is wrong changes nothing, nor does a variable that the network may not see.
    consul.ask("PUT", KEY, next.replace("/api", "\"${HOME}\""));
    eventually("the refusal", || config(&proxy)["refused"]["error"].to_string().contains("may not use the variable"));
    consul.ask("PUT", KEY, &next);
    eventually("the refusal's end", || config(&proxy)["refused"].is_null());

    // A development agent forgets everything: the key is gone, and comes back with the same value.
    consul.stop();
    eventually("the loss to be noticed", || proxy.metric("outrigger_config_last_reload_successful", &[]) == 0.0);
    assert_eq!(proxy.client().get("/api").status, 200);
    consul.start_again();
    eventually("the missing key", || config(&proxy)["refused"].is_object());
    consul.ask("PUT", KEY, &next);
    eventually("everything as before", || config(&proxy)["refused"].is_null());
    assert_eq!(generation(&proxy), 2, "the same value is no swap");
    consul.ask("DELETE", KEY, "");
    consul.ask("PUT", KEY, &base);
    eventually("the first value again", || generation(&proxy) == 3);
}

#[test]
fn a_key_that_is_not_there_ends_the_start() {
    let consul = Consul::start();
    let directory = crate::support::files::Directory::new();
    let mut command = Command::new(crate::support::proxy::binary());
    command.args(["run", "--config", "consul-kv://nothing"]).env("CONSUL_HTTP_ADDR", consul.url());
    let mut process = Process::start("outrigger", &mut command, &directory);
    assert_eq!(process.exit_code(), Some(1));
}

#[test]
fn a_start_says_what_it_waits_for() {
    let directory = crate::support::files::Directory::new();
    let mut command = Command::new(crate::support::proxy::binary());
    // Nobody listens at port 1.
    command.args(["run", "--config", "consul-kv://orders"]).env("CONSUL_HTTP_ADDR", "http://127.0.0.1:1");
    let mut process = Process::start("outrigger", &mut command, &directory);
    let words = || process.stderr().matches("warning: consul-kv://orders: no Consul agent answers").count();
    eventually("the first word", || words() == 1);
    assert!(process.stderr().contains("s more"), "{}", process.stderr());
    // Who moves log files away, or wants the configuration read again, does not know that it waits.
    [Signal::HUP, Signal::USR1, Signal::USR2].into_iter().for_each(|signal| process.signal(signal));
    eventually("another one", || words() == 2);
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), None, "it ends by the signal, at once");
}
