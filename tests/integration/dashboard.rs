//! The dashboard in a real browser, before a proxy that carries traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::browser::Browser;
use crate::support::client::{Client, get};
use crate::support::nameserver::Nameserver;
use crate::support::wait::eventually;
use crate::support::{Proxy, Upstream};

/// Requests, one after the other, for as long as it lives.
pub struct Traffic {
    on: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Traffic {
    pub fn through(proxy: &Proxy, paths: &'static [&'static str]) -> Self {
        let (on, address) = (Arc::new(AtomicBool::new(true)), proxy.address("inbound"));
        let thread = std::thread::spawn({
            let on = on.clone();
            move || {
                let mut client = Client::connect(address);
                for path in paths.iter().cycle() {
                    if !on.load(Ordering::Relaxed) {
                        break;
                    }
                    client.exchange(get(path));
                    // A gentle load; the page shows one number a second.
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        Traffic { on, thread: Some(thread) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.on.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn the_page_shows_what_happens_and_asks_nobody_else() {
    let upstream = Upstream::ok();
    let proxy = Proxy::start(
        "listeners:\n  inbound:\n    address: \"127.0.0.1:0\"\n    routes:\n      - { match: { path: /gone }, upstream: gone }\n      - { match: { path: /pair }, upstream: pair }\n      - { match: { path: / }, upstream: app }\nupstreams:\n  app: \"@app\"\n  gone: \"127.0.0.1:1\"\n  pair: { static: [\"@app\", \"127.0.0.2:1\"], ejection: { for: 1h } }\n",
        &[("@app", &upstream.address())],
    );
    let _traffic = Traffic::through(&proxy, &["/", "/pair", "/pair", "/gone"]);
    let origin = format!("http://{}", proxy.admin());
    let browser = Browser::start(1440, 1000);
    browser.open(&format!("{origin}/"));

    eventually("the rate is shown", || {
        browser.text("[data-tile=Requests]").contains("/s") && !browser.text("[data-tile=Requests]").starts_with("0.0")
    });
    eventually("the route's numbers are shown", || browser.text("[data-route=app]").contains("100 %"));
    eventually("the failing route's reason is shown", || browser.text("[data-route=gone]").contains("connect failure"));
    eventually("why requests failed is shown", || !browser.text("[data-reason=connect_failure]").is_empty());
    assert!(browser.text("[data-upstream=app]").contains(&upstream.address().to_string()));
    let before = browser.text("[data-route=app] td:last-child");
    eventually("the numbers move", || browser.text("[data-route=app] td:last-child") != before);
    assert_eq!(browser.run("return document.querySelectorAll('.chart canvas').length"), 2);
    assert_eq!(
        browser.run("return document.documentElement.scrollWidth <= innerWidth"),
        true,
        "the page is wider than its window"
    );

    browser.click(".tap .right button:last-child");
    eventually("the tap shows requests", || browser.text(".tap tbody").contains("GET app.test/"));
    eventually("the endpoint that fails is shown as ejected", || {
        browser
            .text("[data-upstream=pair] [data-endpoint='127.0.0.2:1']")
            .contains("ejectedfailures in a row; back in 59 min")
    });
    let file = proxy.directory().join("outrigger.yaml");
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("1h", "2h")).unwrap();
    eventually("what the swap has changed is shown", || {
        let changed = browser.text("[data-generation='2'] details");
        changed.contains("1 upstream changed") && changed.contains("ejection.for: 1h → 2h")
    });
    std::fs::write(&file, "listeners: [").unwrap();
    eventually("a configuration that was refused is shown", || {
        browser.run("return !!document.querySelector('[data-refused]')") == true
    });

    let console = browser.console();
    assert!(console.is_empty(), "{console:?}");
    let foreign: Vec<String> = browser.requested().into_iter().filter(|url| !url.starts_with(&origin)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

/// Curves are drawn in colours that the page had to be asked for.
#[test]
fn charts_follow_the_colours_of_the_page() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let browser = Browser::start(1440, 1000);
    browser.prefer("light");
    browser.open(&format!("http://{}/", proxy.admin()));
    let follow = |what: &str, accent: &str| {
        eventually(what, || {
            let drawn =
                browser.run("return document.querySelector('.chart .u-marker[style]')?.style.borderColor ?? ''");
            let script = "return getComputedStyle(document.documentElement).getPropertyValue('--accent').trim()";
            (drawn.as_str(), browser.run(script).as_str()) == (Some(rgb(accent).as_str()), Some(accent))
        });
    };
    let (light, dark) = ("#0f766e", "#2dd4bf");
    follow("light", light);
    browser.prefer("dark");
    follow("dark, as the system asks", dark);
    browser.click("header .right button");
    follow("light, as the reader asks", light);
    browser.click("header .right button");
    follow("dark, as the reader asks", dark);
}

/// As browsers write a colour.
fn rgb(hex: &str) -> String {
    let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    format!("rgb({}, {}, {})", part(1), part(3), part(5))
}

#[test]
fn a_proxy_that_hangs_is_not_shown_as_ready() {
    let upstream = Upstream::ok();
    let mut proxy = Proxy::before(upstream.address());
    let browser = Browser::start(1440, 1000);
    browser.open(&format!("http://{}/", proxy.admin()));
    eventually("it is ready", || browser.text("header .pill") == "ready");
    proxy.process().signal(Signal::STOP);
    eventually("that nothing is heard of it", || browser.text("header .pill") == "connection lost");
    proxy.process().signal(Signal::CONT);
    eventually("it is ready again", || browser.text("header .pill") == "ready");
}

/// A route with few requests fails in few of the seconds that the page shows.
#[test]
fn routes_that_fail_come_first_and_stay_for_a_minute() {
    let upstream = Upstream::ok();
    let busy: String = (0..20)
        .map(|number| format!("      - {{ name: r{number}, match: {{ path: /{number} }}, upstream: app }}\n"))
        .collect();
    let config = format!(
        "listeners:\n  inbound:\n    address: \"127.0.0.1:0\"\n    routes:\n{busy}      - {{ match: {{ path: /gone }}, upstream: gone }}\nupstreams:\n  app: \"@app\"\n  gone: \"127.0.0.1:1\"\n"
    );
    let proxy = Proxy::start(&config, &[("@app", &upstream.address())]);
    let mut client = proxy.client();
    for number in 0..20 {
        for _ in 0..3 {
            assert_eq!(client.get(&format!("/{number}")).status, 200);
        }
    }
    let browser = Browser::start(1440, 1000);
    browser.open(&format!("http://{}/", proxy.admin()));
    eventually("the busiest are shown", || browser.text("[data-route=r0]").contains("app"));
    assert_eq!(proxy.client().get("/gone").status, 503);
    let first = || browser.text("tr[data-route]:first-child");
    eventually("the failing route is the first", || first().contains("gone") && first().contains("connect failure"));
    eventually("its second is over", || first().contains("0.0/s"));
    assert!(first().contains("0.0 %") && first().contains("connect failure"), "{}", first());
}

#[test]
fn an_upstream_without_endpoints_says_so() {
    let nameserver = Nameserver::start();
    let config = "
dns: { servers: \"@server\" }
listeners: { inbound: { address: \"127.0.0.1:0\", upstream: app } }
upstreams: { app: \"dns://nobody.test:80\" }
";
    let proxy = Proxy::start(config, &[("@server", &nameserver.address())]);
    let browser = Browser::start(1440, 1000);
    browser.open(&format!("http://{}/", proxy.admin()));
    eventually("that there is nobody", || {
        let shown = browser.text("[data-upstream=app]");
        shown.contains("Its source names no endpoint.") && shown.contains("s ago")
    });
}

#[test]
fn a_phone_shows_it_without_scrolling_sideways() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let _traffic = Traffic::through(&proxy, &["/"]);
    let browser = Browser::start(1440, 1000);
    browser.be_phone(390, 844);
    browser.open(&format!("http://{}/", proxy.admin()));
    eventually("the route is shown", || browser.text("[data-route=app]").contains("100 %"));
    assert_eq!(
        browser.run("return [innerWidth, document.documentElement.scrollWidth <= innerWidth]"),
        json!([390, true])
    );
    browser.click(".tap .right button:last-child");
    eventually("the tap shows requests", || browser.text(".tap tbody").contains("GET app.test/"));
    let cut =
        "return [...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).length";
    assert_eq!(browser.run(cut), 0, "a table is wider than the phone");
}
