//! What carries no requests lets the workers go first where they want the same core.

use crate::support::{Proxy, Upstream, eventually};

#[test]
fn workers_go_before_everything_else() {
    let upstream = Upstream::ok();
    let mut proxy = Proxy::before(upstream.address());
    assert_eq!(proxy.client().get("/").status, 200);
    let pid = proxy.process().id();
    let own = nices(pid, "worker").first().copied().unwrap();
    for name in ["control", "access-log"] {
        eventually(&format!("{name} to give way"), || nices(pid, name) == [own + 5]);
    }
    assert!(nices(pid, "worker").iter().all(|nice| *nice == own));
    proxy.stop();
}

/// How nice the process' threads are whose names begin so.
fn nices(pid: u32, name: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nice = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (before, fields) = stat.rsplit_once(") ")?;
        // The nineteenth field of proc(5), the third being the first after the name.
        before.split_once('(')?.1.starts_with(name).then(|| fields.split(' ').nth(16)?.parse().ok()).flatten()
    };
    tasks.filter_map(|task| nice(task.unwrap())).collect()
}
