//! For any two configurations: a swap from one to the other leaves the proxy as one that was started with the other,
//! apart from what it remembers.

use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::config::model::{Config, EndpointAddress};
use crate::config::{Document, LoadOptions, load};
use crate::route;

/// What generations share, as a proxy has it.
struct Shared {
    registry: Arc<Registry>,
    identities: identity::Store,
    names: Names,
}

impl Default for Shared {
    fn default() -> Self {
        let registry = Arc::new(Registry::new(tokio::sync::mpsc::unbounded_channel().0));
        Shared { registry, identities: identity::Store::default(), names: Names::new() }
    }
}

impl Shared {
    fn swap(&self, config: &Config, generation: u64) -> Arc<Snapshot> {
        let snapshot = Snapshot::compile(config, generation, &self.registry, &self.identities, &self.names).unwrap();
        snapshot.put_in_force(config, &self.registry);
        Arc::new(snapshot)
    }
}

/// Everything about a generation that comes from the configuration, and nothing that comes from the past.
fn view(snapshot: &Snapshot, names: &Names) -> String {
    let mut view = format!("{:?} {:?}\n", snapshot.service, snapshot.probes);
    for listener in &snapshot.listeners {
        let Listener { name, id, no_route, mode, direction, passthrough, edge, trust, tls, allow, limits, .. } =
            listener;
        assert_eq!((names.listener(name), names.no_route(*id)), (*id, *no_route));
        let facts = (mode, direction, passthrough, edge, trust, tls.is_some(), allow, limits);
        let terms = listener.admission.as_ref().map(|admission| admission.terms());
        writeln!(view, "{name} {facts:?} {terms:?} finds {:?}", found(&listener.table)).unwrap();
        for route in &listener.routes {
            let Route { name, id, allow, action, path, path_pattern, names_host, rewrite, .. } = route;
            assert_eq!(names.route(listener.id, name), *id);
            let Route { request_headers, response_headers, admission, mirror, fault, .. } = route;
            let terms = admission.as_ref().map(|admission| admission.terms());
            let facts = (allow, action, path, path_pattern, names_host, rewrite);
            writeln!(view, "  {name} {facts:?}").unwrap();
            writeln!(view, "    {request_headers:?} {response_headers:?} {terms:?} {mirror:?} {fault:?}").unwrap();
        }
    }
    snapshot.upstreams.iter().for_each(|upstream| view_upstream(upstream, names, &mut view));
    view
}

fn view_upstream(upstream: &Upstream, names: &Names, view: &mut String) {
    let Upstream { id, state, endpoints, is_original, is_discovered, protocol, balancing, tls, .. } = upstream;
    assert_eq!(names.upstream(&state.name), *id);
    let on_demand = upstream.on_demand.as_ref().map(|found| (found.number, &found.rules, found.services.known().len()));
    let facts = (is_original, is_discovered, on_demand, protocol, balancing, tls.is_some());
    let Upstream { ejection, breaker, health, .. } = upstream;
    writeln!(view, "{} {facts:?} {ejection:?} {breaker:?} {health:?}", state.name).unwrap();
    let limits = [&state.connections, &state.requests, &state.waiting, &state.retries].map(|limit| limit.max());
    let (now, budget) = (Instant::now(), state.budget.terms());
    // How an endpoint begins that nobody has named before.
    let stranger = |port: u16| EndpointAddress::Tcp(([127, 0, 0, 9], port).into());
    let _settled = state.endpoint(&stranger(1), now.into());
    let begins = state.endpoint(&stranger(2), now.into()).unwrap().word();
    writeln!(view, "  {limits:?} {budget:?} {begins} {:?}", endpoints.on_empty()).unwrap();
    for member in &endpoints.load().members {
        let facts = (
            &member.state.label,
            member.weight,
            member.priority,
            &member.zone,
            member.protocol,
            member.state.protocol(),
        );
        writeln!(view, "    {facts:?}").unwrap();
    }
}

/// Which routes take requests of every kind that the configurations below speak of.
fn found(table: &Table) -> Vec<Option<usize>> {
    let mut canary = HeaderMap::new();
    canary.insert(HeaderName::from_static("x-canary"), HeaderValue::from_static("true"));
    let mut found = Vec::new();
    for host in ["a", "b.example", "x.b.example", "c:81"] {
        for path in ["/", "/p0", "/p1/x", "/p2", "/p3", "/p4"] {
            for (method, headers) in [(Method::GET, &HeaderMap::new()), (Method::POST, &canary)] {
                let target =
                    route::Target { host, default_port: 80, path, query: Some("q=1"), port: None, method: &method };
                found.push(table.find(&target, headers));
            }
        }
    }
    found
}

/// One of these, or nothing.
fn some(lines: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::option::of(prop::sample::select(lines))
        .prop_map(|line| line.map_or(String::new(), |line| format!(", {line}")))
}

/// Several of these, each at most once.
fn several(lines: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::subsequence(lines.to_vec(), 0..=lines.len())
        .prop_map(|lines| lines.into_iter().fold(String::new(), |all, line| all + ", " + line))
}

const NAMES: [&str; 4] = ["red", "green", "blue", "grey"];

fn upstreams() -> impl Strategy<Value = String> {
    let endpoints = prop::sample::subsequence(vec![1, 2, 3, 4], 1..=4).prop_flat_map(|ports| {
        let weights = prop::collection::vec(1u32..4, ports.len());
        weights.prop_map(move |weights| {
            let all = ports.iter().zip(weights).map(|(port, weight)| {
                format!("{{ address: \"127.0.0.8:{port}\", weight: {weight}, zone: z{weight} }}")
            });
            format!("static: [{}]", all.collect::<Vec<_>>().join(", "))
        })
    });
    let looked_up = prop_oneof![
        prop::sample::select(vec!["consul: web", "consul: { service: web, tags: [v1] }"]),
        prop::sample::select(vec!["dns: { name: web.example, port: 80 }", "srv: _http._tcp.web.example"]),
    ];
    let looked_up = (looked_up, some(&["on_empty: drop", "on_empty: { keep: 7s }"]))
        .prop_map(|(source, on_empty)| format!("{source}{on_empty}"));
    let policies = (
        several(&[
            "protocol: http2",
            "timeouts: { response: 2s, per_try: 500ms }",
            "retries: { max: 3, when: [connect_failure, gateway_error], budget: { ratio: 0.5, min_per_second: 7 } }",
            "limits: { connections: 7, requests: 8, waiting: 9, retries: 3 }",
            "circuit_breaker: { failure_ratio: 0.3, min_requests: 5 }",
            "slow_start: 7s",
        ]),
        some(&["load_balancer: least_requests", "load_balancer: { maglev: { header: x-user } }"]),
        some(&["ejection: none", "ejection: { consecutive: 2, for: 7s }"]),
        some(&["health: { http: /healthz }", "health: { tcp: true, initial: down }"]),
    );
    let one = (prop_oneof![3 => endpoints, 1 => looked_up], policies).prop_map(
        |(source, (several, balancer, ejection, health))| {
            format!("{{ {source}{several}{balancer}{ejection}{health} }}")
        },
    );
    // All of them are there, so that routes can name any.
    prop::collection::vec(one, NAMES.len()).prop_map(|all| {
        let named = NAMES.iter().zip(all).map(|(name, upstream)| format!("  {name}: {upstream}\n"));
        format!("upstreams:\n{}", named.collect::<String>())
    })
}

fn routes() -> impl Strategy<Value = String> {
    let action = prop_oneof![
        4 => prop::sample::select(&NAMES[..3]).prop_map(|name| format!("upstream: {name}")),
        1 => (1u32..9).prop_map(|weight| format!("split: {{ red: {weight}, blue: 5 }}")),
        1 => Just("discover: { from: consul, max: 7 }".to_owned()),
        1 => Just("redirect: { path: /new }".to_owned()),
        1 => Just("respond: { status: 204 }".to_owned()),
    ];
    let more = several(&[
        "rewrite: { path_prefix: /x }",
        "request_headers: { set: { x-a: \"%{route}\" }, remove: [x-b] }",
        "response_headers: { add: { x-c: \"1\" } }",
        "timeouts: { response: 3s }",
        "rate_limit: { per_second: 7 }",
        "concurrency: { max: 7 }",
        "mirror: { upstream: grey, ratio: 0.5 }",
        "fault: { delay: 7ms, ratio: 0.1 }",
    ]);
    let wanted = several(&[
        "host: [a, \"*.b.example\", \"c:81\"]",
        "method: POST",
        "headers: { x-canary: \"true\" }",
        "query: { q: \"1\" }",
    ]);
    let one = (wanted, action, more);
    prop::collection::vec(one, 0..5).prop_map(|routes| {
        let routes = routes.into_iter().enumerate().map(|(position, (wanted, action, more))| {
            // What leads to no upstream has nothing to rewrite, or to send twice.
            let more = if action.starts_with("upstream") || action.starts_with("split") { more } else { String::new() };
            format!("{{ name: r{position}, match: {{ path: /p{position}{wanted} }}, {action}{more} }}, ")
        });
        let all: String = routes.collect();
        format!("routes: [{all}{{ name: rest, upstream: red }}]")
    })
}

fn listeners() -> impl Strategy<Value = String> {
    let more = several(&[
        "edge: true",
        "trust: { hops: 1 }",
        "limits: { connections: 7, idle: 7s }",
        "rate_limit: { per_second: 70, key: client }",
        "concurrency: adaptive",
        "direction: outbound",
    ])
    .boxed();
    let names = prop::sample::subsequence(vec!["inbound", "other", "third"], 1..=3);
    names.prop_flat_map(move |names| {
        let all = prop::collection::vec((more.clone(), routes()), names.len());
        all.prop_map(move |all| {
            let named = names.iter().zip(1..).zip(all).map(|((name, port), (more, routes))| {
                format!("  {name}: {{ address: \"127.0.0.1:{port}\"{more}, {routes} }}\n")
            });
            format!("listeners:\n{}", named.collect::<String>())
        })
    })
}

fn configurations() -> impl Strategy<Value = (String, Config)> {
    let more =
        prop::sample::select(vec!["", "service: orders\n", "zone: z1\n", "defaults: { timeouts: { connect: 2s } }\n"]);
    (more, listeners(), upstreams()).prop_map(|(more, listeners, upstreams)| {
        let text = format!("{more}{listeners}{upstreams}");
        let document = Document { name: "generated", bytes: text.as_bytes() };
        let loaded = load(document, &|_: &str| None, &LoadOptions::default());
        let config = loaded.unwrap_or_else(|diagnostics| panic!("{text}\n{diagnostics}")).config;
        (text, config)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn a_swap_leaves_the_proxy_as_a_start_would(first in configurations(), second in configurations()) {
        let (swapped, started) = (Shared::default(), Shared::default());
        let before = swapped.swap(&first.1, 1);
        let after = swapped.swap(&second.1, 2);
        let fresh = started.swap(&second.1, 1);
        prop_assert_eq!(view(&after, &swapped.names), view(&fresh, &started.names), "{}\n{}", first.0, second.0);
        // Also while the generation before lives on, and back again.
        let back = swapped.swap(&first.1, 3);
        prop_assert_eq!(view(&back, &swapped.names), view(&before, &swapped.names));
    }

    #[test]
    fn what_is_compiled_and_refused_leaves_no_trace(first in configurations(), second in configurations()) {
        let (shared, untouched) = (Shared::default(), Shared::default());
        let (in_force, other) = (shared.swap(&first.1, 1), untouched.swap(&first.1, 1));
        let ids = |snapshot: &Snapshot| -> Vec<u64> { snapshot.upstreams.iter().map(|upstream| upstream.endpoints.id).collect() };
        drop(Snapshot::compile(&second.1, 2, &shared.registry, &shared.identities, &shared.names).unwrap());
        prop_assert_eq!(view(&in_force, &shared.names), view(&other, &untouched.names));
        let again = shared.swap(&first.1, 2);
        prop_assert_eq!(ids(&again), ids(&in_force));
    }
}
