//! What serde walks through: the parts of lists, mappings and enums.

use serde::de::value::{BorrowedStrDeserializer, U32Deserializer};
use serde::de::{self, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::{Decoder, Error};
use crate::config::tree::NodeId;

/// The number of a node, then its value; where it recovers, a value that fails is no value.
pub(super) struct Parts<'c, 't> {
    pub(super) decoder: Decoder<'c, 't>,
    pub(super) recovers: bool,
    pub(super) next: u8,
}

impl<'de, 't: 'de> SeqAccess<'de> for Parts<'_, 't> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next += 1;
        match self.next {
            1 => {
                let number: U32Deserializer<Error> = self.decoder.node.0.into_deserializer();
                seed.deserialize(number).map(Some)
            }
            2 => match seed.deserialize(self.decoder) {
                Ok(value) => Ok(Some(value)),
                Err(error) if self.recovers => {
                    self.decoder.record(error);
                    Ok(None)
                }
                Err(error) => Err(error),
            },
            _ => Ok(None),
        }
    }
}

pub(super) struct Items<'c, 't> {
    pub(super) decoder: Decoder<'c, 't>,
    pub(super) items: std::slice::Iter<'t, NodeId>,
}

impl<'de, 't: 'de> SeqAccess<'de> for Items<'_, 't> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.items.next().map(|item| seed.deserialize(self.decoder.at(*item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// Entries of a mapping with keys of the user's own.
pub(super) struct Entries<'c, 't> {
    pub(super) decoder: Decoder<'c, 't>,
    pub(super) entries: std::slice::Iter<'t, (NodeId, NodeId)>,
    pub(super) value: Option<NodeId>,
}

impl<'de, 't: 'de> MapAccess<'de> for Entries<'_, 't> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(*value);
        seed.deserialize(Decoder { node: *key, is_key: true, ..self.decoder }).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let node = self.value.take().ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(self.decoder.at(node))
    }
}

/// Entries of a mapping with keys of ours.
pub(super) struct Fields<'c, 't> {
    pub(super) decoder: Decoder<'c, 't>,
    pub(super) entries: std::vec::IntoIter<(&'static str, NodeId)>,
    pub(super) value: Option<NodeId>,
}

impl<'de, 't: 'de> MapAccess<'de> for Fields<'_, 't> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let node = self.value.take().ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(self.decoder.at(node))
    }
}

pub(super) struct Variant<'c, 't> {
    pub(super) name: &'static str,
    pub(super) content: Decoder<'c, 't>,
}

impl<'de, 't: 'de> EnumAccess<'de> for Variant<'_, 't> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        Ok((seed.deserialize(BorrowedStrDeserializer::<Error>::new(self.name))?, self))
    }
}

impl<'de, 't: 'de> VariantAccess<'de> for Variant<'_, 't> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.content)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("no key takes such a value"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("no key takes such a value"))
    }
}
