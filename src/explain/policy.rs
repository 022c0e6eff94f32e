//! What else listeners, routes and upstreams do to a request, each in a line.

use http::HeaderMap;

use crate::config::model::{
    self, Balancing, CircuitBreaker, Concurrency, ConsulTarget, DnsTarget, Ejection, EndpointSource, Fallback, Fault,
    HashKey, HealthCheck, LoadBalancer, Probe, RateLimit, RateLimitKey, UpstreamIndex, UpstreamProtocol, UpstreamTls,
};
use crate::config::write_duration;
use crate::route::condition::header_matches;

/// Of the endpoints that are written, so many are named.
const NAMED: usize = 4;
const SHADOW: &str = " (shadow: counted, not refused)";

/// Rate limit and concurrency.
pub(super) fn admission(rate: Option<&RateLimit>, concurrency: Option<&Concurrency>) -> Vec<String> {
    let rate = rate.map(|limit| {
        let key = match &limit.key {
            None => String::new(),
            Some(RateLimitKey::Client) => " for each client".to_owned(),
            Some(RateLimitKey::Header(name)) => format!(" for each value of {name}"),
        };
        format!("{} a second, {} at once{key}{}", limit.per_second, limit.burst, shadow(limit.shadow))
    });
    let concurrency = concurrency.map(|limit| {
        let most = limit
            .max
            .map_or_else(|| "as many in flight as latency allows".to_owned(), |max| format!("{max} in flight"));
        format!("{most}{}", shadow(limit.shadow))
    });
    rate.into_iter().chain(concurrency).collect()
}

fn shadow(shadow: bool) -> &'static str {
    if shadow { SHADOW } else { "" }
}

pub(super) fn fault(fault: &Fault, headers: &HeaderMap) -> String {
    if !fault.headers.iter().all(|(name, wanted)| header_matches(headers, name, wanted)) {
        return "none for this request: it is not one of those that fault.headers names".to_owned();
    }
    let delay = fault.delay.map(|delay| format!("waits {}", write_duration(delay)));
    let abort = fault.abort.map(|status| format!("is answered {}", status.as_u16()));
    let both: Vec<String> = delay.into_iter().chain(abort).collect();
    format!("{} of the requests: {}", share(fault.ratio), both.join(", then "))
}

pub(super) fn mirror(ratio: f64, upstream: &str) -> String {
    format!("a copy of {} goes to {upstream}", share(ratio))
}

/// A ratio as a percentage, without digits that say nothing.
pub(super) fn share(ratio: f64) -> String {
    let percent = ratio * 100.0;
    let rounded = if percent < 1.0 { format!("{percent:.2}") } else { format!("{percent:.1}") };
    let short = rounded.trim_end_matches('0').trim_end_matches('.');
    format!("{short} %")
}

pub(super) fn source(source: &EndpointSource) -> String {
    match source {
        EndpointSource::Static(endpoints) => {
            let uneven = endpoints.iter().any(|endpoint| endpoint.weight != 1);
            let named = endpoints.iter().take(NAMED).map(|endpoint| match uneven {
                true => format!("{} (weight {})", endpoint.address, endpoint.weight),
                false => endpoint.address.to_string(),
            });
            let named: Vec<String> = named.collect();
            match endpoints.len().saturating_sub(NAMED) {
                0 => named.join(", "),
                more => format!("{} and {more} more", named.join(", ")),
            }
        }
        EndpointSource::Consul(consul) => {
            let target = match &consul.target {
                ConsulTarget::Service(name) => format!("Consul's service {name}"),
                ConsulTarget::PreparedQuery(name) => format!("Consul's prepared query {name}"),
            };
            let tags = if consul.tags.is_empty() { String::new() } else { format!(" with {}", consul.tags.join(", ")) };
            let places = if consul.datacenters.is_empty() {
                String::new()
            } else {
                format!(" in {}", consul.datacenters.join(", then "))
            };
            format!("{target}{tags}{places}")
        }
        EndpointSource::Dns(dns) => match &dns.target {
            DnsTarget::Service { name } => format!("DNS records SRV of {name}"),
            DnsTarget::Address { name, port } => format!("DNS addresses of {name}, port {port}"),
        },
        // Each request says of which service.
        EndpointSource::OnDemand(_) => "a service that is looked up when first called".to_owned(),
        EndpointSource::Original => "where the captured connection was going to".to_owned(),
    }
}

pub(super) fn balancer(balancing: &Balancing) -> String {
    let by = |key: &HashKey| match key {
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie(name) => format!("cookie {name}"),
        HashKey::ClientAddress => "the client's address".to_owned(),
    };
    let how = match &balancing.load_balancer {
        LoadBalancer::RoundRobin => "round_robin".to_owned(),
        LoadBalancer::LeastRequests => "least_requests".to_owned(),
        LoadBalancer::PeakEwma => "peak_ewma".to_owned(),
        LoadBalancer::RingHash(key) => format!("ring_hash by {}", by(key)),
        LoadBalancer::Maglev(key) => format!("maglev by {}", by(key)),
    };
    match &balancing.zone {
        Some(zone) => format!("{how}, zone {zone} first"),
        None => how,
    }
}

/// What is spoken to its endpoints, as far as that is known before a handshake.
pub(super) fn protocol(upstream: &model::Upstream, grpc: bool) -> &'static str {
    match (upstream.protocol, upstream.tls.is_some()) {
        (UpstreamProtocol::Http1, _) => "HTTP/1.1",
        (UpstreamProtocol::Http2, _) => "HTTP/2",
        (UpstreamProtocol::Auto, true) => "HTTP/2 or HTTP/1.1, as they choose",
        (UpstreamProtocol::Auto, false) if grpc => "HTTP/2",
        (UpstreamProtocol::Auto, false) => "HTTP/1.1",
    }
}

pub(super) fn tls(tls: &UpstreamTls) -> String {
    let who = if tls.allow.is_empty() {
        match &tls.server_name {
            Some(name) => format!("as {}", name.as_server_name().to_str()),
            None => "as its IP address".to_owned(),
        }
    } else {
        let allowed: Vec<String> = tls.allow.iter().map(ToString::to_string).collect();
        format!("as {}", allowed.join(" or "))
    };
    let roots =
        tls.authorities.as_ref().map_or_else(|| "public authorities".to_owned(), |path| path.display().to_string());
    let own = if tls.certificate.is_some() { ", with a certificate of our own" } else { "" };
    format!("{who}, by {roots}{own}")
}

/// All workers together.
pub(super) fn limits(upstream: &model::Upstream) -> Vec<String> {
    let limits = upstream.limits;
    vec![
        format!("{} requests", limits.requests),
        format!("{} connections", limits.connections),
        format!("{} waiting", limits.waiting),
        format!("{} retries", limits.retries),
    ]
}

pub(super) fn breaker(breaker: &CircuitBreaker, name_of: impl Fn(UpstreamIndex) -> String) -> String {
    let slow = breaker.slow.map(|slow| format!(" or {} over {}", share(breaker.slow_ratio), write_duration(slow)));
    let fallback = match &breaker.fallback {
        Fallback::Refuse => String::new(),
        Fallback::Upstream(upstream) => format!("; then {}", name_of(*upstream)),
        Fallback::Respond(answer) => format!("; then an answer of {}", answer.status.as_u16()),
    };
    format!(
        "opens for {} at {} failures{} of {} or more requests in {}{fallback}{}",
        write_duration(breaker.open_for),
        share(breaker.failure_ratio),
        slow.unwrap_or_default(),
        breaker.min_requests,
        write_duration(breaker.window),
        shadow(breaker.shadow)
    )
}

pub(super) fn ejection(ejection: &Ejection) -> String {
    let causes = [
        ejection.consecutive.map(|count| format!("{count} failures in a row")),
        ejection.failure_ratio.map(|ratio| format!("{} failures", share(ratio))),
        ejection.deviations.map(|deviations| format!("{deviations} deviations below the mean")),
    ];
    let causes: Vec<String> = causes.into_iter().flatten().collect();
    let base = write_duration(ejection.base);
    format!("an endpoint for {base} after {}{}", causes.join(" or "), shadow(ejection.shadow))
}

pub(super) fn health(health: &HealthCheck) -> String {
    let what = match &health.probe {
        Probe::Http(path) => format!("GET {path}"),
        Probe::Tcp => "a TCP connection".to_owned(),
        Probe::Grpc(service) if service.is_empty() => "gRPC health".to_owned(),
        Probe::Grpc(service) => format!("gRPC health of {service}"),
    };
    format!("{what} every {}; down after {}, up after {}", write_duration(health.every), health.down, health.up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_short() {
        for (ratio, expected) in [(0.95, "95 %"), (0.001, "0.1 %"), (1.0, "100 %"), (1.0 / 3.0, "33.3 %"), (0.0, "0 %")]
        {
            assert_eq!(share(ratio), expected);
        }
    }
}
