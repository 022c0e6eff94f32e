//! A configuration in its long form: every default written out, short forms too, variables as they are written.
//!
//! It is made from what the file says, not from the model: only so can `${VAR}` stay. What has no defaults inside is
//! copied as it stands.

mod consul;
mod discover;
mod dns;
mod json;
mod judging;
mod overload;
mod retries;
pub(crate) mod written;
mod yaml;

use std::borrow::Cow;

pub(crate) use json::as_json;
pub(crate) use yaml::quoted;
use yaml::{Entry, Yaml};

use self::retries::is_alone_beside_us;
use super::builtin;
use super::given::{Given, Named, Spanned};
use super::model::{AccessLogField, Direction, DnsTarget, Metrics};
use super::raw::listener::{Listener, ListenerLimits};
use super::raw::route::Route;
use super::raw::tls::{ListenerTls, UpstreamTls};
use super::raw::upstream::{Defaults, Endpoint, Timeouts, Upstream, UpstreamLimits};
use super::raw::{Configuration, MetricsForm, ProbationForm};
use super::scalar::{OrNone, Scalar};
use super::short_form::ShortUpstream;
use super::tree::{Kind, NodeId, Tree};
use super::units::{Name, Period, write_period, write_size};
use super::validate::{default_direction, route_names};
use crate::runtime::pace::breathe;

/// The long form as YAML.
pub(crate) fn write(raw: &Configuration, metrics: &Metrics, tree: &Tree) -> String {
    let mut out = String::new();
    Long { tree, metrics }.configuration(raw).write(0, &mut out);
    out
}

fn text(text: impl Into<Cow<'static, str>>) -> Yaml {
    Yaml::Text(text.into())
}

fn map(entries: impl IntoIterator<Item = (&'static str, Yaml)>) -> Yaml {
    Yaml::Map(entries.into_iter().map(|(key, value)| (Cow::Borrowed(key), value)).collect())
}

fn period(period: Option<std::time::Duration>) -> String {
    period.map_or_else(|| "none".to_owned(), write_period)
}

struct Long<'a> {
    tree: &'a Tree,
    metrics: &'a Metrics,
}

impl Long<'_> {
    fn configuration(&self, raw: &Configuration) -> Yaml {
        let mut entries = vec![("version", text("1"))];
        self.optional(&mut entries, "service", &raw.service);
        entries.push(("zone", self.said(&raw.zone, "none")));
        entries.push(("workers", self.said(&raw.workers, "auto")));
        entries.push(("admin", self.admin(raw)));
        entries.push(("metrics", self.metrics(raw)));
        if raw.consul.node().is_some() {
            entries.push(("consul", self.consul(raw)));
        }
        if let Some(register) = raw.register.get() {
            entries.push(("register", self.register(raw, register)));
        }
        entries.push(("dns", self.dns(raw)));
        let wait = write_period(builtin::WAIT_FOR_DISCOVERY);
        entries.push(("wait_for_discovery", self.said(&raw.wait_for_discovery, wait)));
        let drain = raw.drain.get();
        entries.push((
            "drain",
            map([
                ("delay", self.of(drain.map(|drain| &drain.delay), write_period(builtin::DRAIN.delay))),
                ("timeout", self.of(drain.map(|drain| &drain.timeout), write_period(builtin::DRAIN.timeout))),
            ]),
        ));
        if let Some(ProbationForm::On(probation)) = raw.probation.get() {
            let builtin = builtin::PROBATION;
            let said = [
                ("for", self.said(&probation.lasts, write_period(builtin.lasts))),
                ("max_error_ratio", self.said(&probation.max_error_ratio, builtin.max_error_ratio.to_string())),
                ("min_requests", self.said(&probation.min_requests, builtin.min_requests.to_string())),
            ];
            entries.push(("probation", map(said)));
        }
        entries.push(("telemetry", self.telemetry(raw)));
        let listeners = named(&raw.listeners).iter().map(|(name, listener)| {
            let long = listener.get().map_or(Yaml::Map(Vec::new()), |listener| self.listener(&name.value, listener));
            (Cow::Owned(name.value.clone()), long)
        });
        entries.push(("listeners", Yaml::Map(listeners.collect())));
        entries.push(("defaults", self.defaults(raw.defaults.get())));
        let upstreams = named(&raw.upstreams)
            .iter()
            .map(|(name, upstream)| (Cow::Owned(name.value.clone()), self.upstream(upstream, raw.defaults.get())));
        entries.push(("upstreams", Yaml::Map(upstreams.collect())));
        map(entries)
    }

    fn admin(&self, raw: &Configuration) -> Yaml {
        let admin = raw.admin.get();
        let mut entries =
            vec![("address", self.of(admin.map(|admin| &admin.address), builtin::ADMIN_ADDRESS.to_string()))];
        if let Some(admin) = admin {
            self.optional(&mut entries, "token_file", &admin.token_file);
            self.optional(&mut entries, "socket", &admin.socket);
        }
        map(entries)
    }

    fn metrics(&self, raw: &Configuration) -> Yaml {
        // The command line may say what the file does not.
        let told = self.metrics.address.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        let (address, written) = match &raw.metrics {
            Given::Value(spanned) => match &spanned.value {
                MetricsForm::Address(_) => (self.copy(spanned.node), None),
                MetricsForm::Long(long) => (self.said(&long.address, told), Some(long)),
            },
            other => (self.said(other, told), None),
        };
        let buckets = written.and_then(|long| long.buckets.node()).map(|node| self.copy(node)).unwrap_or_else(|| {
            let bounds = self.metrics.buckets.bounds().iter();
            Yaml::List(bounds.map(|bound| text(bound.as_secs_f64().to_string())).collect())
        });
        let mut entries = vec![("address", address), ("buckets", buckets)];
        if !self.metrics.probes.is_empty() {
            let written = written.map(|long| named(&long.probes)).unwrap_or_default();
            let probes = self.metrics.probes.iter().map(|(name, target)| {
                let given = written.iter().find(|(known, _)| known.value == *name);
                (name.clone().into(), given.map_or_else(|| text(target.to_string()), |(_, given)| self.said(given, "")))
            });
            entries.push(("probes", Yaml::Map(probes.collect())));
        }
        // Its defaults are the environment's to say.
        if let Some(long) = written {
            self.optional(&mut entries, "otlp", &long.otlp);
        }
        map(entries)
    }

    fn telemetry(&self, raw: &Configuration) -> Yaml {
        let telemetry = raw.telemetry.get();
        let log = telemetry.and_then(|telemetry| telemetry.log.get());
        let access = telemetry.and_then(|telemetry| telemetry.access_log.get());
        let fields = match access.and_then(|access| access.fields.node()) {
            Some(node) => self.copy(node),
            None => Yaml::List(AccessLogField::ALL.iter().map(|field| text(field.as_str())).collect()),
        };
        let headers = match access.and_then(|access| access.headers.node()) {
            Some(node) => self.copy(node),
            None => Yaml::List(Vec::new()),
        };
        let mut entries = vec![
            (
                "log",
                map([
                    ("level", self.of(log.map(|log| &log.level), "info")),
                    ("format", self.of(log.map(|log| &log.format), "json")),
                ]),
            ),
            (
                "access_log",
                map([
                    ("path", self.of(access.map(|access| &access.path), "stdout")),
                    ("format", self.of(access.map(|access| &access.format), "json")),
                    ("only", self.of(access.map(|access| &access.only), "errors")),
                    ("sample", self.of(access.map(|access| &access.sample), "1")),
                    ("fields", fields),
                    ("headers", headers),
                    ("queries", self.of(access.map(|access| &access.queries), "false")),
                ]),
            ),
        ];
        // Its defaults are the environment's to say.
        if let Some(telemetry) = telemetry {
            self.optional(&mut entries, "traces", &telemetry.traces);
        }
        map(entries)
    }

    fn listener(&self, name: &str, listener: &Listener) -> Yaml {
        let direction = match default_direction(name) {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        let trust = match listener.trust.node() {
            Some(node) => self.copy(node),
            None => map([("hops", text("0"))]),
        };
        let routes = match &listener.routes {
            Given::Value(routes) => {
                let names = route_names(&routes.value, self.tree);
                routes.value.iter().zip(names).map(|(route, name)| self.route(route, &name)).collect()
            }
            _ => vec![self.only_route(listener)],
        };
        let mut entries = vec![
            ("address", self.said(&listener.address, "none")),
            ("direction", self.said(&listener.direction, direction)),
            ("mode", self.said(&listener.mode, "http")),
            ("edge", self.said(&listener.edge, "false")),
            ("trust", trust),
        ];
        if let Some(tls) = listener.tls.get() {
            entries.push(("tls", self.listener_tls(tls)));
        }
        self.optional(&mut entries, "allow", &listener.allow);
        entries.extend([
            ("limits", self.listener_limits(listener.limits.get())),
            ("no_route", self.said(&listener.no_route, "404")),
        ]);
        self.overload(&mut entries, &listener.rate_limit, &listener.concurrency);
        entries.push(("routes", Yaml::List(routes)));
        map(entries)
    }

    /// `whom` endpoints have to be where no `server_name` is written.
    fn upstream_tls(&self, tls: &UpstreamTls, whom: &str) -> Yaml {
        let mut entries = Vec::new();
        self.optional(&mut entries, "ca_file", &tls.ca_file);
        let name = tls.server_name.node().map(|node| self.copy(node));
        entries.push(("server_name", name.unwrap_or_else(|| Yaml::Comment(whom.to_owned()))));
        self.optional(&mut entries, "cert_file", &tls.cert_file);
        self.optional(&mut entries, "key_file", &tls.key_file);
        self.optional(&mut entries, "allow", &tls.allow);
        map(entries)
    }

    fn listener_tls(&self, tls: &ListenerTls) -> Yaml {
        let mut entries = Vec::new();
        self.optional(&mut entries, "cert_file", &tls.cert_file);
        self.optional(&mut entries, "key_file", &tls.key_file);
        self.optional(&mut entries, "certificates", &tls.certificates);
        self.optional(&mut entries, "client_ca_file", &tls.client_ca_file);
        if !tls.client_ca_file.is_absent() {
            entries.push(("client", self.said(&tls.client, "require")));
        }
        entries.push(("forward_client_cert", self.said(&tls.forward_client_cert, "false")));
        entries.push(("plaintext", self.said(&tls.plaintext, "refuse")));
        entries.push(("min_version", self.said(&tls.min_version, "1.2").quoted()));
        map(entries)
    }

    fn only_route(&self, listener: &Listener) -> Yaml {
        let mut entries = Vec::new();
        self.name(&mut entries, listener.upstream.node().map_or("", |node| self.tree.written(node)));
        self.optional(&mut entries, "upstream", &listener.upstream);
        map(entries)
    }

    /// The name of a route. One that is an address follows from the upstream again.
    fn name(&self, entries: &mut Vec<(&'static str, Yaml)>, name: &str) {
        if Name::parse(name).is_ok() {
            entries.push(("name", text(name.to_owned())));
        }
    }

    fn listener_limits(&self, limits: Option<&ListenerLimits>) -> Yaml {
        let builtin = builtin::LISTENER_LIMITS;
        map([
            ("connections", self.of(limits.map(|limits| &limits.connections), builtin.connections.to_string())),
            (
                "header_bytes",
                self.of(limits.map(|limits| &limits.header_bytes), write_size(builtin.header_bytes as u64)),
            ),
            (
                "header_timeout",
                self.of(limits.map(|limits| &limits.header_timeout), write_period(builtin.header_timeout)),
            ),
            ("idle", self.of(limits.map(|limits| &limits.idle), write_period(builtin.idle))),
            ("streams", self.of(limits.map(|limits| &limits.streams), builtin.streams.to_string())),
            ("body_bytes", self.of(limits.map(|limits| &limits.body_bytes), "none")),
            ("detect", self.of(limits.map(|limits| &limits.detect), write_period(builtin.detect))),
        ])
    }

    fn route(&self, given: &Given<Route>, name: &str) -> Yaml {
        let Some(route) = given.get() else { return self.said(given, "none") };
        let mut entries = Vec::new();
        self.name(&mut entries, name);
        self.optional(&mut entries, "match", &route.matcher);
        self.optional(&mut entries, "upstream", &route.upstream);
        entries.extend(route.discover.spanned().map(|discover| ("discover", self.discover(discover))));
        self.optional(&mut entries, "split", &route.split);
        if let Some(node) = route.redirect.node() {
            let mut redirect = self.copied(node);
            default(&mut redirect, "status", builtin::REDIRECT_STATUS.as_str());
            entries.push(("redirect", Yaml::Map(redirect)));
        }
        if let Some(node) = route.respond.node() {
            let mut respond = self.copied(node);
            default(&mut respond, "status", builtin::RESPOND_STATUS.to_string());
            default(&mut respond, "body", "");
            default(&mut respond, "content_type", builtin::RESPOND_CONTENT_TYPE);
            entries.push(("respond", Yaml::Map(respond)));
        }
        self.optional(&mut entries, "allow", &route.allow);
        self.optional(&mut entries, "rewrite", &route.rewrite);
        self.optional(&mut entries, "request_headers", &route.request_headers);
        self.optional(&mut entries, "response_headers", &route.response_headers);
        self.optional(&mut entries, "timeouts", &route.timeouts);
        self.optional(&mut entries, "retries", &route.retries);
        self.overload(&mut entries, &route.rate_limit, &route.concurrency);
        self.chaos(&mut entries, route);
        map(entries)
    }

    fn defaults(&self, defaults: Option<&Defaults>) -> Yaml {
        map([
            ("protocol", self.of(defaults.map(|defaults| &defaults.protocol), "auto")),
            ("load_balancer", self.of(defaults.map(|defaults| &defaults.load_balancer), "round_robin")),
            ("slow_start", self.slow_start([None, defaults.map(|defaults| &defaults.slow_start)])),
            ("prefer_zone", self.of(defaults.map(|defaults| &defaults.prefer_zone), "false")),
            ("ejection", self.ejection([None, defaults.map(|defaults| &defaults.ejection)])),
            ("circuit_breaker", self.circuit_breaker([None, defaults.map(|defaults| &defaults.circuit_breaker)])),
            ("health", self.health([None, defaults.map(|defaults| &defaults.health)])),
            ("timeouts", self.timeouts(None, defaults.and_then(|defaults| defaults.timeouts.get()))),
            ("limits", self.limits(None, defaults.and_then(|defaults| defaults.limits.get()))),
            ("on_empty", self.on_empty(None, defaults.map(|defaults| &defaults.on_empty))),
            ("retries", self.retries(None, defaults.and_then(|defaults| defaults.retries.get()), false)),
        ])
    }

    fn upstream(&self, given: &Given<Upstream>, defaults: Option<&Defaults>) -> Yaml {
        let endpoint = |address: Yaml, weight: Yaml, zone: Option<Yaml>| {
            map([("address", address), ("weight", weight)].into_iter().chain(zone.map(|zone| ("zone", zone))))
        };
        let endpoints = |list: &[Given<Endpoint>]| {
            let long = list.iter().map(|given| match given.get() {
                Some(Endpoint::Long(long)) => endpoint(
                    self.said(&long.address, "none"),
                    self.said(&long.weight, "1"),
                    long.zone.node().map(|node| self.copy(node)),
                ),
                _ => endpoint(self.said(given, "none"), text("1"), None),
            });
            Yaml::List(long.collect())
        };
        let (source, long) = match given.get() {
            Some(Upstream::Endpoints(list)) => (("static", endpoints(list)), None),
            Some(Upstream::Long(long)) if long.consul.node().is_some() => {
                (("consul", self.consul_source(&long.consul)), Some(&**long))
            }
            Some(Upstream::Long(long)) if long.dns.node().is_some() => {
                (("dns", self.dns_source(&long.dns)), Some(&**long))
            }
            Some(Upstream::Long(long)) if long.srv.node().is_some() => {
                (("srv", self.said(&long.srv, "none")), Some(&**long))
            }
            Some(Upstream::Long(long)) => {
                let list = long.endpoints.get().map_or(Yaml::List(Vec::new()), |list| endpoints(list));
                (("static", list), Some(&**long))
            }
            Some(Upstream::Short(Spanned { value: ShortUpstream::Consul(_), .. })) => {
                (("consul", self.said(given, "none")), None)
            }
            Some(Upstream::Short(Spanned { value: ShortUpstream::Dns(target), .. })) => {
                let key = if matches!(target, DnsTarget::Address { .. }) { "dns" } else { "srv" };
                ((key, self.said(given, "none")), None)
            }
            Some(Upstream::Short(_)) | None => {
                (("static", Yaml::List(vec![endpoint(self.said(given, "none"), text("1"), None)])), None)
            }
        };
        let source_name = source.0;
        let on_empty = self.on_empty(long.map(|long| &long.on_empty), defaults.map(|defaults| &defaults.on_empty));
        let mut entries = vec![
            source,
            (
                "protocol",
                self.first(long.map(|long| &long.protocol), defaults.map(|defaults| &defaults.protocol), "auto"),
            ),
            (
                "load_balancer",
                self.first(
                    long.map(|long| &long.load_balancer),
                    defaults.map(|defaults| &defaults.load_balancer),
                    "round_robin",
                ),
            ),
            (
                "slow_start",
                self.slow_start([long.map(|long| &long.slow_start), defaults.map(|defaults| &defaults.slow_start)]),
            ),
            (
                "prefer_zone",
                self.first(long.map(|long| &long.prefer_zone), defaults.map(|defaults| &defaults.prefer_zone), "false"),
            ),
            ("ejection", self.ejection([long.map(|long| &long.ejection), defaults.map(|defaults| &defaults.ejection)])),
            (
                "circuit_breaker",
                self.circuit_breaker([
                    long.map(|long| &long.circuit_breaker),
                    defaults.map(|defaults| &defaults.circuit_breaker),
                ]),
            ),
            ("health", self.health([long.map(|long| &long.health), defaults.map(|defaults| &defaults.health)])),
            (
                "timeouts",
                self.timeouts(
                    long.and_then(|long| long.timeouts.get()),
                    defaults.and_then(|defaults| defaults.timeouts.get()),
                ),
            ),
            (
                "limits",
                self.limits(
                    long.and_then(|long| long.limits.get()),
                    defaults.and_then(|defaults| defaults.limits.get()),
                ),
            ),
            (
                "retries",
                self.retries(
                    long.and_then(|long| long.retries.get()),
                    defaults.and_then(|defaults| defaults.retries.get()),
                    is_alone_beside_us(given.get()),
                ),
            ),
        ];
        if source_name != "static" {
            entries.push(("on_empty", on_empty));
        }
        if let Some(tls) = long.and_then(|long| long.tls.get()) {
            let whom = match source_name {
                "dns" | "srv" => "the domain that DNS is asked for",
                _ => "the endpoint's IP address",
            };
            entries.push(("tls", self.upstream_tls(tls, whom)));
        }
        map(entries)
    }

    fn timeouts(&self, own: Option<&Timeouts>, defaults: Option<&Timeouts>) -> Yaml {
        let first = |key: fn(&Timeouts) -> &Given<OrNone<Period>>| {
            own.into_iter().chain(defaults).find_map(|timeouts| key(timeouts).node()).map(|node| self.copy(node))
        };
        let builtin = builtin::TIMEOUTS;
        map([
            ("connect", first(|timeouts| &timeouts.connect).unwrap_or(text(period(builtin.connect)))),
            // Written, it would hold for gRPC too.
            (
                "response",
                first(|timeouts| &timeouts.response)
                    .unwrap_or(Yaml::Comment(format!("{}, and none for gRPC", period(builtin.response)))),
            ),
            ("per_try", first(|timeouts| &timeouts.per_try).unwrap_or(text(period(builtin.per_try)))),
            // Written, it would hold for gRPC and event streams too.
            (
                "idle",
                first(|timeouts| &timeouts.idle)
                    .unwrap_or(Yaml::Comment(format!("{}, and 5m for gRPC and event streams", period(builtin.idle)))),
            ),
            ("request", first(|timeouts| &timeouts.request).unwrap_or(text(period(builtin.request)))),
            ("tunnel_idle", first(|timeouts| &timeouts.tunnel_idle).unwrap_or(text(period(builtin.tunnel_idle)))),
            ("deadline_header", {
                let node = own.into_iter().chain(defaults).find_map(|timeouts| timeouts.deadline_header.node());
                node.map_or(text("none"), |node| self.copy(node))
            }),
        ])
    }

    fn limits(&self, own: Option<&UpstreamLimits>, defaults: Option<&UpstreamLimits>) -> Yaml {
        let both = || own.into_iter().chain(defaults);
        let one = |node: Option<NodeId>, otherwise: u32| {
            node.map_or_else(|| text(otherwise.to_string()), |node| self.copy(node))
        };
        let builtin = builtin::UPSTREAM_LIMITS;
        map([
            ("connections", one(both().find_map(|limits| limits.connections.node()), builtin.connections)),
            ("requests", one(both().find_map(|limits| limits.requests.node()), builtin.requests)),
            ("waiting", one(both().find_map(|limits| limits.waiting.node()), builtin.waiting)),
            ("retries", one(both().find_map(|limits| limits.retries.node()), builtin.retries)),
        ])
    }

    /// What is written for a key, or what holds without it.
    fn said<T>(&self, given: &Given<T>, otherwise: impl Into<Cow<'static, str>>) -> Yaml {
        self.of(Some(given), otherwise)
    }

    /// What the upstream says, or the defaults, or what holds without either.
    fn first<T>(&self, own: Option<&Given<T>>, defaults: Option<&Given<T>>, otherwise: &'static str) -> Yaml {
        self.of(own.filter(|own| !own.is_absent()).or(defaults), otherwise)
    }

    fn of<T>(&self, given: Option<&Given<T>>, otherwise: impl Into<Cow<'static, str>>) -> Yaml {
        given.and_then(Given::node).map_or_else(|| text(otherwise), |node| self.copy(node))
    }

    fn optional<T>(&self, entries: &mut Vec<(&'static str, Yaml)>, key: &'static str, given: &Given<T>) {
        if let Some(node) = given.node() {
            entries.push((key, self.copy(node)));
        }
    }

    /// A node as it is written, aliases and merges written out. As deep as the tree at most.
    fn copy(&self, node: NodeId) -> Yaml {
        breathe();
        match &self.tree.node(node).kind {
            Kind::Scalar(scalar) => text(scalar.written.clone()),
            Kind::Sequence(items) => Yaml::List(items.iter().map(|item| self.copy(*item)).collect()),
            Kind::Mapping(_) => Yaml::Map(self.copied(node)),
        }
    }

    fn copied(&self, node: NodeId) -> Vec<Entry> {
        let Kind::Mapping(entries) = &self.tree.node(node).kind else { return Vec::new() };
        entries.iter().map(|(key, value)| (Cow::Owned(self.tree.written(*key).to_owned()), self.copy(*value))).collect()
    }
}

fn default(entries: &mut Vec<Entry>, key: &'static str, value: impl Into<Cow<'static, str>>) {
    if !entries.iter().any(|(known, _)| known == key) {
        entries.push((Cow::Borrowed(key), text(value)));
    }
}

fn named<T>(given: &Given<Named<T>>) -> &[(super::given::Spanned<String>, Given<T>)] {
    given.get().map_or(&[], |named| &named.0)
}
