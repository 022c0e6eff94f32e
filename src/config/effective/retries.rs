//! `retries:` in its long form.

use super::{Long, map, text};
use crate::config::builtin;
use crate::config::effective::yaml::Yaml;
use crate::config::raw::retries::{Backoff, Budget, Retries};
use crate::config::raw::upstream::{Endpoint, Upstream};
use crate::config::short_form::ShortUpstream;
use crate::config::tree::NodeId;
use crate::config::units::{write_period, write_size};

impl Long<'_> {
    /// `beside`: the only endpoint is on this machine.
    pub(super) fn retries(&self, own: Option<&Retries>, defaults: Option<&Retries>, beside: bool) -> Yaml {
        let both = || own.into_iter().chain(defaults);
        let one = |key: fn(&Retries) -> Option<NodeId>, otherwise: String| {
            both().find_map(key).map_or_else(|| text(otherwise), |node| self.copy(node))
        };
        let backoff = |key: fn(&Backoff) -> Option<NodeId>, otherwise: String| {
            let node = both().filter_map(|retries| retries.backoff.get()).find_map(key);
            node.map_or_else(|| text(otherwise), |node| self.copy(node))
        };
        let budget = |key: fn(&Budget) -> Option<NodeId>, otherwise: String| {
            let node = both().filter_map(|retries| retries.budget.get()).find_map(key);
            node.map_or_else(|| text(otherwise), |node| self.copy(node))
        };
        let builtin = builtin::retries();
        let max = match own.and_then(|own| own.max.node()) {
            Some(node) => self.copy(node),
            None if beside => text("0"),
            None => one(|retries| retries.max.node(), builtin.max.to_string()),
        };
        let when = match both().find_map(|retries| retries.when.node()) {
            Some(node) => self.copy(node),
            None => Yaml::List(vec![text("connect_failure"), text("refused_stream")]),
        };
        let terms = builtin::RETRY_BUDGET;
        map([
            ("max", max),
            ("when", when),
            ("idempotent", one(|retries| retries.idempotent.node(), builtin.idempotent.to_string())),
            ("nested", one(|retries| retries.nested.node(), builtin.nested.to_string())),
            (
                "backoff",
                map([
                    ("base", backoff(|backoff| backoff.base.node(), write_period(builtin.backoff.base))),
                    ("max", backoff(|backoff| backoff.max.node(), write_period(builtin.backoff.max))),
                ]),
            ),
            ("body_bytes", one(|retries| retries.body_bytes.node(), write_size(builtin.body_bytes as u64))),
            ("hedge", one(|retries| retries.hedge.node(), "none".to_owned())),
            (
                "budget",
                map([
                    ("ratio", budget(|budget| budget.ratio.node(), terms.ratio.to_string())),
                    ("min_per_second", budget(|budget| budget.min_per_second.node(), terms.min_per_second.to_string())),
                    ("window", budget(|budget| budget.window.node(), write_period(terms.window))),
                ]),
            ),
        ])
    }
}

/// As far as it can be read.
pub(super) fn is_alone_beside_us(upstream: Option<&Upstream>) -> bool {
    let list = match upstream {
        Some(Upstream::Short(short)) => {
            return matches!(&short.value, ShortUpstream::Address(address) if address.is_beside_us());
        }
        Some(Upstream::Endpoints(list)) => list,
        Some(Upstream::Long(long)) => match long.endpoints.get() {
            Some(list) => list,
            None => return false,
        },
        None => return false,
    };
    let address = |endpoint: &Endpoint| match endpoint {
        Endpoint::Address(address) => address.value.is_beside_us(),
        Endpoint::Long(long) => long.address.get().is_some_and(|address| address.is_beside_us()),
    };
    matches!(&**list, [only] if only.get().is_some_and(address))
}
