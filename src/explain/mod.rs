//! What would become of a request, and why: everything that can be said without sending it.
//!
//! Nothing is decided here. The compiled configuration is asked by the same calls that requests go by (`route::Table`,
//! `proxy::decisions`, `proxy::retry`), and its answers are put into words.
//!
//! | file | knows |
//! | --- | --- |
//! | `asked` | the request that is asked about |
//! | `report` | what is said of it, as data |
//! | `mismatch` | why a route does not match, in words |
//! | `outgoing` | what the upstream would see |
//! | `patience` | timeouts, and who said them |
//! | `retries` | whether it would be sent again |
//! | `policy` | what else an upstream, listener or route does to it |
//! | `live` | how a running proxy stands |
//! | `page` | all of it as people read it |

mod asked;
mod live;
mod mismatch;
mod outgoing;
mod page;
mod patience;
mod policy;
mod report;
mod retries;

use std::sync::Arc;

use http::{Method, Request};
use tokio::sync::mpsc;

use self::live::Now;
use crate::config::listed;
use crate::config::model::{self, Config, Mode};
use crate::identity;
use crate::proxy::decisions::{self, HTTP_PORT, HTTPS_PORT, drop_own_fields};
use crate::proxy::hop_by_hop;
use crate::proxy::record::is_grpc;
use crate::route::rewrite::redirect_location;
use crate::route::service::{Refused, called};
use crate::snapshot::{Action, Route, Snapshot, Target};
use crate::telemetry::metrics::Names;
use crate::upstream::registry::Registry;
pub(crate) use asked::Asked;
pub(crate) use page::page;
pub(crate) use report::Explanation;

/// Compiles a configuration that is not in force anywhere. Certificates are not read: they decide nothing here.
///
/// # Errors
/// A sentence.
pub(crate) fn compile(config: &Config) -> Result<Snapshot, String> {
    let mut config = config.clone();
    config.listeners.iter_mut().for_each(|listener| listener.tls = None);
    config.upstreams.iter_mut().for_each(|upstream| upstream.tls = None);
    // Nobody is called, so nobody is to be found.
    let registry = Arc::new(Registry::new(mpsc::unbounded_channel().0));
    let identities = identity::Store::default();
    Snapshot::compile(&config, 1, &registry, &identities, &Names::new()).map_err(|error| error.to_string())
}

/// What becomes of a request under `snapshot`, which is `config` compiled. `only`: at this listener. `live`: the
/// snapshot is in force, and what is known of its endpoints is worth saying.
///
/// # Errors
/// A sentence, where there is no listener that could take it.
pub(crate) fn explain(
    asked: &Asked,
    only: Option<&str>,
    config: &Config,
    snapshot: &Snapshot,
    live: bool,
) -> Result<Explanation, String> {
    let listeners = candidates(asked, only, config)?;
    let explained = listeners.into_iter().map(|(position, note)| {
        let explaining = Explaining { asked, config, snapshot, position, live };
        report::Listener { note, ..explaining.listener() }
    });
    Ok(Explanation {
        method: asked.method().to_string(),
        url: asked.url.clone(),
        generation: live.then_some(snapshot.generation),
        listeners: explained.collect(),
    })
}

/// Listeners that could take the request, each with what is to be said of that.
fn candidates(asked: &Asked, only: Option<&str>, config: &Config) -> Result<Vec<(usize, Option<String>)>, String> {
    let all = || config.listeners.iter().enumerate();
    if let Some(name) = only {
        let known = || listed(config.listeners.iter().map(|listener| listener.name.as_str()), "and");
        let found = all().find(|(_, listener)| listener.name == name);
        let (position, listener) =
            found.ok_or_else(|| format!("there is no listener `{name}`; there are {}", known()))?;
        if listener.mode == Mode::Tcp {
            return Err(format!(
                "the listener `{name}` passes bytes on as they are (`mode: tcp`): it sees no requests"
            ));
        }
        return Ok(vec![(position, objection(asked, listener))]);
    }
    let http = || all().filter(|(_, listener)| listener.mode != Mode::Tcp);
    // Whoever writes the proxy's own address means that listener.
    let addressed: Vec<_> = http().filter(|(_, listener)| asked.is_at(&listener.address)).collect();
    let chosen = if addressed.is_empty() { http().collect() } else { addressed };
    let judged: Vec<_> =
        chosen.into_iter().map(|(position, listener)| (position, objection(asked, listener))).collect();
    if judged.is_empty() {
        return Err("no listener of this configuration sees requests: all have `mode: tcp`".to_owned());
    }
    let fitting: Vec<_> = judged.iter().filter(|(_, objection)| objection.is_none()).cloned().collect();
    Ok(if fitting.is_empty() { judged } else { fitting })
}

/// Why a client that speaks as the URL says is not understood at this listener.
fn objection(asked: &Asked, listener: &model::Listener) -> Option<String> {
    match (&listener.tls, asked.https) {
        (None, true) => Some("no TLS ends at this listener: a request would have to come as http".to_owned()),
        (Some(tls), false) if !tls.plaintext => {
            Some("this listener speaks TLS only: a request would have to come as https".to_owned())
        }
        _ => None,
    }
}

/// One listener's part.
struct Explaining<'e> {
    asked: &'e Asked,
    config: &'e Config,
    snapshot: &'e Snapshot,
    position: usize,
    live: bool,
}

impl Explaining<'_> {
    fn model(&self) -> &model::Listener {
        &self.config.listeners[self.position]
    }

    /// In the order of the request's way.
    fn listener(&self) -> report::Listener {
        let (model, listener) = (self.model(), &self.snapshot.listeners[self.position]);
        let mut request = self.asked.request();
        hop_by_hop::strip(request.headers_mut());
        let default_port = if self.asked.https { HTTPS_PORT } else { HTTP_PORT };
        let captured = (listener.mode == Mode::Transparent).then(|| self.asked.port.unwrap_or(default_port));
        let target = decisions::target(&request, default_port, captured);
        let judged = listener.table.judge(&target, request.headers());
        let found = listener.table.find(&target, request.headers());
        let skipped = judged.iter().enumerate().filter(|(_, unmet)| !unmet.is_empty()).map(|(position, unmet)| {
            let route = &model.routes[position];
            let because = unmet.iter().map(|unmet| mismatch::words(unmet, &route.matcher, &target, request.headers()));
            report::Skipped { route: route.name.clone(), position: position + 1, because: because.collect() }
        });
        let skipped = skipped.collect();
        let route = found.map(|position| &listener.routes[position]);
        let connect = *self.asked.method() == Method::CONNECT;
        let local = model.address.is_local();
        let refused = if connect && !decisions::takes_connect(self.snapshot, listener, route, local, captured.is_some())
        {
            Some(
                "connect_not_allowed: CONNECT is for loopback or captured connections, `direction: outbound` and routes with a host",
            )
        } else if route.is_none() {
            Some("no_route: no route matches")
        } else {
            None
        };
        let route = if refused.is_some() { None } else { found.zip(route) };
        report::Listener {
            name: model.name.clone(),
            address: model.address.to_string(),
            note: None,
            callers: listener.allow.iter().map(ToString::to_string).collect(),
            limits: policy::admission(model.rate_limit.as_ref(), model.concurrency.as_ref()),
            body_bytes: model.limits.body_bytes,
            routes: model.routes.len(),
            skipped,
            refused: refused.map(str::to_owned),
            route: route.map(|(position, route)| self.route(position, route, request)),
        }
    }

    fn route(&self, position: usize, route: &Route, mut request: Request<()>) -> report::Route {
        let model = &self.model().routes[position];
        let mut explained = report::Route {
            name: model.name.clone(),
            position: position + 1,
            callers: route.allow.iter().map(ToString::to_string).collect(),
            limits: policy::admission(model.rate_limit.as_ref(), model.concurrency.as_ref()),
            fault: route.fault.as_ref().map(|fault| policy::fault(fault, request.headers())),
            mirror: route
                .mirror
                .as_ref()
                .map(|mirror| policy::mirror(mirror.ratio, &self.snapshot.upstream(mirror.target.upstream).state.name)),
            redirect: None,
            respond: None,
            sends: None,
            upstreams: Vec::new(),
        };
        match &route.action {
            Action::Redirect(redirect) => {
                let target = decisions::target(&request, HTTP_PORT, None);
                let scheme = if self.asked.https { "https" } else { "http" };
                let location = redirect_location(redirect, scheme, target.host, target.path, target.query);
                let location = location.ok().and_then(|location| location.to_str().ok().map(str::to_owned));
                explained.redirect = Some(report::Redirect {
                    status: redirect.status.as_u16(),
                    location: redirect.written.clone().or(location).unwrap_or_else(|| "none: bad_request".to_owned()),
                });
            }
            Action::Respond(answer) => {
                let body = answer.written.as_ref().unwrap_or(&answer.body).clone();
                explained.respond = Some(report::Respond { status: answer.status.as_u16(), body });
            }
            Action::Upstream(target) => {
                let name = Some(&*self.snapshot.upstream(target.upstream).state.name);
                explained.sends = Some(self.sends(model, route, &mut request, name));
                explained.upstreams = vec![self.upstream(model, target, None, &request)];
            }
            Action::Split { targets, .. } => {
                explained.sends = Some(self.sends(model, route, &mut request, None));
                let all: u32 = targets.iter().map(|(weight, _)| weight).sum();
                let parts = targets.iter().map(|(weight, target)| {
                    self.upstream(model, target, Some(f64::from(*weight) / f64::from(all)), &request)
                });
                explained.upstreams = parts.collect();
            }
        }
        explained
    }

    /// Makes the request the one that goes out.
    fn sends(
        &self,
        model: &model::Route,
        route: &Route,
        request: &mut Request<()>,
        upstream: Option<&str>,
    ) -> report::Sends {
        let before = self.asked.headers();
        let variables = outgoing::Known {
            asked: self.asked,
            service: self.snapshot.service.as_deref(),
            listener: &self.model().name,
            route: &model.name,
            upstream,
        };
        let error = decisions::rewrite(route, request).err().map(|error| error.to_string());
        if self.model().edge {
            drop_own_fields(request.headers_mut());
        }
        decisions::set_host(route, request.headers_mut());
        route.request_headers.apply_to_request(request.headers_mut(), &variables);
        let mut sends = outgoing::sends(request, before, error);
        outgoing::hide(&mut sends, model);
        sends
    }

    fn upstream(
        &self,
        route: &model::Route,
        target: &Target,
        share: Option<f64>,
        request: &Request<()>,
    ) -> report::Upstream {
        let model = &self.config.upstreams[target.upstream.0];
        let grpc = is_grpc(request.headers());
        let name_of = |upstream: model::UpstreamIndex| self.config.upstreams[upstream.0].name.clone();
        let upstream = self.snapshot.upstream(target.upstream);
        let mut now = self.live.then(|| Now::of(upstream, request.headers(), name_of));
        let mut endpoints = policy::source(&model.source);
        if let Some(on_demand) = &upstream.on_demand {
            let asked = self.asked.request();
            match called(decisions::host(&asked), &on_demand.rules) {
                Ok(called) => {
                    endpoints = format!("{}, looked up when first called", policy::source(&called.source));
                    let known = upstream.found().find(|found| found.state.name.ends_with(&format!("/{}", called.name)));
                    now = known.filter(|_| self.live).map(|found| Now::of(&found, request.headers(), name_of));
                }
                Err(refused) => {
                    now = None;
                    endpoints = match refused {
                        Refused::NoName => "nowhere: no_route, for the host is the name of no service".to_owned(),
                        Refused::Denied => "nowhere: denied, for the route may not look for this service".to_owned(),
                    };
                }
            }
        }
        report::Upstream {
            name: model.name.clone(),
            share,
            endpoints,
            balancer: policy::balancer(&model.balancing),
            protocol: policy::protocol(model, grpc).to_owned(),
            tls: model.tls.as_ref().map(policy::tls),
            timeouts: patience::timeouts(target, &route.timeouts, self.config, grpc, request.headers()),
            retries: retries::retries(target, route.retries.max.is_some(), model, request, grpc, self.model().edge),
            limits: policy::limits(model),
            circuit_breaker: model.circuit_breaker.as_ref().map(|breaker| policy::breaker(breaker, name_of)),
            ejection: model.ejection.as_ref().map(policy::ejection),
            health: model.health.as_ref().map(policy::health),
            now,
        }
    }
}

#[cfg(test)]
mod tests;
