//! Many swaps under load: no request fails, none meets a closed connection, no stream ends, no connection is made anew.
//!
//! `OUTRIGGER_SWAPS=1000` makes as many swaps as one has patience for.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::put;
use crate::support::client::get;
use crate::support::h2::{self, H2Client, H2Upstream};
use crate::support::upstream::OK;
use crate::support::{Client, Proxy, Served, Upstream, eventually};

const CONFIG: &str = "
telemetry: { access_log: { path: none }, log: { level: error } }
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      # more routes
      - { name: rpc, match: { path: /rpc }, upstream: rpc }
      - { name: main, upstream: app }
  # more listeners
upstreams:
  app: { static: [{ address: \"@app\", weight: 1 }] }
  rpc: { static: [\"@rpc\"], protocol: http2 }
  # more upstreams
";

/// What is sent a second, 2,000 in all: by 20 connections 70 requests each, by 2 that connect anew 25 each, 200 streams of
/// HTTP/2 with as many messages of gRPC calls, and 50 messages of each WebSocket.
const KEPT: (usize, u32) = (20, 70);
const NEW: (usize, u32) = (2, 25);
const STREAMS: u32 = 200;
/// That last as long as the test.
const SOCKETS: usize = 4;
const CALLS: usize = 4;
const WORKERS: usize = 2;
/// From asking for a swap to the first request that is served by it.
const EFFECT_WITHIN: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Load {
    done: AtomicBool,
    served: AtomicUsize,
    lasting: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    fn failed(&self, what: &str, why: impl std::fmt::Display) {
        self.failures.lock().unwrap().push(format!("{what}: {why}"));
    }

    fn paced(&self, per_second: u32, offset: usize, mut turn: impl FnMut()) {
        let step = Duration::from_secs(1) / per_second;
        let start = Instant::now() + step * (offset as u32 % 16) / 16;
        for nth in 0.. {
            std::thread::sleep((start + step * nth).saturating_duration_since(Instant::now()));
            if self.done.load(SeqCst) {
                return;
            }
            turn();
        }
    }

    /// One request, on a connection that is to stay.
    fn request(&self, what: &str, client: &mut Client) {
        if let Err(error) = client.try_send(get("/quick")) {
            return self.failed(what, format!("met a closed connection: {error}"));
        }
        match client.response_or_end("GET") {
            None => self.failed(what, "the connection ended without an answer"),
            Some(response) if response.status != 200 || response.text() != "ok" => self.failed(what, response.head),
            Some(response) if response.head.lists("connection", "close") => self.failed(what, "told to leave"),
            Some(_) => {
                self.served.fetch_add(1, SeqCst);
            }
        }
    }

    fn kept(&self, address: SocketAddr, number: usize) {
        let mut client = Client::connect(address);
        self.paced(KEPT.1, number, || self.request("kept connection", &mut client));
    }

    fn anew(&self, address: SocketAddr, number: usize) {
        self.paced(NEW.1, number, || match Client::try_connect(address) {
            Ok(mut client) => self.request("new connection", &mut client),
            Err(error) => self.failed("new connection", error),
        });
    }

    fn socket(&self, address: SocketAddr, number: usize) {
        let mut client = Client::connect(address);
        client.send("GET /socket HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        if client.response().status != 101 {
            return self.failed("WebSocket", "refused");
        }
        self.lasting.fetch_add(1, SeqCst);
        self.paced(50, number, || {
            if client.try_send(b"ping").is_err() || client.some() != b"ping" {
                self.failed("WebSocket", "it has ended");
            }
        });
    }

    /// Short requests and long calls on one HTTP/2 connection.
    fn http2(&self, address: SocketAddr) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = H2Client::connect(address).await;
            let mut calls = Vec::new();
            for _ in 0..CALLS {
                let (response, send) = client.start(h2::grpc("/rpc"), false).await;
                let body = response.await.unwrap().into_body();
                self.lasting.fetch_add(1, SeqCst);
                calls.push((send, body));
            }
            let mut tick = tokio::time::interval(Duration::from_secs(1) / STREAMS);
            let mut turn = 0;
            while !self.done.load(SeqCst) {
                tick.tick().await;
                turn += 1;
                match client.try_start(h2::get("/quick"), true).await {
                    Err(error) => self.failed("HTTP/2 connection", error),
                    Ok((response, _)) => match h2::answer(response).await {
                        Ok(answer) if answer.status == 200 => {
                            self.served.fetch_add(1, SeqCst);
                        }
                        Ok(answer) => self.failed("HTTP/2 request", answer.status),
                        Err(error) => self.failed("HTTP/2 request", error),
                    },
                }
                let (send, body) = &mut calls[turn % CALLS];
                h2::send_all(send, Bytes::from_static(b"ping"), false).await;
                match h2::next(body).await {
                    Ok(Some(chunk)) if chunk == "ping" => {}
                    other => self.failed("gRPC call", format!("{other:?}")),
                }
            }
        });
    }
}

fn app(served: &mut Served) {
    // A connection may be idle for as long as the swaps take.
    served.set_patience(Duration::from_secs(120));
    while let Some(head) = served.head() {
        if !head.start.contains("/socket") {
            if served.try_send(OK).is_err() {
                return;
            }
            continue;
        }
        let _ =
            served.try_send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        loop {
            let bytes = served.some();
            if bytes.is_empty() || served.try_send(&bytes).is_err() {
                return;
            }
        }
    }
}

/// Sends back what comes.
async fn rpc(mut stream: h2::Stream) {
    let response = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let Ok(mut send) = stream.respond.send_response(response, false) else { return };
    while let Some(Ok(chunk)) = stream.body.data().await {
        let _ = stream.body.flow_control().release_capacity(chunk.len());
        if send.send_data(chunk, false).is_err() {
            return;
        }
    }
}

/// The configuration that is put in force in this round, none of which concerns the load.
fn variant(base: &str, round: usize) -> String {
    match round % 6 {
        0 => base.replace("# more routes", &format!("- {{ match: {{ path: /{round} }}, respond: {{ status: 204 }} }}")),
        1 => base.replace("weight: 1", "weight: 7"),
        2 => base
            .replace("# more upstreams", "other: [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n")
            .replace("# more routes", "- { match: { path: /other }, upstream: other }"),
        3 => base.replace("protocol: http2", "protocol: http2, timeouts: { connect: 2s, response: 7s }"),
        4 => base.replace("# more listeners", "extra: { address: \"127.0.0.1:0\", upstream: app }"),
        _ => base.to_owned(),
    }
}

#[test]
fn nothing_is_lost_in_many_swaps_under_load() {
    let swaps: usize = std::env::var("OUTRIGGER_SWAPS").ok().map_or(120, |swaps| swaps.parse().unwrap());
    let (app, rpc) = (Upstream::scripted(app), H2Upstream::streams(rpc));
    let proxy = Proxy::start(CONFIG, &[("@app", &app.address()), ("@rpc", &rpc.address())]);
    let base = super::text(&proxy);
    let address = proxy.address("inbound");
    let load = Load::default();
    let (mut resident, mut refused) = (0.0, 0);
    let mut effects = Vec::new();
    std::thread::scope(|scope| {
        let load = &load;
        for number in 0..KEPT.0 {
            scope.spawn(move || load.kept(address, number));
        }
        for number in 0..NEW.0 {
            scope.spawn(move || load.anew(address, number));
        }
        for number in 0..SOCKETS {
            scope.spawn(move || load.socket(address, number));
        }
        scope.spawn(move || load.http2(address));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the load", || load.served.load(SeqCst) > 500);
            eventually("the streams", || load.lasting.load(SeqCst) == SOCKETS + CALLS);
            let mut witness = Client::connect(address);
            for round in 0..swaps {
                if round % 10 == 9 {
                    assert_eq!(put(&proxy, "", &base.replace("static:", "statics:")).status, 422);
                    refused += 1;
                    continue;
                }
                let asked = Instant::now();
                let answer = put(&proxy, "", &variant(&base, round));
                assert_eq!(answer.status, 200, "{}", answer.text());
                if round % 6 == 0 {
                    // On a connection that was there before, the very next request is served by it.
                    assert_eq!(witness.get(&format!("/{round}")).status, 204);
                    effects.push(asked.elapsed());
                }
                if round == swaps / 2 {
                    resident = proxy.metric("outrigger_process_resident_memory_bytes", &[]);
                }
            }
            let served = load.served.load(SeqCst);
            eventually("load after the last swap", || load.served.load(SeqCst) > served + 200);
        }));
        load.done.store(true, SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    // What else the machine does must not decide: more than half of them are quick, or something is slow.
    effects.sort();
    let median = effects[effects.len() / 2];
    assert!(median <= EFFECT_WITHIN, "a swap takes effect after {median:?}: {effects:?}");
    let failures = load.failures.lock().unwrap();
    let served = load.served.load(SeqCst);
    assert!(failures.is_empty(), "{} of {served} failed: {:#?}", failures.len(), &failures[..failures.len().min(10)]);
    // A connection that was made because of a swap would be one more than clients can have kept busy.
    assert!(app.connections() <= KEPT.0 + NEW.0 + SOCKETS + 1, "{} connections to the app", app.connections());
    assert!(rpc.connection_count() <= WORKERS, "{} connections to rpc", rpc.connection_count());
    assert_eq!(proxy.metric("outrigger_config_reloads_total", &[("result", "refused")]), f64::from(refused));
    let grown = proxy.metric("outrigger_process_resident_memory_bytes", &[]) - resident;
    assert!(grown < f64::from(8 << 20), "memory has grown by {grown} bytes in the second half");
    eventually("old generations to go, but for those of lasting streams", || {
        proxy.metric("outrigger_config_generations_alive", &[]) <= 3.0
    });
}
