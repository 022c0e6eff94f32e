//! A [`serde::Deserializer`] over the tree that goes on after a mistake.
//!
//! Whatever fails is recorded where it stands, and the nearest [`Given`](super::given::Given) above it becomes
//! `Invalid`, so that one pass finds every mistake. Types come from the keys: a scalar has no type of its own, so `no`
//! is a text, and a number in quotes is a number.

mod access;
mod meant;

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Expected, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use access::{Entries, Fields, Items, Parts, Variant};

use super::environment::{Expander, Unexpanded, is_hidden};
use super::findings::{Finding, Findings};
use super::given::{BY_FORM, GIVEN, SPANNED};
use super::later;
use super::text::{did_you_mean, listed, nearest, quote};
use super::tree::{Kind, NodeId, Paths, Tree};
use crate::runtime::pace::breathe;

/// Forms of values, as variants of enums with the name [`BY_FORM`].
const SCALAR: &str = "scalar";
const SEQUENCE: &str = "sequence";
const MAPPING: &str = "mapping";

/// Reads a tree as a type. `None` where not even its outermost form is right.
pub(crate) fn decode<'t, T: Deserialize<'t>>(
    tree: &'t Tree,
    expander: &'t Expander<'t>,
    findings: &mut Findings,
) -> Option<T> {
    let context = Context { tree, expander, findings: RefCell::new(std::mem::take(findings)) };
    let value = T::deserialize(Decoder { context: &context, node: tree.root(), is_key: false }).ok();
    *findings = context.findings.into_inner();
    value
}

struct Context<'t> {
    tree: &'t Tree,
    expander: &'t Expander<'t>,
    findings: RefCell<Findings>,
}

#[derive(Clone, Copy)]
struct Decoder<'c, 't> {
    context: &'c Context<'t>,
    node: NodeId,
    is_key: bool,
}

/// A failure below some node.
#[derive(Debug)]
pub(crate) enum Error {
    /// It is among the findings.
    Recorded,
    /// It was just said, by a type that does not know its node. Lines: what is expected, what is wrong, a hint.
    Said(String),
}

impl<'t> Decoder<'_, 't> {
    fn at(self, node: NodeId) -> Self {
        breathe();
        Decoder { node, is_key: false, ..self }
    }

    fn kind(self) -> &'t Kind {
        &self.context.tree.node(self.node).kind
    }

    fn push(self, finding: Finding) -> Error {
        self.context.findings.borrow_mut().push(finding);
        Error::Recorded
    }

    /// Makes sure that a failure is among the findings.
    fn record(self, error: Error) -> Error {
        let Error::Said(message) = error else { return Error::Recorded };
        if self.context.findings.borrow().is_full() {
            self.context.findings.borrow_mut().omit_error();
            return Error::Recorded;
        }
        let mut lines = message.splitn(3, '\n');
        let expected = lines.next().unwrap_or_default();
        let written = self.context.tree.written(self.node);
        let finding = match lines.next() {
            // What a variable holds is never shown, so neither its details nor a hint can be.
            Some(_) if is_hidden(written) => {
                let reason = format!("what {} holds is not {expected}", quote(written));
                Finding::error("invalid-value", self.node, reason)
            }
            Some(detail) => {
                let hint = lines.next().filter(|hint| !hint.is_empty());
                Finding::error(later::code(detail), self.node, detail).maybe_hint(hint.map(str::to_owned))
            }
            None => Finding::error("invalid-value", self.node, expected),
        };
        self.push(finding)
    }

    /// A scalar's meaning; a failure is among the findings.
    fn text(self) -> Result<Cow<'t, str>, Error> {
        let Kind::Scalar(scalar) = self.kind() else { return Err(self.wrong_form("a text", &[SCALAR])) };
        if self.is_key {
            return Ok(Cow::Borrowed(&scalar.written));
        }
        if scalar.is_null() {
            return Err(self.nothing());
        }
        match self.context.expander.expand(&scalar.written) {
            Ok(value) => Ok(value),
            Err(Unexpanded::Unknown) => Err(Error::Recorded),
            Err(Unexpanded::Wrong(reason, hint)) => {
                Err(self.push(Finding::error("variable", self.node, reason).hint(hint)))
            }
        }
    }

    fn nothing(self) -> Error {
        let finding = Finding::error("missing-value", self.node, "there is no value here");
        self.push(
            finding.hint(
                "write one, or remove the key; an empty text is `\"\"`, an empty mapping `{}`, an empty list `[]`",
            ),
        )
    }

    /// `forms`: those that are due.
    fn wrong_form(self, expected: &str, forms: &[&str]) -> Error {
        if self.is_null() {
            return self.nothing();
        }
        let reason = format!("{expected} is due here, and this is {}", meant::form(self.kind()));
        let due = |form| forms.contains(&form);
        let hint = match self.kind() {
            Kind::Scalar(scalar) if due(MAPPING) => meant::mapping(&self.key(), &scalar.written),
            Kind::Sequence(_) if due(MAPPING) => meant::named(&self.key()),
            _ if due(SEQUENCE) => meant::list(self.context.tree, self.node),
            _ => None,
        };
        self.push(Finding::error("invalid-value", self.node, reason).maybe_hint(hint))
    }

    /// The key whose value this is. Takes time: for what is said, and not for what is dropped.
    fn key(self) -> String {
        if self.context.findings.borrow().is_full() {
            return String::new();
        }
        Paths::of(self.context.tree).key(self.node).unwrap_or_default().to_owned()
    }

    fn is_null(self) -> bool {
        self.context.tree.scalar(self.node).is_some_and(|scalar| scalar.is_null()) && !self.is_key
    }

    /// The entries of a mapping that a type knows. All others are recorded, except `x-…`.
    fn known_entries(self, name: &str, fields: &'static [&'static str]) -> Result<Vec<(&'static str, NodeId)>, Error> {
        let Kind::Mapping(entries) = self.kind() else {
            return Err(self.wrong_form(&format!("a mapping with {}", keys_of(fields)), &[MAPPING]));
        };
        let mut known = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let word = self.context.tree.written(*key);
            match fields.iter().find(|field| **field == word) {
                Some(field) => known.push((*field, *value)),
                None if word.starts_with("x-") => {}
                None => self.unknown_key(*key, word, name, fields),
            }
        }
        Ok(known)
    }

    fn unknown_key(self, key: NodeId, word: &str, name: &str, fields: &'static [&'static str]) {
        self.context.findings.borrow_mut().mark_incomplete(self.node);
        if self.context.findings.borrow().is_full() {
            return self.context.findings.borrow_mut().omit_error();
        }
        let later = later::keys(name);
        let finding = if later.contains(&word) {
            Finding::error("not-yet", key, format!("{} {}", quote(word), later::SENTENCE))
                .hint("remove it; it is never ignored silently")
        } else {
            let hint = match nearest(word, fields.iter().chain(later).copied()) {
                Some(near) if later.contains(&near) => Some(format!("{} {}", quote(near), later::SENTENCE)),
                _ => did_you_mean(word, fields),
            };
            Finding::error("unknown-key", key, format!("unknown key {}", quote(word))).maybe_hint(hint)
        };
        self.push(finding);
    }

    fn unknown_word(self, node: NodeId, word: &str, variants: &'static [&'static str]) -> Error {
        let expected = listed(variants.iter().copied(), "or");
        let written = self.context.tree.written(node);
        let finding = if node == self.node && is_hidden(written) {
            Finding::error("invalid-value", node, format!("what {} holds is not {expected}", quote(written)))
        } else {
            // A word that is misspelt, or a short form that there is not.
            let short = || meant::mapping(&self.key(), written);
            let hint = match nearest(word, variants.iter().copied()) {
                None if node == self.node => short().or_else(|| did_you_mean(word, variants)),
                _ => did_you_mean(word, variants),
            };
            Finding::error("invalid-value", node, format!("unknown value {}", quote(word))).maybe_hint(hint)
        };
        self.push(finding)
    }
}

fn keys_of(fields: &[&str]) -> String {
    const SHOWN: usize = 5;
    match fields {
        [only] => format!("the key {}", quote(only)),
        _ if fields.len() <= SHOWN => format!("the keys {}", listed(fields.iter().copied(), "and")),
        _ => format!("keys such as {}", listed(fields.iter().take(SHOWN).copied(), "and")),
    }
}

impl<'de, 't: 'de> Deserializer<'de> for Decoder<'_, 't> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() {
            return Err(self.nothing());
        }
        let result = match self.kind() {
            Kind::Scalar(_) => match self.text()? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            Kind::Sequence(items) => visitor.visit_seq(Items { decoder: self, items: items.iter() }),
            Kind::Mapping(entries) => {
                visitor.visit_map(Entries { decoder: self, entries: entries.iter(), value: None })
            }
        };
        result.map_err(|error| self.record(error))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind() {
            Kind::Sequence(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong_form("a list", &[SEQUENCE])),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind() {
            Kind::Mapping(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong_form("a mapping", &[MAPPING])),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let result = match &*self.text()? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => {
                let expected = "`true` or `false`";
                Err(Error::Said(format!("{expected}\n{} is not {expected}\n", quote(other))))
            }
        };
        result.map_err(|error| self.record(error))
    }

    /// A key that is there has a value: an absent one is for the type above to default.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        match name {
            SPANNED | GIVEN => visitor.visit_seq(Parts { decoder: self, recovers: name == GIVEN, next: 0 }),
            _ => visitor.visit_newtype_struct(self).map_err(|error| self.record(error)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries = self.known_entries(name, fields)?;
        visitor
            .visit_map(Fields { decoder: self, entries: entries.into_iter(), value: None })
            .map_err(|error| self.record(error))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == BY_FORM {
            let form = match self.kind() {
                Kind::Scalar(_) => SCALAR,
                Kind::Sequence(_) => SEQUENCE,
                Kind::Mapping(_) => MAPPING,
            };
            if self.is_null() {
                return Err(self.nothing());
            }
            if !variants.contains(&form) {
                let forms = variants.iter().map(|form| match *form {
                    SCALAR => "a text",
                    SEQUENCE => "a list",
                    _ => "a mapping",
                });
                return Err(self.wrong_form(&forms.collect::<Vec<_>>().join(" or "), variants));
            }
            return visitor.visit_enum(Variant { name: form, content: self }).map_err(|error| self.record(error));
        }
        let (word_node, content) = match self.kind() {
            Kind::Mapping(entries) => match entries.as_slice() {
                [(key, value)] => (*key, *value),
                _ => return Err(self.wrong_form("a word, or a mapping of one word", &[SCALAR])),
            },
            _ => (self.node, self.node),
        };
        let is_key = word_node != self.node;
        let word = Decoder { node: word_node, is_key, ..self }.text()?;
        match variants.iter().find(|variant| **variant == word) {
            Some(_) if is_key => Err(self.wrong_form("a word", &[SCALAR])),
            Some(variant) => visitor
                .visit_enum(Variant { name: variant, content: self.at(content) })
                .map_err(|error| self.record(error)),
            None => Err(self.unknown_word(word_node, &word, variants)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct identifier
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error::Said(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Map => "a mapping",
            Unexpected::Seq => "a list",
            _ => "a text",
        };
        Error::Said(format!("{expected} is due here, and this is {found}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Error::Recorded => "recorded",
            Error::Said(message) => message,
        })
    }
}

impl std::error::Error for Error {}
