//! A configuration under which too much fails is gone back from by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use super::{config, generation, put, save, text};
use crate::support::client::get;
use crate::support::traffic::named;
use crate::support::{Client, Proxy, Upstream, eventually};

const CONFIG: &str = "
listeners:
  inbound:
    address: 127.0.0.1:0
    routes:
      - { name: other, match: { path: /other }, upstream: other }
      - { name: main, upstream: app }
upstreams:
  app: { static: [\"@app\"], circuit_breaker: none }
  other: { static: [\"@other\"] }
  spare: { static: [\"@spare\"] }
";

/// Requests for these paths, one after the other and whatever they come to, for as long as it lives.
struct Calls(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Calls {
    fn to(proxy: &Proxy, paths: &'static [&'static str]) -> Self {
        let (done, address) = (Arc::<AtomicBool>::default(), proxy.address("inbound"));
        let thread = std::thread::spawn({
            let done = done.clone();
            move || {
                let mut client = Client::connect(address);
                for path in paths.iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                    client.exchange(get(path));
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
        });
        Calls(done, Some(thread))
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(JoinHandle::join);
    }
}

fn failing() -> Upstream {
    Upstream::answering("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
}

fn start(app: &Upstream, other: &Upstream, spare: &Upstream, probation: &str) -> Proxy {
    let values: [(&str, &dyn std::fmt::Display); 3] =
        [("@app", &app.address()), ("@other", &other.address()), ("@spare", &spare.address())];
    Proxy::start(&format!("{CONFIG}probation: {probation}\n"), &values)
}

fn history(proxy: &Proxy) -> Vec<(u64, bool, Option<String>)> {
    let history: Value = serde_json::from_slice(&proxy.admin_get("/config/history").body.data).unwrap();
    let generations = history["generations"].as_array().unwrap().iter();
    let standing = |entry: &Value| entry["probation"].as_str().map(str::to_owned);
    generations
        .map(|entry| (entry["generation"].as_u64().unwrap(), entry["rejected"] == true, standing(entry)))
        .collect()
}

#[test]
fn a_swap_that_breaks_an_upstream_is_gone_back_from() {
    let (app, other, spare) = (named("app"), named("other"), failing());
    let proxy = start(&app, &other, &spare, "{ for: 60s, min_requests: 20 }");
    let calls = Calls::to(&proxy, &["/"]);
    proxy.metric_reaches("outrigger_requests_total", &[("code", "200")], 30.0);
    save(&proxy, &text(&proxy).replace("name: main, upstream: app", "name: main, upstream: spare"));
    eventually("the way back", || generation(&proxy) == 3);
    assert_eq!(proxy.client().get("/").text(), "app");
    drop(calls);

    let shown = config(&proxy);
    let by = shown["override"]["by"].as_str().unwrap();
    assert!(by.starts_with("probation, until the source is no longer "), "{by}");
    eventually("the reason", || config(&proxy)["gone_back"].is_string());
    let why = config(&proxy)["gone_back"].as_str().unwrap().to_owned();
    assert!(why.starts_with("generation 2 has failed its probation: "), "{why}");
    let readyz = proxy.admin_get("/readyz");
    assert_eq!(readyz.status, 200);
    assert!(readyz.text().contains("generation 2 has failed its probation"), "{}", readyz.text());
    assert_eq!(proxy.metric("outrigger_config_probations_total", &[("result", "failed")]), 1.0);
    assert_eq!(history(&proxy), [(3, false, None), (2, true, Some("failed".to_owned())), (1, false, None)]);

    // It holds until the file holds something else, which gets a chance of its own.
    save(&proxy, &text(&proxy).replace("name: main, upstream: spare", "name: main, upstream: other"));
    eventually("the next one", || generation(&proxy) == 4);
    let shown = config(&proxy);
    assert!(shown["override"].is_null() && shown["gone_back"].is_null(), "{shown}");
    assert!(shown["probation_seconds_left"].as_f64().unwrap() > 30.0, "{shown}");
    assert_eq!(proxy.client().get("/").text(), "other");
}

#[test]
fn what_failed_before_is_no_reason_to_go_back() {
    let (app, other, spare) = (named("app"), failing(), named("spare"));
    let proxy = start(&app, &other, &spare, "{ for: 2s, min_requests: 20 }");
    let _calls = Calls::to(&proxy, &["/", "/other"]);
    proxy.metric_reaches("outrigger_requests_total", &[("code", "500")], 100.0);
    save(&proxy, &text(&proxy).replace("name: main, upstream: app", "name: main, upstream: spare"));
    eventually("the end of the probation", || {
        proxy.metric("outrigger_config_probations_total", &[("result", "passed")]) == 1.0
    });
    assert_eq!(generation(&proxy), 2);
    assert_eq!(history(&proxy)[0], (2, false, Some("passed".to_owned())));
    assert_eq!(proxy.metric("outrigger_config_probations_total", &[("result", "failed")]), 0.0);
    assert_eq!(proxy.client().get("/").text(), "spare");
}

#[test]
fn an_override_that_fails_ends() {
    let (app, other, spare) = (named("app"), named("other"), failing());
    let proxy = start(&app, &other, &spare, "none");
    let _calls = Calls::to(&proxy, &["/"]);
    proxy.metric_reaches("outrigger_requests_total", &[("code", "200")], 30.0);
    let bad = text(&proxy).replace("name: main, upstream: app", "name: main, upstream: spare");
    let bad = bad.replace("probation: none", "probation: { min_requests: 20 }");
    assert_eq!(put(&proxy, "", &bad).status, 200);
    eventually("the way back", || generation(&proxy) == 3);
    assert!(config(&proxy)["override"].is_null(), "what the file says holds again");
    assert_eq!(proxy.client().get("/").text(), "app");
}

#[test]
fn a_route_that_is_lost_counts() {
    let (app, other, spare) = (named("app"), named("other"), named("spare"));
    let proxy = start(&app, &other, &spare, "{ for: 60s, min_requests: 20 }");
    let _calls = Calls::to(&proxy, &["/"]);
    proxy.metric_reaches("outrigger_requests_total", &[("code", "200")], 30.0);
    save(&proxy, &text(&proxy).replace("name: main, upstream: app", "name: main, match: { host: app }, upstream: app"));
    eventually("the way back", || generation(&proxy) == 3);
    assert_eq!(proxy.client().get("/").text(), "app");
}
