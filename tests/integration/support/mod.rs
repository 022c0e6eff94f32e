//! What the tests stand on: the proxy under test, peers that do exactly what a script says, and bounded waits.
//!
//! Raw peers ([`client`], [`upstream`]) are plain sockets and threads: they see and send exact bytes.
//! [`h2`] has peers made of the `h2` crate, [`frames`] one that can send what that crate refuses to.

pub mod browser;
pub mod client;
pub mod consul;
pub mod dnsmasq;
pub mod files;
pub mod frames;
pub mod h2;
pub mod liar;
pub mod message;
pub mod nameserver;
pub mod namespace;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod recorder;
pub mod rng;
pub mod terminal;
pub mod tls;
pub mod tools;
pub mod traffic;
pub mod upstream;
pub mod wait;
pub mod wire;

pub use client::Client;
pub use message::{Head, Response};
pub use proxy::Proxy;
pub use upstream::{Served, Upstream};
pub use wait::{Gate, eventually};
