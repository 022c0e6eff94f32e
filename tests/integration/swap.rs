//! One configuration takes the place of another while requests pass.

mod consul_kv;
mod kept;
mod listeners;
mod load;
mod overrides;
mod probation;
mod removed;
mod sources;

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::client::once;
use crate::support::proxy::Setup;
use crate::support::wait::eventually_some;
use crate::support::{Proxy, Response, Upstream, eventually};

/// One inbound listener before one upstream.
const BASE: &str = "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { name: main, match: { path: / }, upstream: app }
upstreams:
  app: { static: [\"@app\"] }
";

fn start(upstream: &Upstream) -> Proxy {
    Proxy::start(BASE, &[("@app", &upstream.address())])
}

fn setup(upstream: &Upstream) -> Setup {
    Setup::new(BASE, &[("@app", &upstream.address())])
}

/// What the proxy's file holds.
pub fn text(proxy: &Proxy) -> String {
    std::fs::read_to_string(proxy.directory().join("outrigger.yaml")).unwrap()
}

/// Saves the file as careful programs do: beside it, and renamed over it.
fn save(proxy: &Proxy, text: &str) {
    let (path, beside) = (proxy.directory().join("outrigger.yaml"), proxy.directory().join("outrigger.yaml.new"));
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

/// `GET /config?format=json`
fn config(proxy: &Proxy) -> Value {
    serde_json::from_slice(&proxy.admin_get("/config?format=json").body.data).unwrap()
}

fn generation(proxy: &Proxy) -> u64 {
    config(proxy)["generation"].as_u64().unwrap()
}

/// Saves the file and waits until another generation is in force.
#[track_caller]
pub fn swap(proxy: &Proxy, text: &str) {
    let before = generation(proxy);
    save(proxy, text);
    eventually("the next generation", || generation(proxy) > before);
}

/// A request at the admin with this body.
#[track_caller]
fn admin(proxy: &Proxy, line: &str, fields: &str, body: &str) -> Response {
    let (host, length) = (proxy.admin(), body.len());
    let head =
        format!("{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{fields}Connection: close\r\n\r\n");
    once(host, head + body)
}

#[track_caller]
fn put(proxy: &Proxy, query: &str, body: &str) -> Response {
    admin(proxy, &format!("PUT /config{query}"), "", body)
}

/// Where a listener is bound now; `None` where there is none of this name.
fn bound(proxy: &Proxy, name: &str) -> Option<SocketAddr> {
    let listeners: Value = serde_json::from_slice(&proxy.admin_get("/listeners").body.data).unwrap();
    let listeners = listeners["listeners"].as_array().unwrap();
    let listener = listeners.iter().find(|listener| listener["name"] == name)?;
    Some(listener["address"].as_str().unwrap().parse().unwrap())
}

#[track_caller]
fn eventually_bound(proxy: &Proxy, name: &str) -> SocketAddr {
    eventually_some("the listener", || bound(proxy, name))
}
