//! `discover:` in its long form.

use super::{Long, Yaml, default, text};
use crate::config::builtin;
use crate::config::given::Spanned;
use crate::config::raw::discover::Discover;
use crate::config::units::write_period;

impl Long<'_> {
    pub(super) fn discover(&self, spanned: &Spanned<Discover>) -> Yaml {
        let mut written = match &spanned.value {
            Discover::From(from) => vec![("from".into(), text(self.tree.written(from.node).to_owned()))],
            Discover::Long(_) => self.copied(spanned.node),
        };
        default(&mut written, "max", builtin::DISCOVER_MAX.to_string());
        default(&mut written, "idle", write_period(builtin::DISCOVER_IDLE));
        Yaml::Map(written)
    }
}
