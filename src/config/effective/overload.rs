//! `rate_limit:`, `concurrency:`, `mirror:` and `fault:` in their long form. Without them there is nothing to write.

use super::{Long, Yaml, default, text};
use crate::config::builtin;
use crate::config::given::Given;
use crate::config::raw::overload::{Concurrency, RateLimit};
use crate::config::raw::route::Route;

impl Long<'_> {
    pub(super) fn overload(
        &self,
        entries: &mut Vec<(&'static str, Yaml)>,
        rate_limit: &Given<RateLimit>,
        concurrency: &Given<Concurrency>,
    ) {
        if let Some(spanned) = rate_limit.spanned() {
            let mut written = self.copied(spanned.node);
            if let Some(per_second) = spanned.value.per_second.node() {
                default(&mut written, "burst", self.tree.written(per_second).to_owned());
            }
            if !spanned.value.key.is_absent() {
                default(&mut written, "keys", builtin::RATE_LIMIT_KEYS.to_string());
            }
            default(&mut written, "shadow", "false");
            entries.push(("rate_limit", Yaml::Map(written)));
        }
        if let Some(spanned) = concurrency.spanned() {
            let mut written = match &spanned.value {
                Concurrency::Word(word) => vec![("max".into(), text(self.tree.written(word.node).to_owned()))],
                Concurrency::Long(_) => self.copied(spanned.node),
            };
            default(&mut written, "shadow", "false");
            entries.push(("concurrency", Yaml::Map(written)));
        }
    }

    /// What is done to requests on purpose.
    pub(super) fn chaos(&self, entries: &mut Vec<(&'static str, Yaml)>, route: &Route) {
        for (key, node) in [("mirror", route.mirror.node()), ("fault", route.fault.node())] {
            if let Some(node) = node {
                let mut written = self.copied(node);
                default(&mut written, "ratio", "1");
                entries.push((key, Yaml::Map(written)));
            }
        }
    }
}
