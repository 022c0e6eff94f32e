//! The proxy's state as it is shown. The order of fields here is that of the JSON.

use std::sync::PoisonError;
use std::time::SystemTime;

use serde::Serialize;
use tokio::time::Instant;

use crate::config::model::{Direction, UpstreamProtocol};
use crate::control::{Control, Report, sum_pools};
use crate::reload::Reload;
use crate::snapshot;
use crate::telemetry::clock;
use crate::transport::PoolCounts;
use crate::upstream::breaker::Phase;
use crate::upstream::ejection::Cause;
use crate::upstream::endpoints::Status;
use crate::upstream::limit::Limit;
use crate::upstream::moment::Moment;
use crate::upstream::state::{EndpointState, UpstreamState};

/// `/readyz`
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    phase: &'static str,
    /// What is not as it should be, and does not make the proxy unready.
    pub(super) warnings: Vec<String>,
}

/// `POST /drain`
#[derive(Debug, Serialize)]
pub(super) struct Draining {
    phase: &'static str,
    /// The drain waits no longer: nothing is left, or its time is over.
    pub(super) over: bool,
    drained: bool,
    inbound_requests: u64,
    inbound_connections: usize,
    /// Of all listeners: outbound ones work on.
    requests_in_flight: usize,
}

/// `/listeners`
#[derive(Debug, Serialize)]
pub(super) struct Listeners {
    listeners: Vec<Listener>,
}

#[derive(Debug, Serialize)]
struct Listener {
    name: String,
    /// Where it is really bound.
    address: String,
    direction: &'static str,
    connections: Usage,
}

/// `/upstreams`
#[derive(Debug, Serialize)]
pub(super) struct Upstreams {
    pub(super) generation: u64,
    pub(super) upstreams: Vec<Upstream>,
    /// What stands for services that are found when first called.
    on_demand: Vec<OnDemand>,
}

#[derive(Debug, Serialize)]
struct OnDemand {
    name: String,
    /// Those that are known now; they are among the upstreams.
    services: usize,
    max: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct Upstream {
    name: String,
    /// What found it when it was first called.
    #[serde(skip_serializing_if = "Option::is_none")]
    found_by: Option<String>,
    protocol: &'static str,
    /// `null` where the endpoints stand in the file.
    discovery: Option<Discovery>,
    endpoints: Vec<Endpoint>,
    circuit_breaker: Option<CircuitBreaker>,
    connections: Connections,
    limits: Limits,
    retries: Retries,
}

/// What the source of the endpoints last said.
#[derive(Debug, Serialize)]
struct Discovery {
    answered: bool,
    /// Since the last answer; `null` where there was none.
    age_seconds: Option<f64>,
    updates: u64,
    failures: u64,
    /// What went wrong since that answer.
    error: Option<String>,
    /// It names nobody, and the endpoints known before are kept for so long.
    kept_for_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    address: String,
    weight: u32,
    /// Of SRV records; the lowest comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    state: &'static str,
    in_flight: u32,
    /// A moving average that believes bad news at once; `null` where nothing was asked yet.
    latency_ms: Option<f64>,
    /// Attempts since the endpoint is known.
    requests: u64,
    /// Of these, those that got no answer, or a failing one: 500 or more, or a gRPC status that says as much.
    failures: u64,
    health: Health,
    ejection: Ejection,
}

#[derive(Debug, Serialize)]
struct Health {
    state: &'static str,
    /// Why the latest check has failed.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Ejection {
    /// Since the endpoint is known.
    times: u64,
    failures_in_a_row: u32,
    /// Until it is back; `null` while it is in.
    seconds_left: Option<f64>,
    /// Why it is out; `null` while it is in.
    cause: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct CircuitBreaker {
    state: &'static str,
    /// Until it lets probes through; `null` while it is closed.
    seconds_left: Option<f64>,
    shadow: bool,
    /// Over its window.
    requests: u32,
    failure_ratio: f64,
    slow_ratio: f64,
    opened: u64,
    refused: u64,
}

#[derive(Debug, Serialize)]
struct Connections {
    open: u32,
    idle: u64,
    http2: u64,
}

#[derive(Debug, Serialize)]
struct Limits {
    connections: Usage,
    requests: Usage,
    waiting: Usage,
    retries: Usage,
}

#[derive(Debug, Serialize)]
struct Retries {
    /// Those that the budget would pay for now.
    budget_balance: f64,
    /// Attempts per request, over the budget's window.
    amplification: f64,
}

#[derive(Debug, Serialize)]
struct Usage {
    used: u32,
    max: u32,
}

impl Readiness {
    /// `in_full`: who asks may see `/upstreams`, too.
    pub(super) fn of(control: &Control, reload: &Reload, in_full: bool) -> Self {
        let mut warnings = reload.warnings();
        let stuck = control.stuck_workers();
        if !stuck.is_empty() {
            warnings.push(format!("workers that are stuck: {stuck:?}"));
        }
        let failure = control.registration_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        warnings.extend(failure.map(|failure| {
            let why = if in_full { &*failure } else { "the log says why" };
            format!("this proxy is not in Consul as it should be ({why})")
        }));
        let dropped = control.access_log_lines_dropped();
        if dropped > 0 {
            let why = "their target is too slow, or refuses them, as the proxy's own log says";
            warnings.push(format!("access log lines dropped since the start: {dropped}; {why}"));
        }
        let snapshot = control.snapshot.load();
        let discovered = snapshot.upstreams.iter().filter(|upstream| upstream.is_discovered);
        warnings.extend(discovered.filter_map(|upstream| discovery_warning(upstream, in_full)));
        warnings.extend(snapshot.upstreams.iter().filter_map(found_warning));
        warnings.extend(snapshot.upstreams.iter().filter_map(nobody_warning));
        warnings.extend(control.doctor.finding().map(str::to_owned));
        let now = clock::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        warnings.extend(control.identities.warnings(now.as_secs()));
        Readiness { ready: control.is_ready(), phase: control.phase_name(), warnings }
    }
}

/// What is to be known of an upstream whose endpoints are looked up. Everybody may ask, so that no address is in it, but
/// for who may see them.
fn discovery_warning(upstream: &snapshot::Upstream, in_full: bool) -> Option<String> {
    let status = upstream.endpoints.status();
    let known = upstream.endpoints.load().members.len();
    let why = |error: &str| if in_full { error.to_owned() } else { "/upstreams says why".to_owned() };
    let what = match (&status.error, status.kept_until, status.succeeded) {
        (None, None, Some(_)) if known > 0 => return None,
        (None, None, Some(_)) => "its source names no endpoint".to_owned(),
        (None, Some(until), _) => {
            let left = until.saturating_duration_since(Instant::now()).as_secs();
            match known.saturating_sub(status.kept) {
                0 => format!("its source names no endpoint; the {known} known last are kept for {left} s more"),
                named => format!(
                    "its source has lost its memory and names {named} again; {} others are kept for {left} s more",
                    status.kept
                ),
            }
        }
        (Some(error), _, Some(_)) if status.partly => {
            format!("some of its look-ups fail ({}); its {known} endpoints rest on those that do not", why(error))
        }
        (Some(error), _, Some(succeeded)) => {
            let age = succeeded.elapsed().as_secs();
            format!("its endpoints cannot be looked up ({}); the {known} of {age} s ago are kept", why(error))
        }
        (Some(error), _, None) => format!("its endpoints could never be looked up ({})", why(error)),
        (None, _, None) => "its source has not answered yet".to_owned(),
    };
    Some(format!("upstream {}: {what}", upstream.state.name))
}

/// The same of services that were found on demand, in one line: whoever calls them names them.
fn found_warning(upstream: &snapshot::Upstream) -> Option<String> {
    let services: Vec<_> = upstream.found().collect();
    let failing = services.iter().filter(|service| service.endpoints.status().error.is_some()).count();
    let (name, all) = (&upstream.state.name, services.len());
    (failing > 0).then(|| format!("{name}: {failing} of {all} services cannot be looked up (/upstreams says why)"))
}

/// Where there are endpoints, and none that should be called.
fn nobody_warning(upstream: &snapshot::Upstream) -> Option<String> {
    let set = upstream.endpoints.load();
    let all = set.members.len();
    if all == 0 || set.members.iter().any(|member| member.state.is_available()) {
        return None;
    }
    let down = set.members.iter().filter(|member| member.state.word() == "down").count();
    let name = &upstream.state.name;
    Some(format!(
        "upstream {name}: none of its {all} endpoints is well; {down} fail their health check, {} are ejected",
        all - down
    ))
}

impl Draining {
    pub(super) async fn of(control: &Control) -> Self {
        let standing = control.standing().await;
        Draining {
            phase: control.phase_name(),
            over: standing.over,
            drained: standing.over && standing.inbound_requests == 0,
            inbound_requests: standing.inbound_requests,
            inbound_connections: standing.inbound_connections,
            requests_in_flight: standing.in_flight,
        }
    }
}

impl Listeners {
    pub(super) fn of(control: &Control) -> Self {
        let doors = control.doors();
        let listeners = doors.open().iter().map(|door| Listener {
            name: door.listener.clone(),
            address: door.bound.to_string(),
            direction: match door.direction {
                Direction::Inbound => "inbound",
                Direction::Outbound => "outbound",
            },
            connections: Usage::of(&door.entrance.connections),
        });
        Listeners { listeners: listeners.collect() }
    }
}

impl Upstreams {
    pub(super) async fn of(control: &Control) -> Self {
        Self::by(control, &control.reports().await)
    }

    /// With what the workers have said already.
    pub(super) fn by(control: &Control, reports: &[Report]) -> Self {
        let pools = sum_pools(reports);
        let snapshot = control.snapshot.load_full();
        let (mut upstreams, mut on_demand) = (Vec::with_capacity(snapshot.upstreams.len()), Vec::new());
        let shown = |upstream: &snapshot::Upstream, found_by: Option<&str>| {
            let pool = pools.get(&upstream.state.name).copied().unwrap_or_default();
            Upstream { found_by: found_by.map(str::to_owned), ..Upstream::of(upstream, pool) }
        };
        for upstream in &snapshot.upstreams {
            let Some(rules) = upstream.on_demand.as_ref().map(|on_demand| &on_demand.rules) else {
                upstreams.push(shown(upstream, None));
                continue;
            };
            let (name, before) = (&*upstream.state.name, upstreams.len());
            upstreams.extend(upstream.found().map(|service| shown(&service, Some(name))));
            let services = upstreams.len() - before;
            on_demand.push(OnDemand { name: name.to_owned(), services, max: rules.max });
        }
        Upstreams { generation: snapshot.generation, upstreams, on_demand }
    }
}

impl Upstream {
    fn of(upstream: &snapshot::Upstream, pool: PoolCounts) -> Self {
        let now = Moment::from(tokio::time::Instant::now());
        let set = upstream.endpoints.load();
        let endpoints = set.members.iter().map(|member| Endpoint {
            address: member.state.label.to_string(),
            weight: member.weight,
            priority: Some(member.priority).filter(|priority| *priority > 0),
            zone: member.zone.as_deref().map(str::to_owned),
            state: member.state.word(),
            in_flight: member.state.in_flight(),
            latency_ms: member.state.latency.last().map(|latency| latency.as_secs_f64() * 1_000.0),
            requests: member.state.requests(),
            failures: member.state.failures(),
            health: Health { state: member.state.health.as_str(), error: member.state.health.error() },
            ejection: Ejection::of(&member.state, now),
        });
        let state = &upstream.state;
        Upstream {
            name: state.name.to_string(),
            found_by: None,
            protocol: match upstream.protocol {
                UpstreamProtocol::Auto => "auto",
                UpstreamProtocol::Http1 => "http1",
                UpstreamProtocol::Http2 => "http2",
            },
            discovery: upstream.is_discovered.then(|| Discovery::of(&upstream.endpoints.status())),
            endpoints: endpoints.collect(),
            circuit_breaker: upstream.breaker.as_ref().map(|breaker| CircuitBreaker::of(breaker, state, now)),
            connections: Connections { open: state.connections.used(), idle: pool.idle, http2: pool.http2 },
            limits: Limits {
                connections: Usage::of(&state.connections),
                requests: Usage::of(&state.requests),
                waiting: Usage::of(&state.waiting),
                retries: Usage::of(&state.retries),
            },
            retries: Retries {
                budget_balance: state.budget.balance(Instant::now()),
                amplification: state.budget.amplification(Instant::now()),
            },
        }
    }
}

impl Ejection {
    fn of(endpoint: &EndpointState, now: Moment) -> Self {
        let ejection = &endpoint.ejection;
        let is_out = endpoint.word() == "ejected";
        Ejection {
            times: ejection.total(),
            failures_in_a_row: ejection.in_a_row(),
            seconds_left: is_out.then(|| ejection.until().since(now).as_secs_f64()),
            cause: ejection.cause().filter(|_| is_out).map(Cause::as_str),
        }
    }
}

impl CircuitBreaker {
    fn of(breaker: &snapshot::Breaker, state: &UpstreamState, now: Moment) -> Self {
        let recent = state.breaker.recent(&breaker.policy, now);
        let phase = state.breaker.phase();
        CircuitBreaker {
            state: phase.as_str(),
            seconds_left: (phase != Phase::Closed).then(|| state.breaker.wait(now).as_secs_f64()),
            shadow: breaker.policy.shadow,
            requests: recent.total,
            failure_ratio: recent.failure_ratio(),
            slow_ratio: recent.slow_ratio(),
            opened: state.breaker.opened(),
            refused: state.breaker.refused(),
        }
    }
}

impl Discovery {
    fn of(status: &Status) -> Self {
        Discovery {
            answered: status.succeeded.is_some(),
            age_seconds: status.succeeded.map(|succeeded| succeeded.elapsed().as_secs_f64()),
            updates: status.updates,
            failures: status.failures,
            error: status.error.clone(),
            kept_for_seconds: status
                .kept_until
                .map(|until| until.saturating_duration_since(Instant::now()).as_secs_f64()),
        }
    }
}

impl Usage {
    fn of(limit: &Limit) -> Self {
        Usage { used: limit.used(), max: limit.max() }
    }
}
