//! What a connection needed for its requests goes back to the kernel when it idles.

use std::time::Duration;

use crate::support::wait::within;
use crate::support::{Client, Proxy, Upstream, eventually};

const CONNECTIONS: usize = 300;
/// A head whose buffers are most of what a connection takes: the rest, some 5 KiB, stays in pages that others are in.
const HEAD: usize = 16 * 1024;
const SOON: Duration = Duration::from_secs(8);

#[test]
fn idle_connections_give_their_memory_back() {
    let upstream = Upstream::ok();
    let mut proxy = Proxy::before(upstream.address());
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| proxy.client()).collect();
    assert_eq!(clients[0].get("/").status, 200);
    eventually("all to be accepted", || proxy.process().open_files() > CONNECTIONS);
    let silent = proxy.process().resident_bytes();
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "c".repeat(HEAD));
    for client in &mut clients {
        assert_eq!(client.exchange(&request).status, 200);
    }
    let busy = proxy.process().resident_bytes();
    let gained = busy.saturating_sub(silent);
    assert!(gained > CONNECTIONS as u64 * 4096, "{silent} bytes before, {busy} after: nothing to give back");
    // Idle after 1 s, free for another; by itself the allocator looks after 9 s, when the pool lets a connection go.
    let given = within(SOON, || (proxy.process().resident_bytes() < silent + gained / 2).then_some(()));
    assert!(given.is_some(), "{silent} bytes before, {busy} after, {} now", proxy.process().resident_bytes());
    proxy.stop();
}
