//! The proxy as its users meet it: the built binary between real sockets, a file for each behaviour.
//!
//! Expectations come from the contract (the README's tables and the RFCs named beside each test), and both sides are
//! looked at byte by byte. `support/` holds the peers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

mod headers;
mod http1_requests;
mod http1_smuggling;
mod support;
