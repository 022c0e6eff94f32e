//! `dns:`, and upstreams that it finds.

use super::Validator;
use crate::config::builtin;
use crate::config::findings::Finding;
use crate::config::given::Given;
use crate::config::model::{Dns, DnsSource, DnsTarget};
use crate::config::raw::dns as raw;
use crate::config::raw::route::OneOrMany;
use crate::config::tree::NodeId;
use crate::config::units::Period;

impl<'a> Validator<'a> {
    /// Who is asked, and how long answers hold.
    pub(super) fn dns(&mut self) -> Dns {
        let Some(dns) = self.raw.dns.get() else { return Dns::default() };
        let servers = dns.servers.get().into_iter().flat_map(OneOrMany::iter).map(|server| server.value.0);
        let period = |given: &Given<Period>, otherwise| given.get().map_or(otherwise, |period| period.0);
        let resolver = Dns {
            servers: servers.collect(),
            min_ttl: period(&dns.min_ttl, builtin::DNS.min_ttl),
            max_ttl: period(&dns.max_ttl, builtin::DNS.max_ttl),
            stale: period(&dns.stale, builtin::DNS.stale),
        };
        if let Some(node) = dns.min_ttl.node()
            && resolver.min_ttl < builtin::LEAST_MIN_TTL
        {
            let reason = format!("{} would ask nameservers without a pause", self.shown(node));
            self.error("impossible-number", node, reason, "write `100ms` or more");
        }
        if let Some(node) = dns.max_ttl.node().or(dns.min_ttl.node())
            && resolver.min_ttl > resolver.max_ttl
        {
            let reason = "`min_ttl` is longer than `max_ttl`";
            let other = dns.min_ttl.node().filter(|other| *other != node);
            let finding = Finding::error("impossible-number", node, reason).hint("raise `max_ttl`, or lower `min_ttl`");
            self.push(match other {
                Some(other) => finding.related(other, "`min_ttl`"),
                None => finding,
            });
        }
        resolver
    }

    /// A name whose addresses are the endpoints.
    pub(super) fn dns_source(&mut self, form: &'a raw::DnsForm, node: NodeId) -> DnsSource {
        let target = match form {
            raw::DnsForm::Short(short) => short.value.0.clone(),
            raw::DnsForm::Long(long) => {
                if long.name.is_absent() {
                    self.missing(
                        node,
                        "this does not say which name",
                        "write it as in `{ name: orders.internal, port: 8080 }`",
                    );
                }
                if long.port.is_absent() {
                    let hint = "add `port: 8080`; SRV records would bring their own: `srv: _http._tcp.…`";
                    self.missing(node, "this name has no port", hint);
                }
                DnsTarget::Address {
                    name: long.name.get().map(|name| name.0.clone()).unwrap_or_default(),
                    port: long.port.get().and_then(|port| u16::try_from(port.0).ok()).unwrap_or_default(),
                }
            }
        };
        DnsSource { resolver: self.dns.clone(), target }
    }
}
