//! The keys outside listeners and upstreams.

use std::path::PathBuf;

use super::{NamedFile, Validator};
use crate::config::builtin;
use crate::config::findings::Finding;
use crate::config::given::Spanned;
use crate::config::model::{Admin, BindAddress, Drain, Workers};
use crate::config::raw;
use crate::config::units::Text;

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
            if !address.ip().is_loopback() && admin.token_file.is_absent() {
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

    pub(super) fn metrics(&mut self) -> Option<BindAddress> {
        let metrics = self.raw.metrics.spanned()?;
        let (address, node) = match &metrics.value {
            raw::MetricsForm::Address(address) => (address, metrics.node),
            raw::MetricsForm::Long(long) if long.address.is_absent() => {
                self.missing(metrics.node, "`metrics` has no `address`", "write `address: \":9902\"`");
                return None;
            }
            raw::MetricsForm::Long(long) => {
                let address = long.address.spanned()?;
                (&address.value, address.node)
            }
        };
        let address = address.0.clone()?;
        self.claim(&address, node, "the metrics address");
        Some(address)
    }

    pub(super) fn drain(&self) -> Drain {
        let Some(drain) = self.raw.drain.get() else { return builtin::DRAIN };
        Drain {
            delay: drain.delay.get().map_or(builtin::DRAIN.delay, |delay| delay.0),
            timeout: drain.timeout.get().map_or(builtin::DRAIN.timeout, |timeout| timeout.0),
        }
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
