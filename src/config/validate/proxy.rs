//! The keys outside listeners and upstreams.

use std::path::PathBuf;
use std::time::Duration;

use super::{NamedFile, Validator};
use crate::config::builtin;
use crate::config::findings::Finding;
use crate::config::given::{Given, Named, Spanned};
use crate::config::model::{Admin, BindAddress, Buckets, Drain, Metrics, Probation, ProbeTarget, Workers};
use crate::config::raw;
use crate::config::text::quote;
use crate::config::units::{Seconds, Text};

impl Validator<'_> {
    pub(super) fn workers(&self) -> Workers {
        self.raw.workers.get().map_or(Workers::Auto, |workers| workers.0)
    }

    pub(super) fn admin(&mut self) -> Admin {
        let raw = self.raw;
        let default = Admin { address: Some(builtin::ADMIN_ADDRESS), token_file: None, socket: None };
        let Some(admin) = raw.admin.spanned().map(|spanned| &spanned.value) else {
            self.claim(
                &BindAddress::Tcp(builtin::ADMIN_ADDRESS),
                self.tree.root(),
                "`admin`, which is 127.0.0.1:9901 unless written",
            );
            return default;
        };
        let address = admin.address.get().map_or(default.address, |address| address.0.map(|address| address.0));
        let at = admin.address.node().unwrap_or(self.tree.root());
        if let Some(address) = address {
            self.claim(&BindAddress::Tcp(address), at, "the admin address");
            if !address.ip().to_canonical().is_loopback() && admin.token_file.is_absent() {
                let reason =
                    format!("the admin address {} can be reached from outside, and there is no token", self.shown(at));
                self.error("public-admin", at, reason, "add a `token_file`, or use `127.0.0.1`");
            }
        }
        let socket = admin.socket.spanned().map(|socket| {
            let path = socket.value.0.strip_prefix("unix:").unwrap_or(&socket.value.0).to_owned();
            let path = self.absolute(socket.node, &path);
            self.claim(&BindAddress::Unix(path.clone()), socket.node, "the admin socket");
            path
        });
        let token_file = admin.token_file.spanned().map(|file| self.file(file));
        Admin { address, token_file, socket }
    }

    /// `told` is what the command line says; what the file says goes over it.
    pub(super) fn metrics(&mut self, told: Option<&Metrics>) -> Metrics {
        let raw = self.raw;
        let mut metrics = told.cloned().unwrap_or_default();
        let given = match raw.metrics.spanned().map(|spanned| (&spanned.value, spanned.node)) {
            None => None,
            Some((raw::MetricsForm::Address(address), node)) => Some((&address.0, node)),
            Some((raw::MetricsForm::Long(long), node)) => {
                // The admin's address has metrics, too.
                let for_address = long.buckets.is_absent() && long.otlp.is_absent() || !long.probes.is_absent();
                if long.address.is_absent() && metrics.address.is_none() && for_address {
                    self.missing(node, "`metrics` has no `address`", "write `address: \":9902\"`");
                }
                self.probes(&long.probes, &mut metrics.probes);
                if let Some(bounds) = long.buckets.spanned() {
                    metrics.buckets = self.buckets(bounds);
                }
                metrics.export = long.otlp.spanned().map(|export| self.metrics_export(export));
                long.address.spanned().map(|address| (&address.value.0, address.node))
            }
        };
        if let Some((address, _)) = given {
            metrics.address.clone_from(address);
        }
        if let Some(address) = &metrics.address {
            let node = given.map_or(self.tree.root(), |(_, node)| node);
            self.claim(address, node, "the metrics address");
        }
        metrics
    }

    fn probes(&mut self, given: &Given<Named<ProbeTarget>>, probes: &mut Vec<(String, ProbeTarget)>) {
        for (name, target) in given.get().map(|named| named.0.as_slice()).unwrap_or_default() {
            if !is_probe_name(&name.value) {
                let reason = format!("{} is not a name of a probe", quote(&name.value));
                let hint = "write words of a-z, 0-9, `-`, `_` and `.` with slashes between, as in `app/readiness`";
                self.error("invalid-name", name.node, reason, hint);
            }
            if let Some(target) = target.get() {
                probes.retain(|(known, _)| *known != name.value);
                probes.push((name.value.clone(), target.clone()));
            }
        }
    }

    fn buckets(&mut self, given: &Spanned<Vec<Given<Seconds>>>) -> Buckets {
        let mut bounds: Vec<Duration> = Vec::new();
        for bound in given.value.iter().filter_map(Given::spanned) {
            let seconds = Duration::from_secs_f64(bound.value.0);
            if bounds.last().is_some_and(|before| *before >= seconds) {
                let reason = format!("{} is not larger than the one before it", self.shown(bound.node));
                self.error("invalid-value", bound.node, reason, "write the bounds from the smallest up, each once");
            }
            bounds.push(seconds);
        }
        if given.value.is_empty() {
            self.error("missing-value", given.node, "a histogram needs a bucket", "write bounds, or remove `buckets`");
        } else if given.value.len() > Buckets::MOST {
            let reason = format!("{} buckets are {} too many", given.value.len(), given.value.len() - Buckets::MOST);
            let hint = format!("each is a series of each route and class of codes; keep at most {}", Buckets::MOST);
            self.error("invalid-value", given.node, reason, &hint);
        }
        Buckets(bounds)
    }

    pub(super) fn drain(&self) -> Drain {
        let Some(drain) = self.raw.drain.get() else { return builtin::DRAIN };
        Drain {
            delay: drain.delay.get().map_or(builtin::DRAIN.delay, |delay| delay.0),
            timeout: drain.timeout.get().map_or(builtin::DRAIN.timeout, |timeout| timeout.0),
        }
    }

    pub(super) fn probation(&mut self) -> Option<Probation> {
        let raw = self.raw;
        let raw::ProbationForm::On(probation) = raw.probation.get()? else { return None };
        let lasts = probation.lasts.spanned();
        if let Some(lasts) = lasts.filter(|lasts| lasts.value.0.is_zero()) {
            let reason = format!("{} is no time at all", self.shown(lasts.node));
            self.error("impossible-number", lasts.node, reason, "write it as in `30s`; `probation: none` is off");
        }
        let builtin = builtin::PROBATION;
        Some(Probation {
            lasts: lasts.map_or(builtin.lasts, |lasts| lasts.value.0),
            max_error_ratio: probation.max_error_ratio.get().map_or(builtin.max_error_ratio, |ratio| ratio.0),
            min_requests: probation.min_requests.get().map_or(builtin.min_requests, |number| number.0),
        })
    }

    pub(super) fn file(&mut self, file: &Spanned<Text>) -> PathBuf {
        let path = PathBuf::from(&file.value.0);
        if path.as_os_str().is_empty() {
            self.error("invalid-value", file.node, "a path is due here, and this is empty", "");
        } else {
            self.files.push(NamedFile { path: path.clone(), node: file.node, what: "the file" });
        }
        path
    }

    pub(super) fn absolute(&mut self, node: crate::config::tree::NodeId, path: &str) -> PathBuf {
        if !path.starts_with('/') || path.contains('\0') {
            let reason = format!("{} is not an absolute path", self.shown(node));
            self.push(
                Finding::error("invalid-value", node, reason)
                    .hint("write it from the root on, as in `/var/log/access.log`"),
            );
        }
        PathBuf::from(path)
    }
}

/// Whether a name can stand in the path of a probe: `app/readiness`.
pub(crate) fn is_probe_name(name: &str) -> bool {
    let allowed = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"-_.".contains(&letter);
    name.len() <= 253 && name.split('/').all(|word| !word.is_empty() && word.bytes().all(allowed))
}
