//! What the raw types are made of: values that know where they were written, and may be wrong or absent.

use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::tree::NodeId;

/// Names by which [`super::decode`] knows the types below.
pub(crate) const SPANNED: &str = "$spanned";
pub(crate) const GIVEN: &str = "$given";
/// An enum with this serde name has the variants `scalar`, `sequence` and `mapping`, chosen by the form of the value.
pub(crate) const BY_FORM: &str = "$by_form";

/// A value and the node that it was read from.
#[derive(Debug, Clone)]
pub(crate) struct Spanned<T> {
    pub(crate) node: NodeId,
    pub(crate) value: T,
}

/// What a file says about a key.
///
/// A value that cannot be read has its finding already; keeping `Invalid` apart from `Absent` spares the user a second
/// message that follows from the first.
#[derive(Debug, Clone, Default)]
pub(crate) enum Given<T> {
    /// Nothing.
    #[default]
    Absent,
    /// Something that cannot be read, or that depends on a variable that is not known.
    Invalid(NodeId),
    /// This.
    Value(Spanned<T>),
}

impl<T> Given<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        self.spanned().map(|spanned| &spanned.value)
    }

    pub(crate) fn spanned(&self) -> Option<&Spanned<T>> {
        match self {
            Given::Value(spanned) => Some(spanned),
            _ => None,
        }
    }

    pub(crate) fn node(&self) -> Option<NodeId> {
        match self {
            Given::Value(spanned) => Some(spanned.node),
            Given::Invalid(node) => Some(*node),
            Given::Absent => None,
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Given::Absent)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_newtype_struct(SPANNED, PartsVisitor(PhantomData))? {
            (node, Some(value)) => Ok(Spanned { node, value }),
            (_, None) => Err(serde::de::Error::custom("no value")),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match deserializer.deserialize_newtype_struct(GIVEN, PartsVisitor(PhantomData))? {
            (node, Some(value)) => Given::Value(Spanned { node, value }),
            (node, None) => Given::Invalid(node),
        })
    }
}

/// Takes a node's number and its value.
struct PartsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for PartsVisitor<T> {
    type Value = (NodeId, Option<T>);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let node = parts
            .next_element::<u32>()?
            .ok_or_else(|| serde::de::Error::custom("not read by the configuration's decoder"))?;
        Ok((NodeId(node), parts.next_element::<T>()?))
    }
}

/// A mapping whose keys are names of the user's own. `x-…` keys are no names.
#[derive(Debug, Clone)]
pub(crate) struct Named<T>(pub(crate) Vec<(Spanned<String>, Given<T>)>);

/// A mapping whose keys are names of headers and the like, `x-…` included.
#[derive(Debug, Clone)]
pub(crate) struct Pairs<T>(pub(crate) Vec<(Spanned<String>, Given<T>)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor { skip_extensions: true, value: PhantomData }).map(Named)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor { skip_extensions: false, value: PhantomData }).map(Pairs)
    }
}

struct EntriesVisitor<T> {
    skip_extensions: bool,
    value: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
    type Value = Vec<(Spanned<String>, Given<T>)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if self.skip_extensions && key.value.starts_with("x-") {
                map.next_value::<IgnoredAny>()?;
            } else {
                entries.push((key, map.next_value()?));
            }
        }
        Ok(entries)
    }
}

impl<T: JsonSchema> JsonSchema for Given<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "patternProperties": { "^x-": true }, "additionalProperties": value })
    }
}

impl<T: JsonSchema> JsonSchema for Pairs<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Pairs{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": value })
    }
}
