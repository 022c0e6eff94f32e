//! `upstreams:`, `defaults:` and whatever names an upstream.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::Duration;

use http::HeaderName;

use super::Validator;
use super::consul::on_empty;
use crate::config::address::looks_like_address;
use crate::config::builtin;
use crate::config::environment::is_hidden;
use crate::config::findings::Finding;
use crate::config::given::{Given, Spanned};
use crate::config::later;
use crate::config::model::{
    ConsulSource, DnsSource, DnsTarget, Endpoint, EndpointAddress, EndpointSource, Timeouts, TlsName, Upstream,
    UpstreamIndex, UpstreamLimits, UpstreamProtocol, UpstreamTls,
};
use crate::config::raw::upstream as raw;
use crate::config::scalar::{OrNone, Scalar};
use crate::config::short_form::ShortUpstream;
use crate::config::text::{listed, nearest, quote};
use crate::config::tree::NodeId;
use crate::config::units::{Name, Number, Period, Text};
use crate::runtime::pace::breathe;

impl<'a> Validator<'a> {
    pub(super) fn named_upstreams(&mut self) {
        let raw = self.raw;
        if let Some(defaults) = raw.defaults.get() {
            self.default_deadline_header = self.deadline_header(&defaults.timeouts).flatten();
            self.check_timeouts(&defaults.timeouts);
            self.check_retries(&defaults.retries, false);
        }
        for (name, upstream) in raw.upstreams.get().map_or(&[][..], |named| &named.0) {
            breathe();
            self.check_name(name);
            let Some(spanned) = upstream.spanned() else {
                self.unreadable.insert(&name.value);
                continue;
            };
            let (source, long) = match &spanned.value {
                raw::Upstream::Short(short) => (self.short_source(&short.value), None),
                raw::Upstream::Endpoints(list) => (EndpointSource::Static(self.endpoints(list, spanned.node)), None),
                raw::Upstream::Long(long) => (self.long_source(long, spanned.node), Some(&**long)),
            };
            if let Some(long) = long {
                self.check_timeouts(&long.timeouts);
                if let (EndpointSource::Static(_), Some(node)) = (&source, long.on_empty.node()) {
                    let reason = "endpoints that are written here are never empty";
                    self.error(
                        "contradiction",
                        node,
                        reason,
                        "remove `on_empty`: it is for endpoints that are looked up",
                    );
                }
                self.check_retries(&long.retries, false);
            }
            let upstream = self.upstream(name.value.clone(), source, long);
            self.by_name.insert(&name.value, UpstreamIndex(self.upstreams.len()));
            self.upstreams.push(upstream);
            self.places.push(name.node);
        }
    }

    /// The upstream that a name or an address stands for. `None` where it has no meaning; that is told.
    pub(super) fn resolve(&mut self, text: &str, node: NodeId) -> Option<UpstreamIndex> {
        let index = if looks_like_address(text) {
            self.upstream_of_address(text, node)
        } else {
            self.upstream_of_name(text, node)
        }?;
        self.used.insert(index);
        Some(index)
    }

    fn upstream_of_address(&mut self, text: &str, node: NodeId) -> Option<UpstreamIndex> {
        let short = match ShortUpstream::parse(text) {
            Ok(short) => short,
            Err(_) if is_hidden(self.tree.written(node)) => {
                let reason =
                    format!("what {} holds is neither the name of an upstream nor an address", self.shown(node));
                self.error("invalid-value", node, reason, "");
                return None;
            }
            Err(invalid) => {
                self.push(Finding::error(later::code(&invalid.detail), node, invalid.detail).maybe_hint(invalid.hint));
                return None;
            }
        };
        if let Some(index) = self.by_source.get(&short) {
            return Some(*index);
        }
        let index = UpstreamIndex(self.upstreams.len());
        let name = self.tree.written(node).to_owned();
        let upstream = self.upstream(name, self.short_source(&short), None);
        self.upstreams.push(upstream);
        self.places.push(node);
        self.by_source.insert(short, index);
        Some(index)
    }

    /// The upstream that stands for wherever a captured connection was going to.
    pub(super) fn original(&mut self, node: NodeId) -> UpstreamIndex {
        let known = self.upstreams.iter().position(|upstream| upstream.source == EndpointSource::Original);
        UpstreamIndex(known.unwrap_or_else(|| {
            let upstream = self.upstream("original".to_owned(), EndpointSource::Original, None);
            self.upstreams.push(upstream);
            self.places.push(node);
            self.upstreams.len() - 1
        }))
    }

    fn upstream_of_name(&mut self, text: &str, node: NodeId) -> Option<UpstreamIndex> {
        if let Some(index) = self.by_name.get(text) {
            return Some(*index);
        }
        if self.unreadable.contains(text) || self.raw.upstreams.node().is_some() && self.raw.upstreams.get().is_none() {
            return None;
        }
        if text == "original" {
            return Some(self.original(node));
        }
        self.unresolved = true;
        if self.findings.is_full() {
            self.findings.omit_error();
            return None;
        }
        let known: Vec<&str> = self
            .raw
            .upstreams
            .get()
            .map_or(&[][..], |named| &named.0)
            .iter()
            .map(|(name, _)| name.value.as_str())
            .collect();
        let hidden = is_hidden(self.tree.written(node));
        let hint = match nearest(text, known.iter().copied()) {
            _ if hidden => None,
            Some(near) => Some(format!("did you mean {}?", quote(near))),
            None if text.parse::<Ipv4Addr>().is_ok() => {
                Some(format!("an address has a port: did you mean {}?", quote(&format!("{text}:8080"))))
            }
            None if text.parse::<NonZeroU16>().is_ok() => {
                Some(format!("a port has an address: did you mean {}?", quote(&format!("127.0.0.1:{text}"))))
            }
            None if known.is_empty() => {
                Some("there are no `upstreams`; an address such as `127.0.0.1:8080` needs none".to_owned())
            }
            None if known.len() <= 8 => Some(format!("there are {}", listed(known, "and"))),
            None => Some("add it to `upstreams`".to_owned()),
        };
        let reason = format!("there is no upstream {}", self.shown(node));
        self.push(Finding::error("unknown-upstream", node, reason).maybe_hint(hint));
        None
    }

    pub(super) fn unused_upstreams(&mut self) {
        // A listener that cannot be read may use any of them, and so may a name that is misspelt.
        let listeners = self.raw.listeners.get().map_or(&[][..], |named| &named.0);
        let unreadable = listeners.iter().any(|(_, listener)| match listener.get() {
            None => true,
            Some(listener) => {
                matches!(listener.upstream, Given::Invalid(_))
                    || matches!(listener.routes, Given::Invalid(_))
                    || listener.routes.get().is_some_and(|routes| routes.iter().any(|route| route.get().is_none()))
            }
        });
        if unreadable || self.unresolved || listeners.is_empty() {
            return;
        }
        let mut unused = Vec::new();
        for (name, _) in self.raw.upstreams.get().map_or(&[][..], |named| &named.0) {
            if let Some(index) = self.by_name.get(name.value.as_str())
                && !self.used.contains(index)
            {
                unused.push(
                    Finding::warning(
                        "unused-upstream",
                        name.node,
                        format!("no route leads to the upstream {}", quote(&name.value)),
                    )
                    .hint("remove it, or name it in a route"),
                );
            }
        }
        for finding in unused {
            self.push(finding);
        }
    }

    pub(super) fn check_name(&mut self, name: &Spanned<String>) {
        if let Err(invalid) = Name::parse(&name.value) {
            self.push(Finding::error("invalid-name", name.node, invalid.detail).maybe_hint(invalid.hint));
        }
    }

    /// Numbers of one mapping that contradict each other. What another level wrote is overridden, not contradicted.
    pub(super) fn check_timeouts(&mut self, timeouts: &Given<raw::Timeouts>) {
        let Some(timeouts) = timeouts.get() else { return };
        let all = [
            &timeouts.connect,
            &timeouts.response,
            &timeouts.per_try,
            &timeouts.idle,
            &timeouts.request,
            &timeouts.tunnel_idle,
        ];
        for spanned in all.into_iter().filter_map(Given::spanned) {
            if spanned.value.0.is_some_and(|period| period.0.is_zero()) {
                let reason = format!("a timeout of {} ends everything before it begins", self.shown(spanned.node));
                self.error("impossible-number", spanned.node, reason, "write `none` for no timeout");
            }
        }
        let within_request =
            [("response", &timeouts.response), ("connect", &timeouts.connect), ("per_try", &timeouts.per_try)];
        self.bounded_by(&timeouts.request, "request", "which bounds the whole", &within_request);
        let within_response = [("per_try", &timeouts.per_try)];
        self.bounded_by(&timeouts.response, "response", "after which nobody waits any more", &within_response);
    }

    /// Outer `None`: not said.
    pub(super) fn deadline_header(&mut self, timeouts: &Given<raw::Timeouts>) -> Option<Option<HeaderName>> {
        let header = timeouts.get()?.deadline_header.spanned()?;
        let name = header.value.0.as_ref().and_then(|name| self.header_name(&name.0, header.node));
        if name.as_ref().is_some_and(|name| name == "grpc-timeout") {
            let reason = "`grpc-timeout` is gRPC's, and milliseconds without a unit are no timeout there";
            self.error("forbidden-header", header.node, reason, "remove it: gRPC's deadlines travel by themselves");
        }
        Some(name)
    }

    /// None of `inner` may be longer than `outer`.
    fn bounded_by(
        &mut self,
        outer: &Given<OrNone<Period>>,
        outer_name: &'static str,
        why: &str,
        inner: &[(&str, &Given<OrNone<Period>>)],
    ) {
        let Some(outer) = outer.spanned() else { return };
        let Some(most) = outer.value.0 else { return };
        for (name, given) in inner {
            let Some(spanned) = given.spanned() else { continue };
            if spanned.value.0.is_some_and(|period| period.0 > most.0) {
                let reason = format!(
                    "`{name}` ({}) is longer than `{outer_name}` ({}), {why}",
                    self.tree.written(spanned.node),
                    self.tree.written(outer.node)
                );
                let finding = Finding::error("impossible-number", spanned.node, reason);
                let label = if outer_name == "request" { "`request`" } else { "`response`" };
                self.push(finding.hint(format!("lower it, or raise `{outer_name}`")).related(outer.node, label));
            }
        }
    }

    fn short_source(&self, short: &ShortUpstream) -> EndpointSource {
        match short {
            ShortUpstream::Address(address) => {
                EndpointSource::Static(vec![Endpoint { address: address.clone(), weight: 1, zone: None }])
            }
            ShortUpstream::Consul(short) => {
                EndpointSource::Consul(Box::new(ConsulSource { agents: self.consul.clone(), ..*short.0.clone() }))
            }
            ShortUpstream::Dns(target) => self.by_dns(target.clone()),
        }
    }

    fn long_source(&mut self, long: &'a raw::UpstreamLong, node: NodeId) -> EndpointSource {
        let written = [
            (long.endpoints.node(), "static"),
            (long.consul.node(), "consul"),
            (long.dns.node(), "dns"),
            (long.srv.node(), "srv"),
        ];
        let mut written = written.into_iter().filter_map(|(node, key)| Some((node?, key)));
        match (written.next(), written.next()) {
            (None, _) => {
                let hint = "write them as in `static: [\"127.0.0.1:8080\"]`, or name a service: `consul: payments`";
                self.missing(node, "this upstream has no endpoints", hint);
            }
            (Some((first, one)), Some((second, other))) => {
                let reason = format!("endpoints come from `{one}` or from `{other}`, not from both");
                let finding = Finding::error("contradiction", second, reason);
                self.push(finding.hint("remove one of them").related(first, "the other one"));
            }
            (Some(_), None) => {}
        }
        if let Some(list) = long.endpoints.spanned() {
            EndpointSource::Static(self.endpoints(&list.value, list.node))
        } else if let Some(form) = long.consul.spanned() {
            let agents = self.consul.clone();
            EndpointSource::Consul(Box::new(self.consul_source(&form.value, form.node, &agents)))
        } else if let Some(form) = long.dns.spanned() {
            EndpointSource::Dns(Box::new(self.dns_source(&form.value, form.node)))
        } else if let Some(name) = long.srv.get() {
            self.by_dns(DnsTarget::Service { name: name.0.clone() })
        } else {
            EndpointSource::Static(Vec::new())
        }
    }

    fn by_dns(&self, target: DnsTarget) -> EndpointSource {
        EndpointSource::Dns(Box::new(DnsSource { resolver: self.dns.clone(), target }))
    }

    fn endpoints(&mut self, list: &'a [Given<raw::Endpoint>], node: NodeId) -> Vec<Endpoint> {
        if list.is_empty() {
            self.error(
                "missing-value",
                node,
                "this upstream has no endpoints",
                "write them as in `[\"127.0.0.1:8080\"]`",
            );
        }
        let mut first: HashMap<EndpointAddress, NodeId> = HashMap::new();
        let mut endpoints = Vec::with_capacity(list.len());
        let mut readable = true;
        for given in list {
            let Some(spanned) = given.spanned() else {
                readable = false;
                continue;
            };
            let (address, weight, zone) = match &spanned.value {
                raw::Endpoint::Address(address) => (address, 1, None),
                raw::Endpoint::Long(long) => {
                    if long.address.is_absent() {
                        self.missing(
                            spanned.node,
                            "this endpoint has no `address`",
                            "write it as in `{ address: \"127.0.0.1:8080\", weight: 2 }`",
                        );
                    }
                    readable &= !matches!(long.weight, Given::Invalid(_));
                    let Some(address) = long.address.spanned() else {
                        readable = false;
                        continue;
                    };
                    (address, long.weight.get().map_or(1, |weight| weight.0), long.zone.get())
                }
            };
            if let Some(other) = first.insert(address.value.clone(), address.node) {
                let reason = format!("the endpoint {} is there twice", self.shown(address.node));
                let finding = Finding::error("duplicate-endpoint", address.node, reason);
                self.push(finding.hint("write it once, with a `weight`").related(other, "the same endpoint"));
                first.insert(address.value.clone(), other);
                continue;
            }
            endpoints.push(endpoint(address, weight, zone));
        }
        if readable && !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.weight == 0) {
            self.error(
                "impossible-number",
                node,
                "all weights are 0, so no request can be sent",
                "give at least one endpoint a weight of 1",
            );
        }
        endpoints
    }

    pub(super) fn upstream(
        &mut self,
        name: String,
        source: EndpointSource,
        long: Option<&raw::UpstreamLong>,
    ) -> Upstream {
        let ejection = self.ejection(long);
        let balancing = self.balancing(long, ejection.as_ref());
        let circuit_breaker = self.circuit_breaker(long);
        let health = self.health(long);
        let raw = self.raw;
        let defaults = raw.defaults.get();
        let deadline_header = long.and_then(|long| self.deadline_header(&long.timeouts));
        let (retries, retry_budget) =
            super::retries::merged(long.map(|long| &long.retries), defaults.map(|defaults| &defaults.retries), &source);
        let tls = long.and_then(|long| self.upstream_tls(&long.tls)).map(|tls| match &source {
            EndpointSource::Dns(dns) => named(tls, dns.target.domain()),
            _ => tls,
        });
        let protocol =
            long.and_then(|long| long.protocol.get()).or_else(|| defaults.and_then(|defaults| defaults.protocol.get()));
        Upstream {
            name,
            source,
            on_empty: on_empty(long.map(|long| &long.on_empty), defaults.map(|defaults| &defaults.on_empty)),
            protocol: match protocol {
                None | Some(raw::Protocol::Auto) => UpstreamProtocol::Auto,
                Some(raw::Protocol::Http1) => UpstreamProtocol::Http1,
                Some(raw::Protocol::Http2) => UpstreamProtocol::Http2,
            },
            timeouts: merged_timeouts(
                long.and_then(|long| long.timeouts.get()),
                defaults.and_then(|defaults| defaults.timeouts.get()),
            ),
            tls,
            limits: merged_limits(
                long.and_then(|long| long.limits.get()),
                defaults.and_then(|defaults| defaults.limits.get()),
            ),
            balancing,
            deadline_header: deadline_header.unwrap_or_else(|| self.default_deadline_header.clone()),
            retries,
            retry_budget,
            ejection,
            circuit_breaker,
            health,
        }
    }
}

/// Endpoints have to be whom DNS was asked for, unless it is written whom.
fn named(tls: UpstreamTls, domain: &str) -> UpstreamTls {
    UpstreamTls { server_name: tls.server_name.or_else(|| TlsName::parse(domain)), ..tls }
}

fn endpoint(address: &Spanned<EndpointAddress>, weight: u32, zone: Option<&Text>) -> Endpoint {
    Endpoint {
        address: address.value.clone(),
        weight: u16::try_from(weight).unwrap_or(u16::MAX),
        zone: zone.map(|zone| zone.0.clone()),
    }
}

/// An upstream's timeouts over the defaults over the built-in ones.
pub(super) fn merged_timeouts(own: Option<&raw::Timeouts>, defaults: Option<&raw::Timeouts>) -> Timeouts {
    let pick = |key: fn(&raw::Timeouts) -> &Given<OrNone<Period>>, otherwise: Option<Duration>| {
        own.into_iter()
            .chain(defaults)
            .find_map(|timeouts| key(timeouts).get())
            .map_or(otherwise, |period| period.0.map(|period| period.0))
    };
    let builtin = builtin::TIMEOUTS;
    Timeouts {
        connect: pick(|timeouts| &timeouts.connect, builtin.connect),
        response: pick(|timeouts| &timeouts.response, builtin.response),
        per_try: pick(|timeouts| &timeouts.per_try, builtin.per_try),
        idle: pick(|timeouts| &timeouts.idle, builtin.idle),
        response_written: own.into_iter().chain(defaults).any(|timeouts| timeouts.response.get().is_some()),
        idle_written: own.into_iter().chain(defaults).any(|timeouts| timeouts.idle.get().is_some()),
        request: pick(|timeouts| &timeouts.request, builtin.request),
        tunnel_idle: pick(|timeouts| &timeouts.tunnel_idle, builtin.tunnel_idle),
    }
}

fn merged_limits(own: Option<&raw::UpstreamLimits>, defaults: Option<&raw::UpstreamLimits>) -> UpstreamLimits {
    fn first<const LEAST: u32>(givens: [Option<&Given<Number<LEAST, 1_000_000>>>; 2], otherwise: u32) -> u32 {
        givens.into_iter().flatten().find_map(Given::get).map_or(otherwise, |number| number.0)
    }
    let builtin = builtin::UPSTREAM_LIMITS;
    UpstreamLimits {
        connections: first(
            [own.map(|own| &own.connections), defaults.map(|defaults| &defaults.connections)],
            builtin.connections,
        ),
        requests: first([own.map(|own| &own.requests), defaults.map(|defaults| &defaults.requests)], builtin.requests),
        waiting: first([own.map(|own| &own.waiting), defaults.map(|defaults| &defaults.waiting)], builtin.waiting),
        retries: first([own.map(|own| &own.retries), defaults.map(|defaults| &defaults.retries)], builtin.retries),
    }
}
