//! `load_balancer`, `slow_start`, `prefer_zone`.

use http::HeaderName;

use super::Validator;
use crate::config::builtin;
use crate::config::given::Given;
use crate::config::model::{Balancing, Ejection, HashKey, LoadBalancer};
use crate::config::raw::balancing as raw;
use crate::config::raw::upstream::UpstreamLong;
use crate::config::tree::NodeId;
use crate::config::units::Text;

impl Validator<'_> {
    /// What the upstream says over what the defaults say.
    pub(super) fn balancing(&mut self, long: Option<&UpstreamLong>, ejection: Option<&Ejection>) -> Balancing {
        let defaults = self.raw.defaults.get();
        let load_balancer = [long.map(|long| &long.load_balancer), defaults.map(|defaults| &defaults.load_balancer)];
        let slow_start = [long.map(|long| &long.slow_start), defaults.map(|defaults| &defaults.slow_start)];
        let prefer_zone = [long.map(|long| &long.prefer_zone), defaults.map(|defaults| &defaults.prefer_zone)];
        let slow_start =
            slow_start.into_iter().flatten().find_map(Given::get).map(|period| period.0.map(|period| period.0));
        let load_balancer = load_balancer.into_iter().flatten().find_map(Given::spanned);
        Balancing {
            load_balancer: load_balancer
                .map_or(LoadBalancer::RoundRobin, |given| self.load_balancer(&given.value, given.node)),
            zone: prefer_zone
                .into_iter()
                .flatten()
                .find_map(Given::spanned)
                .and_then(|prefer| if prefer.value.0 { self.own_zone(prefer.node) } else { None }),
            slow_start: slow_start.flatten(),
            slow_return: slow_start.unwrap_or(Some(builtin::SLOW_RETURN)),
            panic_ratio: ejection.map_or(0.0, |ejection| ejection.panic_ratio),
        }
    }

    fn own_zone(&mut self, node: NodeId) -> Option<String> {
        match &self.raw.zone {
            Given::Value(zone) => zone.value.0.as_ref().map(|zone| zone.0.clone()),
            Given::Invalid(_) => None,
            Given::Absent => {
                let hint = "write the proxy's own, as in `zone: eu-1a` at the top of the file";
                self.error("missing-key", node, "no zone can be preferred, for the proxy's own is not written", hint);
                None
            }
        }
    }

    fn load_balancer(&mut self, raw: &raw::LoadBalancer, node: NodeId) -> LoadBalancer {
        match raw {
            raw::LoadBalancer::Word(word) => match word {
                raw::LoadBalancerWord::RoundRobin => LoadBalancer::RoundRobin,
                raw::LoadBalancerWord::LeastRequests => LoadBalancer::LeastRequests,
                raw::LoadBalancerWord::PeakEwma => LoadBalancer::PeakEwma,
                raw::LoadBalancerWord::RingHash => LoadBalancer::RingHash(HashKey::ClientAddress),
                raw::LoadBalancerWord::Maglev => LoadBalancer::Maglev(HashKey::ClientAddress),
            },
            raw::LoadBalancer::Hash(raw::HashBalancer { ring_hash, maglev }) => match (ring_hash, maglev) {
                (Given::Value(key), Given::Absent) => LoadBalancer::RingHash(self.hash_key(&key.value, key.node)),
                (Given::Absent, Given::Value(key)) => LoadBalancer::Maglev(self.hash_key(&key.value, key.node)),
                (Given::Absent, Given::Absent) => {
                    let hint = "write one, as in `ring_hash: { header: x-user }`";
                    self.missing(node, "this load balancer is none", hint);
                    LoadBalancer::RoundRobin
                }
                (Given::Absent, _) | (_, Given::Absent) => LoadBalancer::RoundRobin,
                _ => {
                    self.error("conflict", node, "these are two load balancers", "keep one of them");
                    LoadBalancer::RoundRobin
                }
            },
        }
    }

    fn hash_key(&mut self, raw: &raw::HashKey, node: NodeId) -> HashKey {
        let raw::HashKey::Named(raw::NamedHashKey { header, cookie }) = raw else { return HashKey::ClientAddress };
        match (header, cookie) {
            (Given::Value(name), Given::Absent) => match HeaderName::from_bytes(name.value.0.as_bytes()) {
                Ok(name) => return HashKey::Header(name),
                Err(_) => {
                    let reason = format!("{} is not the name of a header", self.shown(name.node));
                    self.error("invalid-value", name.node, reason, "");
                }
            },
            (Given::Absent, Given::Value(name)) => {
                if is_token(&name.value) {
                    return HashKey::Cookie(name.value.0.clone());
                }
                let reason = format!("{} is not the name of a cookie", self.shown(name.node));
                self.error("invalid-value", name.node, reason, "");
            }
            (Given::Absent, Given::Absent) => {
                let hint = "write `header: NAME`, `cookie: NAME`, or `client_address` in place of the mapping";
                self.missing(node, "nothing says what is kept together", hint);
            }
            (Given::Absent, _) | (_, Given::Absent) => {}
            _ => self.error("conflict", node, "these are two keys to hash", "keep one of them"),
        }
        HashKey::ClientAddress
    }
}

/// RFC 6265: the name of a cookie is a token, as that of a header is.
fn is_token(name: &Text) -> bool {
    HeaderName::from_bytes(name.0.as_bytes()).is_ok()
}
