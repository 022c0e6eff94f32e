//! What a request costs on its way through the pure parts: route lookup, balancer, header work.
//!
//! `cargo bench --bench request_path`. Read ratios rather than absolutes: a thousand routes should cost what ten cost.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use outrigger::config::model::{
    self, Action, HostMatch, HostName, Match, PathMatch, RetryOverrides, Rewrite, Route, TimeoutOverrides, Trust,
    UpstreamIndex,
};
use outrigger::config::template::{Segment, Template, Variable};
use outrigger::proxy::forwarded::{self, Client, Peer};
use outrigger::proxy::header_rules::{Rules, Variables};
use outrigger::proxy::hop_by_hop;
use outrigger::proxy::via::Pseudonym;
use outrigger::route::{Table, Target};
use outrigger::upstream::RoundRobin;

fn route(matcher: Match) -> Route {
    Route {
        name: String::new(),
        matcher,
        allow: Vec::new(),
        action: Action::Upstream(UpstreamIndex(0)),
        rewrite: Rewrite::default(),
        request_headers: model::HeaderRules::default(),
        response_headers: model::HeaderRules::default(),
        timeouts: TimeoutOverrides::default(),
        deadline_header: None,
        retries: RetryOverrides::default(),
        rate_limit: None,
        concurrency: None,
        mirror: None,
        fault: None,
    }
}

fn host(name: String) -> Vec<HostMatch> {
    let name = match name.strip_prefix('*') {
        Some(suffix) => HostName::Suffix(suffix.into()),
        None => HostName::Exact(name),
    };
    vec![HostMatch { name, port: None, written: None }]
}

fn prefix(path: String) -> PathMatch {
    PathMatch::Prefix(path)
}

/// A shape of table: what the n-th route matches, and the host and path that ask for it.
type Shape = (&'static str, fn(usize) -> Match, fn(usize) -> (String, String));

const SHAPES: [Shape; 5] = [
    (
        "hosts",
        |n| Match { hosts: host(format!("service-{n}")), ..Match::default() },
        |n| (format!("service-{n}"), "/v1/users/4711".into()),
    ),
    (
        "suffixes",
        |n| Match { hosts: host(format!("*.team-{n}.example.org")), ..Match::default() },
        |n| (format!("orders.team-{n}.example.org"), "/v1/users/4711".into()),
    ),
    (
        "prefixes",
        |n| Match { path: prefix(format!("/api/service-{n}")), ..Match::default() },
        |n| ("gateway".into(), format!("/api/service-{n}/users/4711")),
    ),
    (
        "exact_paths",
        |n| Match { path: PathMatch::Exact(format!("/api/service-{n}/users")), ..Match::default() },
        |n| ("gateway".into(), format!("/api/service-{n}/users")),
    ),
    (
        "hosts_and_prefixes",
        |n| Match {
            hosts: host(format!("service-{}", n / 10)),
            path: prefix(format!("/v{}", n % 10)),
            ..Match::default()
        },
        |n| (format!("service-{}", n / 10), format!("/v{}/users/4711", n % 10)),
    ),
];

fn routes(criterion: &mut Criterion) {
    for (name, matcher, request) in SHAPES {
        let mut group = criterion.benchmark_group(format!("route/{name}"));
        for count in [10, 1_000, 10_000] {
            let table = Table::compile(&(0..count).map(|n| route(matcher(n))).collect::<Vec<_>>());
            let (host, path) = request(count - 1);
            let target =
                Target { host: &host, default_port: 80, path: &path, query: None, port: None, method: &Method::GET };
            let headers = HeaderMap::new();
            assert_eq!(table.find(&target, &headers), Some(count - 1));
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| table.find(black_box(&target), &headers));
            });
        }
    }
}

fn balancers(criterion: &mut Criterion) {
    for (name, weight) in [("equal", (|_| 1) as fn(u32) -> u32), ("unequal", |n| 1 + n % 7)] {
        let mut group = criterion.benchmark_group(format!("round_robin/{name}"));
        for count in [2, 10, 1_000] {
            let mut balancer = RoundRobin::new((0..count).map(weight), 7);
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| balancer.pick(|_| true));
            });
        }
    }
}

struct Request;

impl Variables for Request {
    fn write(&self, _: &Variable, value: &mut Vec<u8>) {
        value.extend_from_slice(b"10.0.0.7");
    }
}

fn request_headers() -> HeaderMap {
    let fields = [
        ("host", "payments"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate"),
        ("content-type", "application/json"),
        ("authorization", "Bearer 0123456789abcdef"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-request-id", "0af7651916cd43dd8448eb211c80319c"),
    ];
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn headers(criterion: &mut Criterion) {
    let plain = request_headers();
    let mut with_connection = plain.clone();
    with_connection.insert("connection", HeaderValue::from_static("keep-alive"));
    let mut criterion = criterion.benchmark_group("headers");
    // Where nothing is to be stripped, nothing changes: the same headers do for every iteration.
    criterion.bench_function("hop_by_hop/none", |bencher| {
        let mut headers = plain.clone();
        bencher.iter(|| hop_by_hop::strip(black_box(&mut headers)));
    });
    // The clone that every iteration of those below needs, to be subtracted from them.
    criterion.bench_function("clone", |bencher| bencher.iter(|| plain.clone()));
    criterion.bench_function("hop_by_hop/connection", |bencher| {
        bencher.iter(|| {
            let mut headers = with_connection.clone();
            hop_by_hop::strip(&mut headers);
            headers
        });
    });

    let peer = Peer::new("10.0.0.7".parse().ok());
    let pseudonym = Pseudonym::new("outrigger").ok();
    let scheme = HeaderValue::from_static("http");
    let mut forwarded_before = plain.clone();
    forwarded_before.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
    for (name, before) in [("forwarded/first", &plain), ("forwarded/second", &forwarded_before)] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut headers = before.clone();
                let host = headers.get("host").cloned();
                let client = Client::find(&Trust::Hops(0), peer.address(), &headers);
                forwarded::write(&mut headers, false, &client, &peer, &scheme, host.as_ref());
                if let Some(pseudonym) = &pseudonym {
                    pseudonym.append(&mut headers, Version::HTTP_11);
                }
                headers
            });
        });
    }

    let constant = Template { segments: vec![Segment::Literal("true".into())], written: None };
    let rendered = Template {
        segments: vec![Segment::Literal("for ".into()), Segment::Variable(Variable::ClientAddress)],
        written: None,
    };
    for (name, value) in [("rules/constant", constant), ("rules/rendered", rendered)] {
        let rules = Rules::compile(&model::HeaderRules {
            remove: vec![HeaderName::from_static("x-request-id")],
            set: vec![(HeaderName::from_static("x-a"), value.clone())],
            add: vec![(HeaderName::from_static("x-b"), value)],
        });
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut headers = plain.clone();
                rules.apply_to_request(&mut headers, &Request);
                headers
            });
        });
    }
}

criterion_group!(benches, routes, balancers, headers);
criterion_main!(benches);
