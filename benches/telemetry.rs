//! What a request pays to be seen: `cargo bench --bench telemetry`.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, Version};
use outrigger::config::model::{
    AccessLog as Config, AccessLogField, AccessLogFilter, AccessLogFormat, LogTarget, Propagation, Samples,
};
use outrigger::outcome::Outcome;
use outrigger::telemetry::access_log::{AccessLog, Record};
use outrigger::telemetry::clock::Clock;
use outrigger::telemetry::ids::Ids;
use outrigger::telemetry::metrics::{Bounds, ListenerGauge, MethodLabel, Names, RequestKey, Shard, UpstreamCounter};
use outrigger::telemetry::request_id::RequestId;
use outrigger::telemetry::trace_context::{Policy, Ratio, TraceContext};

/// Counter, histogram and bytes of a request that has ended, with this many routes in turn; and everything that one
/// request does to the metrics.
fn metrics(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("metrics");
    for routes in [1, 10, 1_000] {
        let (shard, keys) = (Shard::new(0, Bounds::default()), keys(&Names::new(), routes));
        let mut turn = keys.iter().cycle();
        group.bench_function(BenchmarkId::new("request", routes), |bencher| {
            bencher.iter(|| {
                let Some(key) = turn.next() else { return };
                shard.request(black_box(key), black_box(Duration::from_micros(4_400)), (0, 512), None);
            });
        });
    }
    let (shard, names) = (Shard::new(0, Bounds::default()), Names::new());
    let (listener, upstream, key) = (names.listener("outbound"), names.upstream("upstream-0"), keys(&names, 1)[0]);
    group.bench_function("all_of_a_request", |bencher| {
        bencher.iter(|| {
            let in_flight = shard.hold_listener(listener, ListenerGauge::RequestsInFlight);
            shard.count_upstream(upstream, UpstreamCounter::SentBytes, black_box(0));
            shard.count_upstream(upstream, UpstreamCounter::ReceivedBytes, 512);
            shard.attempt(upstream, Outcome::answered(200), black_box(Duration::from_micros(4_100)));
            shard.request(black_box(&key), black_box(Duration::from_micros(4_400)), (0, 512), None);
            drop(in_flight);
        });
    });
}

/// A line with its share of handing the buffer over; and what the default (only errors) costs a request that went well.
fn access_log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("access_log");
    let start = |only| {
        let target = LogTarget::File("/dev/null".into());
        let fields = AccessLogField::ALL.to_vec();
        let (sample, format) = (Samples::all(1.0), AccessLogFormat::Json);
        AccessLog::start(&Config { target, only, sample, format, fields, headers: Vec::new(), queries: false })
            .unwrap_or_else(|error| panic!("/dev/null: {error}"))
    };
    let (all, errors) = (start(AccessLogFilter::All), start(AccessLogFilter::Errors));
    let (all, errors, record) = (all.worker(), errors.worker(), record());
    group.bench_function("line", |bencher| bencher.iter(|| all.write(black_box(&record))));
    group.bench_function("no_line", |bencher| bencher.iter(|| errors.wants(black_box(200), None, None)));
}

/// Contexts and ids received and passed on.
fn propagation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("propagation");
    let mut ids = Ids::new();
    let policy = Policy { sampling: Ratio::new(0.01), propagation: Propagation::W3C };
    let mut headers = HeaderMap::new();
    let value = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert("traceparent", HeaderValue::from_static(value));
    for (name, restart) in [("trace_continued", false), ("trace_begun", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let context = TraceContext::receive(black_box(&headers), restart, Some(policy), &mut ids);
                context.send(&mut headers, &ids.span_id());
            });
        });
    }
    // So that one is there to be taken, whichever of the two is run.
    RequestId::receive(&headers, true, &mut ids).send(&mut headers);
    for (name, edge) in [("request_id_made", true), ("request_id_taken", false)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| RequestId::receive(black_box(&headers), edge, &mut ids).send(&mut headers));
        });
    }
    let (clock, now) = (Clock::new(), Instant::now());
    group.bench_function("wall_clock", |bencher| bencher.iter(|| clock.unix(black_box(now))));
}

criterion_group!(benches, metrics, access_log, propagation);
criterion_main!(benches);

fn keys(names: &Names, routes: usize) -> Vec<RequestKey> {
    let listener = names.listener("outbound");
    let key = |route: usize| RequestKey {
        route: names.route(listener, &format!("route-{route}")),
        upstream: Some(names.upstream(&format!("upstream-{route}"))),
        method: MethodLabel::from(&Method::GET),
        code: 200,
        grpc: None,
        reason: None,
    };
    (0..routes).map(key).collect()
}

fn record() -> Record<'static> {
    Record {
        time: Duration::from_millis(1_772_323_199_999),
        listener: "outbound",
        client: Some(IpAddr::from([10, 0, 0, 9])),
        route: Some("payments"),
        upstream: Some("payments"),
        endpoint: Some("10.0.0.7:8080"),
        method: "GET",
        host: Some(b"payments.default.svc:8080"),
        path: "/v1/accounts/4711/transactions",
        target: "/v1/accounts/4711/transactions",
        version: Version::HTTP_11,
        code: 200,
        grpc_code: None,
        reason: None,
        attempts: 1,
        retry_refused: None,
        bytes_in: 0,
        bytes_out: 512,
        queued: Some(Duration::ZERO),
        connect: Some(Duration::from_micros(300)),
        first_byte: Some(Duration::from_micros(4_123)),
        total: Duration::from_micros(4_456),
        tls: None,
        identity: None,
        trace_id: "0af7651916cd43dd8448eb211c80319c",
        request_id: "5f3c1f9e-7a43-4c1e-9a55-2b6a0f4c9d11",
        generation: 7,
        headers: None,
    }
}
