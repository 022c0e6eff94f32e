//! The keys outside listeners and upstreams.

use std::path::{Path, PathBuf};

use super::{NamedFile, Validator};
use crate::config::builtin;
use crate::config::findings::Finding;
use crate::config::given::Spanned;
use crate::config::model::{
    AccessLog, AccessLogFilter, Admin, BindAddress, Drain, Log, LogFormat, LogLevel, LogTarget, Telemetry, Workers,
};
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

    pub(super) fn telemetry(&mut self) -> Telemetry {
        let telemetry = self.raw.telemetry.get();
        let log = telemetry.and_then(|telemetry| telemetry.log.get());
        let level = match log.and_then(|log| log.level.get()) {
            Some(raw::LogLevel::Error) => LogLevel::Error,
            Some(raw::LogLevel::Warn) => LogLevel::Warn,
            None | Some(raw::LogLevel::Info) => LogLevel::Info,
            Some(raw::LogLevel::Debug) => LogLevel::Debug,
            Some(raw::LogLevel::Trace) => LogLevel::Trace,
        };
        let format = match log.and_then(|log| log.format.get()) {
            None | Some(raw::LogFormat::Json) => LogFormat::Json,
            Some(raw::LogFormat::Text) => LogFormat::Text,
        };
        let access = telemetry.and_then(|telemetry| telemetry.access_log.get());
        let target =
            access.and_then(|access| access.path.spanned()).map_or(LogTarget::Stdout, |path| self.log_target(path));
        let only = match access.and_then(|access| access.only.get()) {
            Some(raw::AccessLogFilter::All) => AccessLogFilter::All,
            None | Some(raw::AccessLogFilter::Errors) => AccessLogFilter::Errors,
        };
        let sample = access.and_then(|access| access.sample.get()).map_or(1.0, |ratio| ratio.0);
        Telemetry { log: Log { level, format }, access_log: AccessLog { target, only, sample } }
    }

    fn log_target(&mut self, path: &Spanned<Text>) -> LogTarget {
        match path.value.0.as_str() {
            "stdout" => LogTarget::Stdout,
            "stderr" => LogTarget::Stderr,
            "none" => LogTarget::None,
            file => {
                let file = self.absolute(path.node, file);
                if let Some(folder) = file.parent().filter(|folder| *folder != Path::new("/")) {
                    self.files.push(NamedFile { path: folder.to_owned(), node: path.node, what: "the folder of" });
                }
                LogTarget::File(file)
            }
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

    fn absolute(&mut self, node: crate::config::tree::NodeId, path: &str) -> PathBuf {
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
