//! The hinge between the two wings: one configuration, compiled for the requests' way.
//!
//! A snapshot never changes. What lasts longer than a configuration stands in the [`Registry`] and is only pointed to.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::admission::{Admission, Terms};
use crate::config::model::{
    self, Balancing, CircuitBreaker, Direction, Ejection, EndpointSource, HealthCheck, IdentityPattern, ListenerLimits,
    Mode, PathMatch, TimeoutOverrides, Timeouts, Trust, UpstreamIndex, UpstreamProtocol,
};
use crate::identity::{self, ClientTls, FileError, ServerTls};
use crate::proxy::header_rules::Rules;
use crate::route::Table;
use crate::route::service::Called;
use crate::runtime::pace::breathe;
use crate::telemetry::metrics::{ListenerId, Names, RouteId, UpstreamId};
use crate::upstream::endpoints::Endpoints;
use crate::upstream::judge::Judge;
use crate::upstream::moment::Moment;
use crate::upstream::registry::Registry;
use crate::upstream::services::{Service, Services};
use crate::upstream::state::UpstreamState;

/// gRPC calls and event streams may be silent for longer than other messages, where nothing else was written.
const STREAM_IDLE: Duration = Duration::from_secs(5 * 60);

/// A compiled configuration.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Counted from 1.
    pub(crate) generation: u64,
    pub(crate) service: Option<String>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) upstreams: Vec<Upstream>,
    /// What the app is asked when a probe comes, by the probe's name.
    pub(crate) probes: Vec<(String, model::ProbeTarget)>,
    /// How many routes split their requests. Counted here, for a worker that takes over ten thousand routes between two
    /// requests has no time to look at each.
    pub(crate) splits: usize,
    /// How many upstreams stand for services that are found when first called.
    pub(crate) finders: usize,
}

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: Arc<str>,
    pub(crate) id: ListenerId,
    /// Stands for requests that match no route.
    pub(crate) no_route: RouteId,
    pub(crate) mode: Mode,
    pub(crate) direction: Direction,
    /// Where what is no HTTP goes: `no_route: passthrough`.
    pub(crate) passthrough: Option<Target>,
    pub(crate) edge: bool,
    pub(crate) trust: Trust,
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// Who may call; empty: everybody.
    pub(crate) allow: Vec<IdentityPattern>,
    pub(crate) limits: ListenerLimits,
    pub(crate) admission: Option<Arc<Admission>>,
    pub(crate) table: Table,
    pub(crate) routes: Vec<Route>,
}

#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) id: RouteId,
    /// Who may come this way; empty: everybody whom the listener lets in.
    pub(crate) allow: Vec<IdentityPattern>,
    pub(crate) action: Action,
    /// What the path was matched by; a rewrite of prefixes needs it.
    pub(crate) path: PathMatch,
    /// The same as spans show it.
    pub(crate) path_pattern: Option<Arc<str>>,
    /// True where the route names hosts.
    pub(crate) names_host: bool,
    pub(crate) rewrite: model::Rewrite,
    pub(crate) request_headers: Rules,
    pub(crate) response_headers: Rules,
    pub(crate) admission: Option<Arc<Admission>>,
    pub(crate) mirror: Option<Mirror>,
    pub(crate) fault: Option<model::Fault>,
}

#[derive(Debug)]
pub(crate) enum Action {
    Upstream(Target),
    /// Position of the route's split among all splits; each target with its weight.
    Split {
        split: usize,
        targets: Vec<(u32, Target)>,
    },
    Redirect(model::Redirect),
    Respond(model::Respond),
}

/// Who gets copies of a route's requests.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) target: Target,
    pub(crate) ratio: f64,
}

/// An upstream as one route sees it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) upstream: UpstreamIndex,
    pub(crate) timeouts: Patience,
    /// The header in which HTTP says how many milliseconds are left.
    pub(crate) deadline_header: Option<HeaderName>,
    pub(crate) retries: model::Retries,
}

/// Timeouts for the two kinds of message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) timeouts: Timeouts,
    /// `idle` of gRPC calls and event streams.
    pub(crate) stream_idle: Option<Duration>,
}

impl Patience {
    /// From the request's last byte to the response's headers. gRPC servers may hold these back until their first
    /// message, so that there it only holds where somebody has written it.
    pub(crate) fn response(&self, grpc: bool) -> Option<Duration> {
        self.timeouts.response.filter(|_| !grpc || self.timeouts.response_written)
    }

    /// Silence in both directions.
    pub(crate) fn idle(&self, grpc: bool) -> Option<Duration> {
        if grpc { self.stream_idle } else { self.timeouts.idle }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    pub(crate) id: UpstreamId,
    pub(crate) state: Arc<UpstreamState>,
    pub(crate) endpoints: Arc<Endpoints>,
    /// Its endpoint is where the captured connection was going to.
    pub(crate) is_original: bool,
    /// They come from a registry, and not from the file.
    pub(crate) is_discovered: bool,
    /// It stands for services that are found when first called, and has no endpoints of its own.
    pub(crate) on_demand: Option<Arc<OnDemand>>,
    pub(crate) protocol: UpstreamProtocol,
    pub(crate) balancing: Balancing,
    pub(crate) tls: Option<Arc<ClientTls>>,
    pub(crate) ejection: Option<Ejection>,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) health: Option<HealthCheck>,
}

/// Services that are found when first called.
#[derive(Debug)]
pub(crate) struct OnDemand {
    /// Position among all of these: what workers remember of it stands there.
    pub(crate) number: usize,
    pub(crate) rules: model::OnDemand,
    /// What each service is made from.
    template: model::Upstream,
    pub(crate) services: Arc<Services>,
    registry: Arc<Registry>,
}

impl OnDemand {
    /// The service, found anew where nobody knows it. `None` where there are too many.
    pub(crate) fn find(&self, called: Called, now: Moment) -> Option<Arc<Service>> {
        let Called { name, source } = called;
        self.registry.find(&self.services, &self.template, &self.rules, &name, source, now)
    }
}

/// A circuit breaker's rules, and what stands in while it is open.
#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    pub(crate) policy: CircuitBreaker,
    pub(crate) fallback: Fallback,
}

/// What becomes of a request that an open breaker refuses.
#[derive(Debug, Clone)]
pub(crate) enum Fallback {
    Refuse,
    Upstream(Box<Target>),
    Respond(Box<model::Respond>),
}

impl Upstream {
    /// One of the services that this stands for.
    pub(crate) fn serving(&self, service: &Service) -> Self {
        Upstream {
            state: service.state.clone(),
            endpoints: service.endpoints.clone(),
            is_discovered: true,
            on_demand: None,
            ..self.clone()
        }
    }

    /// The services that this stands for now.
    pub(crate) fn found(&self) -> impl Iterator<Item = Upstream> {
        let known = self.on_demand.as_ref().map(|on_demand| on_demand.services.known()).unwrap_or_default();
        known.into_iter().map(|service| self.serving(&service))
    }

    /// Of what is asked of its endpoints.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What attempts and requests came to is told here.
    pub(crate) fn judge(&self) -> Judge<'_> {
        Judge {
            upstream: &self.state,
            endpoints: &self.endpoints,
            ejection: self.ejection.as_ref(),
            breaker: self.breaker.as_ref().map(|breaker| &breaker.policy),
            slow_return: self.balancing.slow_return,
        }
    }
}

impl Snapshot {
    /// Compiles `config`; what it shares with earlier generations is found in `registry`, `identities` and `names`, and
    /// stays as it is until this one is [put in force](Self::put_in_force).
    ///
    /// # Errors
    /// Where a certificate, key or bundle of authorities cannot be used.
    pub(crate) fn compile(
        config: &model::Config,
        generation: u64,
        registry: &Arc<Registry>,
        identities: &identity::Store,
        names: &Names,
    ) -> Result<Self, FileError> {
        let mut on_demand = 0;
        let upstreams = config.upstreams.iter().map(|upstream| {
            breathe();
            let tls = upstream.tls.as_ref().map(|tls| identities.client(tls)).transpose()?;
            Ok(Upstream { tls, ..compile_upstream(upstream, config, registry, names, &mut on_demand) })
        });
        let upstreams = upstreams.collect::<Result<_, FileError>>()?;
        let mut splits = 0;
        let listeners = config.listeners.iter().map(|listener| {
            let tls = listener.tls.as_ref().map(|tls| identities.server(tls)).transpose()?;
            Ok(Listener { tls, ..compile_listener(listener, config, registry, names, &mut splits) })
        });
        let listeners = listeners.collect::<Result<_, FileError>>()?;
        Ok(Snapshot {
            probes: config.metrics.probes.clone(),
            generation,
            service: config.service.clone(),
            listeners,
            upstreams,
            splits,
            finders: on_demand,
        })
    }

    /// Holds what generations share to the terms of `config`, which this was compiled from: once nothing can go wrong any
    /// more, and before a worker sees it.
    pub(crate) fn put_in_force(&self, config: &model::Config, registry: &Registry) {
        let upstreams = config.upstreams.iter().zip(&self.upstreams);
        let listeners = self.listeners.iter().flat_map(|listener| {
            let routes = listener.routes.iter().map(|route| (Some(&*route.name), &route.admission));
            let all = std::iter::once((None, &listener.admission)).chain(routes);
            all.filter_map(|(route, admission)| Some((&*listener.name, route, admission.as_ref()?)))
        });
        registry.put_in_force(
            upstreams.map(|(upstream, compiled)| (upstream, &compiled.state, &compiled.endpoints)),
            self.on_demand().map(|found| (&found.template, &found.rules.from, &found.services)),
            listeners,
        );
    }

    /// Where the listener of this name stands, if it is there. Numbers of metrics are shared beyond their bound.
    pub(crate) fn position_of(&self, listener: &str) -> Option<usize> {
        self.listeners.iter().position(|candidate| *candidate.name == *listener)
    }

    /// What stands for services that are found when first called.
    pub(crate) fn on_demand(&self) -> impl Iterator<Item = &Arc<OnDemand>> {
        self.upstreams.iter().filter_map(|upstream| upstream.on_demand.as_ref())
    }

    pub(crate) fn upstream(&self, index: UpstreamIndex) -> &Upstream {
        &self.upstreams[index.0]
    }
}

fn compile_upstream(
    upstream: &model::Upstream,
    config: &model::Config,
    registry: &Arc<Registry>,
    names: &Names,
    number: &mut usize,
) -> Upstream {
    let (state, endpoints) = registry.upstream(upstream);
    let on_demand = match &upstream.source {
        EndpointSource::OnDemand(rules) => {
            *number += 1;
            Some(Arc::new(OnDemand {
                number: *number - 1,
                rules: (**rules).clone(),
                template: upstream.clone(),
                services: registry.services(upstream, &rules.from),
                registry: registry.clone(),
            }))
        }
        _ => None,
    };
    Upstream {
        id: names.upstream(&upstream.name),
        endpoints,
        is_discovered: matches!(upstream.source, EndpointSource::Consul(_) | EndpointSource::Dns(_)),
        is_original: upstream.source == EndpointSource::Original,
        on_demand,
        protocol: upstream.protocol,
        balancing: upstream.balancing.clone(),
        tls: None,
        ejection: upstream.ejection,
        health: upstream.health.clone(),
        breaker: upstream.circuit_breaker.as_ref().map(|policy| compile_breaker(policy, config)),
        state,
    }
}

fn compile_breaker(policy: &CircuitBreaker, config: &model::Config) -> Breaker {
    let fallback = match &policy.fallback {
        model::Fallback::Refuse => Fallback::Refuse,
        model::Fallback::Upstream(upstream) => Fallback::Upstream(Box::new(compile_target(*upstream, config, None))),
        model::Fallback::Respond(answer) => Fallback::Respond(answer.clone()),
    };
    Breaker { policy: policy.clone(), fallback }
}

fn compile_listener(
    listener: &model::Listener,
    config: &model::Config,
    registry: &Registry,
    names: &Names,
    splits: &mut usize,
) -> Listener {
    let id = names.listener(&listener.name);
    let routes = listener.routes.iter().inspect(|_| breathe()).map(|route| Route {
        name: route.name.as_str().into(),
        id: names.route(id, &route.name),
        allow: route.allow.clone(),
        action: compile_action(route, config, splits),
        path: route.matcher.path.clone(),
        path_pattern: path_pattern(&route.matcher.path),
        names_host: !route.matcher.hosts.is_empty(),
        rewrite: route.rewrite.clone(),
        request_headers: Rules::compile(&route.request_headers),
        response_headers: Rules::compile(&route.response_headers),
        admission: registry.admission(
            &listener.name,
            Some(&route.name),
            Terms { rate_limit: route.rate_limit.clone(), concurrency: route.concurrency },
        ),
        mirror: route.mirror.map(|mirror| Mirror {
            // The mirror's own patience: the route's is for whom the client waits for.
            target: compile_target(mirror.upstream, config, None),
            ratio: mirror.ratio,
        }),
        fault: route.fault.clone(),
    });
    Listener {
        name: listener.name.as_str().into(),
        id,
        no_route: names.no_route(id),
        mode: listener.mode,
        direction: listener.direction,
        passthrough: listener.routes.last().filter(|_| listener.passthrough).and_then(|route| match route.action {
            model::Action::Upstream(upstream) => Some(compile_target(upstream, config, Some(route))),
            _ => None,
        }),
        edge: listener.edge,
        trust: listener.trust.clone(),
        tls: None,
        allow: listener.allow.clone(),
        limits: listener.limits,
        admission: registry.admission(
            &listener.name,
            None,
            Terms { rate_limit: listener.rate_limit.clone(), concurrency: listener.concurrency },
        ),
        table: Table::compile(&listener.routes),
        routes: routes.collect(),
    }
}

fn path_pattern(path: &PathMatch) -> Option<Arc<str>> {
    match path {
        PathMatch::Any => None,
        PathMatch::Exact(path) | PathMatch::Prefix(path) => Some(path.as_str().into()),
        PathMatch::Regex(regex) => Some(regex.as_str().into()),
    }
}

fn compile_action(route: &model::Route, config: &model::Config, splits: &mut usize) -> Action {
    let target = |upstream: UpstreamIndex| compile_target(upstream, config, Some(route));
    match &route.action {
        model::Action::Upstream(upstream) => Action::Upstream(target(*upstream)),
        model::Action::Split(weighted) => {
            let split = *splits;
            *splits += 1;
            Action::Split { split, targets: weighted.iter().map(|(index, weight)| (*weight, target(*index))).collect() }
        }
        model::Action::Redirect(redirect) => Action::Redirect(redirect.clone()),
        model::Action::Respond(answer) => Action::Respond(answer.clone()),
    }
}

/// The upstream as this route sees it, or as it is by itself.
fn compile_target(upstream: UpstreamIndex, config: &model::Config, route: Option<&model::Route>) -> Target {
    let own = &config.upstreams[upstream.0];
    let timeouts = route.map(|route| route.timeouts).unwrap_or_default();
    let header = route.and_then(|route| route.deadline_header.clone());
    let retries = route.map(|route| route.retries.clone()).unwrap_or_default();
    Target {
        upstream,
        timeouts: patience(own.timeouts, timeouts),
        deadline_header: header.unwrap_or_else(|| own.deadline_header.clone()),
        retries: retries.over(own.retries.clone()),
    }
}

/// What the route says goes over what the upstream says.
fn patience(upstream: Timeouts, route: TimeoutOverrides) -> Patience {
    let timeouts = Timeouts {
        connect: route.connect.unwrap_or(upstream.connect),
        response: route.response.unwrap_or(upstream.response),
        per_try: route.per_try.unwrap_or(upstream.per_try),
        response_written: route.response.is_some() || upstream.response_written,
        idle: route.idle.unwrap_or(upstream.idle),
        idle_written: route.idle.is_some() || upstream.idle_written,
        request: route.request.unwrap_or(upstream.request),
        tunnel_idle: route.tunnel_idle.unwrap_or(upstream.tunnel_idle),
    };
    let stream_idle = if timeouts.idle_written { timeouts.idle } else { Some(STREAM_IDLE) };
    Patience { timeouts, stream_idle }
}

#[cfg(test)]
mod swap_properties;
