//! The proxy as its users meet it: the built binary between real sockets, a file for each behaviour.
//!
//! Expectations come from the contract (the README's tables and the RFCs named beside each test), and both sides are
//! looked at byte by byte. `support/` holds the peers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs, unreachable_pub)]

mod access_log;
mod activation;
mod admin;
mod app_probes;
mod balancing;
mod bodies;
mod capture;
mod circuit_breaker;
mod connect;
mod consul_failures;
mod consul_queries;
mod consul_register;
mod consul_tls;
mod consul_watch;
mod dashboard;
mod descriptors;
mod discover;
mod dns_cases;
mod dns_servers;
mod doctor;
mod drain;
mod ejection;
mod events;
mod explain;
mod faulty_endpoint;
mod grpc;
mod hashing;
mod headers;
mod health;
mod hostile;
mod http1_requests;
mod http1_smuggling;
mod http2;
mod http2_extended_connect;
mod http2_malformed;
mod http2_upstream;
mod identities;
mod informational;
mod listener_limits;
mod log_level;
mod loops;
mod memory;
mod metrics_export;
mod names;
mod observability;
mod overload;
mod peers;
mod pool;
mod pool_limits;
mod readme;
mod reasons;
mod receiver;
mod retries;
mod routes;
mod stale_connections;
mod storm;
mod support;
mod swap;
mod takeover;
mod tap;
mod tcp;
mod threads;
mod timeouts;
mod tls;
mod tls_files;
mod tls_upstream;
mod top;
mod trace;
mod traces;
mod upgrade;
mod webhook;
