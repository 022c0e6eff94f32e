//! How spans are exported: the file's word, then the environment's (`OTEL_*`), then a default.
//!
//! Variables: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.

use std::time::Duration;

use opentelemetry_sdk::Resource;

use crate::config::model::{Propagation, Traces};
use crate::telemetry::otlp::{self, Environment, Signal, Target};
use crate::telemetry::trace_context::{Policy, Ratio};

/// Of the traces that begin here, where nobody says how many.
const SAMPLE: f64 = 0.1;
/// Of OpenTelemetry's specification of the batch processor.
const QUEUE: usize = 2_048;
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(5);

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
        let variables = Environment(environment);
        let wanted = traces.is_some() || variables.exporter(Signal::Traces, "ENDPOINT").is_some();
        if variables.is_off(Signal::Traces) || !wanted {
            return Ok(None);
        }
        let file = traces.cloned().unwrap_or_default();
        let resource = otlp::resource(service, &file.collector.resource, environment);
        let target = Target::resolve(Signal::Traces, file.collector, variables)?;
        let sampling = match file.sample {
            Some(share) => share,
            None => sampler(variables.get("OTEL_TRACES_SAMPLER"), variables.get("OTEL_TRACES_SAMPLER_ARG")),
        };
        let propagation = match (file.propagation, variables.get("OTEL_PROPAGATORS")) {
            (Some(propagation), _) => propagation,
            (None, Some(words)) => propagators(&words),
            (None, None) => Propagation::W3C,
        };
        let queue = variables.number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE);
        Ok(Some(Settings {
            policy: Policy { sampling: Ratio::new(sampling), propagation },
            target,
            resource,
            batch: variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH).min(queue),
            queue,
            delay: variables.millis("OTEL_BSP_SCHEDULE_DELAY", DELAY),
        }))
    }
}

/// Every sampler here asks the parent first.
fn sampler(word: Option<String>, argument: Option<String>) -> f64 {
    match word.as_deref().map(|word| word.strip_prefix("parentbased_").unwrap_or(word)) {
        None => SAMPLE,
        Some("always_on") => 1.0,
        Some("always_off") => 0.0,
        Some("traceidratio") => {
            let Some(text) = argument else { return 1.0 };
            text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).unwrap_or_else(|| {
                otlp::ignored(&format!("OTEL_TRACES_SAMPLER_ARG is a ratio from 0 to 1, not `{text}`"));
                1.0
            })
        }
        Some(_) => {
            otlp::ignored(&format!(
                "OTEL_TRACES_SAMPLER can be `parentbased_traceidratio`, `parentbased_always_on` or \
                 `parentbased_always_off`, not `{}`",
                word.unwrap_or_default()
            ));
            SAMPLE
        }
    }
}

/// `baggage` is passed on in any case.
fn propagators(words: &str) -> Propagation {
    let mut propagation = Propagation { w3c: false, b3: false, b3_multi: false };
    let mut known = false;
    for word in words.split(',').map(str::trim) {
        match word {
            "tracecontext" => propagation.w3c = true,
            "b3" => propagation.b3 = true,
            "b3multi" => propagation.b3_multi = true,
            "baggage" | "none" | "" => {}
            _ => {
                let all = "`tracecontext`, `baggage`, `b3` and `b3multi`";
                otlp::ignored(&format!("OTEL_PROPAGATORS can name {all}, not `{word}`"));
                continue;
            }
        }
        known = true;
    }
    if known { propagation } else { Propagation::W3C }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(traces: Option<&Traces>, variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let environment =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::resolve(traces, Some("orders"), &environment)
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
    fn unknown_words_are_passed_over_and_addresses_are_not() {
        let settings = |variable| resolved(Some(&Traces::default()), &[variable]).unwrap().unwrap();
        let usual = resolved(Some(&Traces::default()), &[]).unwrap().unwrap();
        for variable in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_PROPAGATORS", "xray"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ] {
            let settings = settings(variable);
            assert_eq!(
                (settings.policy.sampling, settings.policy.propagation, settings.delay),
                (usual.policy.sampling, usual.policy.propagation, usual.delay),
                "{variable:?}"
            );
            assert_eq!(
                (settings.target.protocol, settings.target.timeout),
                (usual.target.protocol, usual.target.timeout)
            );
        }
        let some = settings(("OTEL_PROPAGATORS", "xray,b3")).policy.propagation;
        assert_eq!(some, Propagation { w3c: false, b3: true, b3_multi: false });
        let error = resolved(Some(&Traces::default()), &[(ENDPOINT, "collector")]).unwrap_err();
        assert!(error.contains(ENDPOINT), "{error}");
        let error = resolved(Some(&Traces::default()), &[("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret")]).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
