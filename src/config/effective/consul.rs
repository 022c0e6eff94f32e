//! `consul:`, and upstreams that it finds.

use super::{Long, Yaml, map, text};
use crate::config::builtin;
use crate::config::given::Given;
use crate::config::raw::Configuration;
use crate::config::raw::consul::{ConsulForm, OnEmptyForm};
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
