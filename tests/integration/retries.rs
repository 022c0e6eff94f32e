//! Retries: what is sent again, where to, when, and what stops it. Expectations: RFC 9110, sections 9.2.2 and 10.2.3, and
//! the README's table.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{get, once};
use crate::support::message::Request;
use crate::support::rng::own_loopback_ip;
use crate::support::upstream::OK;
use crate::support::wait::{PATIENCE, eventually, eventually_some};
use crate::support::{Client, Gate, Proxy, Response, Upstream};

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
const EVERYTHING: &str = "[connect_failure, refused_stream, upstream_reset, per_try_timeout, gateway_error]";

/// One worker, so that endpoints take turns; no pause, so that nobody waits.
fn before(endpoints: &[&Upstream], retries: &str, more: &str) -> Proxy {
    let addresses: Vec<String> = endpoints.iter().map(|upstream| format!("\"{}\"", upstream.address())).collect();
    let config = "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { static: [@addresses], retries: { backoff: { base: 0s }, @retries }@more }
";
    Proxy::start(config, &[("@addresses", &addresses.join(", ")), ("@retries", &retries), ("@more", &more)])
}

fn busy() -> Upstream {
    Upstream::answering(UNAVAILABLE)
}

fn send(proxy: &Proxy, method: &str, path: &str, fields: &str, body: &str) -> Response {
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
    once(proxy.address("inbound"), request)
}

#[test]
fn a_refused_connection_is_tried_elsewhere_for_any_method() {
    let dead = Upstream::ok();
    dead.stop_accepting();
    let live = Upstream::ok();
    let proxy = before(&[&dead, &live], "max: 1", "");
    for nth in 0..4 {
        let path = format!("/post-{nth}");
        assert_eq!(send(&proxy, "POST", &path, "", "body").status, 200);
        assert_eq!(live.request(nth).text(), "body");
    }
    assert!(proxy.metric("outrigger_retries_total", &[("outcome", "success")]) >= 2.0);
    let lines = proxy.log_lines();
    assert!(lines.iter().all(|line| line.get("retry_refused").is_none()), "{lines:#?}");
}

#[test]
fn whoever_is_alone_beside_us_is_not_tried_again_unless_somebody_says_so() {
    let (dead, live) = (Upstream::ok(), Upstream::ok());
    dead.stop_accepting();
    let addresses = format!("\"{}\", \"{}\"", dead.address(), live.address());
    let beside = Proxy::start(
        "workers: 1\nlisteners:\n  inbound: { address: 127.0.0.1:0, upstream: app }\nupstreams:\n  app: [@addresses]\n",
        &[("@addresses", &addresses)],
    );
    let statuses: Vec<u16> = (0..4).map(|_| once(beside.address("inbound"), get("/")).status).collect();
    assert_eq!(statuses, [200; 4], "of two, one stands in for the other");

    let alone = Proxy::before(dead.address());
    assert_eq!(once(alone.address("inbound"), get("/alone")).status, 503);
    assert_eq!(alone.log_line("/alone")["attempts"], 1);
    let written = Proxy::before_upstream(dead.address(), ", retries: { max: 1 }");
    assert_eq!(once(written.address("inbound"), get("/written")).status, 503);
    assert_eq!(written.log_line("/written")["attempts"], 2);
}

#[test]
fn a_busy_answer_is_tried_elsewhere_only_where_that_is_safe() {
    let (first, second) = (busy(), Upstream::ok());
    let proxy = before(&[&first, &second], "max: 1, when: [gateway_error]", "");
    for _ in 0..2 {
        let response = once(proxy.address("inbound"), get("/get"));
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    }
    let statuses: Vec<u16> = (0..2).map(|_| send(&proxy, "POST", "/post", "", "x").status).collect();
    assert!(statuses.contains(&503) && statuses.contains(&200), "{statuses:?}");
    assert_eq!(first.count("/post") + second.count("/post"), 2);
    for _ in 0..2 {
        assert_eq!(send(&proxy, "POST", "/key", "Idempotency-Key: 7\r\n", "x").status, 200);
    }
    let refused =
        eventually_some("the failed request's line", || proxy.log_lines().into_iter().find(|line| line["code"] == 503));
    assert_eq!(refused["retry_refused"], "not_idempotent");
    assert_eq!(refused["attempts"], 1);
}

#[test]
fn an_operator_can_say_that_all_may_be_repeated() {
    let (first, second) = (busy(), Upstream::ok());
    let proxy = before(&[&first, &second], "max: 1, when: [503], idempotent: true", "");
    for _ in 0..2 {
        assert_eq!(send(&proxy, "POST", "/post", "", "x").status, 200);
    }
}

#[test]
fn the_last_answer_is_the_clients_and_says_what_stopped() {
    let (first, second) = (busy(), busy());
    let proxy = before(&[&first, &second], "max: 3, when: [gateway_error]", "");
    let response = once(proxy.address("inbound"), get("/x"));
    assert_eq!((response.status, response.text().as_str()), (503, "busy"));
    assert_eq!(response.head.get("x-outrigger-retry-refused"), Some("max"));
    assert_eq!(first.count("/x") + second.count("/x"), 4);
    let attempts: Vec<_> = [&first, &second]
        .iter()
        .flat_map(|upstream| upstream.requests())
        .map(|request| request.head.get("x-outrigger-attempt").map(str::to_owned))
        .collect();
    let mut attempts: Vec<&str> = attempts.iter().map(|number| number.as_deref().unwrap_or("first")).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, ["2", "3", "4", "first"]);
    let line = proxy.log_line("/x");
    assert_eq!((line["attempts"].as_u64(), line["retry_refused"].as_str()), (Some(4), Some("max")));
    assert_eq!(proxy.metric("outrigger_retries_total", &[("outcome", "failure")]), 3.0);
}

#[test]
fn somebody_elses_retry_is_not_repeated_and_neither_is_what_was_refused_behind() {
    let upstream = busy();
    let proxy = before(&[&upstream], "max: 3, when: [gateway_error]", "");
    let response = send(&proxy, "GET", "/again", "x-outrigger-attempt: 2\r\n", "");
    assert_eq!(response.head.get("x-outrigger-retry-refused"), Some("max"));
    assert_eq!(upstream.count("/again"), 1);
    assert_eq!(upstream.request(0).head.get("x-outrigger-attempt"), Some("2"), "the hop behind is told too");
    assert_eq!(proxy.metric("outrigger_retried_requests_total", &[]), 1.0);
    let spent = "HTTP/1.1 503 Service Unavailable\r\nx-outrigger-retry-refused: budget\r\nContent-Length: 0\r\n\r\n";
    let spent = Upstream::answering(spent);
    let proxy = before(&[&spent], "max: 3, when: [gateway_error]", "");
    let response = once(proxy.address("inbound"), get("/spent"));
    assert_eq!(response.head.get("x-outrigger-retry-refused"), Some("budget"));
    assert_eq!(spent.count("/spent"), 1);
    assert_eq!(proxy.log_line("/spent")["retry_refused"], "budget");
}

#[test]
fn a_stranger_cannot_switch_retries_off() {
    let (first, second) = (busy(), Upstream::ok());
    let config = "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, edge: true, upstream: app }
upstreams:
  app: { static: [\"@first\", \"@second\"], retries: { max: 1, when: [gateway_error] } }
";
    let proxy = Proxy::start(config, &[("@first", &first.address()), ("@second", &second.address())]);
    for _ in 0..2 {
        assert_eq!(send(&proxy, "GET", "/", "x-outrigger-attempt: 9\r\n", "").status, 200);
    }
}

#[test]
fn a_body_that_was_half_sent_goes_out_again_from_its_first_byte() {
    // Answers before it has read the body, in the middle of it, and at its end.
    for read in [0, 3_000, 20_000] {
        let early = Upstream::scripted(move |served| {
            if served.request_head().is_some() {
                let _ = served.swallow(read);
                served.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        let live = Upstream::ok();
        let proxy = before(&[&early, &live], "max: 1, when: [gateway_error, upstream_reset]", "");
        let body: String = (0..2_000).map(|number| format!("{number:09} ")).collect();
        for nth in 0..2 {
            let response = send(&proxy, "PUT", "/put", "", &body);
            assert_eq!(response.status, 200, "{read}: {}", response.head);
            assert!(live.request(nth).text() == body, "{read}: the whole body");
        }
    }
}

#[test]
fn a_body_longer_than_what_is_kept_is_sent_once() {
    let upstream = busy();
    let proxy = before(&[&upstream], "max: 2, when: [gateway_error], body_bytes: 1KiB", "");
    let long = "x".repeat(1_025);
    assert_eq!(send(&proxy, "PUT", "/length", "", &long).status, 503);
    assert_eq!(upstream.count("/length"), 1);
    assert_eq!(proxy.log_line("/length")["retry_refused"], "body_too_large");
    let chunked =
        format!("PUT /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n{long}\r\n0\r\n\r\n");
    assert_eq!(once(proxy.address("inbound"), chunked).status, 503);
    assert_eq!(upstream.count("/chunks"), 1);
    assert_eq!(proxy.metric("outrigger_retries_total", &[("outcome", "body_too_large")]), 2.0);
    assert_eq!(send(&proxy, "PUT", "/short", "", &long[1..]).status, 503);
    assert_eq!(upstream.count("/short"), 3);
}

#[test]
fn retry_after_is_waited_for_where_the_deadline_allows_it() {
    let patient = |seconds: u32| {
        let calls = AtomicUsize::new(0);
        Upstream::scripted(move |served| {
            while served.request().is_some() {
                if calls.fetch_add(1, Ordering::SeqCst) == 0 {
                    let busy = format!("HTTP/1.1 503 Busy\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n");
                    served.send(busy);
                } else {
                    served.send(OK);
                }
            }
        })
    };
    let upstream = patient(1);
    let proxy = before(&[&upstream], "max: 1, when: [gateway_error]", "");
    let began = Instant::now();
    assert_eq!(once(proxy.address("inbound"), get("/")).status, 200);
    assert!(began.elapsed() >= Duration::from_secs(1));
    let upstream = patient(5);
    let proxy = before(&[&upstream], "max: 1, when: [gateway_error]", ", timeouts: { request: 5s }");
    let began = Instant::now();
    let response = once(proxy.address("inbound"), get("/late"));
    assert_eq!((response.status, response.head.get("x-outrigger-retry-refused")), (503, Some("deadline")));
    assert!(began.elapsed() < Duration::from_secs(5), "at once");
}

#[test]
fn an_endpoint_that_says_nothing_costs_one_try() {
    let silent = Upstream::scripted(|served| while served.request().is_some() {});
    let live = Upstream::ok();
    let retries = format!("max: 1, when: {EVERYTHING}");
    let proxy = before(&[&silent, &live], &retries, ", timeouts: { per_try: 200ms, response: 5s }");
    for _ in 0..2 {
        assert_eq!(once(proxy.address("inbound"), get("/")).status, 200);
    }
    proxy.metric_reaches("outrigger_attempt_duration_seconds_count", &[("outcome", "per_try_timeout")], 1.0);
    let proxy = before(&[&silent], "max: 0", ", timeouts: { per_try: 100ms, response: 5s }");
    let response = once(proxy.address("inbound"), get("/"));
    assert_eq!((response.status, response.reason()), (504, Some("per_try_timeout; hop=inbound")));
}

#[test]
fn the_budget_bounds_what_all_requests_together_get() {
    let upstream = busy();
    let retries = "max: 3, when: [gateway_error], budget: { ratio: 0.2, min_per_second: 1, window: 60s }";
    let proxy = before(&[&upstream], retries, "");
    for _ in 0..500 {
        assert_eq!(once(proxy.address("inbound"), get("/")).status, 503);
    }
    let attempts = upstream.count("/");
    assert!((500..=660).contains(&attempts), "{attempts} attempts of 500 requests");
    assert_eq!(attempts, 660, "and all of it is given");
    let refused = proxy.metric("outrigger_retries_total", &[("outcome", "budget")]);
    assert!(refused > 300.0, "{refused}");
    assert!(proxy.metric("outrigger_retry_budget_balance", &[]) < 1.0);
    assert!((proxy.metric("outrigger_retry_amplification_ratio", &[]) - 1.32).abs() < 0.01);
}

#[test]
fn retries_in_flight_are_limited() {
    let upstream = busy();
    let proxy = before(&[&upstream], "max: 3, when: [gateway_error]", ", limits: { retries: 0 }");
    let response = once(proxy.address("inbound"), get("/x"));
    assert_eq!(response.head.get("x-outrigger-retry-refused"), Some("budget"));
    assert_eq!(upstream.count("/x"), 1);
}

#[test]
fn a_route_says_what_holds_for_it() {
    let upstream = busy();
    let config = "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { match: { path: /never }, upstream: app, retries: { max: 0 } }
      - { name: often, match: { path: /often }, upstream: app, retries: { max: 2, when: [5xx] } }
      - { name: rest, upstream: app }
upstreams:
  app: { static: [\"@app\"], retries: { max: 1, when: [gateway_error], backoff: { base: 0s } } }
";
    let proxy = Proxy::start(config, &[("@app", &upstream.address())]);
    for (path, attempts) in [("/never", 1), ("/often", 3), ("/rest", 2)] {
        assert_eq!(once(proxy.address("inbound"), get(path)).status, 503);
        assert_eq!(upstream.count(path), attempts, "{path}");
    }
}

#[test]
fn a_connection_that_nobody_answers_is_given_up_in_time() {
    // Nobody listens there, and the kernel says so at once.
    let dead = format!("{}:9", own_loopback_ip());
    let proxy = Proxy::before_upstream(
        dead,
        // Pauses vary by a fifth: the first one fits, and two never do.
        ", retries: { max: 2, backoff: { base: 2s, max: 2s } }, timeouts: { request: 3s }",
    );
    let began = Instant::now();
    let response = once(proxy.address("inbound"), get("/x"));
    assert_eq!((response.status, response.reason()), (503, Some("connect_failure; hop=inbound")));
    assert_eq!(response.head.get("x-outrigger-retry-refused"), Some("deadline"));
    assert!(began.elapsed() < Duration::from_secs(3), "the second pause would have gone beyond the deadline");
}

#[test]
fn a_hedge_answers_where_the_first_attempt_is_late() {
    let slow = Upstream::scripted(|served| while served.request().is_some() {});
    let live = Upstream::ok();
    let proxy = before(&[&slow, &live], "max: 1, hedge: 100ms", ", timeouts: { response: 5s }");
    for nth in 0..4 {
        assert_eq!(once(proxy.address("inbound"), get("/get")).status, 200, "{nth}");
    }
    assert!(proxy.metric("outrigger_hedges_total", &[("outcome", "won")]) >= 1.0);
    let hedged = live.requests().into_iter().filter(|request| request.head.get("x-outrigger-attempt") == Some("2"));
    assert!(hedged.count() >= 1);
    // What is late is given up: its connection ends.
    slow.all_closed();
    let line = eventually_some("a line with two attempts", || {
        proxy.log_lines().into_iter().find(|line| line["attempts"] == 2)
    });
    assert_eq!(line["endpoint"], live.address().to_string());
    // That it takes at least so long is known of it now.
    let all: serde_json::Value = serde_json::from_str(&proxy.admin_get("/upstreams").text()).unwrap();
    let latency = all["upstreams"][0]["endpoints"][0]["latency_ms"].as_f64();
    assert!(latency.is_some_and(|latency| latency >= 100.0), "{latency:?}");
    // A POST is never sent twice for being late.
    let before = slow.count("/post") + live.count("/post");
    std::thread::scope(|scope| {
        let _posts: Vec<_> = (0..2).map(|_| scope.spawn(|| send(&proxy, "POST", "/post", "", "x"))).collect();
    });
    assert_eq!(slow.count("/post") + live.count("/post") - before, 2);
}

#[test]
fn a_hedge_that_fails_first_is_judged_and_the_first_attempt_answers() {
    let gate = Gate::new();
    let held = gate.clone();
    let late = Upstream::scripted(move |served| {
        while served.request().is_some() {
            held.wait("the other attempt to fail");
            if served.try_send(OK).is_err() {
                return;
            }
        }
    });
    let broken = Upstream::answering("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    let proxy = before(&[&late, &broken], "max: 1, hedge: 50ms", "");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            // Of two in a row one begins at the late endpoint.
            [once(proxy.address("inbound"), get("/")).status, once(proxy.address("inbound"), get("/")).status]
        });
        let is_hedge = |request: &Request| request.head.get("x-outrigger-attempt") == Some("2");
        eventually("a second attempt to fail", || broken.requests().iter().any(is_hedge));
        // Be the first still out: what has failed has failed.
        let failed = broken.requests().len() as f64;
        proxy.metric_reaches("outrigger_attempt_duration_seconds_count", &[("outcome", "5xx")], failed);
        gate.open();
        let statuses = asked.join().unwrap();
        assert!(statuses.contains(&200), "{statuses:?}");
    });
    let lost = proxy.metric("outrigger_hedges_total", &[("outcome", "lost")]);
    let failed = proxy.metric("outrigger_attempt_duration_seconds_count", &[("outcome", "5xx")]);
    assert!(lost >= 1.0 && failed >= lost, "{lost} lost, {failed} failed");
}

#[test]
fn a_client_that_leaves_before_a_retry_has_had_no_answer() {
    let later = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n";
    let (one, other) = (Upstream::answering(later), Upstream::answering(later));
    let proxy = before(&[&one, &other], "max: 1, when: [gateway_error]", ", timeouts: { request: 60s }");
    let mut client = proxy.client();
    client.send(get("/left"));
    proxy.metric_reaches("outrigger_attempt_duration_seconds_count", &[("outcome", "gateway_error")], 1.0);
    client.reset();
    let line = proxy.log_line("/left");
    assert_eq!((&line["code"], &line["reason"]), (&499.into(), &"client_cancelled".into()), "{line}");
}

#[test]
fn a_body_that_has_come_as_a_whole_goes_out_with_a_hedge() {
    let (slow, live) = (Upstream::scripted(|served| drop((served.request(), served.rest()))), Upstream::ok());
    let proxy = before(&[&slow, &live], "max: 1, hedge: 3s", ", timeouts: { response: 60s }");
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
    // Of two in a row one begins at the endpoint that says nothing.
    for _ in 0..2 {
        let mut client = proxy.client();
        client.send(put);
        // The body is no part of the packet that brings the head.
        proxy.metric_reaches("outrigger_upstream_requests_in_flight", &[("upstream", "app")], 1.0);
        client.send("body");
        assert_eq!(client.response().status, 200);
    }
    let hedged = live.requests().into_iter().find(|request| request.head.get("x-outrigger-attempt") == Some("2"));
    assert_eq!(hedged.map(|request| request.body.data), Some(b"body".to_vec()));
}

/// One endpoint says `answer` after a hedge has begun, the other nothing at all; what clients get that begin at either.
fn against_one_that_hangs(answer: &'static str, response: &str) -> (Vec<u16>, Proxy) {
    let (asks, asked) = std::sync::mpsc::channel();
    let asked = std::sync::Mutex::new(asked);
    let silent = Upstream::scripted(move |served| {
        if served.request().is_some() {
            let _ = asks.send(());
        }
        served.rest();
    });
    let late = Upstream::scripted(move |served| {
        while served.request().is_some() {
            // Not before the race has begun.
            let begun = asked.lock().unwrap().recv_timeout(PATIENCE);
            if begun.is_err() || served.try_send(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let more = format!(", ejection: none, timeouts: {{ response: {response} }}");
    let proxy = before(&[&late, &silent], "max: 1, when: [connect_failure], hedge: 50ms", &more);
    let statuses = (0..2).map(|_| once(proxy.address("inbound"), get("/")).status).collect();
    (statuses, proxy)
}

#[test]
fn a_hedge_that_hangs_does_not_hold_up_a_4xx() {
    let (statuses, proxy) = against_one_that_hangs("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "8s");
    assert_eq!(statuses, [404, 404]);
    // Nobody was waited for: neither was given up for being late.
    let late = [("outcome", "response_timeout")];
    assert_eq!(proxy.metric("outrigger_attempt_duration_seconds_count", &late), 0.0);
}

#[test]
fn where_a_hedge_brings_nothing_the_bad_answer_goes_to_the_client() {
    let (statuses, proxy) =
        against_one_that_hangs("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", "3s");
    assert_eq!(statuses, [500, 500]);
    for outcome in ["5xx", "response_timeout"] {
        let ended = proxy.metric("outrigger_attempt_duration_seconds_count", &[("outcome", outcome)]);
        assert_eq!(ended, 2.0, "{outcome}");
    }
}

#[test]
fn a_retry_after_a_race_goes_to_neither_of_those_who_lost_it() {
    let late = Upstream::scripted(|served| {
        while served.request().is_some() {
            std::thread::sleep(Duration::from_millis(150));
            if served.try_send(UNAVAILABLE).is_err() {
                return;
            }
        }
    });
    let (broken, live) = (busy(), Upstream::ok());
    let retries = "max: 2, when: [gateway_error], hedge: 30ms, budget: { min_per_second: 100 }";
    let proxy = before(&[&late, &broken, &live], retries, ", ejection: none");
    for nth in 0..9 {
        assert_eq!(once(proxy.address("inbound"), get("/")).status, 200, "{nth}");
    }
    assert!(proxy.metric("outrigger_hedges_total", &[]) >= 1.0);
}

#[test]
fn a_request_that_was_held_up_here_counts_from_when_it_goes_out() {
    let upstream = busy();
    let config = "
workers: 1
listeners:
  inbound: { address: 127.0.0.1:0, routes: [{ upstream: app, fault: { delay: 1500ms, ratio: 1 } }] }
upstreams:
  app:
    static: [\"@app\"]
    retries: { max: 1, when: [gateway_error], backoff: { base: 0s }, budget: { ratio: 1, min_per_second: 0, window: 1s } }
";
    let proxy = Proxy::start(config, &[("@app", &upstream.address())]);
    assert_eq!(once(proxy.address("inbound"), get("/")).status, 503);
    assert_eq!(upstream.count("/"), 2);
}

#[test]
fn a_hedge_can_begin_when_most_answers_would_have_come() {
    let slow_once = AtomicUsize::new(0);
    let upstream = Upstream::scripted(move |served| {
        while served.request().is_some() {
            if slow_once.fetch_add(1, Ordering::SeqCst) == 60 {
                std::thread::sleep(Duration::from_secs(2));
            }
            if served.try_send(OK).is_err() {
                return;
            }
        }
    });
    let proxy = before(&[&upstream], "max: 1, hedge: { percentile: 0.95 }", "");
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(once(proxy.address("inbound"), get("/")).status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(2), "the late one was overtaken");
    assert!(proxy.metric("outrigger_hedges_total", &[("outcome", "won")]) >= 1.0);
}

/// How often a request got as far as an application: its head came as a whole.
fn processed(upstreams: &[&Upstream], path: &str) -> usize {
    upstreams.iter().map(|upstream| upstream.received_text().matches(&format!("{path} HTTP/1.1\\r\\n")).count()).sum()
}

/// Reads so many bytes of requests, sends so many of a response, and resets.
#[derive(Clone, Copy, Debug)]
struct Cut {
    read: usize,
    sent: usize,
}

#[test]
fn a_post_is_never_sent_twice_wherever_its_connection_breaks() {
    const REQUEST: &str = "POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
    // The request is longer on its way on; beyond its end, positions are the response's.
    let whole = {
        let upstream = Upstream::ok();
        let proxy = Proxy::before(upstream.address());
        once(proxy.address("inbound"), REQUEST);
        upstream.received(0).len()
    };
    let cuts = (0..=whole).map(|read| Cut { read, sent: 0 });
    let cuts = cuts.chain((0..RESPONSE.len()).map(|sent| Cut { read: whole, sent }));
    let cut = Arc::new(std::sync::Mutex::new(Cut { read: 0, sent: 0 }));
    let script = |cut: &Arc<std::sync::Mutex<Cut>>| {
        let cut = cut.clone();
        Upstream::scripted(move |served| {
            let Cut { read, sent } = *cut.lock().unwrap();
            if served.exactly_or_end(read).is_some() {
                served.send(&RESPONSE[..sent]);
            }
            served.reset();
        })
    };
    let (first, second) = (script(&cut), script(&cut));
    let proxy = before(&[&first, &second], &format!("max: 3, when: {EVERYTHING}"), "");
    for next in cuts {
        *cut.lock().unwrap() = next;
        let before = first.connections() + second.connections();
        let processed_before = processed(&[&first, &second], "POST /cut");
        let mut client = Client::connect(proxy.address("inbound"));
        client.send(REQUEST);
        let response = client.response_or_end("POST");
        assert!(response.is_none_or(|response| response.status == 502 || !response.body.complete), "{next:?}");
        let arrived = first.connections() + second.connections() - before;
        // One that is reset as soon as it is accepted may be found so before anything is sent on it.
        assert!(arrived == 1 || next.read == 0, "{next:?}: a POST went out on {arrived} connections");
        let processed = processed(&[&first, &second], "POST /cut") - processed_before;
        assert!(processed <= 1, "{next:?}: an application saw it {processed} times");
    }
    // The same for a GET shows that the cuts are ones after which something would have been sent again.
    *cut.lock().unwrap() = Cut { read: 20, sent: 0 };
    let before = first.connections() + second.connections();
    once(proxy.address("inbound"), get("/get"));
    assert_eq!(first.connections() + second.connections() - before, 4);
}
