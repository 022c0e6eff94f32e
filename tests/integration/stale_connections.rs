//! The first rule of the house: no request fails, and none is sent twice that must not be, because an idle connection
//! had died.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::client::{get, once};
use crate::support::upstream::OK;
use crate::support::{Client, Gate, Proxy, Served, Upstream, eventually};

const ONE_WORKER: &str = "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [\"@app\"] }
";

fn one_worker(upstream: &Upstream) -> Proxy {
    Proxy::start(ONE_WORKER, &[("@app", &upstream.address())])
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody")
}

/// Answers, waits this long for another request, and closes.
fn impatient(served: &mut Served, idle: Duration, reset: bool) {
    while served.request().is_some() {
        served.send(OK);
        if !idle.is_zero() && !served.silent_for(idle) {
            continue;
        }
        if reset {
            served.reset()
        } else {
            served.close()
        }
        return;
    }
}

/// GETs and POSTs of several clients, with pauses around the time after which the upstream closes.
#[track_caller]
fn no_get_fails_and_no_post_arrives_twice(idle: Duration, reset: bool) {
    const CLIENTS: usize = 4;
    const EACH: usize = 40;
    let case = format!("closed after {idle:?} with {}", if reset { "RST" } else { "FIN" });
    let upstream = Upstream::scripted(move |served| impatient(served, idle, reset));
    let proxy = Proxy::before(upstream.address());
    let address = proxy.address("inbound");
    let answered: usize = std::thread::scope(|scope| {
        let case = &case;
        let clients = (0..CLIENTS).map(|number| {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                let mut posts = 0;
                for nth in 0..EACH {
                    let response = client.get(&format!("/get-{number}-{nth}."));
                    assert_eq!(response.status, 200, "{case}: {} {}", response.head, response.text());
                    pause(idle, number + nth);
                    let response = client.exchange(post(&format!("/post-{number}-{nth}.")));
                    assert!([200, 502].contains(&response.status), "{case}: {}", response.head);
                    posts += usize::from(response.status == 200);
                    pause(idle, number + nth + 3);
                }
                posts
            })
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).sum()
    });
    let targets: Vec<String> = upstream.requests().into_iter().map(|request| request.target).collect();
    for number in 0..CLIENTS {
        for nth in 0..EACH {
            let target = format!("/post-{number}-{nth}.");
            let times = targets.iter().filter(|own| **own == target).count();
            assert!(times <= 1, "{case}: {target} arrived {times} times");
        }
    }
    // What was found dead before it was used costs nobody a POST; only the instant itself can.
    assert!(answered * 10 >= CLIENTS * EACH * 9, "{case}: only {answered} of {} POSTs were answered", CLIENTS * EACH);
}

/// The pace of a client: a share of the upstream's patience that differs each time.
fn pause(idle: Duration, nth: usize) {
    let eighths = [6, 8, 9, 0, 7, 8, 10, 1][nth % 8];
    std::thread::sleep(idle * eighths / 8);
}

#[test]
fn an_upstream_that_closes_right_after_an_answer_costs_nothing() {
    no_get_fails_and_no_post_arrives_twice(Duration::ZERO, false);
    no_get_fails_and_no_post_arrives_twice(Duration::ZERO, true);
}

#[test]
fn an_upstream_that_closes_idle_connections_early_costs_nothing() {
    for idle in [1, 5] {
        no_get_fails_and_no_post_arrives_twice(Duration::from_millis(idle), false);
        no_get_fails_and_no_post_arrives_twice(Duration::from_millis(idle), true);
    }
}

#[test]
fn an_upstream_that_closes_idle_connections_a_little_later_costs_nothing() {
    no_get_fails_and_no_post_arrives_twice(Duration::from_millis(20), false);
    no_get_fails_and_no_post_arrives_twice(Duration::from_millis(20), true);
}

/// On each first connections: the second request is read and then met with an end instead of an answer.
fn dies_at_the_second_request(how: fn(&mut Served)) -> Upstream {
    Upstream::scripted(move |served| {
        served.request();
        served.send(OK);
        if served.request().is_some() {
            how(served);
        }
    })
}

// A reused connection that ends without one byte of an answer: an idempotent request goes out once more, on a fresh one.
#[test]
fn a_get_survives_a_connection_that_dies_as_it_is_used() {
    for how in [Served::close, Served::reset] {
        let upstream = dies_at_the_second_request(how);
        let proxy = one_worker(&upstream);
        let mut client = proxy.client();
        assert_eq!(client.get("/first").status, 200);
        assert_eq!(client.get("/second").status, 200);
        assert_eq!(upstream.count("/second"), 2);
        assert_eq!(upstream.connections(), 2);
    }
}

#[test]
fn a_replay_takes_a_fresh_connection_not_the_next_idle_one() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::scripted(move |served| {
        served.request();
        if served.index < 3 {
            opened.wait("all three connections");
        }
        served.send(OK);
        served.request();
    });
    let proxy = one_worker(&upstream);
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.send(get("/warm"));
        upstream.request(index);
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(clients[0].get("/again").status, 200);
    assert_eq!(upstream.count("/again"), 2);
}

// RFC 9110, 9.2.2: a POST that may have been processed is not sent again.
#[test]
fn a_post_is_not_replayed() {
    for how in [Served::close, Served::reset] {
        let upstream = dies_at_the_second_request(how);
        let proxy = one_worker(&upstream);
        let mut client = proxy.client();
        assert_eq!(client.get("/first").status, 200);
        let response = client.exchange(post("/second"));
        assert_eq!((response.status, response.reason()), (502, Some("upstream_closed_idle; hop=inbound")));
        assert_eq!(upstream.count("/second"), 1);
        assert_eq!(client.exchange(post("/third")).status, 200);
    }
}

#[test]
fn nothing_is_replayed_from_a_fresh_connection() {
    let upstream = Upstream::scripted(|served| {
        served.request();
    });
    let proxy = Proxy::before(upstream.address());
    for request in [get("/get"), post("/post")] {
        let response = once(proxy.address("inbound"), request);
        assert_eq!((response.status, response.reason()), (502, Some("upstream_reset; hop=inbound")));
    }
    assert_eq!((upstream.count("/get"), upstream.count("/post")), (1, 1));
}

#[test]
fn nothing_is_replayed_once_an_answer_has_begun() {
    let upstream = Upstream::scripted(|served| {
        served.request();
        served.send(OK);
        served.request();
        served.send("HTTP/1.1 2");
    });
    let proxy = one_worker(&upstream);
    let mut client = proxy.client();
    assert_eq!(client.get("/first").status, 200);
    let response = client.get("/second");
    assert_eq!((response.status, response.reason()), (502, Some("upstream_reset; hop=inbound")));
    assert_eq!(upstream.count("/second"), 1);
}

#[test]
fn idle_connections_of_a_restarted_upstream_are_not_used() {
    for reset in [false, true] {
        let old = Upstream::ok();
        let proxy = Proxy::before(old.address());
        let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/old").status, 200);
        }
        let new = Upstream::at(old.address(), |served| {
            while served.request().is_some() {
                served.send(OK);
            }
        });
        old.stop_accepting();
        old.drop_connections(reset);
        old.all_closed();
        for (nth, client) in clients.iter_mut().enumerate() {
            let response = client.exchange(if nth % 2 == 0 { get("/new") } else { post("/new") });
            assert_eq!(response.status, 200, "{}", response.head);
        }
        assert_eq!(new.count("/new"), 8);
    }
}

#[test]
fn an_upstream_restarted_under_load_costs_no_get() {
    // As a server does that hands its listening socket to its successor and drains: each answer under way is given,
    // then the connection ends; idle ones end at once.
    let incarnation = Arc::new(AtomicUsize::new(0));
    let current = Arc::clone(&incarnation);
    let upstream = Upstream::scripted(move |served| {
        let mine = current.load(Ordering::SeqCst);
        while served.request().is_some() {
            if served.try_send(OK).is_err() || current.load(Ordering::SeqCst) != mine {
                return;
            }
        }
    });
    let proxy = Proxy::before(upstream.address());
    let address = proxy.address("inbound");
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                while !done.load(Ordering::SeqCst) {
                    let response = client.get("/");
                    assert_eq!(response.status, 200, "{} {}", response.head, response.text());
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let end_of_load = OpenOnDrop(&done);
        for _ in 0..10 {
            let before = served.load(Ordering::SeqCst);
            eventually("load", || served.load(Ordering::SeqCst) > before + 200);
            incarnation.fetch_add(1, Ordering::SeqCst);
            upstream.close_idle();
        }
        drop(end_of_load);
    });
}

/// Ends the load also where the test fails.
struct OpenOnDrop<'a>(&'a AtomicBool);

impl Drop for OpenOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
