//! Addresses that two sockets cannot both have.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::Validator;
use crate::config::findings::Finding;
use crate::config::model::{BindAddress, EndpointAddress, EndpointSource};
use crate::config::tree::NodeId;

/// What is taken. Each claim asks for a fixed number of entries, however many there are.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    taken: HashMap<Place, NodeId>,
    names: HashMap<NodeId, String>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Place {
    /// Both families, all interfaces.
    All(u16),
    /// Some socket with this port.
    Any(u16),
    /// Some socket of this family with this port; true for IPv6.
    Family(bool, u16),
    Address(IpAddr, u16),
    Path(PathBuf),
}

impl Addresses {
    fn first(&self, places: &[Place]) -> Option<NodeId> {
        places.iter().filter_map(|place| self.taken.get(place)).min().copied()
    }
}

impl Validator<'_> {
    /// Takes an address; one that overlaps with it was taken before is a mistake.
    pub(super) fn claim(&mut self, address: &BindAddress, node: NodeId, name: &str) {
        let (conflicts, takes) = match address {
            BindAddress::AllInterfaces(0) => return,
            BindAddress::Tcp(address) if address.port() == 0 => return,
            BindAddress::AllInterfaces(port) => (vec![Place::Any(*port)], vec![Place::All(*port), Place::Any(*port)]),
            BindAddress::Tcp(address) => {
                let (ip, port, six) = (address.ip(), address.port(), address.is_ipv6());
                let conflicts = if ip.is_unspecified() {
                    vec![Place::All(port), Place::Family(six, port)]
                } else {
                    let all: IpAddr = if six { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
                    vec![Place::All(port), Place::Address(all, port), Place::Address(ip, port)]
                };
                (conflicts, vec![Place::Any(port), Place::Family(six, port), Place::Address(ip, port)])
            }
            BindAddress::Unix(path) => (vec![Place::Path(path.clone())], vec![Place::Path(path.clone())]),
        };
        if let Some(other) = self.addresses.first(&conflicts) {
            let name = self.addresses.names.get(&other).map_or("another", String::as_str);
            let reason = format!("the address {} overlaps with that of {name}", self.shown(node));
            let finding = Finding::error("address-overlap", node, reason).hint("give each its own port or IP address");
            // What is taken by default is written nowhere.
            let written = other != self.tree.root();
            self.push(if written { finding.related(other, "the other address") } else { finding });
            return;
        }
        for place in takes {
            self.addresses.taken.entry(place).or_insert(node);
        }
        self.addresses.names.insert(node, name.to_owned());
    }

    /// Warns of upstreams that lead back to this proxy.
    pub(super) fn loops(&mut self) {
        let mut findings = Vec::new();
        for (upstream, node) in self.upstreams.iter().zip(&self.places) {
            let EndpointSource::Static(endpoints) = &upstream.source else { continue };
            let own = endpoints.iter().find_map(|endpoint| {
                let places = match &endpoint.address {
                    EndpointAddress::Tcp(address) => {
                        let here = address.ip().to_canonical().is_loopback().then_some(Place::All(address.port()));
                        [Some(Place::Address(address.ip(), address.port())), here]
                    }
                    EndpointAddress::Unix(path) => [Some(Place::Path(path.clone())), None],
                };
                places.into_iter().flatten().find_map(|place| self.addresses.taken.get(&place))
            });
            let Some(name) = own.and_then(|own| self.addresses.names.get(own)) else { continue };
            let reason = format!("this upstream leads back to this proxy: its endpoint is {name}");
            let hint = "requests that would come back are answered with 508 `loop_detected`";
            findings.push(Finding::warning("loop", *node, reason).hint(hint));
        }
        for finding in findings {
            self.push(finding);
        }
    }
}
