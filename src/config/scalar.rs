//! Values that are one word in the file. Each type here knows how it is written, what to say when it is not, and its
//! JSON Schema.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Visitor};

/// A type that is read from one word.
pub(crate) trait Scalar: Sized {
    /// What is due, as in "… is not a duration".
    const EXPECTED: &'static str;

    /// The type's name in the JSON Schema; empty where each use stands for itself.
    const SCHEMA_NAME: &'static str = "";

    fn parse(text: &str) -> Result<Self, Invalid>;

    fn schema() -> Schema;
}

/// Why a word is not a value. May quote the word: who reports it must know whether that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) detail: String,
    pub(crate) hint: Option<String>,
}

impl Invalid {
    pub(crate) fn new(detail: impl Into<String>) -> Self {
        Invalid { detail: detail.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Reads a [`Scalar`] through serde. The lines of an error are what is expected, what is wrong, and a hint.
pub(crate) fn deserialize<'de, T: Scalar, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct ScalarVisitor<T>(PhantomData<T>);

    impl<T: Scalar> Visitor<'_> for ScalarVisitor<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(T::EXPECTED)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            T::parse(text).map_err(|invalid| {
                E::custom(format_args!(
                    "{}\n{}\n{}",
                    T::EXPECTED,
                    invalid.detail,
                    invalid.hint.as_deref().unwrap_or_default()
                ))
            })
        }
    }

    deserializer.deserialize_str(ScalarVisitor(PhantomData))
}

/// Makes a [`Scalar`] readable by serde and known to the JSON Schema.
macro_rules! scalar {
    ($type:ty $(, $($generics:tt)+)?) => {
        impl<'de $(, $($generics)+)?> serde::de::Deserialize<'de> for $type {
            fn deserialize<D: serde::de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::config::scalar::deserialize(deserializer)
            }
        }

        impl $(<$($generics)+>)? schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                <$type as $crate::config::scalar::Scalar>::SCHEMA_NAME.is_empty()
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                match <$type as $crate::config::scalar::Scalar>::SCHEMA_NAME {
                    "" => std::any::type_name::<$type>().into(),
                    name => name.into(),
                }
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <$type as $crate::config::scalar::Scalar>::schema()
            }
        }
    };
}
pub(crate) use scalar;

/// A value that may be `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrNone<T>(pub(crate) Option<T>);

impl<'de, T: Scalar> Deserialize<'de> for OrNone<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize::<OrNone<T>, D>(deserializer)
    }
}

impl<T: Scalar> Scalar for OrNone<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text == "none" { Ok(OrNone(None)) } else { T::parse(text).map(|value| OrNone(Some(value))) }
    }

    fn schema() -> Schema {
        let value = T::schema();
        schemars::json_schema!({ "anyOf": [{ "const": "none" }, value] })
    }
}

impl<T: Scalar> JsonSchema for OrNone<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OrNone{}", T::SCHEMA_NAME).into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Self::schema()
    }
}

/// The pattern of a text that holds a variable: its value is not known before the proxy runs.
pub(crate) const VARIABLE_PATTERN: &str = r"\$\{";

/// A schema for texts that match a pattern or hold a variable.
pub(crate) fn pattern(pattern: &str) -> Schema {
    schemars::json_schema!({ "type": "string", "pattern": format!("^(?:{pattern})$|{VARIABLE_PATTERN}") })
}
