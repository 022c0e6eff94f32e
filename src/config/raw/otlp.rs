//! Collectors of OpenTelemetry.

use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;

use super::tls::UpstreamTls;
use crate::config::given::{Given, Pairs};
use crate::config::model::OtlpUrl;
use crate::config::scalar::{Invalid, Scalar, VARIABLE_PATTERN, scalar};
use crate::config::text::quote;
use crate::config::units::{Period, Text};

/// How exports go to the collector.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OtlpProtocol {
    Grpc,
    /// `http/protobuf`.
    Http,
}

/// The collector that metrics are sent to: its URL alone, or a mapping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "MetricsExportForm", untagged)]
pub(crate) enum MetricsExportForm {
    /// Short for `{ url: … }`.
    #[serde(rename = "scalar")]
    Url(OtlpUrl),
    /// The long form.
    #[serde(rename = "mapping")]
    Long(Box<MetricsExport>),
}

/// The collector that metrics are sent to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MetricsExport {
    /// The collector's URL, such as `http://127.0.0.1:4317`. Default: what `OTEL_EXPORTER_OTLP_ENDPOINT` says.
    pub(crate) url: Given<OtlpUrl>,
    /// TLS with a collector at `https://…`; default as in `telemetry.traces`.
    pub(crate) tls: Given<UpstreamTls>,
    /// Default: what `OTEL_EXPORTER_OTLP_PROTOCOL` says, else `http` where the port is 4318, else `grpc`.
    pub(crate) protocol: Given<OtlpProtocol>,
    /// From one export to the next. Default: what `OTEL_METRIC_EXPORT_INTERVAL` says, else 60s.
    pub(crate) interval: Given<Period>,
    /// Sent with every export, such as an API key.
    pub(crate) headers: Given<Pairs<Text>>,
    /// Attributes of this process, over those of `OTEL_RESOURCE_ATTRIBUTES`.
    pub(crate) resource: Given<Pairs<Text>>,
}

impl Scalar for OtlpUrl {
    const EXPECTED: &'static str = "a URL such as `http://127.0.0.1:4317`";
    const SCHEMA_NAME: &'static str = "OtlpUrl";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new(format!("{} is not a URL such as `http://127.0.0.1:4317`", quote(text)));
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong().hint(format!("did you mean {}?", quote(&format!("http://{text}"))))),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || uri.query().is_some() {
            return Err(wrong());
        }
        let path = uri.path().trim_end_matches('/').to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(OtlpUrl { secure, host, port, path })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": format!("^https?://|{VARIABLE_PATTERN}") })
    }
}
scalar!(OtlpUrl);

impl std::str::FromStr for OtlpUrl {
    type Err = String;

    /// For those that come another way than by the file.
    fn from_str(text: &str) -> Result<Self, String> {
        <Self as Scalar>::parse(text).map_err(|invalid| invalid.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let url = |host: &str, port, path: &str| {
            Ok(OtlpUrl { secure: port == 443, host: host.to_owned(), port, path: path.to_owned() })
        };
        assert_eq!(OtlpUrl::parse("http://127.0.0.1:4317"), url("127.0.0.1", 4317, ""));
        assert_eq!(OtlpUrl::parse("http://[::1]:4317/"), url("::1", 4317, ""));
        assert_eq!(OtlpUrl::parse("http://collector/otlp/v1/traces"), url("collector", 80, "/otlp/v1/traces"));
        assert_eq!(OtlpUrl::parse("https://collector/"), url("collector", 443, ""));
        for wrong in ["", "collector", "collector:4317", "ftp://x", "http://", "http://u:p@x:1", "http://x:1/?q"] {
            assert!(OtlpUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}
