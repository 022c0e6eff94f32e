//! What `explain` says beforehand is what happens.

use std::process::Command;

use serde_json::Value;

use crate::support::client::once;
use crate::support::proxy::binary;
use crate::support::upstream::OK;
use crate::support::{Proxy, Response, Upstream};

const CONFIG: &str = "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { name: canary, match: { path: /v1, headers: { x-canary: \"true\" } }, upstream: next }
      - name: v1
        match: { host: [payments, \"*.payments\"], path: /v1, query: { dry: \"1\" } }
        rewrite: { path_prefix: /api, host: payments.internal }
        request_headers: { set: { x-route: \"%{route}\" }, remove: [x-secret] }
        upstream: app
      - { name: plain, match: { method: [GET, HEAD], path: { regex: \"/plain/[0-9]+\" } }, upstream: app }
      - { name: moved, match: { path: { exact: /old } }, redirect: { path: /new, status: 307 } }
upstreams:
  app: { static: [\"@app\"] }
  next: { static: [\"@next\"] }
";

fn command(proxy: &Proxy, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.arg("explain").args(words);
    if words.contains(&"--live") {
        command.arg("--admin").arg(proxy.admin().to_string());
    }
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// What `explain --live --json` says of the only listener.
#[track_caller]
fn explained(proxy: &Proxy, method: &str, url: &str, headers: &[&str]) -> Value {
    let mut words = vec!["--live", "--json", method, url];
    headers.iter().for_each(|header| words.extend(["-H", header]));
    let (code, said) = command(proxy, &words);
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str::<Value>(&said).unwrap()["listeners"][0].take()
}

fn request(proxy: &Proxy, method: &str, host: &str, target: &str, headers: &[&str]) -> Response {
    let fields: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n");
    once(proxy.address("inbound"), head)
}

fn answering() -> Upstream {
    Upstream::scripted(|served| {
        while served.request().is_some() {
            served.send(OK);
        }
    })
}

#[test]
fn what_is_explained_is_what_happens() {
    let (app, next) = (answering(), answering());
    let proxy = Proxy::start(CONFIG, &[("@app", &app.address()), ("@next", &next.address())]);
    for (method, host, target, headers) in [
        ("GET", "payments", "/v1/a?dry=1", &["x-secret: 1", "x-other: 2"][..]),
        ("POST", "eu.payments:81", "/x/../v1?a&dry=1", &[]),
        ("GET", "payments", "/v1/b?dry=1", &["x-canary: true"]),
        ("GET", "payments", "/v1/c?dry=2", &["x-canary: false"]),
        ("GET", "other", "/plain/7", &["x-secret: 1"]),
        ("POST", "other", "/plain/8", &[]),
        ("GET", "other", "/plain/x", &[]),
        ("GET", "other", "/old?a=b", &[]),
        ("GET", "other", "/older", &[]),
    ] {
        let case = format!("{method} {host} {target} {headers:?}");
        let url = format!("http://{host}{target}");
        let said = explained(&proxy, method, &url, headers);
        let before = (app.requests().len(), next.requests().len());
        let answer = request(&proxy, method, host, target, headers);
        let route = &said["route"];
        if route.is_null() {
            assert_eq!(
                (answer.status, said["refused"].as_str().unwrap()),
                (404, "no_route: no route matches"),
                "{case}"
            );
            assert_eq!(said["skipped"].as_array().unwrap().len(), 4, "{case}");
            continue;
        }
        if let Some(location) = route["redirect"]["location"].as_str() {
            assert_eq!(answer.head.get("location"), Some(location), "{case}");
            continue;
        }
        assert_eq!(answer.status, 200, "{case}");
        let upstream = if route["upstreams"][0]["name"] == "app" { &app } else { &next };
        let seen = upstream.requests().pop().unwrap();
        assert!(upstream.requests().len() > if std::ptr::eq(upstream, &app) { before.0 } else { before.1 }, "{case}");
        let sends = &route["sends"];
        let start = format!("{method} {} HTTP/1.1", sends["target"].as_str().unwrap());
        assert_eq!(
            (seen.head.start.as_str(), seen.head.get("host")),
            (start.as_str(), sends["host"].as_str()),
            "{case}"
        );
        for change in sends["headers"].as_array().unwrap() {
            assert_eq!(seen.head.get(change["name"].as_str().unwrap()), change["value"].as_str(), "{case}: {change}");
        }
        assert_eq!(proxy.log_line(target.split('?').next().unwrap())["route"], route["name"], "{case}");
    }
}

#[test]
fn the_endpoint_of_a_key_is_told_beforehand() {
    let endpoints = [answering(), answering(), answering()];
    let list = endpoints.iter().map(|endpoint| format!("\"{}\"", endpoint.address())).collect::<Vec<_>>().join(", ");
    let config = "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { match: { path: /turns }, upstream: turns }
      - { upstream: keyed }
upstreams:
  keyed: { static: [@list], load_balancer: { ring_hash: { header: x-user } } }
  turns: { static: [@list] }
";
    let proxy = Proxy::start(config, &[("@list", &list)]);
    for user in 0..12 {
        let field = format!("x-user: user-{user}");
        let said = explained(&proxy, "GET", "/", &[&field]);
        let next = said["route"]["upstreams"][0]["now"]["next"].as_str().unwrap().to_owned();
        let asked = endpoints.iter().find(|endpoint| endpoint.address().to_string() == next).unwrap();
        let before = asked.requests().len();
        assert_eq!(request(&proxy, "GET", "a", "/", &[&field]).status, 200);
        assert_eq!(asked.requests().len(), before + 1, "{user}");
    }
    let now = &explained(&proxy, "GET", "/turns", &[])["route"]["upstreams"][0]["now"];
    assert!(now["next"].is_null() && now["endpoints"].as_array().unwrap().len() == 3, "{now}");
}

#[test]
fn states_are_those_of_the_running_proxy() {
    let failing = Upstream::scripted(|served| {
        while served.request().is_some() {
            served.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let config = "
listeners: { inbound: { address: 127.0.0.1:0, upstream: app } }
upstreams:
  app:
    static: [\"@app\"]
    ejection: none
    circuit_breaker: { min_requests: 5, open_for: 1m, fallback: spare }
  spare: { static: [\"@app\"] }
";
    let proxy = Proxy::start(config, &[("@app", &failing.address())]);
    let now = || explained(&proxy, "GET", "/", &[])["route"]["upstreams"][0]["now"].take();
    let breaker = || now()["breaker"].take();
    assert_eq!(breaker()["state"], "closed");
    assert!(now()["next"].is_string() && now()["aside"].is_null());
    (0..6).for_each(|_| drop(request(&proxy, "GET", "a", "/", &[])));
    assert_eq!(breaker()["state"], "open");
    assert!(breaker()["seconds_left"].as_f64().unwrap() > 30.0);
    assert!(now()["next"].is_null() && now()["aside"] == "the fallback, spare", "{}", now());
    let (_, page) = command(&proxy, &["--live", "GET", "/"]);
    assert!(page.contains("the fallback, spare"), "{page}");
    assert!(page.contains("breaker open for") && page.contains(&format!("{}  ready", failing.address())), "{page}");
}

#[test]
fn the_admin_takes_forms_and_says_what_is_wrong_with_them() {
    let app = answering();
    let proxy = Proxy::start(CONFIG, &[("@app", &app.address()), ("@next", &app.address())]);
    let form = "method=GET&url=%2Fv1%2Fx&header=x-canary:+true";
    let post = format!(
        "POST /explain HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
        proxy.admin(),
        form.len()
    );
    let answer = once(proxy.admin(), post);
    assert!(answer.status == 200 && answer.text().contains("canary, route 1 of 4"), "{}", answer.text());
    let target = format!("/explain?format=json&{form}");
    let answer = proxy.admin_get(&target);
    assert_eq!(serde_json::from_str::<Value>(&answer.text()).unwrap()["generation"], 1);
    for wrong in ["", "?url=%2F&listener=none", "?url=ftp:%2F%2Fx", "?url=%2F&headers=x"] {
        let answer = proxy.admin_get(&format!("/explain{wrong}"));
        assert!(answer.status == 400 && answer.text().contains("error"), "{wrong}: {}", answer.text());
    }
}

#[test]
fn the_command_line_is_held_to_its_form() {
    let app = answering();
    let proxy = Proxy::start(CONFIG, &[("@app", &app.address()), ("@next", &app.address())]);
    let file = proxy.directory().join("outrigger.yaml").display().to_string();
    for (words, expected) in [
        (&["GET", "/"][..], 2),
        (&["--live", &file, "GET", "/"], 2),
        (&[&file, "GET", "http://a b/"], 2),
        (&[&file, "GET", "/"], 0),
        (&[&file, "GET", "/", "--exit-code"], 1),
        (&[&file, "GET", "/plain/1", "--exit-code"], 0),
        (&["no-such-file.yaml", "GET", "/"], 1),
        (&["no-such-file.yaml", "GET", "/", "--exit-code"], 2),
        (&[&file, "GET", "/", "--listener", "none"], 1),
    ] {
        let (code, said) = command(&proxy, words);
        assert_eq!(code, Some(expected), "{words:?}: {said}");
    }
}
