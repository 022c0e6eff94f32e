//! One instance ends under load while another takes over its port: no request fails, none meets a closed connection.

mod hand_over;
mod load;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::support::proxy::Setup;
use crate::support::{Proxy, Upstream, eventually};
use load::{Done, KEPT, Load, NEW, SLOW, script};

const CONFIG: &str = "
telemetry: { access_log: { path: none } }
listeners:
  inbound: { address: \"@address\", upstream: app }
upstreams:
  app: { static: [\"@app\"] }
drain: { delay: 300ms, timeout: 10s }
";

#[test]
fn a_second_instance_takes_over_under_load_and_nothing_fails() {
    let upstream = Upstream::scripted(script);
    let start = |address: &str| -> Proxy {
        Setup::new(CONFIG, &[("@address", &address), ("@app", &upstream.address())]).argument("--reuse-port").start()
    };
    let mut first = start("127.0.0.1:0");
    let address = first.address("inbound");
    let load = Load::default();
    let second = std::thread::scope(|scope| {
        let end = Done(&load);
        let load = &load;
        for number in 0..KEPT.0 {
            scope.spawn(move || load.kept(address, number));
        }
        for number in 0..NEW.0 {
            scope.spawn(move || load.anew(address, number));
        }
        scope.spawn(move || load.streams(address));
        eventually("load on the first instance", || load.served.load(SeqCst) > 1_000);
        for _ in 0..SLOW {
            scope.spawn(move || load.slow(address));
        }
        eventually("the slow streams", || load.slow_under_way.load(SeqCst) == SLOW);

        let second = start(&address.to_string());
        first.terminate();
        assert_eq!(
            first.process().exit_code_within(Duration::from_secs(20)),
            Some(0),
            "the first instance's exit code"
        );
        let before = load.served.load(SeqCst);
        eventually("load on the second instance", || load.served.load(SeqCst) > before + 1_000);
        drop(end);
        second
    });
    let failures = load.failures.lock().unwrap();
    let served = load.served.load(SeqCst);
    assert!(failures.is_empty(), "{} of {served} failed: {:#?}", failures.len(), &failures[..failures.len().min(10)]);
    assert!(second.metric("outrigger_requests_total", &[("code", "200")]) >= 1_000.0);
}
