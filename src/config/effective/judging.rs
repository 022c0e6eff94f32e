//! `slow_start`, `ejection`, `circuit_breaker` and `health` in their long form.

use super::yaml::Yaml;
use super::{Long, map, period, text};
use crate::config::builtin;
use crate::config::given::Given;
use crate::config::raw::health::{Health, HealthForm};
use crate::config::raw::judging::{CircuitBreaker, CircuitBreakerForm, Ejection, EjectionForm};
use crate::config::scalar::OrNone;
use crate::config::tree::NodeId;
use crate::config::units::Period;

type Forms<'a, T> = [Option<&'a Given<T>>; 2];

impl Long<'_> {
    /// Written, it would hold for endpoints that come back, too.
    pub(super) fn slow_start(&self, given: Forms<'_, OrNone<Period>>) -> Yaml {
        given.into_iter().flatten().find_map(Given::node).map_or_else(
            || Yaml::Comment(format!("none, and {} after an ejection", period(Some(builtin::SLOW_RETURN)))),
            |node| self.copy(node),
        )
    }

    pub(super) fn ejection(&self, forms: Forms<'_, EjectionForm>) -> Yaml {
        let Some(layers) = layers(forms, true, |form| match form {
            EjectionForm::Off(_) => None,
            EjectionForm::On(ejection) => Some(&**ejection),
        }) else {
            return text("none");
        };
        let said = |key: fn(&Ejection) -> Option<NodeId>, otherwise: String| self.layered(&layers, key, otherwise);
        let none = || "none".to_owned();
        let builtin = builtin::EJECTION;
        // It is never shorter than the first.
        let longest =
            layers.iter().find_map(|raw| raw.base.get()).map_or(builtin.longest, |first| first.0.max(builtin.longest));
        map([
            (
                "consecutive",
                said(|raw| raw.consecutive.node(), builtin.consecutive.map_or_else(none, |count| count.to_string())),
            ),
            ("failure_ratio", said(|raw| raw.failure_ratio.node(), none())),
            ("deviations", said(|raw| raw.deviations.node(), none())),
            ("min_requests", said(|raw| raw.min_requests.node(), builtin.min_requests.to_string())),
            ("window", said(|raw| raw.window.node(), period(Some(builtin.window)))),
            ("for", said(|raw| raw.base.node(), period(Some(builtin.base)))),
            ("max_for", said(|raw| raw.max_for.node(), period(Some(longest)))),
            ("max_ratio", said(|raw| raw.max_ratio.node(), builtin.max_ratio.to_string())),
            ("panic_ratio", said(|raw| raw.panic_ratio.node(), builtin.panic_ratio.to_string())),
            ("shadow", said(|raw| raw.shadow.node(), builtin.shadow.to_string())),
        ])
    }

    pub(super) fn circuit_breaker(&self, forms: Forms<'_, CircuitBreakerForm>) -> Yaml {
        let Some(layers) = layers(forms, false, |form| match form {
            CircuitBreakerForm::Off(_) => None,
            CircuitBreakerForm::On(breaker) => Some(&**breaker),
        }) else {
            return text("none");
        };
        let said =
            |key: fn(&CircuitBreaker) -> Option<NodeId>, otherwise: String| self.layered(&layers, key, otherwise);
        let builtin = builtin::circuit_breaker();
        let longest = layers
            .iter()
            .find_map(|raw| raw.open_for.get())
            .map_or(builtin.longest, |first| first.0.max(builtin.longest));
        let fallback = layers.iter().find_map(|raw| raw.fallback.node()).map(|node| ("fallback", self.copy(node)));
        map([
            ("failure_ratio", said(|raw| raw.failure_ratio.node(), builtin.failure_ratio.to_string())),
            ("slow", said(|raw| raw.slow.node(), "none".to_owned())),
            ("slow_ratio", said(|raw| raw.slow_ratio.node(), builtin.slow_ratio.to_string())),
            ("min_requests", said(|raw| raw.min_requests.node(), builtin.min_requests.to_string())),
            ("window", said(|raw| raw.window.node(), period(Some(builtin.window)))),
            ("open_for", said(|raw| raw.open_for.node(), period(Some(builtin.open_for)))),
            ("max_open_for", said(|raw| raw.max_open_for.node(), period(Some(longest)))),
            ("probes", said(|raw| raw.probes.node(), builtin.probes.to_string())),
            ("shadow", said(|raw| raw.shadow.node(), builtin.shadow.to_string())),
        ]
        .into_iter()
        .chain(fallback))
    }

    pub(super) fn health(&self, forms: Forms<'_, HealthForm>) -> Yaml {
        let Some(layers) = layers(forms, false, |form| match form {
            HealthForm::Off(_) => None,
            HealthForm::On(health) => Some(&**health),
        }) else {
            return text("none");
        };
        let said = |key: fn(&Health) -> Option<NodeId>, otherwise: String| self.layered(&layers, key, otherwise);
        let builtin = builtin::HEALTH;
        let asked = |raw: &&Health| [("http", raw.http.node()), ("tcp", raw.tcp.node()), ("grpc", raw.grpc.node())];
        let probe = layers.iter().map(asked).find(|asked| asked.iter().any(|(_, node)| node.is_some()));
        let probe = probe.into_iter().flatten().filter_map(|(key, node)| Some((key, self.copy(node?))));
        let port = layers.iter().find_map(|raw| raw.port.node()).map(|node| ("port", self.copy(node)));
        map(probe.chain(port).chain([
            ("every", said(|raw| raw.every.node(), period(Some(builtin.every)))),
            ("timeout", said(|raw| raw.timeout.node(), period(Some(builtin.timeout)))),
            ("up", said(|raw| raw.up.node(), builtin.up.to_string())),
            ("down", said(|raw| raw.down.node(), builtin.down.to_string())),
            ("initial", said(|raw| raw.initial.node(), "up".to_owned())),
        ]))
    }

    fn layered<T>(&self, layers: &[&T], key: fn(&T) -> Option<NodeId>, otherwise: String) -> Yaml {
        layers.iter().find_map(|layer| key(layer)).map_or_else(|| text(otherwise), |node| self.copy(node))
    }
}

/// The mappings that are asked one after the other; `None` where it is off.
fn layers<'a, S, T>(forms: Forms<'a, S>, on_by_default: bool, mapping: fn(&S) -> Option<&T>) -> Option<Vec<&'a T>> {
    let written: Vec<Option<&T>> = forms.into_iter().flatten().filter_map(Given::get).map(mapping).collect();
    let is_on = written.first().map_or(on_by_default, Option::is_some);
    is_on.then(|| written.into_iter().flatten().collect())
}
