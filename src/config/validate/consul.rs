//! `consul:`, and upstreams that it finds.

use super::Validator;
use crate::config::builtin;
use crate::config::findings::Finding;
use crate::config::given::{Given, Spanned};
use crate::config::later;
use crate::config::model::{Consul, ConsulConsistency, ConsulSource, ConsulTarget, OnEmpty, Passing};
use crate::config::raw::consul as raw;
use crate::config::raw::route::OneOrMany;
use crate::config::tree::NodeId;
use crate::config::units::Text;

impl<'a> Validator<'a> {
    /// How agents are reached.
    pub(super) fn consul(&mut self) -> Consul {
        let raw = self.raw;
        let Some(consul) = raw.consul.get() else { return Consul::default() };
        if let Some(spanned) = consul.address.spanned()
            && let OneOrMany::Many(list) = &spanned.value
            && list.is_empty()
        {
            self.error("missing-value", spanned.node, "there is no address here", "remove the key for the default");
        }
        let addresses = consul.address.get().into_iter().flat_map(OneOrMany::iter);
        Consul {
            addresses: addresses.map(|address| address.value.clone()).collect(),
            token_file: consul.token_file.spanned().map(|file| self.file(file)),
            datacenter: self.word(&consul.datacenter),
            namespace: self.word(&consul.namespace),
            partition: self.word(&consul.partition),
            tls: self.upstream_tls(&consul.tls),
        }
    }

    /// A service in Consul; `agents` are asked for it.
    pub(super) fn consul_source(&mut self, form: &'a raw::ConsulForm, node: NodeId, agents: &Consul) -> ConsulSource {
        let long = match form {
            raw::ConsulForm::Short(short) => return ConsulSource { agents: agents.clone(), ..*short.value.0.clone() },
            raw::ConsulForm::Long(long) => &**long,
        };
        if long.connect.get().is_some_and(|connect| connect.0) {
            let node = long.connect.node().unwrap_or(node);
            let reason = format!("`connect: true` {}", later::SENTENCE);
            self.error("not-yet", node, reason, "without it, instances are called as they are registered");
        }
        let target = match (&long.service, &long.prepared_query) {
            (Given::Absent, Given::Absent) => {
                self.missing(node, "this does not say which service", "write it as in `{ service: payments }`");
                ConsulTarget::Service(String::new())
            }
            (service, Given::Absent) => ConsulTarget::Service(self.word(service).unwrap_or_default()),
            (service, query) => {
                let alone = [
                    (service.node(), "service"),
                    (long.tags.node(), "tags"),
                    (long.datacenters.node(), "datacenters"),
                    (long.filter.node(), "filter"),
                ];
                for (node, key) in alone.into_iter().filter_map(|(node, key)| Some((node?, key))) {
                    let reason = format!("a prepared query brings its own `{key}`");
                    self.error("contradiction", node, reason, "write it into the query in Consul");
                }
                ConsulTarget::PreparedQuery(self.word(query).unwrap_or_default())
            }
        };
        ConsulSource {
            agents: agents.clone(),
            target,
            tags: self.words(&long.tags),
            datacenters: self.words(&long.datacenters),
            near: self.word(&long.near),
            filter: self.word(&long.filter),
            namespace: self.word(&long.namespace),
            partition: self.word(&long.partition),
            passing: match long.passing.get() {
                None | Some(raw::Passing::Only) => Passing::Only,
                Some(raw::Passing::Warning) => Passing::Warning,
            },
            consistency: match long.consistency.get() {
                None | Some(raw::Consistency::Default) => ConsulConsistency::Default,
                Some(raw::Consistency::Stale) => ConsulConsistency::Stale,
                Some(raw::Consistency::Consistent) => ConsulConsistency::Consistent,
                Some(raw::Consistency::Cached) => ConsulConsistency::Cached,
            },
        }
    }

    pub(super) fn word(&mut self, given: &Given<Text>) -> Option<String> {
        let spanned = given.spanned()?;
        self.filled(&spanned.value, spanned.node)
    }

    pub(super) fn words(&mut self, given: &Given<OneOrMany<Text>>) -> Vec<String> {
        let words = given.get().into_iter().flat_map(OneOrMany::iter);
        words.filter_map(|spanned| self.filled(&spanned.value, spanned.node)).collect()
    }

    fn filled(&mut self, text: &Text, node: NodeId) -> Option<String> {
        if text.0.is_empty() {
            self.push(Finding::error("invalid-value", node, "a text is due here, and this is empty"));
            return None;
        }
        Some(text.0.clone())
    }
}

/// What becomes of endpoints when their source says that there are none; an upstream's word over the defaults'.
pub(super) fn on_empty(own: Option<&Given<raw::OnEmptyForm>>, defaults: Option<&Given<raw::OnEmptyForm>>) -> OnEmpty {
    match own.into_iter().chain(defaults).find_map(Given::get) {
        None => OnEmpty::Keep(builtin::KEEP_ON_EMPTY),
        Some(raw::OnEmptyForm::Word(Spanned { value: raw::OnEmptyWord::Drop, .. })) => OnEmpty::Drop,
        Some(raw::OnEmptyForm::Long(long)) => {
            OnEmpty::Keep(long.keep.get().map_or(builtin::KEEP_ON_EMPTY, |period| period.0))
        }
    }
}
