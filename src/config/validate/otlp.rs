//! Collectors of OpenTelemetry.

use http::{HeaderName, HeaderValue};

use super::Validator;
use crate::config::given::{Given, Pairs, Spanned};
use crate::config::model::{Collector, MetricsExport, OtlpProtocol, OtlpUrl};
use crate::config::raw::otlp as raw;
use crate::config::raw::tls::UpstreamTls;
use crate::config::text::quote;
use crate::config::units::Text;

/// What is written of a collector, in one section or another.
pub(super) struct Written<'a> {
    pub(super) url: Option<&'a OtlpUrl>,
    /// The key of the URL.
    pub(super) key: &'static str,
    pub(super) tls: &'a Given<UpstreamTls>,
    pub(super) protocol: &'a Given<raw::OtlpProtocol>,
    pub(super) headers: &'a Given<Pairs<Text>>,
    pub(super) resource: &'a Given<Pairs<Text>>,
}

impl Validator<'_> {
    pub(super) fn metrics_export(&mut self, form: &Spanned<raw::MetricsExportForm>) -> MetricsExport {
        match &form.value {
            raw::MetricsExportForm::Url(url) => {
                let collector = Collector { url: Some(url.clone()), ..Collector::default() };
                MetricsExport { collector, interval: None }
            }
            raw::MetricsExportForm::Long(long) => {
                let written = Written {
                    url: long.url.get(),
                    key: "url",
                    tls: &long.tls,
                    protocol: &long.protocol,
                    headers: &long.headers,
                    resource: &long.resource,
                };
                let interval = long.interval.spanned().filter(|interval| {
                    let zero = interval.value.0.is_zero();
                    if zero {
                        self.error("invalid-value", interval.node, "nothing can be sent every 0s", "write `60s`");
                    }
                    !zero
                });
                let interval = interval.map(|interval| interval.value.0);
                MetricsExport { collector: self.collector(&written), interval }
            }
        }
    }

    pub(super) fn collector(&mut self, written: &Written<'_>) -> Collector {
        let protocol = written.protocol.get().map(|protocol| match protocol {
            raw::OtlpProtocol::Grpc => OtlpProtocol::Grpc,
            raw::OtlpProtocol::Http => OtlpProtocol::Http,
        });
        let mut headers = Vec::new();
        for (name, value) in written.headers.get().map_or(&[][..], |pairs| &pairs.0) {
            let Some(value) = value.spanned() else { continue };
            match (HeaderName::try_from(&name.value), HeaderValue::try_from(&value.value.0)) {
                (Err(_), _) => {
                    let reason = format!("{} is not the name of a header", quote(&name.value));
                    self.error("invalid-value", name.node, reason, "");
                }
                (_, Err(_)) => {
                    let reason = "a header's value cannot hold line breaks or other control characters";
                    self.error("invalid-value", value.node, reason, "");
                }
                (Ok(name), Ok(value)) => headers.push((name, value)),
            }
        }
        if let (Some(url), Some(tls)) = (written.url, written.tls.spanned())
            && !url.secure
        {
            let hint = format!("write `https://…` in `{}`", written.key);
            self.error("conflict", tls.node, "nothing is encrypted on the way to `http://…`", &hint);
        }
        let resource = written.resource.get().map_or(&[][..], |pairs| &pairs.0).iter();
        Collector {
            url: written.url.cloned(),
            tls: self.upstream_tls(written.tls),
            protocol,
            headers,
            resource: resource.filter_map(|(key, value)| Some((key.value.clone(), value.get()?.0.clone()))).collect(),
        }
    }
}
