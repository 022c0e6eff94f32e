//! Routes by host: names by hash, suffixes by walking the labels of the host that was asked for.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::path::Paths;
use super::target::split_port;
use crate::config::model::{HostMatch, HostName, PathMatch};

/// Routes by host. (Why foldhash will do: see the trie of paths.)
#[derive(Debug, Default)]
pub(super) struct Hosts {
    any: Paths,
    exact: HashMap<Box<str>, Ports, RandomState>,
    suffix: HashMap<Box<str>, Ports, RandomState>,
    /// Bounds the walk, for a host may be as long as a header.
    longest_suffix: usize,
}

/// Routes of one name, by port.
#[derive(Debug, Default)]
struct Ports {
    any: Paths,
    /// Sorted by port.
    written: Vec<(u16, Paths)>,
}

impl Hosts {
    /// Adds a route. Positions must come in ascending order.
    pub(super) fn insert(&mut self, position: u32, hosts: &[HostMatch], path: &PathMatch) {
        if hosts.is_empty() {
            self.any.insert(position, path);
        }
        for host in hosts {
            let ports = match &host.name {
                HostName::Exact(name) => self.exact.entry(canonical(name).into()).or_default(),
                HostName::Suffix(suffix) => {
                    self.longest_suffix = self.longest_suffix.max(suffix.len());
                    self.suffix.entry(canonical(suffix).into()).or_default()
                }
            };
            ports.select(host.port).insert(position, path);
        }
    }

    /// Offers the routes of every entry that matches this host.
    pub(super) fn matching<'a>(&'a self, host: &str, default_port: u16, mut offer: impl FnMut(&'a Paths)) {
        offer(&self.any);
        if self.exact.is_empty() && self.suffix.is_empty() {
            return;
        }
        let (name, port) = split_port(host);
        let port = port.unwrap_or(default_port);
        let name = lower_case(name.strip_suffix('.').unwrap_or(name));
        if let Some(ports) = self.exact.get(&*name) {
            ports.offer(port, &mut offer);
        }
        if self.suffix.is_empty() {
            return;
        }
        // A suffix begins with a dot and has at least one label before it.
        let first = name.len().saturating_sub(self.longest_suffix).max(1);
        for dot in memchr::memchr_iter(b'.', &name.as_bytes()[first.min(name.len())..]) {
            if let Some(ports) = self.suffix.get(&name[first + dot..]) {
                ports.offer(port, &mut offer);
            }
        }
    }
}

impl Ports {
    fn select(&mut self, port: Option<u16>) -> &mut Paths {
        let Some(port) = port else { return &mut self.any };
        let index = match self.written.binary_search_by_key(&port, |(written, _)| *written) {
            Ok(index) => index,
            Err(index) => {
                self.written.insert(index, (port, Paths::default()));
                index
            }
        };
        &mut self.written[index].1
    }

    fn offer<'a>(&'a self, port: u16, offer: &mut impl FnMut(&'a Paths)) {
        offer(&self.any);
        if let Ok(index) = self.written.binary_search_by_key(&port, |(written, _)| *written) {
            offer(&self.written[index].1);
        }
    }
}

/// IPv6 addresses stand in brackets in requests, but may be written without.
fn canonical(name: &str) -> String {
    match name.contains(':') && !name.starts_with('[') {
        true => format!("[{name}]"),
        false => name.to_owned(),
    }
}

/// Hosts arrive in lower case, but for people who type them.
fn lower_case(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}
