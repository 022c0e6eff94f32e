//! `register:`

use std::net::IpAddr;
use std::time::Duration;

use super::Validator;
use crate::config::builtin;
use crate::config::given::Given;
use crate::config::model::{BindAddress, Direction, Listener, Register, RegisterCheck};
use crate::config::raw::consul as raw;
use crate::config::tree::NodeId;
use crate::config::units::Period;

/// Consul looks for services to forget no more often.
const SHORTEST_DEREGISTER_AFTER: Duration = Duration::from_secs(60);

impl Validator<'_> {
    pub(super) fn register(&mut self, listeners: &[Listener]) -> Option<Register> {
        let raw = self.raw;
        let spanned = raw.register.spanned()?;
        let (register, node) = (&spanned.value, spanned.node);
        let name = match (&register.name, raw.service.get()) {
            (Given::Absent, Some(service)) => Some(service.0.clone()),
            (Given::Absent, None) => {
                self.missing(node, "this does not say which service", "add a `name`, or `service` at the top");
                None
            }
            (name, _) => self.word(name),
        };
        let address = self.word(&register.address);
        if let (Some(text), Some(at)) = (&address, register.address.node())
            && text.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
        {
            let reason = format!("nothing can be reached at {}", self.shown(at));
            self.error("invalid-value", at, reason, "write the address that others call, as in `${POD_IP}`");
        }
        let has_port = |listener: &Listener| {
            listener.direction == Direction::Inbound && !matches!(listener.address, BindAddress::Unix(_))
        };
        if register.port.is_absent() && !listeners.iter().any(has_port) && !listeners.is_empty() {
            self.missing(node, "no inbound listener has a port to register", "add a `port`");
        }
        let deregister_after = match register.deregister_after.spanned() {
            None => Some(builtin::DEREGISTER_AFTER),
            Some(spanned) => {
                let after = spanned.value.0.map(|period| period.0);
                if after.is_some_and(|after| after < SHORTEST_DEREGISTER_AFTER) {
                    let reason = format!("{} is shorter than the `1m` that Consul takes", self.shown(spanned.node));
                    self.error("impossible-number", spanned.node, reason, "write `1m` or more, or `none`");
                }
                after
            }
        };
        let meta = register.meta.get().map_or(&[][..], |pairs| &pairs.0);
        let meta = meta.iter().filter_map(|(key, value)| Some((key.value.clone(), value.get()?.0.clone()))).collect();
        Some(Register {
            name: name.unwrap_or_default(),
            id: self.word(&register.id),
            address,
            port: register.port.get().and_then(|port| u16::try_from(port.0).ok()),
            tags: self.words(&register.tags),
            meta,
            check: self.register_check(&register.check),
            deregister_after,
        })
    }

    fn register_check(&mut self, given: &Given<raw::RegisterCheck>) -> RegisterCheck {
        let default = RegisterCheck::Ttl(builtin::REGISTER_TTL);
        let Some(spanned) = given.spanned() else { return default };
        let (check, node) = (&spanned.value, spanned.node);
        let kinds = [check.ttl.node(), check.http.node(), check.tcp.node()];
        if kinds.iter().flatten().count() != 1 {
            self.missing(node, "a check is exactly one of `ttl`, `http` and `tcp`", "write it as in `{ ttl: 10s }`");
            return default;
        }
        let asked = check.ttl.is_absent();
        for at in [check.every.node(), check.timeout.node()].into_iter().flatten().filter(|_| !asked) {
            let reason = "`every` and `timeout` are for checks that the agent makes";
            self.error("contradiction", at, reason, "remove it: the proxy speaks up three times within `ttl`");
        }
        let every = self.not_zero(&check.every, builtin::REGISTER_EVERY);
        let timeout = self.not_zero(&check.timeout, builtin::REGISTER_TIMEOUT);
        if let Some(url) = self.word(&check.http) {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                let at = check.http.node().unwrap_or(node);
                let reason = format!("{} is not a URL", self.shown(at));
                self.error("invalid-value", at, reason, "write it as in `http://127.0.0.1:9902/readyz`");
            }
            return RegisterCheck::Http { url, every, timeout };
        }
        match self.word(&check.tcp) {
            Some(address) => RegisterCheck::Tcp { address, every, timeout },
            None => RegisterCheck::Ttl(self.not_zero(&check.ttl, builtin::REGISTER_TTL)),
        }
    }

    fn not_zero(&mut self, given: &Given<Period>, otherwise: Duration) -> Duration {
        let Some(spanned) = given.spanned() else { return otherwise };
        if spanned.value.0.is_zero() {
            self.refuse_zero(spanned.node);
        }
        spanned.value.0
    }

    fn refuse_zero(&mut self, node: NodeId) {
        let reason = format!("{} is no time at all", self.shown(node));
        self.error("impossible-number", node, reason, "write it as in `10s`");
    }
}
