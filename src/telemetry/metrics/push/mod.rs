//! All metrics, sent to a collector of OpenTelemetry's at intervals: for those who do not scrape.
//!
//! They are those of a scrape, under the same names. Each export says what was counted since the start (cumulative), so
//! that one that is lost costs nothing but time.

mod convert;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior};

use super::exporter::Gathered;
use crate::config::model::MetricsExport;
use crate::telemetry::clock;
use crate::telemetry::otlp::{self, Delivery, Environment, Secure, Signal, Target};

/// Of OpenTelemetry's specification of the periodic reader.
const INTERVAL: Duration = Duration::from_secs(60);

/// Sends metrics.
#[derive(Debug)]
pub struct Push {
    delivery: Delivery,
    resource: ResourceAttributesWithSchema,
    interval: Duration,
    began: SystemTime,
}

impl Push {
    /// `None` where nobody asks for it. Unlike that of spans, `OTEL_EXPORTER_OTLP_ENDPOINT` alone is no wish: many
    /// collectors that take spans take no metrics, and most who run this proxy scrape.
    ///
    /// # Errors
    /// When a variable cannot be understood.
    pub(crate) fn resolve(
        written: Option<&MetricsExport>,
        service: Option<&str>,
        environment: &dyn Fn(&str) -> Option<String>,
        secure: Secure,
    ) -> Result<Option<Self>, String> {
        let variables = Environment(environment);
        let wanted = written.is_some()
            || variables.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT").is_some()
            || variables.chosen_exporter(Signal::Metrics).is_some_and(|exporter| exporter == "otlp");
        if variables.is_off(Signal::Metrics) || !wanted {
            return Ok(None);
        }
        let MetricsExport { collector, interval } = written.cloned().unwrap_or_default();
        let resource = otlp::resource(service, &collector.resource, environment);
        let target = Target::resolve(Signal::Metrics, collector, variables)?;
        let interval = match interval {
            Some(interval) => interval,
            None => variables.millis("OTEL_METRIC_EXPORT_INTERVAL", INTERVAL),
        };
        Ok(Some(Push {
            delivery: Delivery::new(Signal::Metrics, target, secure),
            resource: ResourceAttributesWithSchema::from(&resource),
            interval,
            began: clock::now(),
        }))
    }

    /// Sends what `gather` gives, at each interval, and once more at the `end`.
    pub(crate) async fn run(mut self, gather: impl AsyncFn() -> Gathered, end: impl Future<Output = ()>) {
        let mut ticks = tokio::time::interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut end = std::pin::pin!(end);
        loop {
            let over = tokio::select! {
                _ = ticks.tick() => false,
                () = &mut end => true,
            };
            let gathered = gather().await;
            let request = convert::request(&gathered, &self.resource, self.began, clock::now());
            let points = convert::points(&request);
            self.delivery.deliver(Bytes::from(request.encode_to_vec()), points).await;
            if over {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_somebody_asks() {
        let wanted = |written: Option<&MetricsExport>, variables: &[(&str, &str)]| {
            let environment =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            let secure: Secure = |_, _, _, _| Box::pin(async { Err(std::io::ErrorKind::Unsupported.into()) });
            Push::resolve(written, None, &environment, secure).map(|push| push.map(|push| push.interval.as_secs()))
        };
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");
        assert_eq!(wanted(None, &[]), Ok(None));
        assert_eq!(wanted(None, &[all]), Ok(None));
        assert_eq!(wanted(None, &[all, ("OTEL_METRICS_EXPORTER", "otlp")]), Ok(Some(60)));
        assert_eq!(wanted(None, &[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c:4317")]), Ok(Some(60)));
        let written = MetricsExport::default();
        let faster = ("OTEL_METRIC_EXPORT_INTERVAL", "5000");
        assert_eq!(wanted(Some(&written), &[faster]), Ok(Some(5)));
        let written = MetricsExport { interval: Some(Duration::from_secs(7)), ..written };
        assert_eq!(wanted(Some(&written), &[faster]), Ok(Some(7)));
        assert_eq!(wanted(Some(&written), &[("OTEL_METRICS_EXPORTER", "none")]), Ok(None));
        let often = wanted(Some(&MetricsExport::default()), &[("OTEL_METRIC_EXPORT_INTERVAL", "often")]);
        assert_eq!(often, Ok(Some(INTERVAL.as_secs())), "what cannot be understood is passed over");
    }
}
