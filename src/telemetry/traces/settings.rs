//! How spans are exported: the file's word, then the environment's (`OTEL_*`), then a default.
//!
//! Variables: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/> and
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use opentelemetry_sdk::Resource;

use super::resource;
use crate::config::model::{CertificateFiles, OtlpProtocol, OtlpUrl, Propagation, Traces, UpstreamTls};
use crate::telemetry::trace_context::{Policy, Ratio};

/// Of the traces that begin here, where nobody says how many.
const SAMPLE: f64 = 0.1;
/// Of OpenTelemetry's specification: of the batch processor, and of the exporter.
const QUEUE: usize = 2_048;
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest numbers that the environment may ask for.
const MOST: usize = 1 << 20;

/// Everything that the export of spans goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How requests are looked at.
    pub policy: Policy,
    pub(super) target: Target,
    pub(super) resource: Resource,
    /// Spans that may wait.
    pub(super) queue: usize,
    /// Spans of one export, at most.
    pub(super) batch: usize,
    /// A span waits this long for company.
    pub(super) delay: Duration,
}

/// Where exports go, and how.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) protocol: OtlpProtocol,
    pub(super) url: OtlpUrl,
    /// Whom a collector at `https://…` has to be.
    pub(super) tls: Option<UpstreamTls>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Of one try.
    pub(super) timeout: Duration,
}

impl Settings {
    /// `None` where nobody asks for an export.
    ///
    /// # Errors
    /// When a variable cannot be understood.
    pub fn resolve(
        traces: Option<&Traces>,
        service: Option<&str>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        let variable = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let of_traces = |name: &str| {
            let special = variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"));
            special.or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let written = traces.is_some();
        if off || !(written || of_traces("ENDPOINT").is_some()) {
            return Ok(None);
        }
        let file = traces.cloned().unwrap_or_default();
        let protocol = match (file.protocol, of_traces("PROTOCOL")) {
            (Some(protocol), _) => Some(protocol),
            (None, Some(word)) => Some(match word.as_str() {
                "grpc" => OtlpProtocol::Grpc,
                "http/protobuf" => OtlpProtocol::Http,
                _ => return Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL is `grpc` or `http/protobuf`, not `{word}`")),
            }),
            (None, None) => None,
        };
        let (mut url, complete) = match file.otlp {
            Some(url) => {
                let complete = !url.path.is_empty();
                (url, complete)
            }
            None => url(&variable, protocol)?,
        };
        let by_port = if url.port == 4318 { OtlpProtocol::Http } else { OtlpProtocol::Grpc };
        let protocol = protocol.unwrap_or(by_port);
        if protocol == OtlpProtocol::Http && !complete {
            url.path.push_str("/v1/traces");
        }
        let tls = match file.tls {
            _ if !url.secure => None,
            Some(tls) => Some(tls),
            None => Some(certificates(&of_traces)?),
        };
        let headers = match (file.headers, of_traces("HEADERS")) {
            (headers, Some(list)) if headers.is_empty() => read_headers(&list)?,
            (headers, _) => headers,
        };
        let sampling = match file.sample {
            Some(share) => share,
            None => sampler(variable("OTEL_TRACES_SAMPLER"), variable("OTEL_TRACES_SAMPLER_ARG"))?,
        };
        let propagation = match (file.propagation, variable("OTEL_PROPAGATORS")) {
            (Some(propagation), _) => propagation,
            (None, Some(words)) => propagators(&words)?,
            (None, None) => Propagation::W3C,
        };
        let number = |name: &str, default: usize| match variable(name) {
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| (1..=MOST).contains(number))
                .ok_or_else(|| format!("{name} is a whole number from 1 to {MOST}, not `{text}`")),
            None => Ok(default),
        };
        let millis = |name: &str, default: Duration| {
            let millis = number(name, usize::try_from(default.as_millis()).unwrap_or(MOST))?;
            Ok::<_, String>(Duration::from_millis(millis as u64))
        };
        let timeout = if variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").is_some() {
            millis("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", TIMEOUT)?
        } else {
            millis("OTEL_EXPORTER_OTLP_TIMEOUT", TIMEOUT)?
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE)?;
        Ok(Some(Settings {
            policy: Policy { sampling: Ratio::new(sampling), propagation },
            target: Target { protocol, url, tls, headers, timeout },
            resource: resource::resource(service, &file.resource, environment),
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH)?.min(queue),
            queue,
            delay: millis("OTEL_BSP_SCHEDULE_DELAY", DELAY)?,
        }))
    }
}

/// The URL, and whether its path is complete.
fn url(variable: &dyn Fn(&str) -> Option<String>, protocol: Option<OtlpProtocol>) -> Result<(OtlpUrl, bool), String> {
    let parse = |name: &str, text: String| text.trim().parse::<OtlpUrl>().map_err(|error| format!("{name}: {error}"));
    if let Some(text) = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        let url = parse("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", text)?;
        let complete = !url.path.is_empty();
        return Ok((url, complete));
    }
    if let Some(text) = variable("OTEL_EXPORTER_OTLP_ENDPOINT") {
        return Ok((parse("OTEL_EXPORTER_OTLP_ENDPOINT", text)?, false));
    }
    let port = if protocol == Some(OtlpProtocol::Http) { 4318 } else { 4317 };
    Ok((OtlpUrl { secure: false, host: "127.0.0.1".to_owned(), port, path: String::new() }, false))
}

/// What the environment says of TLS. Files are read for each connection.
fn certificates(variable: &dyn Fn(&str) -> Option<String>) -> Result<UpstreamTls, String> {
    let file = |name: &str| variable(name).map(PathBuf::from);
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

/// Every sampler here asks the parent first.
fn sampler(word: Option<String>, argument: Option<String>) -> Result<f64, String> {
    match word.as_deref().map(|word| word.strip_prefix("parentbased_").unwrap_or(word)) {
        None => Ok(SAMPLE),
        Some("always_on") => Ok(1.0),
        Some("always_off") => Ok(0.0),
        Some("traceidratio") => match argument {
            None => Ok(1.0),
            Some(text) => text
                .parse()
                .ok()
                .filter(|share| (0.0..=1.0).contains(share))
                .ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG is a ratio from 0 to 1, not `{text}`")),
        },
        Some(_) => Err(format!(
            "OTEL_TRACES_SAMPLER can be `parentbased_traceidratio`, `parentbased_always_on` or `parentbased_always_off`, \
             not `{}`",
            word.unwrap_or_default()
        )),
    }
}

/// `baggage` is passed on in any case.
fn propagators(words: &str) -> Result<Propagation, String> {
    let mut propagation = Propagation { w3c: false, b3: false, b3_multi: false };
    for word in words.split(',').map(str::trim) {
        match word {
            "tracecontext" => propagation.w3c = true,
            "b3" => propagation.b3 = true,
            "b3multi" => propagation.b3_multi = true,
            "baggage" | "none" | "" => {}
            _ => {
                return Err(format!(
                    "OTEL_PROPAGATORS can name `tracecontext`, `baggage`, `b3` and `b3multi`, not `{word}`"
                ));
            }
        }
    }
    Ok(propagation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(traces: Option<&Traces>, variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let environment =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::resolve(traces, Some("orders"), &environment)
    }

    fn target(traces: Option<&Traces>, variables: &[(&str, &str)]) -> (OtlpProtocol, String) {
        let Target { protocol, url, .. } = resolved(traces, variables).unwrap().unwrap().target;
        (protocol, format!("{}:{}{}", url.host, url.port, url.path))
    }

    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    #[test]
    fn off_unless_somebody_asks() {
        assert!(resolved(None, &[]).unwrap().is_none());
        assert!(resolved(Some(&Traces::default()), &[]).unwrap().is_some());
        assert!(resolved(None, &[(ENDPOINT, "http://c:4317")]).unwrap().is_some());
        assert!(resolved(None, &[(ENDPOINT, "http://c:4317"), ("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
        assert!(resolved(Some(&Traces::default()), &[("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
    }

    #[test]
    fn where_and_how() {
        use OtlpProtocol::{Grpc, Http};
        let file = |url: &str, protocol| Traces { otlp: Some(url.parse().unwrap()), protocol, ..Traces::default() };
        let default = Traces::default();
        let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        for (traces, variables, expected) in [
            (Some(&default), &[][..], (Grpc, "127.0.0.1:4317")),
            (Some(&default), &[protocol], (Http, "127.0.0.1:4318/v1/traces")),
            (None, &[(ENDPOINT, "http://c:4317")], (Grpc, "c:4317")),
            (None, &[(ENDPOINT, "http://c:4318/base/")], (Http, "c:4318/base/v1/traces")),
            (None, &[(ENDPOINT, "http://c:1"), protocol], (Http, "c:1/v1/traces")),
            (
                None,
                &[(ENDPOINT, "http://c:1"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d:4318/mine")],
                (Http, "d:4318/mine"),
            ),
            (Some(&file("http://f:4317", None)), &[(ENDPOINT, "http://c:1"), protocol], (Http, "f:4317/v1/traces")),
            (Some(&file("http://f:4318/x", None)), &[], (Http, "f:4318/x")),
            (Some(&file("http://f:4318", Some(Grpc))), &[protocol], (Grpc, "f:4318")),
        ] {
            assert_eq!(target(traces, variables), (expected.0, expected.1.to_owned()), "{traces:?} {variables:?}");
        }
    }

    #[test]
    fn who_the_collector_is() {
        let tls = |traces: Option<&Traces>, variables: &[(&str, &str)]| {
            resolved(traces, variables).unwrap().unwrap().target.tls
        };
        let secure = (ENDPOINT, "https://c:4317");
        let authority = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem");
        assert_eq!(tls(None, &[(ENDPOINT, "http://c:4317"), authority]), None);
        let nothing = UpstreamTls { authorities: None, server_name: None, certificate: None, allow: Vec::new() };
        assert_eq!(tls(None, &[secure]), Some(nothing.clone()));
        let named = UpstreamTls { authorities: Some("/ca.pem".into()), ..nothing.clone() };
        assert_eq!(tls(None, &[secure, authority]), Some(named.clone()));
        let own =
            [("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "/c.pem"), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k.pem")];
        let files = CertificateFiles { cert: "/c.pem".into(), key: "/k.pem".into() };
        let shown = UpstreamTls { certificate: Some(files), ..named };
        assert_eq!(tls(None, &[secure, authority, own[0], own[1]]), Some(shown));
        let written = Traces { tls: Some(nothing.clone()), ..Traces::default() };
        assert_eq!(tls(Some(&written), &[secure, authority]), Some(nothing));
        assert!(resolved(None, &[secure, own[1]]).unwrap_err().contains("go together"));
    }

    #[test]
    fn how_much_and_in_which_words() {
        let policy =
            |variables: &[(&str, &str)]| resolved(Some(&Traces::default()), variables).unwrap().unwrap().policy;
        assert_eq!(policy(&[]).sampling, Ratio::new(SAMPLE));
        assert_eq!(policy(&[("OTEL_TRACES_SAMPLER", "always_on")]).sampling, Ratio::new(1.0));
        let ratio = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
        assert_eq!(policy(&ratio).sampling, Ratio::new(0.25));
        let both = Propagation { w3c: true, b3: true, b3_multi: false };
        assert_eq!(policy(&[("OTEL_PROPAGATORS", "tracecontext,baggage,b3")]).propagation, both);
        let written = Traces { sample: Some(0.5), propagation: Some(both), ..Traces::default() };
        let settings = resolved(Some(&written), &ratio).unwrap().unwrap();
        assert_eq!((settings.policy.sampling, settings.policy.propagation), (Ratio::new(0.5), both));
    }

    #[test]
    fn headers_and_numbers() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20secret,x=y"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ];
        let settings = resolved(Some(&Traces::default()), &variables).unwrap().unwrap();
        let headers: Vec<_> =
            settings.target.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(headers, [("api-key", "a secret"), ("x", "y")]);
        assert_eq!((settings.target.timeout.as_millis(), settings.queue, settings.batch), (250, 100, 100));
    }

    #[test]
    fn what_cannot_be_understood_is_said() {
        for variable in [
            (ENDPOINT, "collector"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_PROPAGATORS", "xray"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ] {
            let error = resolved(Some(&Traces::default()), &[variable]).unwrap_err();
            assert!(error.contains(variable.0), "{error}");
        }
        let error = resolved(Some(&Traces::default()), &[("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret")]).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
