//! Out of file descriptors the proxy sheds load, does not spin, and recovers.

use std::time::Duration;

use crate::support::client::get;
use crate::support::proxy::Setup;
use crate::support::{Client, Proxy, Upstream, eventually};

#[test]
fn without_descriptors_it_sheds_and_recovers() {
    let upstream = Upstream::ok();
    let mut proxy = Proxy::before(upstream.address());
    let mut old = proxy.client();
    assert_eq!(old.get("/").status, 200);
    let open = proxy.process().open_files() as u64;
    proxy.process().limit_open_files(open + 20);

    let crowd: Vec<Client> = (0..100).filter_map(|_| Client::try_connect(proxy.address("inbound")).ok()).collect();
    // Who is in gets an answer, be it that there is no descriptor left for the way to the upstream; which is no fault of
    // the endpoint's.
    upstream.close_idle();
    for _ in 0..20 {
        let response = old.get("/");
        assert!([200, 503].contains(&response.status), "{} {}", response.head, response.text());
        let reason = response.reason().unwrap_or("overflow");
        assert!(reason.starts_with("overflow"), "{reason}");
    }
    let ejected = [("upstream", "app"), ("cause", "consecutive")];

    let before = cpu_ticks(proxy.process().id());
    old.silent_for(Duration::from_millis(500));
    let spent = cpu_ticks(proxy.process().id()) - before;
    assert!(spent < 25, "{spent} ticks of 50 went into nothing: the accept loop spins");

    drop(crowd);
    eventually("a newcomer to be served", || {
        let Ok(mut client) = Client::try_connect(proxy.address("inbound")) else { return false };
        client.set_patience(Duration::from_secs(5));
        client.try_send(get("/later")).is_ok()
            && client.response_or_end("GET").is_some_and(|response| response.status == 200)
    });
    assert_eq!(old.get("/").status, 200);
    assert_eq!(proxy.metric("outrigger_endpoint_ejections_total", &ejected), 0.0);
    proxy.stop();
}

#[test]
fn it_takes_as_many_descriptors_as_it_may() {
    let upstream = Upstream::ok();
    let config = "listeners:\n  inbound: { address: \"127.0.0.1:0\", upstream: \"@app\" }\n";
    let prefix = ["prlimit", "--nofile=256:4096"].map(str::to_owned);
    let mut proxy = Setup::new(config, &[("@app", &upstream.address())]).within(prefix.into()).start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.process().id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["4096", "4096"], "{files}");
}

/// User and system time of a process, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}
