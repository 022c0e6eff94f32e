//! A small client of Consul's agents: what discovery, registration and `--config consul-kv://KEY` need, and no more.
//!
//! A [`Client`] asks one of its agents, and the next where that one fails; every question has a bound in time and every
//! answer one in bytes. Whoever follows something asks again and again through a [`Watch`], which keeps the index of
//! blocking queries and the pace that an agent can be asked at. To add an endpoint: a function in the file of its kind
//! (`health`, `kv`, `agent`), or a new file.

mod address;
mod agent;
mod client;
mod connection;
mod error;
mod health;
mod instances;
mod kv;
mod pace;
mod question;
mod token;
mod watch;

pub(crate) use agent::Registration;
pub(crate) use client::{Client, Settings};
pub(crate) use error::Error;
pub(crate) use health::{Instance, Status};
pub(crate) use instances::Instances;
pub(crate) use watch::Watch;

/// An answer, with what a blocking query needs for the next question.
#[derive(Debug)]
pub(crate) struct Indexed<T> {
    /// `X-Consul-Index`, where the answer had one.
    pub(crate) index: Option<u64>,
    pub(crate) value: T,
}
