//! What an upstream says over what the defaults say, key by key, for mappings that can be switched off as a whole.

use std::time::Duration;

use crate::config::given::{Given, Spanned};
use crate::config::scalar::OrNone;
use crate::config::units::{Number, Period, Ratio};

/// A value that is a mapping, or says that there is none.
pub(super) trait Switch {
    type Mapping;

    fn mapping(&self) -> Option<&Self::Mapping>;
}

/// Two mappings, of which the first is asked first.
pub(super) struct Layers<'r, T> {
    own: Option<&'r T>,
    defaults: Option<&'r T>,
}

impl<'r, T> Layers<'r, T> {
    /// `None` where it is off. What the defaults have switched off, an upstream's mapping switches on.
    pub(super) fn of<S: Switch<Mapping = T>>(
        own: Option<&'r Given<S>>,
        defaults: Option<&'r Given<S>>,
        on_by_default: bool,
    ) -> Option<Self> {
        let own = own.and_then(Given::get).map(Switch::mapping);
        let defaults = defaults.and_then(Given::get).map(Switch::mapping);
        let is_on = own.or(defaults).map_or(on_by_default, |mapping| mapping.is_some());
        is_on.then_some(Layers { own: own.flatten(), defaults: defaults.flatten() })
    }

    /// What is written for a key.
    pub(super) fn spanned<V>(&self, key: fn(&T) -> &Given<V>) -> Option<&'r Spanned<V>> {
        self.both().find_map(|mapping| key(mapping).spanned())
    }

    /// What the first of the mappings says for a key.
    pub(super) fn own<V>(&self, key: fn(&T) -> &Given<V>) -> Option<&'r Spanned<V>> {
        self.own.and_then(|mapping| key(mapping).spanned())
    }

    /// Both mappings, as far as they are there.
    pub(super) fn both(&self) -> impl Iterator<Item = &'r T> {
        self.own.into_iter().chain(self.defaults)
    }

    pub(super) fn period(&self, key: fn(&T) -> &Given<Period>, otherwise: Duration) -> Duration {
        self.spanned(key).map_or(otherwise, |period| period.value.0)
    }

    pub(super) fn ratio(&self, key: fn(&T) -> &Given<Ratio>, otherwise: f64) -> f64 {
        self.spanned(key).map_or(otherwise, |ratio| ratio.value.0)
    }

    pub(super) fn number<const MOST: u32>(&self, key: fn(&T) -> &Given<Number<1, MOST>>, otherwise: u32) -> u32 {
        self.spanned(key).map_or(otherwise, |number| number.value.0)
    }

    pub(super) fn or_none<V: Copy>(&self, key: fn(&T) -> &Given<OrNone<V>>, otherwise: Option<V>) -> Option<V> {
        self.spanned(key).map_or(otherwise, |value| value.value.0)
    }
}
