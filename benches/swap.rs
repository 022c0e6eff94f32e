//! What a new configuration costs, by its size: reading it, comparing it, compiling its routes, and the whole swap in a
//! running proxy, asked for by `PUT /config` and answered when it is in force.
//!
//! `cargo bench --bench swap`. What counts is how the figures grow: ten times the routes should cost ten times as much.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use outrigger::BoundAddress;
use outrigger::app::{Builder, Running};
use outrigger::config::diff::diff;
use outrigger::config::{Document, LoadOptions, Loaded, load};
use outrigger::route::Table;

/// Routes to one upstream, and upstreams with a route each.
const ROUTES: [usize; 4] = [10, 100, 1_000, 10_000];
const UPSTREAMS: [usize; 3] = [10, 100, 1_000];

/// A configuration of a number of routes and upstreams; `turn` makes the last ones differ.
type Shape = (&'static str, &'static [usize], fn(usize, usize) -> String);

const SHAPES: [Shape; 2] = [("routes", &ROUTES, routes), ("upstreams", &UPSTREAMS, upstreams)];

const HEAD: &str = "
workers: 1
admin: { address: \"127.0.0.1:0\" }
telemetry: { access_log: { path: none }, log: { level: error } }
listeners:
  inbound:
    address: \"127.0.0.1:0\"
    routes:
";

fn routes(count: usize, turn: usize) -> String {
    let mut text = HEAD.to_owned();
    for number in 0..count - 1 {
        let _ = writeln!(text, "      - {{ match: {{ host: service-{number}, path: /v1 }}, upstream: app }}");
    }
    let _ = writeln!(text, "      - {{ match: {{ path: /turn-{turn} }}, upstream: app }}");
    text + "upstreams: { app: \"127.0.0.1:1\" }\n"
}

fn upstreams(count: usize, turn: usize) -> String {
    let mut text = HEAD.to_owned();
    for number in 0..count {
        let _ = writeln!(text, "      - {{ match: {{ host: service-{number} }}, upstream: app-{number} }}");
    }
    text += "upstreams:\n";
    for number in 0..count {
        let port = 1 + (number + turn) % 1_000;
        let _ = writeln!(text, "  app-{number}: [\"127.0.0.1:{port}\", \"127.0.0.2:{port}\"]");
    }
    text
}

fn read(text: &str) -> Loaded {
    let document = Document { name: "bench", bytes: text.as_bytes() };
    load(document, &|_: &str| None, &LoadOptions::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn reading(criterion: &mut Criterion) {
    for (name, counts, shape) in SHAPES {
        let mut group = criterion.benchmark_group(format!("read/{name}"));
        group.sample_size(10);
        for &count in counts {
            let text = shape(count, 0);
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| bencher.iter(|| read(black_box(&text))));
        }
    }
}

fn comparing(criterion: &mut Criterion) {
    for (name, counts, shape) in SHAPES {
        let mut group = criterion.benchmark_group(format!("diff/{name}"));
        group.sample_size(10);
        for &count in counts {
            let (old, new) = (read(&shape(count, 0)).effective, read(&shape(count, 1)).effective);
            assert!(!diff(&old, &new).is_empty());
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| diff(black_box(&old), &new));
            });
        }
    }
}

fn compiling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table/routes");
    for count in ROUTES {
        let config = read(&routes(count, 0)).config;
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| Table::compile(black_box(&config.listeners[0].routes)));
        });
    }
}

fn swapping(criterion: &mut Criterion) {
    for (name, counts, shape) in SHAPES {
        let mut group = criterion.benchmark_group(format!("swap/{name}"));
        group.sample_size(10);
        for &count in counts {
            let texts = [shape(count, 0), shape(count, 1)];
            let proxy = Builder::new(read(&texts[0]), "bench").start().unwrap_or_else(|error| panic!("{error}"));
            let mut admin = Admin::of(&proxy);
            let mut turn = 0;
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    turn += 1;
                    admin.put(&texts[turn % 2]);
                });
            });
            proxy.handle().end_now();
            proxy.wait();
        }
    }
}

/// A kept connection to a proxy's admin.
struct Admin(BufReader<TcpStream>);

impl Admin {
    fn of(proxy: &Running) -> Self {
        let Some(BoundAddress::Tcp(address)) = proxy.admin() else { panic!("the admin is on TCP") };
        Admin(BufReader::new(TcpStream::connect(address).unwrap_or_else(|error| panic!("{error}"))))
    }

    /// Returns when the configuration is in force.
    fn put(&mut self, text: &str) {
        let head = format!("PUT /config HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", text.len());
        let sent = self.0.get_mut().write_all((head + text).as_bytes());
        sent.unwrap_or_else(|error| panic!("{error}"));
        let (mut line, mut length) = (String::new(), 0);
        let mut status = None;
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap_or_else(|error| panic!("{error}"));
            status = status.or_else(|| Some(line.clone()));
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or_default();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap_or_else(|error| panic!("{error}"));
        let status = status.unwrap_or_default();
        assert!(status.contains(" 200 "), "{status}{}", String::from_utf8_lossy(&body));
    }
}

criterion_group!(benches, reading, comparing, compiling, swapping);
criterion_main!(benches);
