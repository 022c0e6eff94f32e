//! What DNS can say, and what must happen. The nameserver is scripted: it fails, lies and stalls to order.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::nameserver::{Nameserver, Reply};
use crate::support::proxy::Setup;
use crate::support::traffic::named;
use crate::support::wait::within;
use crate::support::{Proxy, eventually};

/// One case: what is looked up, what the server says, which endpoints there must be (addresses and weights), and what must
/// be in the error.
struct Case {
    upstream: &'static str,
    said: Vec<(&'static str, Reply)>,
    endpoints: &'static str,
    error: &'static str,
}

fn cases() -> Vec<Case> {
    let a = |records: &[&str]| Reply::records(records);
    let case = |upstream, said, endpoints, error| Case { upstream, said, endpoints, error };
    vec![
        case(
            "dns://both.test:80",
            vec![
                ("both.test. A", a(&["both.test. 60 A 127.0.0.2", "both.test. 60 A 127.0.0.1"])),
                ("both.test. AAAA", a(&["both.test. 60 AAAA ::1"])),
            ],
            "127.0.0.1:80 127.0.0.2:80 [::1]:80",
            "",
        ),
        case(
            "dns://v4.test:80",
            vec![("v4.test. A", a(&["v4.test. 60 A 127.0.0.1"])), ("v4.test. AAAA", Reply::no_data(60))],
            "127.0.0.1:80",
            "",
        ),
        // Half an answer: the other half is used, and the failure is told.
        case(
            "dns://v6fails.test:80",
            vec![("v6fails.test. A", a(&["v6fails.test. 60 A 127.0.0.1"])), ("v6fails.test. AAAA", Reply::code(2))],
            "127.0.0.1:80",
            "v6fails.test. AAAA",
        ),
        case(
            "dns://v4fails.test:80",
            vec![("v4fails.test. A", Reply::code(2)), ("v4fails.test. AAAA", Reply::no_data(60))],
            "",
            "v4fails.test. A: ",
        ),
        case(
            "dns://v6silent.test:80",
            vec![
                ("v6silent.test. A", a(&["v6silent.test. 60 A 127.0.0.1"])),
                ("v6silent.test. AAAA", Reply::silence()),
            ],
            "127.0.0.1:80",
            "v6silent.test. AAAA",
        ),
        // Consul answers for the other family what it has of this one.
        case(
            "dns://v4only.test:80",
            vec![
                ("v4only.test. A", a(&["v4only.test. 60 A 127.0.0.1"])),
                ("v4only.test. AAAA", a(&["v4only.test. 60 A 127.0.0.1"])),
            ],
            "127.0.0.1:80",
            "",
        ),
        // Some servers deny the whole name where only one type is missing (RFC 4074, 4.2).
        case(
            "dns://v6denied.test:80",
            vec![
                ("v6denied.test. A", a(&["v6denied.test. 60 A 127.0.0.1"])),
                ("v6denied.test. AAAA", Reply::no_name(60)),
            ],
            "127.0.0.1:80",
            "",
        ),
        case("dns://nobody.test:80", vec![], "", ""),
        // Where nobody can be reached but this machine itself.
        case(
            "dns://blocked.test:80",
            vec![("blocked.test. A", a(&["blocked.test. 60 A 0.0.0.0"])), ("blocked.test. AAAA", Reply::no_data(60))],
            "",
            "",
        ),
        case(
            "srv://_http._tcp.portless.test",
            vec![
                ("_http._tcp.portless.test. SRV", a(&["_http._tcp.portless.test. 60 SRV 1 1 0 real.test."])),
                ("real.test. A", a(&["real.test. 60 A 127.0.0.3"])),
                ("real.test. AAAA", Reply::no_data(60)),
            ],
            "",
            "",
        ),
        case("dns://refused.test:80", vec![("refused.test. A", Reply::code(5))], "", "refused.test. A: "),
        case(
            "dns://silent.test:80",
            vec![("silent.test. A", Reply::silence()), ("silent.test. AAAA", Reply::silence())],
            "",
            "no answer",
        ),
        // A server that refers to others resolves nothing: that is no empty answer.
        case(
            "dns://referred.test:80",
            vec![
                ("referred.test. A", Reply::default().authority(&["test. 60 NS ns.test."])),
                ("referred.test. AAAA", Reply::no_data(60)),
            ],
            "",
            "only names other servers",
        ),
        // The answer is somebody else's.
        case(
            "dns://foreign.test:80",
            vec![("foreign.test. A", a(&["evil.test. 60 A 127.0.0.9"])), ("foreign.test. AAAA", Reply::no_data(60))],
            "",
            "answers something else",
        ),
        case(
            "dns://large.test:80",
            vec![
                ("large.test. A", a(&["large.test. 60 A 127.0.0.1", "large.test. 60 A 127.0.0.2"]).cut_over_udp()),
                ("large.test. AAAA", Reply::no_data(60).cut_over_udp()),
            ],
            "127.0.0.1:80 127.0.0.2:80",
            "",
        ),
        // An alias with its target's address, and one whose target has to be asked for.
        case(
            "dns://alias.test:80",
            vec![
                ("alias.test. A", a(&["alias.test. 60 CNAME real.test.", "real.test. 60 A 127.0.0.1"])),
                ("alias.test. AAAA", a(&["alias.test. 60 CNAME real.test."])),
                ("real.test. AAAA", Reply::no_data(60)),
            ],
            "127.0.0.1:80",
            "",
        ),
        case(
            "dns://dangling.test:80",
            vec![
                ("dangling.test. A", a(&["dangling.test. 60 CNAME gone.test."])),
                ("dangling.test. AAAA", a(&["dangling.test. 60 CNAME gone.test."])),
            ],
            "",
            "",
        ),
        case(
            "dns://round.test:80",
            vec![
                ("round.test. A", a(&["round.test. 60 CNAME about.test.", "about.test. 60 CNAME round.test."])),
                ("round.test. AAAA", Reply::no_data(60)),
            ],
            "",
            "go round",
        ),
        case(
            "srv://_http._tcp.web.test",
            vec![
                (
                    "_http._tcp.web.test. SRV",
                    a(&[
                        "_http._tcp.web.test. 60 SRV 10 3 8080 one.test.",
                        "_http._tcp.web.test. 60 SRV 10 1 8081 two.test.",
                        "_http._tcp.web.test. 60 SRV 20 1 8082 spare.test.",
                    ]),
                ),
                ("one.test. A", a(&["one.test. 60 A 127.0.0.1"])),
                ("one.test. AAAA", Reply::no_data(60)),
                ("two.test. A", a(&["two.test. 60 A 127.0.0.2"])),
                ("two.test. AAAA", Reply::no_data(60)),
            ],
            "127.0.0.1:8080*3 127.0.0.2:8081 127.0.0.3:8082",
            "",
        ),
        // The lowest priority is gone: there is only the next one.
        case(
            "srv://_http._tcp.moved.test",
            vec![
                (
                    "_http._tcp.moved.test. SRV",
                    a(&[
                        "_http._tcp.moved.test. 60 SRV 10 1 8080 gone.test.",
                        "_http._tcp.moved.test. 60 SRV 20 1 8082 spare.test.",
                    ]),
                ),
                ("spare.test. A", a(&["spare.test. 60 A 127.0.0.3"])),
                ("spare.test. AAAA", Reply::no_data(60)),
            ],
            "127.0.0.3:8082",
            "",
        ),
        case(
            "srv://_http._tcp.none.test",
            vec![("_http._tcp.none.test. SRV", a(&["_http._tcp.none.test. 60 SRV 0 0 0 ."]))],
            "",
            "",
        ),
        case("srv://_http._tcp.fails.test", vec![("_http._tcp.fails.test. SRV", Reply::code(2))], "", "SRV: "),
        // Addresses that come along with the record are not asked for again.
        case(
            "srv://_http._tcp.along.test",
            vec![(
                "_http._tcp.along.test. SRV",
                a(&["_http._tcp.along.test. 60 SRV 1 1 8080 along.test."])
                    .additional(&["along.test. 60 A 127.0.0.4", "evil.test. 60 A 127.0.0.9"]),
            )],
            "127.0.0.4:8080",
            "",
        ),
    ]
}

#[test]
fn each_answer_has_its_meaning() {
    let server = Nameserver::start();
    let cases = cases();
    let mut config = format!("dns: {{ servers: \"{}\" }}\nwait_for_discovery: 0s\nlisteners:\n", server.address());
    config.push_str("  inbound:\n    address: 127.0.0.1:0\n    routes:\n");
    for (number, case) in cases.iter().enumerate() {
        config.push_str(&format!("      - {{ match: {{ host: case{number} }}, upstream: \"{}\" }}\n", case.upstream));
        for (question, reply) in &case.said {
            server.say(question, reply.clone());
        }
    }
    let proxy = Proxy::start(&config, &[]);
    for (number, case) in cases.iter().enumerate() {
        let mut last = Value::Null;
        let right = within(Duration::from_secs(20), || {
            last = upstream(&proxy, case.upstream);
            let discovery = &last["discovery"];
            let error = discovery["error"].as_str().unwrap_or_default();
            let failed = !case.error.is_empty();
            let settled = discovery["answered"] == json!(true) || failed;
            let right =
                settled && shown(&last) == case.endpoints && failed != error.is_empty() && error.contains(case.error);
            right.then_some(())
        });
        assert!(right.is_some(), "{}: {} and {:?} expected, and not {last}", case.upstream, case.endpoints, case.error);
        if case.endpoints.is_empty() {
            let reason = if case.error.is_empty() { "no_endpoint" } else { "discovery_failed" };
            let response = proxy.client().exchange(format!("GET / HTTP/1.1\r\nHost: case{number}\r\n\r\n"));
            let said = response.head.get("x-outrigger-reason").unwrap_or_default().to_owned();
            assert_eq!((response.status, said.split(';').next()), (503, Some(reason)), "{}", case.upstream);
        }
    }
    assert_eq!(server.asked("along.test. A"), 0);
}

#[test]
fn an_answer_holds_as_long_as_the_shortest_record_of_its_chain() {
    let server = Nameserver::start();
    server.say("alias.test. AAAA", Reply::no_data(3600));
    server.say("real.test. AAAA", Reply::no_data(3600));
    for (alias, real) in [(1, 300), (300, 1)] {
        let records = |ip: &str| {
            let (alias, real) = (format!("alias.test. {alias} CNAME real.test."), format!("real.test. {real} A {ip}"));
            Reply::records(&[&alias, &real])
        };
        server.say("alias.test. A", records("127.0.0.1"));
        let proxy = before(&server, "{ dns: { name: alias.test, port: 80 } }", "", 0);
        eventually("the first answer", || shown(&app(&proxy)) == "127.0.0.1:80");
        server.say("alias.test. A", records("127.0.0.2"));
        eventually("the alias leads elsewhere", || shown(&app(&proxy)) == "127.0.0.2:80");
        eventually("it is asked again and again", || server.asked("alias.test. A") >= 4);
    }
    assert_eq!(server.asked("alias.test. AAAA"), 2, "once by each proxy: an empty answer holds as long as it says");
}

#[test]
fn a_failing_server_changes_nothing_until_the_answer_is_too_old() {
    let server = Nameserver::start();
    let a = named("a");
    let port = a.address().port();
    server.say("web.test. A", Reply::records(&["web.test. 0 A 127.0.0.1"]));
    server.say("web.test. AAAA", Reply::no_data(1));
    let proxy = before(&server, "dns://web.test:@port", "min_ttl: 200ms, stale: 3s", port);
    eventually("the first answer", || proxy.client().get("/").text() == "a");
    for (failure, reply) in [("SERVFAIL", Reply::code(2)), ("silence", Reply::silence())] {
        let failures = app(&proxy)["discovery"]["failures"].as_u64().unwrap();
        server.say("web.test. A", reply.clone());
        server.say("web.test. AAAA", reply);
        eventually(failure, || app(&proxy)["discovery"]["failures"].as_u64().unwrap() > failures);
        assert_eq!(proxy.client().get("/").text(), "a", "{failure}");
        server.say("web.test. A", Reply::records(&["web.test. 0 A 127.0.0.1"]));
        server.say("web.test. AAAA", Reply::no_data(1));
        eventually("it is well again", || app(&proxy)["discovery"]["error"].is_null());
    }
    server.say("web.test. A", Reply::code(2));
    server.say("web.test. AAAA", Reply::code(2));
    eventually("the answer is too old", || proxy.client().get("/").status == 503);
    let response = proxy.client().get("/");
    assert!(response.head.get("x-outrigger-reason").unwrap().starts_with("discovery_failed"), "{}", response.head);
    server.say("web.test. A", Reply::records(&["web.test. 0 A 127.0.0.1"]));
    eventually("it is well again", || proxy.client().get("/").text() == "a");
}

#[test]
fn that_one_family_fails_is_not_told_as_if_all_did() {
    let server = Nameserver::start();
    server.say("web.test. A", Reply::records(&["web.test. 60 A 127.0.0.1"]));
    server.say("web.test. AAAA", Reply::code(2));
    let proxy = before(&server, "dns://web.test:80", "", 0);
    let warned = |what: &str| proxy.admin_get("/readyz").text().contains(what);
    let partly = "; its 1 endpoints rest on those that do not";
    eventually("one family fails", || warned(partly));
    assert!(
        warned("upstream app: some of its look-ups fail (web.test. AAAA: "),
        "{}",
        proxy.admin_get("/readyz").text()
    );
    // It is asked again, and fails again; the other family's answer holds still.
    let asked = server.asked("web.test. AAAA");
    eventually("the next question", || server.asked("web.test. AAAA") > asked + 1);
    assert!(warned(partly), "{}", proxy.admin_get("/readyz").text());
    server.say("web.test. AAAA", Reply::no_data(60));
    eventually("nothing fails", || !warned("upstream app"));
}

#[test]
fn an_empty_answer_is_taken_as_on_empty_says() {
    let server = Nameserver::start();
    let a = named("a");
    let port = a.address().port();
    let there = Reply::records(&["web.test. 0 A 127.0.0.1"]);
    for (on_empty, kept) in [("drop", false), ("{ keep: 1h }", true)] {
        server.say("web.test. A", there.clone());
        let upstream = format!("{{ dns: {{ name: web.test, port: @port }}, on_empty: {on_empty} }}");
        let proxy = before(&server, &upstream, "min_ttl: 200ms", port);
        eventually("the first answer", || proxy.client().get("/").text() == "a");
        server.say("web.test. A", Reply::no_name(0));
        match kept {
            false => eventually("nobody", || proxy.client().get("/").status == 503),
            true => {
                eventually("it is told", || app(&proxy)["discovery"]["kept_for_seconds"].is_number());
                assert_eq!(proxy.client().get("/").text(), "a");
            }
        }
        server.say("web.test. A", there.clone());
        eventually("it is back", || proxy.client().get("/").text() == "a");
    }
}

#[test]
fn servers_are_asked_in_turn() {
    let (first, second) = (Nameserver::start(), Nameserver::start());
    let a = named("a");
    let port = a.address().port();
    first.say("web.test. A", Reply::code(2));
    first.say("web.test. AAAA", Reply::code(5));
    second.say("web.test. A", Reply::records(&["web.test. 60 A 127.0.0.1"]));
    second.say("web.test. AAAA", Reply::no_data(60));
    let servers = format!("\"{}\", \"{}\"", first.address(), second.address());
    let config = "
dns: { servers: [@servers] }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: \"dns://web.test:@port\" }
";
    let proxy = Proxy::start(config, &[("@servers", &servers), ("@port", &port)]);
    assert_eq!(proxy.client().get("/").text(), "a");
    assert!(first.asked("web.test. A") == 1 && second.asked("web.test. A") == 1);
}

#[test]
fn a_server_beyond_those_that_use_up_the_time_is_asked_next() {
    let servers: Vec<_> = std::iter::repeat_with(Nameserver::start).take(4).collect();
    let a = named("a");
    for silent in &servers[..3] {
        silent.say("web.test. A", Reply::silence());
        silent.say("web.test. AAAA", Reply::silence());
    }
    servers[3].say("web.test. A", Reply::records(&["web.test. 60 A 127.0.0.1"]));
    servers[3].say("web.test. AAAA", Reply::no_data(60));
    let addresses: Vec<_> = servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
    let config = "
dns: { servers: [@servers] }
wait_for_discovery: 0s
listeners:
  inbound: { address: 127.0.0.1:0, upstream: \"dns://web.test:@port\" }
";
    let proxy = Proxy::start(config, &[("@servers", &addresses.join(", ")), ("@port", &a.address().port())]);
    // The time of a whole look-up, and a pause.
    let answered = within(Duration::from_secs(20), || (proxy.client().get("/").text() == "a").then_some(()));
    assert!(answered.is_some(), "the fourth is not asked");
}

#[test]
fn the_requests_deadline_holds_while_names_are_looked_up() {
    let server = Nameserver::start();
    server.say("web.test. A", Reply::silence());
    server.say("web.test. AAAA", Reply::silence());
    let config = "
dns: { servers: \"@server\" }
wait_for_discovery: 0s
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: { dns: \"web.test:80\", timeouts: { request: 200ms, connect: none } }
";
    let proxy = Proxy::start(config, &[("@server", &server.address())]);
    // Where it did not hold, nothing would come before the look-up has failed, again and again.
    let answer = proxy.client().get("/");
    assert_eq!(answer.status, 504);
    assert!(answer.head.get("x-outrigger-reason").unwrap().starts_with("request_timeout"), "{}", answer.head);
}

/// A proxy before the upstream `app`.
fn before(server: &Nameserver, upstream: &str, dns: &str, port: u16) -> Proxy {
    let config = "
dns: { servers: \"@server\", @dns }
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app: @upstream
";
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("@server", &server.address()), ("@dns", &dns), ("@upstream", &upstream), ("@port", &port)];
    Setup::new(config, &values).start()
}

fn app(proxy: &Proxy) -> Value {
    upstream(proxy, "app")
}

/// What `/upstreams` says of it.
pub fn upstream(proxy: &Proxy, name: &str) -> Value {
    let upstreams: Value = serde_json::from_str(&proxy.admin_get("/upstreams").text()).unwrap();
    let found = upstreams["upstreams"].as_array().unwrap().iter().find(|upstream| upstream["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {upstreams}")).clone()
}

/// Its endpoints: `127.0.0.1:80 127.0.0.2:80*3`.
pub fn shown(upstream: &Value) -> String {
    let endpoints = upstream["endpoints"].as_array().unwrap().iter().map(|endpoint| {
        let address = endpoint["address"].as_str().unwrap();
        match endpoint["weight"].as_u64() {
            Some(1) => address.to_owned(),
            weight => format!("{address}*{}", weight.unwrap_or_default()),
        }
    });
    endpoints.collect::<Vec<_>>().join(" ")
}
