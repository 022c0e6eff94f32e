//! Every metric that the proxy exports, in one table.

use prometheus::proto;

/// A metric's name and meaning.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// `outrigger_…`; those of the process too, so that nobody takes them for the app's.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Names of its labels, in the order in which they are written.
    pub labels: &'static [&'static str],
}

/// How a metric's values are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $id: Family =
            Family { name: $name, kind: Kind::$kind, help: $help, labels: &[$($label),*] };)*

        /// All of them, in the order of the documentation.
        pub const FAMILIES: &[Family] = &[$($id),*];
    };
}

families! {
    REQUESTS = Counter "outrigger_requests_total"
        ["listener", "route", "upstream", "method", "code", "grpc_code", "reason"]
        "Requests that have ended, with all their attempts; reason is empty for those that did not fail.";
    REQUEST_DURATION = Histogram "outrigger_request_duration_seconds" ["listener", "route", "upstream", "code_class"]
        "Time from a request's first byte to its response's last byte, with all attempts.";
    REQUEST_BODY_BYTES = Counter "outrigger_request_body_bytes_total" ["listener", "route", "upstream"]
        "Body bytes received from clients.";
    RESPONSE_BODY_BYTES = Counter "outrigger_response_body_bytes_total" ["listener", "route", "upstream"]
        "Body bytes sent to clients.";
    REQUESTS_IN_FLIGHT = Gauge "outrigger_requests_in_flight" ["listener"]
        "Requests that have begun and not ended.";
    DOWNSTREAM_CONNECTIONS_OPEN = Gauge "outrigger_downstream_connections_open" ["listener", "protocol"]
        "Open connections from clients.";
    DOWNSTREAM_CONNECTIONS = Counter "outrigger_downstream_connections_total" ["listener", "protocol"]
        "Connections accepted from clients.";
    DOWNSTREAM_REJECTS = Counter "outrigger_downstream_rejects_total" ["listener", "cause"]
        "Connections from clients that were closed before they brought a whole request, or for a flood of HTTP/2.";
    TLS_HANDSHAKES = Counter "outrigger_downstream_tls_handshakes_total" ["listener", "outcome"]
        "TLS handshakes with clients; only of listeners that speak TLS.";
    TLS_CONNECTIONS = Counter "outrigger_downstream_tls_connections_total" ["listener", "version"]
        "Connections of listeners that speak TLS, by its version; none is a connection in the clear.";
    ATTEMPT_DURATION = Histogram "outrigger_attempt_duration_seconds" ["upstream", "outcome"]
        "Time of one attempt at an endpoint; outcome is success, gateway_error (502, 503, 504, gRPC's UNAVAILABLE), 5xx, grpc_error or a reason.";
    UPSTREAM_REQUESTS_IN_FLIGHT = Gauge "outrigger_upstream_requests_in_flight" ["upstream"]
        "Requests in flight to the upstream's endpoints.";
    UPSTREAM_REQUESTS_WAITING = Gauge "outrigger_upstream_requests_waiting" ["upstream"]
        "Requests that wait for a connection to an endpoint.";
    UPSTREAM_CONNECTIONS_OPEN = Gauge "outrigger_upstream_connections_open" ["upstream"]
        "Open connections to endpoints, idle ones included.";
    UPSTREAM_CONNECTIONS_IDLE = Gauge "outrigger_upstream_connections_idle" ["upstream"]
        "Open connections to endpoints that carry no request.";
    UPSTREAM_CONNECTS = Counter "outrigger_upstream_connects_total" ["upstream", "outcome"]
        "Connections tried to endpoints; outcome is success or a reason.";
    UPSTREAM_SENT_BYTES = Counter "outrigger_upstream_sent_bytes_total" ["upstream"]
        "Body bytes of the requests that went to the upstream, once for all attempts, and without copies for mirrors.";
    UPSTREAM_RECEIVED_BYTES = Counter "outrigger_upstream_received_bytes_total" ["upstream"]
        "Body bytes of the upstream's answers that clients got.";
    STALE_CONNECTION_REPLAYS = Counter "outrigger_stale_connection_replays_total" ["upstream"]
        "Requests sent again on a fresh connection because the idle one they went out on had died.";
    RETRIES = Counter "outrigger_retries_total" ["upstream", "outcome"]
        "Retries: those sent, by how they ended (success, failure), and those refused, by what stopped them.";
    RETRY_BUDGET_BALANCE = Gauge "outrigger_retry_budget_balance" ["upstream"]
        "Retries that the budget would pay for now.";
    RETRIES_IN_FLIGHT = Gauge "outrigger_retries_in_flight" ["upstream"]
        "Requests in flight that have been sent again.";
    AMPLIFICATION = Gauge "outrigger_retry_amplification_ratio" ["upstream"]
        "Attempts per request over the retry budget's window.";
    RETRIED_REQUESTS = Counter "outrigger_retried_requests_total" ["listener"]
        "Requests that a client or proxy before this one said it had sent before.";
    HEDGES = Counter "outrigger_hedges_total" ["upstream", "outcome"]
        "Second attempts that ran beside the first; outcome is won where the second answered, else lost.";
    SHADOW_REFUSALS = Counter "outrigger_shadow_refusals_total" ["listener", "reason"]
        "Requests that a limit with shadow would have refused.";
    CONCURRENCY_LIMIT = Gauge "outrigger_concurrency_limit" ["listener", "route"]
        "Requests that may be in flight, fixed or adapted; route is empty for the listener's own limit.";
    MIRRORED_REQUESTS = Counter "outrigger_mirrored_requests_total" ["upstream", "outcome"]
        "Copies of requests for a mirror; outcome is sent, or skipped where one did not fit its bounds.";
    ENDPOINTS = Gauge "outrigger_endpoints" ["upstream", "state"]
        "Endpoints by state.";
    DISCOVERY_AGE = Gauge "outrigger_discovery_age_seconds" ["upstream"]
        "Time since the source of an upstream's endpoints last answered; not there before its first answer.";
    DISCOVERY_ERRORS = Counter "outrigger_discovery_errors_total" ["upstream"]
        "Look-ups of an upstream's endpoints that failed.";
    DISCOVERY_UPDATES = Counter "outrigger_discovery_updates_total" ["upstream"]
        "Answers that changed an upstream's endpoints.";
    EJECTIONS = Counter "outrigger_endpoint_ejections_total" ["upstream", "cause"]
        "Endpoints that were ejected, or would have been where ejection is only shadowed.";
    HEALTH_CHECKS = Counter "outrigger_health_checks_total" ["upstream", "result"]
        "Active health checks of the upstream's endpoints; result is passed or failed.";
    BREAKER_STATE = Gauge "outrigger_circuit_breaker_state" ["upstream", "state"]
        "1 for the state that the upstream's circuit breaker is in: closed, open or half_open; else 0.";
    BREAKER_OPENED = Counter "outrigger_circuit_breaker_opened_total" ["upstream"]
        "Times that the upstream's circuit breaker has opened.";
    BREAKER_REFUSED = Counter "outrigger_circuit_breaker_refused_total" ["upstream"]
        "Requests that the upstream's circuit breaker has refused, or would have where it is only shadowed.";
    ACCESS_LOG_LINES_DROPPED = Counter "outrigger_access_log_lines_dropped_total" []
        "Access log lines lost because their target was slower than the requests, or refused them.";
    CERTIFICATE_NOT_AFTER = Gauge "outrigger_tls_certificate_not_after_timestamp_seconds" ["file"]
        "End of each certificate in use, in seconds since the Unix epoch.";
    TRACE_SPANS_EXPORTED = Counter "outrigger_trace_spans_exported_total" []
        "Spans that the collector took.";
    TRACE_SPANS_DROPPED = Counter "outrigger_trace_spans_dropped_total" ["cause"]
        "Spans lost; cause is queue_full (the collector is slower than the requests) or export_failed.";
    CALLS_WITHOUT_TRACE = Counter "outrigger_calls_without_trace_total" []
        "Outbound requests that carried no trace while traced inbound requests were with the app.";
    CONFIG_INFO = Gauge "outrigger_config_info" ["source", "hash", "override"]
        "The configuration in force; always 1.";
    CONFIG_GENERATION = Gauge "outrigger_config_generation" []
        "Number of the configuration in force, counted from 1.";
    CONFIG_LAST_RELOAD_SUCCESSFUL = Gauge "outrigger_config_last_reload_successful" []
        "1 when the configuration read last was accepted, 0 when it was refused.";
    CONFIG_RELOADS = Counter "outrigger_config_reloads_total" ["result"]
        "Configurations that were read to be put in force; result is accepted or refused.";
    CONFIG_PROBATIONS = Counter "outrigger_config_probations_total" ["result"]
        "Configurations that were put on probation; result is passed, failed (it was gone back from) or superseded.";
    CONFIG_GENERATIONS_ALIVE = Gauge "outrigger_config_generations_alive" []
        "The configuration in force, and those that requests and streams still run under.";
    BUILD_INFO = Gauge "outrigger_build_info" ["version"]
        "This proxy's version; always 1.";
    PROCESS_CPU_SECONDS = Counter "outrigger_process_cpu_seconds_total" []
        "User and system CPU time spent.";
    PROCESS_RESIDENT_MEMORY = Gauge "outrigger_process_resident_memory_bytes" []
        "Resident memory.";
    PROCESS_VIRTUAL_MEMORY = Gauge "outrigger_process_virtual_memory_bytes" []
        "Virtual memory.";
    PROCESS_OPEN_FDS = Gauge "outrigger_process_open_fds" []
        "Open file descriptors.";
    PROCESS_MAX_FDS = Gauge "outrigger_process_max_fds" []
        "Most file descriptors that may be open.";
    PROCESS_THREADS = Gauge "outrigger_process_threads" []
        "Threads.";
    PROCESS_START_TIME = Gauge "outrigger_process_start_time_seconds" []
        "Start of the process, in seconds since the Unix epoch.";
}

impl Family {
    /// With these series; label values in the order of [`Family::labels`].
    pub(super) fn of(&self, metrics: Vec<proto::Metric>) -> proto::MetricFamily {
        let mut family = proto::MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge => proto::MetricType::GAUGE,
            Kind::Histogram => proto::MetricType::HISTOGRAM,
        });
        family.set_metric(metrics);
        family
    }

    /// One series of a counter or gauge.
    pub(super) fn sample(&self, labels: &[&str], value: f64) -> proto::Metric {
        let mut metric = self.labelled(labels);
        match self.kind {
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            Kind::Counter | Kind::Histogram => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
        }
        metric
    }

    /// A series without its value.
    pub(super) fn labelled(&self, values: &[&str]) -> proto::Metric {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        proto::Metric::from_label(self.labels.iter().zip(values).map(pair).collect())
    }

    /// For the registry.
    pub(super) fn desc(&self) -> prometheus::Result<prometheus::core::Desc> {
        let labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        prometheus::core::Desc::new(self.name.to_owned(), self.help.to_owned(), labels, Default::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `promtool check metrics` looks at, where a table can show it.
    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for family in FAMILIES {
            let name = family.name;
            assert!(name.starts_with("outrigger_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(family.help.ends_with('.'), "{name} has a sentence as help");
            assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
            for word in name.split('_') {
                let not_base = ["ms", "milliseconds", "minutes", "kilobytes", "kib", "percent", "bits", "hours"];
                assert!(!not_base.contains(&word), "{name}: {word} is no base unit");
                assert!(!["counter", "gauge", "histogram", "summary"].contains(&word), "{name} holds its type");
            }
            for suffix in ["_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(suffix), "{name} looks like a histogram's series");
            }
            if family.kind == Kind::Histogram {
                assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name} has a unit");
            }
            for label in family.labels {
                assert!(!["le", "quantile"].contains(label), "{name}: {label} is reserved");
                assert!(!name.contains(&format!("by_{label}")), "{name} holds its label {label}");
                assert_eq!(family.labels.iter().filter(|other| *other == label).count(), 1, "{name}");
            }
            assert_eq!(FAMILIES.iter().filter(|other| other.name == name).count(), 1, "{name} is there once");
        }
    }
}
