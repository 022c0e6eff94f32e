//! Where a signal's exports go, and how: the file's word, then the environment's (`OTEL_*`), then a default.
//!
//! Variables: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/> and
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{Signal, resource};
use crate::config::model::{CertificateFiles, Collector, OtlpProtocol, OtlpUrl, UpstreamTls};

/// Of OpenTelemetry's specification of exporters.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest number that the environment may ask for.
const MOST: usize = 1 << 20;

/// Where exports go, and how.
#[derive(Debug, Clone)]
pub(in crate::telemetry) struct Target {
    pub(in crate::telemetry) protocol: OtlpProtocol,
    pub(in crate::telemetry) url: OtlpUrl,
    /// Whom a collector at `https://…` has to be.
    pub(in crate::telemetry) tls: Option<UpstreamTls>,
    pub(in crate::telemetry) headers: Vec<(HeaderName, HeaderValue)>,
    /// Of one try.
    pub(in crate::telemetry) timeout: Duration,
}

/// Variables; those that are empty count as none.
#[derive(Clone, Copy)]
pub(in crate::telemetry) struct Environment<'a>(pub(in crate::telemetry) &'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    pub(in crate::telemetry) fn get(self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.trim().is_empty())
    }

    /// A signal's own variable, else the one for all signals.
    pub(in crate::telemetry) fn exporter(self, signal: Signal, name: &str) -> Option<String> {
        let own = self.get(&format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.variable()));
        own.or_else(|| self.get(&format!("OTEL_EXPORTER_OTLP_{name}")))
    }

    /// What `OTEL_TRACES_EXPORTER` and its like say.
    pub(in crate::telemetry) fn chosen_exporter(self, signal: Signal) -> Option<String> {
        self.get(&format!("OTEL_{}_EXPORTER", signal.variable()))
    }

    /// True where nothing is to be exported, whatever else is said.
    pub(in crate::telemetry) fn is_off(self, signal: Signal) -> bool {
        self.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || self.chosen_exporter(signal).is_some_and(|value| value == "none")
    }

    pub(in crate::telemetry) fn number(self, name: &str, default: usize) -> usize {
        let Some(text) = self.get(name) else { return default };
        text.parse().ok().filter(|number| (1..=MOST).contains(number)).unwrap_or_else(|| {
            ignored(&format!("{name} is a whole number from 1 to {MOST}, not `{text}`"));
            default
        })
    }

    pub(in crate::telemetry) fn millis(self, name: &str, default: Duration) -> Duration {
        let millis = self.number(name, usize::try_from(default.as_millis()).unwrap_or(MOST));
        Duration::from_millis(millis as u64)
    }
}

/// Words and numbers that nobody here knows are no reason not to start: others who read the same variable may know them.
/// So OpenTelemetry's specification has it.
pub(in crate::telemetry) fn ignored(why: &str) {
    tracing::warn!("{why}: it is passed over");
}

impl Target {
    /// # Errors
    /// When a variable cannot be understood.
    pub(in crate::telemetry) fn resolve(
        signal: Signal,
        file: Collector,
        environment: Environment<'_>,
    ) -> Result<Self, String> {
        let protocol = match (file.protocol, environment.exporter(signal, "PROTOCOL")) {
            (Some(protocol), _) => Some(protocol),
            (None, Some(word)) => match word.as_str() {
                "grpc" => Some(OtlpProtocol::Grpc),
                "http/protobuf" => Some(OtlpProtocol::Http),
                _ => {
                    ignored(&format!("OTEL_EXPORTER_OTLP_PROTOCOL is `grpc` or `http/protobuf`, not `{word}`"));
                    None
                }
            },
            (None, None) => None,
        };
        let (mut url, complete) = match file.url {
            Some(url) => {
                let complete = !url.path.is_empty();
                (url, complete)
            }
            None => url(signal, environment, protocol)?,
        };
        let by_port = if url.port == 4318 { OtlpProtocol::Http } else { OtlpProtocol::Grpc };
        let protocol = protocol.unwrap_or(by_port);
        if protocol == OtlpProtocol::Http && !complete {
            url.path.push_str(signal.path());
        }
        let tls = match file.tls {
            _ if !url.secure => None,
            Some(tls) => Some(tls),
            None => Some(certificates(signal, environment)?),
        };
        let headers = match (file.headers, environment.exporter(signal, "HEADERS")) {
            (headers, Some(list)) if headers.is_empty() => read_headers(&list)?,
            (headers, _) => headers,
        };
        let own = format!("OTEL_EXPORTER_OTLP_{}_TIMEOUT", signal.variable());
        let name = if environment.get(&own).is_some() { own.as_str() } else { "OTEL_EXPORTER_OTLP_TIMEOUT" };
        Ok(Target { protocol, url, tls, headers, timeout: environment.millis(name, TIMEOUT) })
    }
}

/// The URL, and whether its path is complete.
fn url(
    signal: Signal,
    environment: Environment<'_>,
    protocol: Option<OtlpProtocol>,
) -> Result<(OtlpUrl, bool), String> {
    let parse = |name: &str, text: String| text.trim().parse::<OtlpUrl>().map_err(|error| format!("{name}: {error}"));
    let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.variable());
    if let Some(text) = environment.get(&own) {
        let url = parse(&own, text)?;
        let complete = !url.path.is_empty();
        return Ok((url, complete));
    }
    if let Some(text) = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") {
        return Ok((parse("OTEL_EXPORTER_OTLP_ENDPOINT", text)?, false));
    }
    let port = if protocol == Some(OtlpProtocol::Http) { 4318 } else { 4317 };
    Ok((OtlpUrl { secure: false, host: "127.0.0.1".to_owned(), port, path: String::new() }, false))
}

/// What the environment says of TLS. Files are read for each connection.
fn certificates(signal: Signal, environment: Environment<'_>) -> Result<UpstreamTls, String> {
    let file = |name: &str| environment.exporter(signal, name).map(PathBuf::from);
    let certificate = match (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")) {
        (Some(cert), Some(key)) => Some(CertificateFiles { cert, key }),
        (None, None) => None,
        _ => {
            return Err(
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY go together".to_owned()
            );
        }
    };
    Ok(UpstreamTls { authorities: file("CERTIFICATE"), server_name: None, certificate, allow: Vec::new() })
}

fn read_headers(list: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let pairs = resource::list(list).into_iter().map(|(name, value)| {
        let pair = HeaderName::try_from(name.to_ascii_lowercase()).ok().zip(HeaderValue::try_from(value).ok());
        // Not the value: it may be a secret.
        pair.ok_or_else(|| format!("OTEL_EXPORTER_OTLP_HEADERS: `{name}` is no header that can be sent"))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    fn resolved(signal: Signal, file: &Collector, variables: &[(&str, &str)]) -> Result<Target, String> {
        let environment =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Target::resolve(signal, file.clone(), Environment(&environment))
    }

    fn target(file: &Collector, variables: &[(&str, &str)]) -> (OtlpProtocol, String) {
        let Target { protocol, url, .. } = resolved(Signal::Traces, file, variables).unwrap();
        (protocol, format!("{}:{}{}", url.host, url.port, url.path))
    }

    #[test]
    fn where_and_how() {
        use OtlpProtocol::{Grpc, Http};
        let file =
            |url: &str, protocol| Collector { url: Some(url.parse().unwrap()), protocol, ..Collector::default() };
        let nothing = Collector::default();
        let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        for (file, variables, expected) in [
            (&nothing, &[][..], (Grpc, "127.0.0.1:4317")),
            (&nothing, &[protocol], (Http, "127.0.0.1:4318/v1/traces")),
            (&nothing, &[(ENDPOINT, "http://c:4317")], (Grpc, "c:4317")),
            (&nothing, &[(ENDPOINT, "http://c:4318/base/")], (Http, "c:4318/base/v1/traces")),
            (&nothing, &[(ENDPOINT, "http://c:1"), protocol], (Http, "c:1/v1/traces")),
            (
                &nothing,
                &[(ENDPOINT, "http://c:1"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d:4318/mine")],
                (Http, "d:4318/mine"),
            ),
            (&file("http://f:4317", None), &[(ENDPOINT, "http://c:1"), protocol], (Http, "f:4317/v1/traces")),
            (&file("http://f:4318/x", None), &[], (Http, "f:4318/x")),
            (&file("http://f:4318", Some(Grpc)), &[protocol], (Grpc, "f:4318")),
        ] {
            assert_eq!(target(file, variables), (expected.0, expected.1.to_owned()), "{file:?} {variables:?}");
        }
    }

    #[test]
    fn metrics_have_a_path_and_variables_of_their_own() {
        let variables = [(ENDPOINT, "http://c:4318"), ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "250")];
        let of = |signal| resolved(signal, &Collector::default(), &variables).unwrap();
        let (traces, metrics) = (of(Signal::Traces), of(Signal::Metrics));
        assert_eq!((traces.url.path.as_str(), traces.timeout), ("/v1/traces", TIMEOUT));
        assert_eq!((metrics.url.path.as_str(), metrics.timeout), ("/v1/metrics", Duration::from_millis(250)));
    }

    #[test]
    fn who_the_collector_is() {
        let file = Collector::default();
        let tls = |file: &Collector, variables: &[(&str, &str)]| resolved(Signal::Traces, file, variables).unwrap().tls;
        let secure = (ENDPOINT, "https://c:4317");
        let authority = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem");
        assert_eq!(tls(&file, &[(ENDPOINT, "http://c:4317"), authority]), None);
        let nothing = UpstreamTls { authorities: None, server_name: None, certificate: None, allow: Vec::new() };
        assert_eq!(tls(&file, &[secure]), Some(nothing.clone()));
        let named = UpstreamTls { authorities: Some("/ca.pem".into()), ..nothing.clone() };
        assert_eq!(tls(&file, &[secure, authority]), Some(named.clone()));
        let own =
            [("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "/c.pem"), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k.pem")];
        let files = CertificateFiles { cert: "/c.pem".into(), key: "/k.pem".into() };
        let shown = UpstreamTls { certificate: Some(files), ..named };
        assert_eq!(tls(&file, &[secure, authority, own[0], own[1]]), Some(shown));
        let written = Collector { tls: Some(nothing.clone()), ..Collector::default() };
        assert_eq!(tls(&written, &[secure, authority]), Some(nothing));
        assert!(resolved(Signal::Traces, &file, &[secure, own[1]]).unwrap_err().contains("go together"));
    }
}
