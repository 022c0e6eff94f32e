//! `listeners:`

use super::Validator;
use crate::config::builtin;
use crate::config::findings::Finding;
use crate::config::given::{Given, Spanned};
use crate::config::model::{
    Action, BindAddress, Direction, EndpointSource, HeaderRules, Listener, ListenerLimits, Match, Mode, RetryOverrides,
    Rewrite, Route, TimeoutOverrides, Trust,
};
use crate::config::raw::listener as raw;
use crate::config::scalar::OrNone;
use crate::config::text::quote;
use crate::config::tree::NodeId;
use crate::config::units::Size;

/// Bounds of `header_bytes`. Less refuses ordinary browsers; more is memory that any client can take.
const HEADER_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 20;

impl<'a> Validator<'a> {
    pub(super) fn listeners(&mut self) -> Vec<Listener> {
        let raw = self.raw;
        let Some(named) = raw.listeners.spanned() else {
            if raw.listeners.is_absent() {
                let reason = "there are no `listeners`";
                self.missing(
                    self.tree.root(),
                    reason,
                    "write one, as in `listeners: { inbound: { address: \":15006\", upstream: \"127.0.0.1:8080\" } }`",
                );
            }
            return Vec::new();
        };
        if named.value.0.is_empty() {
            self.error(
                "missing-value",
                named.node,
                "there are no `listeners`",
                "write one, as in `inbound: { address: \":15006\", upstream: \"127.0.0.1:8080\" }`",
            );
        }
        let mut listeners = Vec::with_capacity(named.value.0.len());
        for (name, listener) in &named.value.0 {
            self.check_name(name);
            if let Some(listener) = listener.spanned() {
                let listener = self.listener(name, listener);
                listeners.push(listener);
            }
        }
        listeners
    }

    fn listener(&mut self, name: &'a Spanned<String>, spanned: &'a Spanned<raw::Listener>) -> Listener {
        let (node, listener) = (spanned.node, &spanned.value);
        // A key that is unknown may be the one that leads to an upstream.
        self.unresolved |= self.findings.is_incomplete(node);
        let address = match &listener.address {
            Given::Value(address) => {
                self.claim(&address.value, address.node, &format!("the listener {}", quote(&name.value)));
                address.value.clone()
            }
            Given::Absent => {
                self.missing(
                    node,
                    format!("the listener {} has no `address`", quote(&name.value)),
                    "write one, such as `\":15006\"` or `127.0.0.1:15001`",
                );
                BindAddress::AllInterfaces(0)
            }
            Given::Invalid(_) => BindAddress::AllInterfaces(0),
        };
        let routes = match (&listener.upstream, &listener.routes) {
            (Given::Absent, Given::Absent) => {
                self.missing(
                    node,
                    format!("the listener {} leads nowhere", quote(&name.value)),
                    "write `upstream: \"127.0.0.1:8080\"`, or `routes`",
                );
                Vec::new()
            }
            (Given::Absent, Given::Value(routes)) => self.routes(&name.value, &routes.value, routes.node, listener),
            (Given::Value(upstream), Given::Absent) => {
                self.only_route(&upstream.value.0, upstream.node).into_iter().collect()
            }
            (upstream, routes) if !upstream.is_absent() && !routes.is_absent() => {
                let at = upstream.node().unwrap_or(node);
                let finding = Finding::error("conflict", at, "a listener has `upstream` or `routes`, not both");
                self.push(finding.hint("make it the last route: `- upstream: …`"));
                if let Given::Value(upstream) = upstream {
                    self.resolve(&upstream.value.0, upstream.node);
                }
                routes
                    .spanned()
                    .map_or_else(Vec::new, |routes| self.routes(&name.value, &routes.value, routes.node, listener))
            }
            _ => Vec::new(),
        };
        let mode = match listener.mode.get() {
            None | Some(raw::Mode::Http) => Mode::Http,
            Some(raw::Mode::Tcp) => Mode::Tcp,
            Some(raw::Mode::Transparent) => Mode::Transparent,
        };
        if mode == Mode::Tcp {
            self.only_bytes(listener);
        }
        let mut routes = routes;
        let passthrough = matches!(listener.no_route.get(), Some(raw::NoRoute::Passthrough));
        if passthrough {
            routes.push(self.passthrough());
            if let Some(tls) = listener.tls.node() {
                let reason = "`no_route: passthrough` passes on unread what is no HTTP, TLS too, whoever sends it";
                self.error("contradiction", tls, reason, "write `no_route: 404`, or leave `tls` to the app");
            }
        }
        if mode != Mode::Transparent && !matches!(listener.mode, Given::Invalid(_)) {
            self.only_transparent(listener, node, &routes);
        }
        let direction = match listener.direction.get() {
            Some(raw::Direction::Inbound) => Direction::Inbound,
            Some(raw::Direction::Outbound) => Direction::Outbound,
            None => default_direction(&name.value),
        };
        if passthrough {
            self.no_fences(listener, direction);
        }
        Listener {
            name: name.value.clone(),
            address,
            mode,
            passthrough,
            direction,
            edge: listener.edge.get().is_some_and(|edge| edge.0),
            trust: self.trust(&listener.trust),
            tls: self.listener_tls(&listener.tls, mode),
            allow: self.callers(&listener.allow, listener),
            limits: self.listener_limits(&listener.limits),
            rate_limit: self.rate_limit(&listener.rate_limit),
            concurrency: self.concurrency(&listener.concurrency),
            routes,
        }
    }

    /// The last route of a listener that lets through what no other takes.
    fn passthrough(&mut self) -> Route {
        Route {
            name: "passthrough".to_owned(),
            matcher: Match::default(),
            allow: Vec::new(),
            action: Action::Upstream(self.original(self.tree.root())),
            rewrite: Rewrite::default(),
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
            timeouts: TimeoutOverrides::default(),
            deadline_header: None,
            retries: RetryOverrides::default(),
            rate_limit: None,
            concurrency: None,
            mirror: None,
            fault: None,
        }
    }

    /// Refuses what asks where a connection was going to, in a listener that cannot know.
    fn only_transparent(&mut self, listener: &raw::Listener, node: NodeId, routes: &[Route]) {
        let goes_on = |route: &Route| match &route.action {
            Action::Upstream(upstream) => self.upstreams[upstream.0].source == EndpointSource::Original,
            _ => false,
        };
        let what = if routes.iter().any(|route| !route.matcher.ports.is_empty()) {
            "a match on `port`"
        } else if matches!(listener.no_route.get(), Some(raw::NoRoute::Passthrough)) {
            "`no_route: passthrough`"
        } else if routes.iter().any(goes_on) {
            "`upstream: original`"
        } else {
            return;
        };
        let reason = format!("{what} needs `mode: transparent`: only then is known where a connection was going to");
        self.error("contradiction", node, reason, "write `mode: transparent`, and redirect connections here");
    }

    /// Warns of what is meant to hold for strangers, where they can go past it.
    fn no_fences(&mut self, listener: &raw::Listener, direction: Direction) {
        let edge = listener.edge.spanned().filter(|edge| edge.value.0).map(|edge| ("edge", edge.node));
        let routes = listener.routes.get().into_iter().flatten().filter_map(Given::get);
        let limits = [&listener.rate_limit].into_iter().chain(routes.map(|route| &route.rate_limit));
        let limits = limits.filter_map(Given::node).filter(|_| direction == Direction::Inbound);
        for (what, node) in edge.into_iter().chain(limits.map(|node| ("rate_limit", node))) {
            let reason = format!(
                "`{what}` does not hold for clients that are silent at first: `no_route: passthrough` lets them through"
            );
            self.push(Finding::warning("bypass", node, reason).hint("where strangers connect, write `no_route: 404`"));
        }
    }

    fn only_route(&mut self, text: &str, node: NodeId) -> Option<Route> {
        let upstream = self.resolve(text, node)?;
        Some(Route {
            name: self.tree.written(node).to_owned(),
            matcher: Match::default(),
            allow: Vec::new(),
            action: Action::Upstream(upstream),
            rewrite: Rewrite::default(),
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
            timeouts: TimeoutOverrides::default(),
            deadline_header: None,
            retries: RetryOverrides::default(),
            rate_limit: None,
            concurrency: None,
            mirror: None,
            fault: None,
        })
    }

    fn trust(&mut self, given: &Given<raw::Trust>) -> Trust {
        let nobody = Trust::Hops(0);
        let Some(spanned) = given.spanned() else { return nobody };
        match (&spanned.value.hops, &spanned.value.cidr) {
            (Given::Absent, Given::Absent) => {
                self.missing(
                    spanned.node,
                    "`trust` needs `hops` or `cidr`",
                    "write `{ hops: 1 }` or `{ cidr: [\"10.0.0.0/8\"] }`",
                );
                nobody
            }
            (Given::Value(hops), Given::Absent) => Trust::Hops(u8::try_from(hops.value.0).unwrap_or(u8::MAX)),
            (Given::Absent, Given::Value(networks)) => {
                Trust::Networks(networks.value.iter().map(|network| network.value.0).collect())
            }
            (hops, cidr) if !hops.is_absent() && !cidr.is_absent() => {
                self.error("conflict", spanned.node, "`trust` takes `hops` or `cidr`, not both", "remove one of them");
                nobody
            }
            _ => nobody,
        }
    }

    fn listener_limits(&mut self, given: &Given<raw::ListenerLimits>) -> ListenerLimits {
        let builtin = builtin::LISTENER_LIMITS;
        let Some(limits) = given.get() else { return builtin };
        let header_bytes = match limits.header_bytes.spanned() {
            None => builtin.header_bytes,
            Some(size) if HEADER_BYTES.contains(&size.value.0) => {
                usize::try_from(size.value.0).unwrap_or(builtin.header_bytes)
            }
            Some(size) => {
                let reason = format!("{} is out of range", self.shown(size.node));
                self.error("invalid-value", size.node, reason, "`header_bytes` can be `1KiB` to `1MiB`");
                builtin.header_bytes
            }
        };
        for (name, period) in [("header_timeout", &limits.header_timeout), ("idle", &limits.idle)] {
            if let Some(spanned) = period.spanned()
                && spanned.value.0.is_zero()
            {
                self.error(
                    "invalid-value",
                    spanned.node,
                    format!("`{name}` is 0, so every connection would be closed at once"),
                    "",
                );
            }
        }
        ListenerLimits {
            connections: limits.connections.get().map_or(builtin.connections, |number| number.0),
            header_bytes,
            header_timeout: limits.header_timeout.get().map_or(builtin.header_timeout, |period| period.0),
            idle: limits.idle.get().map_or(builtin.idle, |period| period.0),
            streams: limits.streams.get().map_or(builtin.streams, |number| number.0),
            body_bytes: match limits.body_bytes.get() {
                Some(OrNone(Some(Size(bytes)))) => Some(*bytes),
                _ => builtin.body_bytes,
            },
            detect: limits.detect.get().map_or(builtin.detect, |period| period.0),
        }
    }
}

/// The direction of a listener that does not say it.
pub(crate) fn default_direction(name: &str) -> Direction {
    if name.starts_with("outbound") { Direction::Outbound } else { Direction::Inbound }
}
