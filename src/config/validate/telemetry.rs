//! `telemetry:`

use std::path::Path;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};

use super::otlp;
use super::{NamedFile, Validator};
use crate::config::given::{Given, Spanned};
use crate::config::model::{
    AccessLog, AccessLogField, AccessLogFilter, AccessLogFormat, Log, LogFormat, LogLevel, LogTarget, Propagation,
    Samples, Telemetry, Traces,
};
use crate::config::raw::route::OneOrMany;
use crate::config::raw::{telemetry as raw, traces};
use crate::config::units::{Ratio, Text};

/// Whoever reads a log could use them.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];
/// Of a request that a line of the access log shows.
const MOST_HEADERS: usize = 16;

impl Validator<'_> {
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
        let lines = match access.and_then(|access| access.format.get()) {
            None | Some(raw::AccessLogFormat::Json) => AccessLogFormat::Json,
            Some(raw::AccessLogFormat::Text) => AccessLogFormat::Text,
        };
        let fields = match access.and_then(|access| access.fields.get()) {
            Some(fields) => fields.iter().map(|field| field.value).collect(),
            None => AccessLogField::ALL.to_vec(),
        };
        let headers = access.and_then(|access| access.headers.get()).map_or_else(Vec::new, |names| self.logged(names));
        let access_log = AccessLog {
            target,
            only,
            sample: samples(access.and_then(|access| access.sample.get())),
            format: lines,
            fields,
            headers,
            queries: access.and_then(|access| access.queries.get()).is_some_and(|flag| flag.0),
        };
        let traces = telemetry.and_then(|telemetry| telemetry.traces.get()).map(|traces| self.traces(traces));
        Telemetry { log: Log { level, format }, access_log, traces }
    }

    fn logged(&mut self, names: &OneOrMany<Text>) -> Vec<HeaderName> {
        let mut headers = Vec::new();
        for name in names.iter() {
            let shown = self.shown(name.node);
            match HeaderName::from_bytes(name.value.0.as_bytes()) {
                Err(_) => self.error("invalid-name", name.node, format!("{shown} is not the name of a header"), ""),
                Ok(header) if CREDENTIALS.contains(&header) => {
                    let reason = format!("{shown} holds credentials, which no log is safe with");
                    self.error("forbidden-header", name.node, reason, "remove it");
                }
                Ok(header) if headers.contains(&header) => {}
                Ok(_) if headers.len() == MOST_HEADERS => {
                    let reason = format!("a line shows at most {MOST_HEADERS} headers");
                    self.error("impossible-number", name.node, reason, "remove some");
                    break;
                }
                Ok(header) => headers.push(header),
            }
        }
        headers
    }

    fn traces(&mut self, raw: &traces::Traces) -> Traces {
        let propagation = raw.propagation.get().map(|words| {
            let mut propagation = Propagation { w3c: false, b3: false, b3_multi: false };
            for word in words.iter() {
                match word.value {
                    traces::Propagation::W3c => propagation.w3c = true,
                    traces::Propagation::B3 => propagation.b3 = true,
                    traces::Propagation::B3multi => propagation.b3_multi = true,
                }
            }
            propagation
        });
        let written = otlp::Written {
            url: raw.otlp.get(),
            key: "otlp",
            tls: &raw.tls,
            protocol: &raw.protocol,
            headers: &raw.headers,
            resource: &raw.resource,
        };
        Traces { collector: self.collector(&written), sample: raw.sample.get().map(|ratio| ratio.0), propagation }
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
}

fn samples(given: Option<&raw::SampleForm>) -> Samples {
    let share = |ratio: &Given<Ratio>| ratio.get().map_or(1.0, |ratio| ratio.0);
    match given {
        None => Samples::all(1.0),
        Some(raw::SampleForm::All(ratio)) => Samples::all(ratio.0),
        Some(raw::SampleForm::ByClass(shares)) => Samples([
            share(&shares.informational),
            share(&shares.success),
            share(&shares.redirection),
            share(&shares.client_error),
            // Each of them is an error, and every error is written.
            1.0,
        ]),
    }
}
