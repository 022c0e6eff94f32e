//! `consul:`, and upstreams that it finds.

use super::{Long, Yaml, map, text};
use crate::config::builtin;
use crate::config::given::Given;
use crate::config::raw::Configuration;
use crate::config::raw::consul::{ConsulForm, OnEmptyForm, Register};
use crate::config::units::write_period;

impl Long<'_> {
    pub(super) fn consul(&self, raw: &Configuration) -> Yaml {
        let consul = raw.consul.get();
        let address = consul.and_then(|consul| consul.address.node()).map(|node| self.copy(node));
        let default = Yaml::Comment("CONSUL_HTTP_ADDR, else http://127.0.0.1:8500".to_owned());
        let mut entries = vec![("address", address.unwrap_or(default))];
        if let Some(consul) = consul {
            self.optional(&mut entries, "token_file", &consul.token_file);
            self.optional(&mut entries, "datacenter", &consul.datacenter);
            self.optional(&mut entries, "namespace", &consul.namespace);
            self.optional(&mut entries, "partition", &consul.partition);
            if let Some(tls) = consul.tls.get() {
                entries.push(("tls", self.upstream_tls(tls, "the host of the address")));
            }
        }
        map(entries)
    }

    pub(super) fn register(&self, raw: &Configuration, register: &Register) -> Yaml {
        let name = if register.name.is_absent() { raw.service.node() } else { register.name.node() };
        let mut entries = vec![("name", name.map_or_else(|| text(""), |node| self.copy(node)))];
        self.optional(&mut entries, "id", &register.id);
        self.optional(&mut entries, "address", &register.address);
        let port = register.port.node().map(|node| self.copy(node));
        entries.push(("port", port.unwrap_or(Yaml::Comment("that of the first inbound listener".to_owned()))));
        self.optional(&mut entries, "tags", &register.tags);
        self.optional(&mut entries, "meta", &register.meta);
        entries.push(("check", self.register_check(register)));
        let after = write_period(builtin::DEREGISTER_AFTER);
        entries.push(("deregister_after", self.said(&register.deregister_after, after)));
        map(entries)
    }

    fn register_check(&self, register: &Register) -> Yaml {
        let Some(check) = register.check.get() else {
            return map([("ttl", text(write_period(builtin::REGISTER_TTL)))]);
        };
        let mut entries = Vec::new();
        self.optional(&mut entries, "ttl", &check.ttl);
        self.optional(&mut entries, "http", &check.http);
        self.optional(&mut entries, "tcp", &check.tcp);
        if check.ttl.is_absent() {
            entries.push(("every", self.said(&check.every, write_period(builtin::REGISTER_EVERY))));
            entries.push(("timeout", self.said(&check.timeout, write_period(builtin::REGISTER_TIMEOUT))));
        }
        map(entries)
    }

    /// A short form stays as it is written: it may hold variables anywhere.
    pub(super) fn consul_source(&self, given: &Given<ConsulForm>) -> Yaml {
        let Some(ConsulForm::Long(long)) = given.get() else { return self.said(given, "none") };
        let mut entries = Vec::new();
        self.optional(&mut entries, "service", &long.service);
        self.optional(&mut entries, "prepared_query", &long.prepared_query);
        self.optional(&mut entries, "tags", &long.tags);
        self.optional(&mut entries, "datacenters", &long.datacenters);
        self.optional(&mut entries, "near", &long.near);
        self.optional(&mut entries, "filter", &long.filter);
        self.optional(&mut entries, "namespace", &long.namespace);
        self.optional(&mut entries, "partition", &long.partition);
        entries.push(("passing", self.said(&long.passing, "only")));
        entries.push(("consistency", self.said(&long.consistency, "default")));
        entries.push(("connect", self.said(&long.connect, "false")));
        map(entries)
    }

    pub(super) fn on_empty(&self, own: Option<&Given<OnEmptyForm>>, defaults: Option<&Given<OnEmptyForm>>) -> Yaml {
        match own.into_iter().chain(defaults).find_map(Given::node) {
            Some(node) => self.copy(node),
            None => map([("keep", text(write_period(builtin::KEEP_ON_EMPTY)))]),
        }
    }
}
