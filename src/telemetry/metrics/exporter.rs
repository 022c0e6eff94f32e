//! A scrape's answer: what the workers counted and what the control side knows, as text.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};

use super::family::{self, FAMILIES, Family};
use super::histogram::Bounds;
use super::merge::{self, merge};
use super::names::{Names, UpstreamId};
use super::open_metrics::{self, ExemplarsBySeries};
use super::process::{self, Process};
use super::shard::ShardSnapshot;

/// The `Content-Type` of [`Exporter::render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Everything that is asked for at a scrape.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// What the workers answered. A worker that did not answer in time shows what it had answered before, so that no
    /// counter falls.
    pub shards: Vec<ShardSnapshot>,
    /// How many endpoints are in which state.
    pub endpoints: Vec<EndpointCount>,
    /// What all workers together know of each upstream.
    pub upstreams: Vec<UpstreamFacts>,
    /// What is known of each source that endpoints come from; those that stand in the file have none.
    pub discoveries: Vec<DiscoveryFacts>,
    /// Limits of listeners and routes that are fixed or adapt.
    pub concurrency: Vec<ConcurrencyFacts>,
    /// The configuration in force; `None` before the first.
    pub config: Option<ConfigFacts>,
    /// When each certificate ends.
    pub certificates: Vec<CertificateEnd>,
    /// [`AccessLog::dropped`](crate::telemetry::access_log::AccessLog::dropped).
    pub access_log_lines_dropped: u64,
    /// [`TraceCounts::now`](crate::telemetry::traces::TraceCounts::now).
    pub spans: SpanCounts,
    /// [`Doctor::calls_without_trace`](crate::telemetry::doctor::Doctor::calls_without_trace).
    pub calls_without_trace: u64,
}

/// How many spans a collector took, and how many were lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Taken.
    pub exported: u64,
    /// The queue was full: the collector is slower than the requests.
    pub queue_full: u64,
    /// The collector could not be reached, or refused them.
    pub export_failed: u64,
}

/// Endpoints of an upstream in one state.
#[derive(Debug, Clone)]
pub struct EndpointCount {
    /// Whose.
    pub upstream: UpstreamId,
    /// One of a few words, such as `ready` and `draining`.
    pub state: &'static str,
    /// How many.
    pub count: u64,
}

/// An upstream's state that no worker counts by itself.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamFacts {
    /// Whose.
    pub upstream: UpstreamId,
    /// Requests in flight to its endpoints.
    pub requests_in_flight: u64,
    /// Requests that wait for a connection.
    pub requests_waiting: u64,
    /// Connections, idle ones included.
    pub connections_open: u64,
    /// Connections that carry no request.
    pub connections_idle: u64,
    /// Requests in flight that have been sent again.
    pub retries_in_flight: u64,
    /// Retries that the budget would pay for.
    pub retry_budget_balance: f64,
    /// Attempts per request.
    pub amplification: f64,
    /// How often endpoints were ejected, by cause.
    pub ejections: [(&'static str, u64); 3],
    /// Active health checks that have passed, and that have failed; `None` where there are none.
    pub health_checks: Option<(u64, u64)>,
    /// Its circuit breaker, where it has one.
    pub breaker: Option<BreakerFacts>,
}

/// An upstream's circuit breaker.
#[derive(Debug, Clone, Copy)]
pub struct BreakerFacts {
    /// Each state, and whether it is this one; of several upstreams told together, how many of them are.
    pub states: [(&'static str, u64); 3],
    /// How often it has opened.
    pub opened: u64,
    /// Requests that it has refused.
    pub refused: u64,
}

/// A certificate's end.
#[derive(Debug, Clone)]
pub struct CertificateEnd {
    /// The file that it is in, as configured.
    pub file: String,
    /// Since the Unix epoch, in seconds.
    pub not_after: u64,
}

/// What is known of the source of an upstream's endpoints.
#[derive(Debug, Clone, Copy)]
pub struct DiscoveryFacts {
    /// Whose.
    pub upstream: UpstreamId,
    /// Since its last answer; `None` before the first.
    pub age: Option<Duration>,
    /// Look-ups that failed.
    pub errors: u64,
    /// Answers that changed the endpoints.
    pub updates: u64,
}

/// A limit of requests in flight.
#[derive(Debug, Clone)]
pub struct ConcurrencyFacts {
    /// Whose.
    pub listener: Arc<str>,
    /// Empty where it is the listener's own.
    pub route: Arc<str>,
    /// In force now.
    pub limit: u32,
}

/// What the metrics say of the configuration.
#[derive(Debug, Clone)]
pub struct ConfigFacts {
    /// Where it comes from.
    pub source: String,
    /// Its content's hash.
    pub hash: String,
    /// The hash of an override that lies over the source; empty without one.
    pub overridden: String,
    /// Counted from 1.
    pub generation: u64,
    /// False while the source holds something that was refused.
    pub last_reload_successful: bool,
    /// It, and those that requests and streams still run under.
    pub generations_alive: u64,
    /// How often a configuration was accepted, the first included.
    pub accepted: u64,
    /// And how often refused.
    pub refused: u64,
    /// How often a probation came to this.
    pub probations: [(&'static str, u64); 3],
}

/// All metrics at one time.
#[derive(Debug)]
pub struct Gathered {
    pub(super) families: Vec<MetricFamily>,
    /// Of the durations of requests.
    pub(super) exemplars: ExemplarsBySeries,
}

/// The registry with the proxy's collectors, and the text that it makes.
#[derive(Debug)]
pub struct Exporter {
    registry: Registry,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    names: Arc<Names>,
    bounds: Bounds,
    latest: Mutex<Latest>,
}

/// What the last scrape brought.
#[derive(Debug, Default)]
struct Latest {
    shards: BTreeMap<usize, ShardSnapshot>,
    scrape: Scrape,
}

impl Exporter {
    /// A registry with the proxy's and the process' metrics.
    ///
    /// # Errors
    /// None in practice: the names are constants that the tests register.
    pub fn new(names: Arc<Names>, bounds: Bounds) -> prometheus::Result<Self> {
        let state = Arc::new(State { names, bounds, latest: Mutex::default() });
        let registry = Registry::new();
        registry.register(Box::new(Proxy::new(Arc::clone(&state))?))?;
        registry.register(Box::new(Process::new()?))?;
        Ok(Exporter { registry, state })
    }

    /// Those of the workers' histograms.
    pub fn bounds(&self) -> &Bounds {
        &self.state.bounds
    }

    /// The names behind the workers' numbers.
    pub fn names(&self) -> &Names {
        &self.state.names
    }

    /// For collectors of the program that embeds the proxy. They appear beside ours.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The text that a scrape gets, of the type [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// When a collector that was registered from outside gives an empty or nameless family.
    pub fn render(&self, scrape: Scrape) -> prometheus::Result<String> {
        self.take(scrape);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// The same with exemplars, of the type [`open_metrics::CONTENT_TYPE`].
    pub fn render_open_metrics(&self, scrape: Scrape) -> String {
        let Gathered { families, exemplars } = self.gather(scrape);
        open_metrics::encode(&families, family::REQUEST_DURATION.name, &exemplars)
    }

    /// The same for [`Push`](super::Push).
    pub fn gather(&self, scrape: Scrape) -> Gathered {
        self.take(scrape);
        let families = self.registry.gather();
        let exemplars = merge::exemplars(self.state.latest().shards.values(), &self.state.names);
        Gathered { families, exemplars }
    }

    /// What workers have counted so far: shown until they tell more.
    pub fn keep(&self, shards: impl IntoIterator<Item = ShardSnapshot>) {
        let shards = shards.into_iter().map(|shard| (shard.worker, shard));
        self.state.latest().shards.extend(shards);
    }

    fn take(&self, mut scrape: Scrape) {
        self.keep(scrape.shards.drain(..));
        self.state.latest().scrape = scrape;
    }
}

impl State {
    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our part of the registry.
#[derive(Debug)]
struct Proxy {
    state: Arc<State>,
    descs: Vec<Desc>,
}

impl Proxy {
    fn new(state: Arc<State>) -> prometheus::Result<Self> {
        let ours = FAMILIES.iter().filter(|family| !process::FAMILIES.contains(family));
        Ok(Proxy { state, descs: ours.map(Family::desc).collect::<Result<_, _>>()? })
    }
}

impl Collector for Proxy {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let latest = self.state.latest();
        let mut families = merge(latest.shards.values(), &self.state.names, &self.state.bounds);
        families.push(self.endpoints(&latest.scrape.endpoints));
        families.extend(self.upstreams(&latest.scrape.upstreams));
        let ends = latest.scrape.certificates.iter();
        let ends = ends.map(|end| family::CERTIFICATE_NOT_AFTER.sample(&[&end.file], end.not_after as f64));
        families.push(family::CERTIFICATE_NOT_AFTER.of(ends.collect()));
        families.extend(self.resilience(&latest.scrape.upstreams));
        families.extend(self.discoveries(&latest.scrape.discoveries));
        families.push(single(&family::ACCESS_LOG_LINES_DROPPED, &[], latest.scrape.access_log_lines_dropped as f64));
        let spans = latest.scrape.spans;
        families.push(single(&family::TRACE_SPANS_EXPORTED, &[], spans.exported as f64));
        families.push(family::TRACE_SPANS_DROPPED.of(vec![
            family::TRACE_SPANS_DROPPED.sample(&["queue_full"], spans.queue_full as f64),
            family::TRACE_SPANS_DROPPED.sample(&["export_failed"], spans.export_failed as f64),
        ]));
        let calls = latest.scrape.calls_without_trace;
        families.push(single(&family::CALLS_WITHOUT_TRACE, &[], calls as f64));
        families.push(concurrency(&latest.scrape.concurrency));
        families.push(single(&family::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0));
        if let Some(config) = &latest.scrape.config {
            let labels = [config.source.as_str(), &config.hash, &config.overridden];
            families.push(single(&family::CONFIG_INFO, &labels, 1.0));
            families.push(single(&family::CONFIG_GENERATION, &[], config.generation as f64));
            let successful = f64::from(u8::from(config.last_reload_successful));
            families.push(single(&family::CONFIG_LAST_RELOAD_SUCCESSFUL, &[], successful));
            let alive = config.generations_alive as f64;
            families.push(single(&family::CONFIG_GENERATIONS_ALIVE, &[], alive));
            let reloads = [("accepted", config.accepted), ("refused", config.refused)];
            let reloads = reloads.map(|(result, count)| family::CONFIG_RELOADS.sample(&[result], count as f64));
            families.push(family::CONFIG_RELOADS.of(reloads.to_vec()));
            let probations = config.probations;
            let probations =
                probations.map(|(result, count)| family::CONFIG_PROBATIONS.sample(&[result], count as f64));
            families.push(family::CONFIG_PROBATIONS.of(probations.to_vec()));
        }
        families
    }
}

impl Proxy {
    fn endpoints(&self, counts: &[EndpointCount]) -> MetricFamily {
        let names = self.state.names.tables();
        let sample = |count: &EndpointCount| {
            family::ENDPOINTS.sample(&[names.upstream(count.upstream), count.state], count.count as f64)
        };
        family::ENDPOINTS.of(counts.iter().map(sample).collect())
    }

    fn upstreams(&self, facts: &[UpstreamFacts]) -> [MetricFamily; 7] {
        let names = self.state.names.tables();
        let gauge = |family: &Family, value: fn(&UpstreamFacts) -> f64| {
            let sample = |facts: &UpstreamFacts| family.sample(&[names.upstream(facts.upstream)], value(facts));
            family.of(facts.iter().map(sample).collect())
        };
        [
            gauge(&family::UPSTREAM_REQUESTS_IN_FLIGHT, |facts| facts.requests_in_flight as f64),
            gauge(&family::UPSTREAM_REQUESTS_WAITING, |facts| facts.requests_waiting as f64),
            gauge(&family::UPSTREAM_CONNECTIONS_OPEN, |facts| facts.connections_open as f64),
            gauge(&family::UPSTREAM_CONNECTIONS_IDLE, |facts| facts.connections_idle as f64),
            gauge(&family::RETRIES_IN_FLIGHT, |facts| facts.retries_in_flight as f64),
            gauge(&family::RETRY_BUDGET_BALANCE, |facts| facts.retry_budget_balance),
            gauge(&family::AMPLIFICATION, |facts| facts.amplification),
        ]
    }
}

impl Proxy {
    fn resilience(&self, facts: &[UpstreamFacts]) -> [MetricFamily; 5] {
        let names = self.state.names.tables();
        let ejections = facts.iter().flat_map(|facts| {
            let upstream = names.upstream(facts.upstream);
            facts.ejections.map(|(cause, count)| family::EJECTIONS.sample(&[upstream, cause], count as f64))
        });
        let checks = facts.iter().filter_map(|facts| Some((names.upstream(facts.upstream), facts.health_checks?)));
        let checks = checks.flat_map(|(upstream, (passed, failed))| {
            [("passed", passed), ("failed", failed)]
                .map(|(result, count)| family::HEALTH_CHECKS.sample(&[upstream, result], count as f64))
        });
        let breakers = || facts.iter().filter_map(|facts| Some((names.upstream(facts.upstream), facts.breaker?)));
        let states = breakers().flat_map(|(upstream, breaker)| {
            let sample = |(state, count): (_, u64)| family::BREAKER_STATE.sample(&[upstream, state], count as f64);
            breaker.states.map(sample)
        });
        let counter = |family: &Family, value: fn(&BreakerFacts) -> u64| {
            family.of(breakers().map(|(upstream, facts)| family.sample(&[upstream], value(&facts) as f64)).collect())
        };
        [
            family::EJECTIONS.of(ejections.collect()),
            family::HEALTH_CHECKS.of(checks.collect()),
            family::BREAKER_STATE.of(states.collect()),
            counter(&family::BREAKER_OPENED, |facts| facts.opened),
            counter(&family::BREAKER_REFUSED, |facts| facts.refused),
        ]
    }
}

impl Proxy {
    fn discoveries(&self, facts: &[DiscoveryFacts]) -> [MetricFamily; 3] {
        let names = self.state.names.tables();
        let family = |family: &Family, value: fn(&DiscoveryFacts) -> Option<f64>| {
            let sample = |facts: &DiscoveryFacts| {
                value(facts).map(|value| family.sample(&[names.upstream(facts.upstream)], value))
            };
            family.of(facts.iter().filter_map(sample).collect())
        };
        [
            family(&family::DISCOVERY_AGE, |facts| facts.age.map(|age| age.as_secs_f64())),
            family(&family::DISCOVERY_ERRORS, |facts| Some(facts.errors as f64)),
            family(&family::DISCOVERY_UPDATES, |facts| Some(facts.updates as f64)),
        ]
    }
}

fn concurrency(facts: &[ConcurrencyFacts]) -> MetricFamily {
    let sample = |facts: &ConcurrencyFacts| {
        family::CONCURRENCY_LIMIT.sample(&[&facts.listener, &facts.route], f64::from(facts.limit))
    };
    family::CONCURRENCY_LIMIT.of(facts.iter().map(sample).collect())
}

fn single(family: &Family, labels: &[&str], value: f64) -> MetricFamily {
    family.of(vec![family.sample(labels, value)])
}

#[cfg(test)]
mod tests {
    use super::super::{Exemplar, ListenerCounter, ListenerGauge, MethodLabel, RequestKey, Shard, UpstreamCounter};
    use super::*;
    use crate::outcome::Outcome;

    /// A scrape in which each family has at least one series.
    fn full() -> (Exporter, Scrape) {
        let names = Arc::new(Names::new());
        let (listener, upstream) = (names.listener("outbound"), names.upstream("payments"));
        let shard = Shard::new(0, Bounds::default());
        let route = names.route(listener, "payments");
        let method = MethodLabel::from(&http::Method::GET);
        let key = RequestKey { route, upstream: Some(upstream), method, code: 200, grpc: None, reason: None };
        let exemplar = Exemplar::new(&"a".repeat(32), Duration::from_secs(7));
        shard.request(&key, Duration::from_millis(3), (1, 2), exemplar);
        shard.attempt(upstream, Outcome::answered(200), Duration::from_millis(3));
        shard.count_listener(listener, ListenerCounter::Http1Connections);
        shard.count_listener(listener, ListenerCounter::Tls1_3);
        shard.count_upstream(upstream, UpstreamCounter::Connected, 1);
        drop(shard.hold_listener(listener, ListenerGauge::RequestsInFlight));
        let config = ConfigFacts {
            source: "file:/etc/outrigger.yaml".to_owned(),
            hash: "c0ffee".to_owned(),
            overridden: String::new(),
            generation: 7,
            last_reload_successful: true,
            generations_alive: 2,
            accepted: 3,
            refused: 1,
            probations: [("passed", 2), ("failed", 1), ("superseded", 0)],
        };
        let scrape = Scrape {
            shards: vec![shard.snapshot()],
            endpoints: vec![EndpointCount { upstream, state: "ready", count: 2 }],
            upstreams: vec![UpstreamFacts {
                upstream,
                requests_in_flight: 2,
                requests_waiting: 1,
                connections_open: 9,
                connections_idle: 3,
                retries_in_flight: 2,
                retry_budget_balance: 10.0,
                amplification: 1.5,
                ejections: [("consecutive", 4), ("failure_ratio", 0), ("success_rate", 0)],
                health_checks: Some((8, 1)),
                breaker: Some(BreakerFacts {
                    states: [("closed", 0), ("open", 1), ("half_open", 0)],
                    opened: 2,
                    refused: 7,
                }),
            }],
            discoveries: vec![DiscoveryFacts {
                upstream,
                age: Some(Duration::from_millis(1_500)),
                errors: 4,
                updates: 6,
            }],
            concurrency: vec![ConcurrencyFacts { listener: "outbound".into(), route: "".into(), limit: 50 }],
            config: Some(config),
            certificates: vec![CertificateEnd { file: "tls.crt".to_owned(), not_after: 1_930_003_200 }],
            access_log_lines_dropped: 5,
            spans: SpanCounts { exported: 9, queue_full: 2, export_failed: 1 },
            calls_without_trace: 4,
        };
        (Exporter::new(names, Bounds::default()).unwrap(), scrape)
    }

    #[test]
    fn every_family_of_the_table_is_exported_and_no_other() {
        let (exporter, scrape) = full();
        let text = exporter.render(scrape).unwrap();
        let exported: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        let mut known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        known.sort_unstable();
        assert_eq!(exported, known);
        assert_eq!(text.matches("# HELP ").count(), known.len());
    }

    #[test]
    fn facts_of_the_control_side_are_written() {
        let (exporter, scrape) = full();
        let text = exporter.render(scrape).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        for line in [
            r#"outrigger_endpoints{upstream="payments",state="ready"} 2"#,
            r#"outrigger_config_info{source="file:/etc/outrigger.yaml",hash="c0ffee",override=""} 1"#,
            r#"outrigger_upstream_requests_waiting{upstream="payments"} 1"#,
            r#"outrigger_upstream_connections_open{upstream="payments"} 9"#,
            r#"outrigger_upstream_connections_idle{upstream="payments"} 3"#,
            r#"outrigger_tls_certificate_not_after_timestamp_seconds{file="tls.crt"} 1930003200"#,
            r#"outrigger_retry_amplification_ratio{upstream="payments"} 1.5"#,
            r#"outrigger_endpoint_ejections_total{upstream="payments",cause="consecutive"} 4"#,
            r#"outrigger_health_checks_total{upstream="payments",result="failed"} 1"#,
            r#"outrigger_circuit_breaker_state{upstream="payments",state="open"} 1"#,
            r#"outrigger_circuit_breaker_refused_total{upstream="payments"} 7"#,
            "outrigger_config_generation 7",
            "outrigger_config_last_reload_successful 1",
            "outrigger_config_generations_alive 2",
            r#"outrigger_config_reloads_total{result="refused"} 1"#,
            "outrigger_access_log_lines_dropped_total 5",
            "outrigger_trace_spans_exported_total 9",
            "outrigger_calls_without_trace_total 4",
            r#"outrigger_trace_spans_dropped_total{cause="queue_full"} 2"#,
            r#"outrigger_trace_spans_dropped_total{cause="export_failed"} 1"#,
            &format!(r#"outrigger_build_info{{version="{version}"}} 1"#),
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn a_silent_worker_does_not_make_counters_fall() {
        let (exporter, scrape) = full();
        let silent = Scrape { shards: Vec::new(), ..scrape.clone() };
        let requests =
            |text: String| text.lines().find(|line| line.starts_with("outrigger_requests_total")).map(str::to_owned);
        let before = requests(exporter.render(scrape).unwrap());
        assert!(before.is_some());
        assert_eq!(requests(exporter.render(silent).unwrap()), before);
    }

    #[test]
    fn open_metrics_has_the_same_families_and_exemplars() {
        let (exporter, scrape) = full();
        let text = exporter.render_open_metrics(scrape);
        let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert_eq!(names.len(), FAMILIES.len());
        assert!(names.contains(&"outrigger_requests counter"), "{names:?}");
        let labels = r#"listener="outbound",route="payments",upstream="payments",code_class="2xx""#;
        let exemplar = format!("# {{trace_id=\"{}\"}} 0.003 7.000", "a".repeat(32));
        for line in [
            format!("outrigger_request_duration_seconds_bucket{{{labels},le=\"0.0025\"}} 0"),
            format!("outrigger_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 1 {exemplar}"),
            format!("outrigger_request_duration_seconds_bucket{{{labels},le=\"60.0\"}} 1"),
            format!("outrigger_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 1"),
            "outrigger_config_generation 7".to_owned(),
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\nis not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn collectors_from_outside_appear_too() {
        let (exporter, scrape) = full();
        let counter = prometheus::IntCounter::new("embedder_things_total", "Things.").unwrap();
        exporter.registry().register(Box::new(counter.clone())).unwrap();
        counter.inc();
        assert!(exporter.render(scrape).unwrap().contains("\nembedder_things_total 1\n"));
    }
}
