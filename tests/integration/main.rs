//! The proxy as its users meet it: the built binary between real sockets, a file for each behaviour.
//!
//! Expectations come from the contract (the README's tables and the RFCs named beside each test), and both sides are
//! looked at byte by byte. `support/` holds the peers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs, unreachable_pub)]

mod bodies;
mod connect;
mod grpc;
mod headers;
mod http1_requests;
mod http1_smuggling;
mod http2;
mod informational;
mod access_log;
mod admin;
mod balancing;
mod listener_limits;
mod loops;
mod pool;
mod pool_limits;
mod routes;
mod support;
mod timeouts;
mod trace;
mod upgrade;
