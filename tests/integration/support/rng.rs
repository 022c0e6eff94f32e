//! Numbers that only need to differ: addresses and pauses.

use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A loopback address that no other test, and hardly another run, uses: all of 127.0.0.0/8 is ours on Linux.
pub fn own_loopback_ip() -> std::net::Ipv4Addr {
    let run = std::process::id().wrapping_mul(2_654_435_761);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    let mixed = run.wrapping_add(nth.wrapping_mul(40_503));
    let [a, b, _, _] = mixed.to_be_bytes();
    std::net::Ipv4Addr::new(127, 1 + a % 250, b, 1 + (nth % 250) as u8)
}

/// A port below the range from which the kernel takes ephemeral ones, free on all addresses at this moment.
pub fn free_low_port() -> u16 {
    let start = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed) * 97);
    (0..2_000)
        .map(|step| 12_000 + ((start + step * 7) % 18_000) as u16)
        .find(|port| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("no free port between 12000 and 30000")
}
