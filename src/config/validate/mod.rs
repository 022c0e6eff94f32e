//! What the file says to what it means: names resolved, short forms written out, defaults filled in, and every mistake
//! that one key alone does not show.
//!
//! A value that could not be read has its finding already. Then something harmless stands in the model for it, so that
//! the rest can be looked at, and the caller throws the model away.

mod addresses;
mod balancing;
mod consul;
mod coverage;
mod discover;
mod dns;
mod headers;
mod health;
mod judging;
mod layers;
mod listeners;
mod matches;
mod names;
mod otlp;
mod overload;
mod patterns;
mod proxy;
mod register;
mod retries;
mod routes;
mod tcp;
mod telemetry;
mod tls;
mod upstreams;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use http::HeaderName;

use super::builtin;
use super::environment::Expander;
use super::findings::{Finding, Findings};
use super::model::{Config, Consul, Dns, Metrics, Upstream, UpstreamIndex};
use super::raw::Configuration;
use super::short_form::ShortUpstream;
use super::text::quote;
use super::tree::{NodeId, Tree};
use addresses::Addresses;
use judging::WrittenFallback;
use patterns::Patterns;
use upstreams::merged_timeouts;

pub(crate) use listeners::default_direction;
pub(crate) use names::route_names;
pub(crate) use proxy::is_probe_name;

/// A file that the configuration names, and where.
#[derive(Debug, Clone)]
pub(crate) struct NamedFile {
    pub(crate) path: PathBuf,
    pub(crate) node: NodeId,
    /// What of the node's value must exist.
    pub(crate) what: &'static str,
}

/// Makes the model. It is meant only where no finding is an error.
pub(crate) fn validate(
    raw: &Configuration,
    tree: &Tree,
    expander: &Expander<'_>,
    metrics: Option<&Metrics>,
    findings: &mut Findings,
) -> (Config, Vec<NamedFile>) {
    let mut validator = Validator {
        raw,
        tree,
        expander,
        findings,
        upstreams: Vec::new(),
        places: Vec::new(),
        by_name: HashMap::new(),
        by_source: HashMap::new(),
        unreadable: HashSet::new(),
        used: HashSet::new(),
        fallbacks: Vec::new(),
        unresolved: false,
        files: Vec::new(),
        default_deadline_header: None,
        patterns: Patterns::default(),
        addresses: Addresses::default(),
        comparisons: 0,
        consul: Consul::default(),
        dns: Dns::default(),
    };
    validator.consul = validator.consul();
    validator.dns = validator.dns();
    validator.named_upstreams();
    let admin = validator.admin();
    let metrics = validator.metrics(metrics);
    let listeners = validator.listeners();
    validator.resolve_fallbacks();
    validator.unused_upstreams();
    validator.loops();
    let config = Config {
        service: raw.service.get().map(|name| name.0.clone()),
        workers: validator.workers(),
        admin,
        metrics,
        register: validator.register(&listeners),
        wait_for_discovery: raw.wait_for_discovery.get().map_or(builtin::WAIT_FOR_DISCOVERY, |period| period.0),
        consul: validator.consul.clone(),
        dns: validator.dns.clone(),
        drain: validator.drain(),
        probation: validator.probation(),
        telemetry: validator.telemetry(),
        timeouts: merged_timeouts(None, raw.defaults.get().and_then(|defaults| defaults.timeouts.get())),
        listeners,
        upstreams: validator.upstreams,
    };
    (config, validator.files)
}

struct Validator<'a> {
    raw: &'a Configuration,
    tree: &'a Tree,
    expander: &'a Expander<'a>,
    findings: &'a mut Findings,
    upstreams: Vec<Upstream>,
    /// Where each of them comes from: its name, or the address that stands for it.
    places: Vec<NodeId>,
    by_name: HashMap<&'a str, UpstreamIndex>,
    /// Upstreams that short forms stand for.
    by_source: HashMap<ShortUpstream, UpstreamIndex>,
    /// Names of upstreams that are there but cannot be read: naming them is no second mistake.
    unreadable: HashSet<&'a str>,
    used: HashSet<UpstreamIndex>,
    /// Not resolved yet: an upstream may be named before it is written.
    fallbacks: Vec<WrittenFallback>,
    /// Whether something names an upstream that is not there.
    unresolved: bool,
    files: Vec<NamedFile>,
    /// What upstreams have that do not say it themselves.
    default_deadline_header: Option<HeaderName>,
    patterns: Patterns,
    addresses: Addresses,
    /// Pairs of routes that were compared, over all listeners.
    comparisons: usize,
    /// How agents are reached.
    consul: Consul,
    /// How names are looked up.
    dns: Dns,
}

impl Validator<'_> {
    fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Says that a mapping lacks a key, unless one of its keys is unknown: that may be the one, misspelt.
    fn missing(&mut self, mapping: NodeId, reason: impl Into<String>, hint: &str) {
        if !self.findings.is_incomplete(mapping) {
            self.error("missing-key", mapping, reason, hint);
        }
    }

    /// A value as written, for a message.
    fn shown(&self, node: NodeId) -> String {
        quote(self.tree.written(node))
    }

    fn error(&mut self, code: &'static str, node: NodeId, reason: impl Into<String>, hint: &str) {
        self.push(Finding::error(code, node, reason).maybe_hint((!hint.is_empty()).then(|| hint.to_owned())));
    }
}
