//! `request_headers:` and `response_headers:`

use std::collections::HashMap;

use http::HeaderName;

use super::Validator;
use crate::config::environment::is_hidden;
use crate::config::findings::Finding;
use crate::config::given::{Given, Spanned};
use crate::config::model::HeaderRules;
use crate::config::raw::route as raw;
use crate::config::scalar::Invalid;
use crate::config::template::Template;
use crate::config::text::quote;
use crate::config::tree::NodeId;
use crate::config::units::Text;

/// Headers that frame a message or belong to one connection (RFC 9110, section 7.6.1; RFC 9112, section 6): changing
/// them breaks the one or is undone at once.
const OURS: [(&str, &str); 9] = [
    ("connection", "it belongs to one connection"),
    ("keep-alive", "it belongs to one connection"),
    ("proxy-connection", "it belongs to one connection"),
    ("te", "it belongs to one connection"),
    ("trailer", "it announces what the body ends with"),
    ("transfer-encoding", "it says where the message ends"),
    ("upgrade", "it belongs to one connection"),
    ("content-length", "it says where the message ends"),
    ("host", "it is part of the target"),
];

type Parse = fn(&str) -> Result<Template, Invalid>;

impl Validator<'_> {
    pub(super) fn header_rules(&mut self, given: &Given<raw::HeaderRules>, parse: Parse) -> HeaderRules {
        let mut rules = HeaderRules::default();
        let Some(raw) = given.get() else { return rules };
        for text in raw.remove.get().into_iter().flat_map(raw::OneOrMany::iter) {
            rules.remove.extend(self.header_name(&text.value.0, text.node));
        }
        let mut first: HashMap<HeaderName, NodeId> = HashMap::new();
        for (name, value) in raw.set.get().map_or(&[][..], |pairs| &pairs.0) {
            let header = self.header_name(&name.value, name.node);
            let template = value.spanned().and_then(|value| self.template(value, parse));
            let Some(header) = header else { continue };
            if let Some(other) = first.insert(header.clone(), name.node) {
                let reason = format!("{} is set twice: names of headers have no case", quote(&name.value));
                self.push(
                    Finding::error("duplicate-name", name.node, reason)
                        .related(other, "the other one")
                        .hint("use `add` for several values"),
                );
            }
            rules.set.extend(template.map(|template| (header, template)));
        }
        for (name, values) in raw.add.get().map_or(&[][..], |pairs| &pairs.0) {
            let header = self.header_name(&name.value, name.node);
            for value in values.get().into_iter().flat_map(raw::OneOrMany::iter) {
                let template = self.template(value, parse);
                rules.add.extend(header.clone().zip(template));
            }
        }
        rules
    }

    pub(super) fn header_name(&mut self, text: &str, node: NodeId) -> Option<HeaderName> {
        let shown = quote(self.tree.written(node));
        let Ok(name) = HeaderName::from_bytes(text.to_ascii_lowercase().as_bytes()) else {
            self.error("invalid-name", node, format!("{shown} is not the name of a header"), "");
            return None;
        };
        if let Some((_, why)) = OURS.iter().find(|(own, _)| *own == name.as_str()) {
            let hint = if name == http::header::HOST {
                "use `rewrite: { host: … }`"
            } else {
                "remove it; the proxy takes care of it"
            };
            self.error("forbidden-header", node, format!("{shown} cannot be changed by a rule: {why}"), hint);
            return None;
        }
        Some(name)
    }

    fn template(&mut self, text: &Spanned<Text>, parse: Parse) -> Option<Template> {
        let written = self.tree.written(text.node);
        let filled = is_hidden(written).then(|| self.expander.expand_template(written)).flatten();
        match parse(filled.as_deref().unwrap_or(&text.value.0)) {
            Ok(template) => Some(Template { written: is_hidden(written).then(|| written.to_owned()), ..template }),
            Err(_) if is_hidden(written) => {
                self.error(
                    "invalid-value",
                    text.node,
                    format!("what {} holds cannot be the value of a header", self.shown(text.node)),
                    "",
                );
                None
            }
            Err(invalid) => {
                self.push(Finding::error("invalid-value", text.node, invalid.detail).maybe_hint(invalid.hint));
                None
            }
        }
    }
}
