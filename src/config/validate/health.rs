//! `health`.

use http::uri::PathAndQuery;

use super::Validator;
use super::layers::{Layers, Switch};
use crate::config::builtin;
use crate::config::model::{HealthCheck, Probe};
use crate::config::raw::health as raw;
use crate::config::raw::judging::Off;
use crate::config::raw::upstream::UpstreamLong;

impl Switch for raw::HealthForm {
    type Mapping = raw::Health;

    fn mapping(&self) -> Option<&raw::Health> {
        match self {
            raw::HealthForm::Off(Off::None) => None,
            raw::HealthForm::On(health) => Some(health),
        }
    }
}

impl Validator<'_> {
    pub(super) fn health(&mut self, long: Option<&UpstreamLong>) -> Option<HealthCheck> {
        let defaults = self.raw.defaults.get().map(|defaults| &defaults.health);
        let own = long.map(|long| &long.health);
        let node = own.and_then(|own| own.node()).or_else(|| defaults.and_then(|defaults| defaults.node()))?;
        let layers = Layers::of(own, defaults, false)?;
        // Whoever says what is asked says it alone: an upstream's `tcp` is not a second probe beside the defaults' `http`.
        let probing = layers.both().find(|raw| [raw.http.node(), raw.tcp.node(), raw.grpc.node()] != [None; 3]);
        let probe = match probing {
            Some(raw) => self.probe(raw),
            None => {
                self.missing(
                    node,
                    "nothing says what is asked",
                    "write `http: /healthz`, `tcp: true` or `grpc: SERVICE`",
                );
                None
            }
        };
        self.some_time(layers.spanned(|raw| &raw.every));
        self.some_time(layers.spanned(|raw| &raw.timeout));
        let builtin = builtin::HEALTH;
        Some(HealthCheck {
            probe: probe.unwrap_or(Probe::Tcp),
            port: layers.spanned(|raw| &raw.port).and_then(|port| u16::try_from(port.value.0).ok()),
            every: layers.period(|raw| &raw.every, builtin.every),
            timeout: layers.period(|raw| &raw.timeout, builtin.timeout),
            up: layers.number(|raw| &raw.up, builtin.up),
            down: layers.number(|raw| &raw.down, builtin.down),
            initially_up: !matches!(layers.spanned(|raw| &raw.initial), Some(initial) if matches!(initial.value, raw::Initial::Down)),
        })
    }

    fn probe(&mut self, raw: &raw::Health) -> Option<Probe> {
        let nodes = [raw.http.node(), raw.tcp.node(), raw.grpc.node()];
        if let Some(second) = nodes.iter().flatten().nth(1) {
            self.error(
                "conflict",
                *second,
                "this is a second question, and one is due",
                "keep one of `http`, `tcp` and `grpc`",
            );
            return None;
        }
        if let Some(path) = raw.http.spanned() {
            return match PathAndQuery::try_from(path.value.0.as_str()) {
                Ok(target) if path.value.0.starts_with('/') => Some(Probe::Http(target)),
                _ => {
                    let reason = format!("{} is not a path", self.shown(path.node));
                    self.error("invalid-value", path.node, reason, "write it as in `/healthz`");
                    None
                }
            };
        }
        if let Some(tcp) = raw.tcp.spanned() {
            if !tcp.value.0 {
                self.error("conflict", tcp.node, "this asks nothing", "write `health: none` for no check");
            }
            return Some(Probe::Tcp);
        }
        raw.grpc.get().map(|service| Probe::Grpc(service.0.clone()))
    }
}
