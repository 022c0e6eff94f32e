//! `discover:`, and where it would make an open relay.

use std::time::Duration;

use super::Validator;
use crate::config::builtin;
use crate::config::findings::Finding;
use crate::config::given::{Given, Spanned};
use crate::config::model::{BindAddress, DiscoverFrom, EndpointSource, NamePattern, OnDemand, UpstreamIndex};
use crate::config::raw::discover::{Discover, DiscoverLong, From};
use crate::config::raw::listener::{Listener, Mode};
use crate::config::raw::route::OneOrMany;
use crate::config::tree::NodeId;

/// What is forgotten sooner would be looked up again all the time.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);

impl<'a> Validator<'a> {
    /// The upstream that stands for all services of this route. `name` is the route's, its listener's before it.
    pub(super) fn discover(
        &mut self,
        given: &'a Spanned<Discover>,
        name: String,
        listener: &Listener,
    ) -> UpstreamIndex {
        let (none, node) = (DiscoverLong::default(), given.node);
        let (from, long) = match &given.value {
            Discover::From(from) => (Some(from.value), &none),
            Discover::Long(long) => {
                if long.from.is_absent() {
                    self.missing(
                        node,
                        "this does not say who knows the services",
                        "write `from: consul` or `from: dns`",
                    );
                }
                (long.from.get().copied(), long)
            }
        };
        let port = long.port.get().and_then(|port| u16::try_from(port.0).ok());
        if let (Some(From::Consul), Some(node)) = (from, long.port.node()) {
            self.error("contradiction", node, "Consul knows the ports of its services", "remove `port`");
        }
        if let Some(idle) = long.idle.spanned()
            && idle.value.0 < SHORTEST_IDLE
        {
            let reason = format!("{} is too short to remember anything", self.shown(idle.node));
            self.error("impossible-number", idle.node, reason, "write at least `1s`");
        }
        let source = OnDemand {
            from: match from {
                None | Some(From::Consul) => DiscoverFrom::Consul(self.consul.clone()),
                Some(From::Dns) => DiscoverFrom::Dns { resolver: self.dns.clone(), port },
            },
            allow: self.patterns(&long.allow),
            deny: self.patterns(&long.deny),
            max: long.max.get().map_or(builtin::DISCOVER_MAX, |max| max.0 as usize),
            idle: long.idle.get().map_or(builtin::DISCOVER_IDLE, |idle| idle.0),
        };
        if long.allow.is_absent() {
            self.no_open_relay(listener, node);
        }
        let index = UpstreamIndex(self.upstreams.len());
        let upstream = self.upstream(name, EndpointSource::OnDemand(Box::new(source)), None);
        self.upstreams.push(upstream);
        self.places.push(node);
        index
    }

    fn patterns(&mut self, given: &Given<OneOrMany<NamePattern>>) -> Vec<NamePattern> {
        if let Some(Spanned { node, value: OneOrMany::Many(list) }) = given.spanned()
            && list.is_empty()
        {
            self.error(
                "missing-value",
                *node,
                "there is no name here",
                "write one, such as `orders-*`, or remove the key",
            );
        }
        given.get().into_iter().flat_map(OneOrMany::iter).map(|pattern| pattern.value.clone()).collect()
    }

    /// Whoever can call would reach whatever the registry knows.
    fn no_open_relay(&mut self, listener: &Listener, node: NodeId) {
        let local = listener.address.get().is_none_or(BindAddress::is_local);
        let (who, or) = match (local, listener.mode.get()) {
            (_, Some(Mode::Transparent)) => ("captured connections", ""),
            (false, _) => ("others than this machine", ", or listen on 127.0.0.1"),
            (true, _) => return,
        };
        let reason = format!("without `allow`, {who} would reach whatever the registry knows");
        let hint = format!("name the services, as in `allow: [\"orders-*\"]`{or}");
        self.push(Finding::error("open-relay", node, reason).hint(hint));
    }
}
