//! `dns:`, and upstreams that it finds.

use super::{Long, Yaml, map};
use crate::config::builtin;
use crate::config::given::Given;
use crate::config::raw::Configuration;
use crate::config::raw::dns::DnsForm;
use crate::config::units::write_period;

impl Long<'_> {
    pub(super) fn dns(&self, raw: &Configuration) -> Yaml {
        let dns = raw.dns.get();
        let servers = dns.and_then(|dns| dns.servers.node()).map(|node| self.copy(node));
        map([
            ("servers", servers.unwrap_or(Yaml::Comment("those of /etc/resolv.conf".to_owned()))),
            ("min_ttl", self.of(dns.map(|dns| &dns.min_ttl), write_period(builtin::DNS.min_ttl))),
            ("max_ttl", self.of(dns.map(|dns| &dns.max_ttl), write_period(builtin::DNS.max_ttl))),
            ("stale", self.of(dns.map(|dns| &dns.stale), write_period(builtin::DNS.stale))),
        ])
    }

    /// A short form stays as it is written: it may hold variables anywhere.
    pub(super) fn dns_source(&self, given: &Given<DnsForm>) -> Yaml {
        let Some(DnsForm::Long(long)) = given.get() else { return self.said(given, "none") };
        map([("name", self.said(&long.name, "none")), ("port", self.said(&long.port, "none"))])
    }
}
