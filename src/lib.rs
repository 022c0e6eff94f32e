//! Outrigger: a service-mesh-lite sidecar proxy, as a library. The program is [`cli`] around [`app`].
//!
//! The house has two wings and a hinge between them. A request walks the first wing, in this order:
//!
//! 1. `listener` takes a connection in, gives it to a worker, shakes hands where there is TLS (`identity` knows with
//!    whom), tells HTTP/1 from HTTP/2;
//! 2. `http1` reads its head (for HTTP/2, hyper does);
//! 3. [`proxy`] decides: whether there is room (`admission`), what is stripped and added, which
//! 4. [`route`] takes it, what it is rewritten to,
//! 5. [`upstream`] which endpoint's turn it is;
//! 6. `transport` has a connection there, sends it and reads the answer;
//! 7. and on the [`body`]'s way back rides the record that [`telemetry`] makes metrics and a log line of.
//!
//! The second wing feeds it and never the other way round: [`config`] makes a model of a file, [`app`] builds everything
//! from that, `reload` puts another one in its place, `discovery` follows the registries that name endpoints, of which
//! `consul` is a client, `health` asks the endpoints, `registration` puts the proxy itself into a registry, `control` asks
//! the workers and ends them, `admin` shows what they answer, `explain` says what would become of a request, `succession`
//! lets one process take another's place. The hinge is `snapshot`: a configuration compiled for the requests' way, and
//! published with one atomic store. `runtime`, `dns`, [`error`] and [`outcome`] are the ground that both stand on;
//! [`kubernetes`] stands beside: what puts the proxy into pods.
//!
//! Everything that carries requests belongs to one worker, which is one thread: no lock is taken and nothing is shared,
//! and `Rc` and `RefCell` say so.

// The request's way.
mod listener;

mod http1;

mod admission;

pub mod proxy;

pub mod route;

pub mod upstream;

mod transport;

pub mod body;

mod identity;

// The hinge.
mod snapshot;

// What feeds it.
mod admin;
pub mod app;
pub mod cli;
mod consul;
mod control;
mod discovery;
mod explain;
mod health;
mod registration;
mod reload;
mod succession;

// The ground.
pub mod config;
mod dns;
pub mod error;
pub mod kubernetes;
pub mod outcome;
mod runtime;
pub mod telemetry;

pub use listener::Proxy;
pub use runtime::address::BoundAddress;

/// The README's programs, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
