//! Out of file descriptors the proxy sheds load, does not spin, and recovers.

use std::time::Duration;

use crate::support::client::get;
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
    // Who is in gets an answer, be it that there is no descriptor left for the way to the upstream.
    let response = old.get("/");
    assert!([200, 503].contains(&response.status), "{} {}", response.head, response.text());

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
    proxy.stop();
}

/// User and system time of a process, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}
