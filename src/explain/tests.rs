use super::*;
use crate::config::{Document, LoadOptions, load};

const CONFIG: &str = r#"
defaults: { timeouts: { connect: 2s } }
listeners:
  inbound: { address: ":15006", upstream: "127.0.0.1:8080" }
  outbound:
    address: 127.0.0.1:15001
    routes:
      - { match: { host: search }, upstream: search }
      - name: canary
        match: { host: payments, headers: { x-canary: "true" }, method: GET }
        upstream: search
      - name: refunds
        match: { host: payments, path: /v1 }
        rewrite: { path_prefix: /, host: payments.internal }
        request_headers: { set: { x-route: "%{route}", x-from: "%{client.address}" }, remove: [x-secret] }
        timeouts: { response: 2s }
        split: { payments: 3, search: 1 }
      - { match: { path: /old }, redirect: { path: /new } }
      - { match: { host: static }, respond: { status: 204 } }
      - { match: { host: "*.consul" }, discover: { from: consul, deny: [secret] } }
  database: { address: "127.0.0.1:15432", mode: tcp, upstream: "127.0.0.1:5432" }
upstreams:
  payments:
    static: ["10.0.0.1:80"]
    timeouts: { per_try: 1s }
    retries: { max: 2, when: [connect_failure, gateway_error] }
  search: { consul: search, load_balancer: { maglev: { header: x-user } } }
"#;

fn explained(method: &str, url: &str, headers: &[&str], only: Option<&str>) -> Result<Explanation, String> {
    let document = Document { name: "test", bytes: CONFIG.as_bytes() };
    let config = load(document, &|_: &str| None, &LoadOptions::default()).unwrap().config;
    let snapshot = compile(&config).unwrap();
    explain(&Asked::parse(method, url, headers.iter().copied()).unwrap(), only, &config, &snapshot, false)
}

fn at_outbound(method: &str, url: &str, headers: &[&str]) -> report::Listener {
    explained(method, url, headers, Some("outbound")).unwrap().listeners.remove(0)
}

#[test]
fn each_listener_that_sees_requests_is_asked_unless_one_is_meant() {
    let names = |url: &str, only: Option<&str>| -> Vec<String> {
        explained("GET", url, &[], only).unwrap().listeners.into_iter().map(|listener| listener.name).collect()
    };
    assert_eq!(names("http://payments/", None), ["inbound", "outbound"]);
    assert_eq!(names("http://localhost:15001/", None), ["outbound"]);
    assert_eq!(names("http://payments/", Some("inbound")), ["inbound"]);
    assert!(explained("GET", "/", &[], Some("database")).unwrap_err().contains("mode: tcp"));
    assert!(explained("GET", "/", &[], Some("other")).unwrap_err().contains("`inbound`, `outbound` and `database`"));
}

#[test]
fn routes_before_the_one_that_matches_are_told_with_what_they_lack() {
    let listener = at_outbound("POST", "http://payments/v1/refunds", &["x-canary: false"]);
    let because: Vec<_> =
        listener.skipped.iter().map(|skipped| (&*skipped.route, skipped.because.join("; "))).collect();
    assert_eq!(
        because,
        [
            ("search", "host is payments, not search".to_owned()),
            ("canary", "method is POST, not GET; header x-canary is \"false\", not \"true\"".to_owned()),
        ]
    );
    assert_eq!(listener.route.map(|route| (route.name, route.position)), Some(("refunds".to_owned(), 3)));
    let nowhere = at_outbound("GET", "http://payments/v2", &[]);
    assert!(nowhere.route.is_none() && nowhere.refused.unwrap().starts_with("no_route"));
    assert_eq!(nowhere.skipped[2].because, ["path is /v2, not /v1 or below"]);
    assert_eq!(nowhere.skipped.len(), 6);
}

#[test]
fn what_goes_out_is_what_the_rules_make_of_it() {
    let sends =
        at_outbound("GET", "http://payments/v1/a?b", &["x-secret: 1", "Connection: close"]).route.unwrap().sends;
    let sends = sends.unwrap();
    assert_eq!((&*sends.target, &*sends.host), ("/a?b", "payments.internal"));
    let mut told: Vec<_> = sends.headers.iter().map(|change| format!("{:?} {}", change.change, change.name)).collect();
    told.sort();
    assert_eq!(told, ["Removed connection", "Removed x-secret", "Set x-from", "Set x-route"]);
    let route = at_outbound("GET", "http://a/old?b", &[]).route.unwrap();
    assert_eq!(route.redirect.map(|redirect| redirect.location), Some("/new?b".to_owned()));
    assert_eq!(at_outbound("GET", "http://static/", &[]).route.unwrap().respond.map(|answer| answer.status), Some(204));
}

#[test]
fn timeouts_say_who_has_said_them() {
    let route = at_outbound("GET", "http://payments/v1", &[]).route.unwrap();
    let said: Vec<_> = route.upstreams[0].timeouts.iter().map(|t| (&*t.name, &*t.value, t.from)).collect();
    assert_eq!(
        said,
        [
            ("connect", "2s", report::Origin::Defaults),
            ("response", "2s", report::Origin::Route),
            ("per_try", "1s", report::Origin::Upstream),
            ("idle", "1m", report::Origin::BuiltIn),
            ("request", "none", report::Origin::BuiltIn),
            ("tunnel_idle", "1h", report::Origin::BuiltIn),
        ]
    );
    let grpc = ["content-type: application/grpc", "grpc-timeout: 300m"];
    let route = at_outbound("POST", "http://search/", &grpc).route.unwrap();
    let said: Vec<_> = route.upstreams[0].timeouts.iter().map(|t| (&*t.name, &*t.value, t.from)).collect();
    assert_eq!(said[1], ("response", "none", report::Origin::BuiltIn));
    assert_eq!(said[3], ("idle", "5m", report::Origin::BuiltIn));
    assert_eq!(said[4], ("request", "300ms", report::Origin::Client));
}

#[test]
fn the_verdict_on_retries_is_that_of_the_requests_way() {
    let verdict = |method: &str, host: &str, headers: &[&str]| {
        let route = at_outbound(method, &format!("http://{host}/v1"), headers).route.unwrap();
        route.upstreams.into_iter().next().unwrap().retries
    };
    let get = verdict("GET", "payments", &[]);
    assert!(
        get.repeatable
            && get.max == 2
            && get.verdict.starts_with("up to 2 times more on connect_failure, gateway_error")
    );
    let post = verdict("POST", "payments", &[]);
    assert!(!post.repeatable && post.verdict.contains("only while no endpoint has seen it"), "{}", post.verdict);
    assert!(verdict("POST", "payments", &["idempotency-key: 7"]).repeatable);
    let nested = verdict("GET", "payments", &["x-outrigger-attempt: 2"]);
    assert!(nested.max == 0 && nested.verdict.starts_with("never here"));
    let beside = explained("GET", "http://a/", &[], Some("inbound")).unwrap().listeners.remove(0).route.unwrap();
    let by_default = "never: retries.max is 0, as it is by default where the only endpoint is on this machine";
    assert_eq!(beside.upstreams[0].retries.verdict, by_default);
}

#[test]
fn connect_is_for_loopback_listeners_of_apps_and_routes_with_a_host() {
    assert!(at_outbound("CONNECT", "search:443", &[]).route.is_some());
    let refused = explained("CONNECT", "search:443", &[], Some("inbound")).unwrap().listeners.remove(0).refused;
    assert!(refused.unwrap().starts_with("connect_not_allowed"));
    // IPv4's loopback in IPv6's form is loopback.
    let text = CONFIG.replace("127.0.0.1:15001", "\"[::ffff:127.0.0.1]:15001\"");
    let config = load(Document { name: "test", bytes: text.as_bytes() }, &|_: &str| None, &LoadOptions::default())
        .unwrap()
        .config;
    let asked = Asked::parse("CONNECT", "search:443", std::iter::empty::<&str>()).unwrap();
    let explained = explain(&asked, Some("outbound"), &config, &compile(&config).unwrap(), false).unwrap();
    assert!(explained.listeners[0].route.is_some());
}

#[test]
fn a_service_that_is_looked_up_when_called_is_told_by_its_host() {
    let endpoints = |host: &str| {
        let route = at_outbound("GET", &format!("http://{host}/"), &[]).route.unwrap();
        route.upstreams.into_iter().next().unwrap().endpoints
    };
    assert_eq!(endpoints("orders.consul"), "Consul's service orders, looked up when first called");
    assert!(endpoints("secret.consul").starts_with("nowhere: denied"));
}

#[test]
fn an_explanation_survives_being_sent() {
    let explanation = explained("GET", "http://payments/v1", &[], None).unwrap();
    let sent = serde_json::to_string(&explanation).unwrap();
    let received: Explanation = serde_json::from_str(&sent).unwrap();
    assert_eq!(page(&received, false), page(&explanation, false));
    assert!(page(&explanation, true).contains("\x1b["));
}

#[test]
fn what_came_from_the_environment_is_shown_as_written() {
    let text = "
listeners:
  outbound:
    address: 127.0.0.1:15001
    routes:
      - match: { host: a }
        upstream: \"127.0.0.1:1\"
        rewrite: { host: \"${SECRET}.internal\", path_prefix: \"/${SECRET}\" }
        request_headers: { set: { authorization: \"Bearer ${SECRET}\", x-plain: seen } }
      - { match: { host: b }, redirect: { path: \"/${SECRET}\" } }
      - { match: { host: c }, respond: { body: \"${SECRET}\" } }
";
    let document = Document { name: "test", bytes: text.as_bytes() };
    let secret = |name: &str| (name == "SECRET").then(|| "s3cr3t".to_owned());
    let config = load(document, &secret, &LoadOptions::default()).unwrap().config;
    let snapshot = compile(&config).unwrap();
    for (host, shown) in [("a", "Bearer ${SECRET}"), ("b", "/${SECRET}"), ("c", "${SECRET}")] {
        let asked = Asked::parse("GET", &format!("http://{host}/"), std::iter::empty::<&str>()).unwrap();
        let explained = explain(&asked, None, &config, &snapshot, false).unwrap();
        let json = serde_json::to_string(&explained).unwrap();
        assert!(!json.contains("s3cr3t") && json.contains(shown), "{json}");
        assert_eq!(host == "a", json.contains("seen"));
    }
}

#[test]
fn what_a_route_matches_is_shown_as_written_where_it_came_from_the_environment() {
    let text = "
listeners:
  outbound:
    address: 127.0.0.1:15001
    routes:
      - { match: { host: \"${SECRET}.internal\" }, upstream: \"127.0.0.1:1\" }
      - { match: { path: \"/${SECRET}\" }, upstream: \"127.0.0.1:1\" }
      - { match: { path: { exact: \"/e/${SECRET}\" } }, upstream: \"127.0.0.1:1\" }
      - { match: { path: { regex: \"/r/${SECRET}.*\" } }, upstream: \"127.0.0.1:1\" }
      - { match: { headers: { x-key: \"${SECRET}\" } }, upstream: \"127.0.0.1:1\" }
      - { match: { headers: { x-key: { regex: \"${SECRET}-.*\" } } }, upstream: \"127.0.0.1:1\" }
      - { match: { query: { key: { exact: \"q-${SECRET}\" } } }, upstream: \"127.0.0.1:1\" }
      - { match: { query: { other: { not: { not: \"n-${SECRET}\" } } } }, upstream: \"127.0.0.1:1\" }
";
    let document = Document { name: "test", bytes: text.as_bytes() };
    let secret = |name: &str| (name == "SECRET").then(|| "s3cr3t".to_owned());
    let config = load(document, &secret, &LoadOptions::default()).unwrap().config;
    let snapshot = compile(&config).unwrap();
    let asked = Asked::parse("GET", "http://a/?key=1", std::iter::empty::<&str>()).unwrap();
    let mut explained = explain(&asked, None, &config, &snapshot, false).unwrap();
    assert!(!serde_json::to_string(&explained).unwrap().contains("s3cr3t"));
    let skipped = explained.listeners.remove(0).skipped;
    let because: Vec<_> = skipped.iter().map(|skipped| skipped.because.join("; ")).collect();
    assert_eq!(
        because,
        [
            "host is a, not ${SECRET}.internal",
            "path is /, not /${SECRET} or below",
            "path is /, not exactly /e/${SECRET}",
            "path is /, which does not match /r/${SECRET}.*",
            "header x-key is missing, not \"${SECRET}\"",
            "header x-key is missing, and should match ${SECRET}-.*",
            "query key is \"1\", not \"q-${SECRET}\"",
            "query other is missing, not \"n-${SECRET}\"",
        ]
    );
}
