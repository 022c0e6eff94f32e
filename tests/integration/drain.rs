//! The end: unready first, then no new work inbound, what runs finishes, and all of it in bounded time.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::{get, once};
use crate::support::frames::{self, FrameClient};
use crate::support::h2::{H2Client, next};
use crate::support::upstream::OK;
use crate::support::wait::{bounded, until};
use crate::support::{Client, Gate, Proxy, Upstream, eventually};

const CONFIG: &str = "
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
  outbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"] }
drain: { delay: @delay, timeout: @timeout }
";

fn proxy(upstream: &Upstream, delay: &str, timeout: &str) -> Proxy {
    Proxy::start(CONFIG, &[("@app", &upstream.address()), ("@delay", &delay), ("@timeout", &timeout)])
}

/// Holds `/hold`; answers all else.
fn holding(gate: &Gate) -> Upstream {
    let opened = gate.clone();
    Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            if request.target == "/hold" {
                opened.wait("the test to let the request go");
            }
            if served.try_send(OK).is_err() {
                return;
            }
        }
    })
}

#[test]
fn an_idle_proxy_ends_at_once() {
    let upstream = Upstream::ok();
    let mut proxy = proxy(&upstream, "0s", "20s");
    let started = Instant::now();
    proxy.terminate();
    assert_eq!(proxy.process().exit_code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn interrupt_ends_like_terminate() {
    let upstream = Upstream::ok();
    let mut proxy = proxy(&upstream, "0s", "20s");
    proxy.process().signal(Signal::INT);
    assert_eq!(proxy.process().exit_code(), Some(0));
}

/// What nginx and HAProxy know these for: an end that cuts nothing, and logs that have been moved away.
#[test]
fn quit_ends_like_terminate_and_user_1_is_harmless() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = proxy(&upstream, "0s", "20s");
    let mut client = proxy.client();
    client.send(get("/hold"));
    upstream.request(0);
    proxy.process().signal(Signal::USR1);
    eventually("a word about it", || proxy.process().stderr().contains("SIGUSR1: log files"));
    assert_eq!(proxy.admin_get("/readyz").status, 200);
    proxy.process().signal(Signal::QUIT);
    eventually("new connections to be refused", || Client::try_connect(proxy.address("inbound")).is_err());
    gate.open();
    assert_eq!(client.response().status, 200);
    assert_eq!(proxy.process().exit_code(), Some(0));
}

#[test]
fn during_the_delay_it_is_unready_and_serves_on() {
    let upstream = Upstream::ok();
    let mut proxy = proxy(&upstream, "1200ms", "5s");
    let mut old = proxy.client();
    assert_eq!(old.get("/").status, 200);
    let started = Instant::now();
    proxy.terminate();
    eventually("unready", || proxy.admin_get("/readyz").status == 503);
    assert!(started.elapsed() < Duration::from_millis(600), "unready only after {:?}", started.elapsed());
    assert_eq!(proxy.admin_get("/livez").status, 200);
    let response = old.get("/");
    assert_eq!(response.status, 200);
    assert!(!response.head.lists("connection", "close"), "closed before the delay was over: {}", response.head);
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(once(proxy.address("outbound"), get("/")).status, 200);
    assert_eq!(proxy.process().exit_code(), Some(0));
    assert!(started.elapsed() >= Duration::from_millis(1_000), "ended after {:?}", started.elapsed());
}

#[test]
fn a_request_under_way_finishes_and_then_the_connection_ends() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = proxy(&upstream, "0s", "20s");
    let mut client = proxy.client();
    client.send(get("/hold"));
    upstream.request(0);
    proxy.terminate();
    eventually("new connections to be refused", || Client::try_connect(proxy.address("inbound")).is_err());
    assert!(proxy.process().ended().is_none());
    gate.open();
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert!(response.head.lists("connection", "close"), "{}", response.head);
    client.expect_end();
    assert_eq!(proxy.process().exit_code(), Some(0));
}

#[test]
fn a_request_on_an_old_connection_is_answered_with_close() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = proxy(&upstream, "300ms", "20s");
    let mut holder = proxy.client();
    holder.send(get("/hold"));
    upstream.request(0);
    // One request after another, without a pause, over the moment at which the end phase begins.
    let mut client = proxy.client();
    proxy.terminate();
    let started = Instant::now();
    loop {
        let response = client.get("/");
        assert_eq!(response.status, 200);
        if response.head.lists("connection", "close") {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "no Connection: close after the delay");
    }
    client.expect_end();
    gate.open();
    assert_eq!(holder.response().status, 200);
    assert_eq!(proxy.process().exit_code(), Some(0));
}

// Point 9 of what users of other proxies suffer: the app may still call out while it finishes its last requests.
#[test]
fn outbound_works_to_the_end() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = proxy(&upstream, "0s", "20s");
    let outbound = proxy.address("outbound");
    let mut old = Client::connect(outbound);
    assert_eq!(old.get("/").status, 200);
    let mut inbound = proxy.client();
    inbound.send(get("/hold"));
    upstream.request(1);
    proxy.terminate();
    eventually("the end phase", || Client::try_connect(proxy.address("inbound")).is_err());
    for _ in 0..5 {
        let response = old.get("/");
        assert_eq!(response.status, 200);
        assert!(!response.head.lists("connection", "close"), "{}", response.head);
        assert_eq!(once(outbound, get("/")).status, 200);
    }
    assert!(proxy.process().ended().is_none());
    gate.open();
    assert_eq!(inbound.response().status, 200);
    assert_eq!(proxy.process().exit_code(), Some(0));
}

#[test]
fn the_deadline_forces_the_end() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = proxy(&upstream, "0s", "500ms");
    let mut client = proxy.client();
    client.send(get("/hold"));
    upstream.request(0);
    let started = Instant::now();
    proxy.terminate();
    assert_eq!(proxy.process().exit_code(), Some(3));
    assert!(started.elapsed() >= Duration::from_millis(400), "forced after {:?}", started.elapsed());
    gate.open();
}

#[test]
fn a_second_signal_ends_at_once() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = proxy(&upstream, "60s", "60s");
    let mut client = proxy.client();
    client.send(get("/hold"));
    upstream.request(0);
    proxy.terminate();
    eventually("unready", || proxy.admin_get("/readyz").status == 503);
    proxy.terminate();
    let code = proxy.process().exit_code();
    assert_eq!(code, Some(3), "a request was cut off: that is a forced end");
    gate.open();
}

#[test]
fn after_a_drain_by_hand_sigterm_goes_straight_to_the_end() {
    let upstream = Upstream::ok();
    let mut proxy = proxy(&upstream, "60s", "5s");
    let drained = once(
        proxy.admin(),
        "POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    assert!([200, 202].contains(&drained.status), "{}", drained.head);
    proxy.terminate();
    assert_eq!(proxy.process().exit_code(), Some(0));
}

#[test]
fn a_tunnel_lives_to_the_deadline_and_not_longer() {
    let upstream = Upstream::scripted(|served| {
        served.request_head();
        served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        loop {
            let bytes = served.some();
            if bytes.is_empty() || served.try_send(&bytes).is_err() {
                return;
            }
        }
    });
    let mut proxy = proxy(&upstream, "0s", "2500ms");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.response().status, 101);
    proxy.terminate();
    eventually("the end phase", || Client::try_connect(proxy.address("inbound")).is_err());
    client.send("still");
    client.expect("still");
    client.expect_end();
    assert_eq!(proxy.process().exit_code(), Some(3));
}

#[test]
fn connections_that_sent_half_a_request_do_not_hold_up_the_end() {
    let upstream = Upstream::ok();
    let mut proxy = proxy(&upstream, "0s", "20s");
    let idle = proxy.client();
    let mut half = proxy.client();
    half.send("GET / HTT");
    let mut used = proxy.client();
    assert_eq!(used.get("/").status, 200);
    let started = Instant::now();
    proxy.terminate();
    // header_timeout bounds the half one, if the proxy waits for it at all.
    assert_eq!(proxy.process().exit_code_within(Duration::from_secs(15)), Some(0));
    assert!(started.elapsed() < Duration::from_secs(14));
    drop((idle, half, used));
}

#[test]
fn http_2_connections_are_told_to_go_and_their_streams_finish() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = proxy(&upstream, "0s", "20s");
    let fields = |path| [(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", path)];
    let mut client = FrameClient::connect(proxy.address("inbound"));
    client.headers(1, frames::END_STREAM, &fields("/hold"));
    upstream.request(0);
    proxy.terminate();
    let goaway = client.until(frames::GOAWAY);
    assert_eq!(goaway.error_code(), 0);
    let last = u32::from_be_bytes(goaway.payload[..4].try_into().unwrap());
    // RFC 9113, 6.8: the first GOAWAY of a graceful end names the highest possible stream, so that none is lost on the way.
    assert!(last >= 1, "GOAWAY disowns a stream under way");
    if last > 3 {
        client.headers(3, frames::END_STREAM, &fields("/on-the-way"));
        assert_eq!(client.outcome(3), frames::Outcome::Status(200));
    }
    gate.open();
    let mut answered = false;
    while let Some(frame) = client.frame() {
        answered |= frame.kind == frames::DATA && frame.stream == 1 && frame.payload == b"ok";
    }
    assert!(answered, "the stream under way was not finished");
    assert_eq!(proxy.process().exit_code(), Some(0));
}

#[tokio::test]
async fn a_long_answer_over_http_2_is_finished() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        opened.wait("GOAWAY");
        served.send("4\r\nlast\r\n0\r\n\r\n");
        served.request();
    });
    let mut proxy = proxy(&upstream, "0s", "20s");
    let mut client = H2Client::connect(proxy.address("inbound")).await;
    let (response, _) = client.start(crate::support::h2::get("/"), true).await;
    let mut body = bounded("headers", response).await.unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "first");
    proxy.terminate();
    client.goes_away().await;
    gate.open();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "last");
    assert!(next(&mut body).await.unwrap().is_none());
    until("the end", || proxy.process().ended().is_some()).await;
    assert_eq!(proxy.process().exit_code(), Some(0));
}

// What was in the queue of the listening socket when it closed was accepted by the kernel: it is served.
#[test]
fn nobody_who_connected_is_forgotten() {
    let upstream = Upstream::ok();
    let mut proxy = proxy(&upstream, "0s", "20s");
    let address = proxy.address("inbound");
    // While it stands still, all of them wait in the queue; when it goes on, its end has been asked for.
    proxy.process().signal(Signal::STOP);
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(address)).collect();
    clients.iter_mut().for_each(|client| client.send(get("/")));
    proxy.terminate();
    proxy.process().signal(Signal::CONT);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    drop(clients);
    assert_eq!(proxy.process().exit_code(), Some(0));
}
