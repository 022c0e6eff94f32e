//! Names of hosts, without the system's resolver.
//!
//! `client` asks the `nameservers` a `question`, by their `search` list. Endpoints are followed with it by `discovery`;
//! whoever only wants to speak with a host (a collector, a Consul agent, the admin of a proxy) calls [`connect()`].
//!
//! The system's `getaddrinfo` would hold a thread for as long as nameservers are silent, up to half a minute with a search
//! list. No timeout here could end that, and the process would wait for it at its end. It also loads what
//! `/etc/nsswitch.conf` names, and a static binary has nothing to load.

pub(crate) mod client;
mod connect;
mod hosts;
pub(crate) mod nameservers;
pub(crate) mod question;
pub(crate) mod search;

pub(crate) use self::connect::connect;
