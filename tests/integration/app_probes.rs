//! `/probe/…`: the proxy asks the app in the place of the kubelet.

use crate::support::client::once;
use crate::support::proxy::Setup;
use crate::support::{Proxy, Upstream};

const CONFIG: &str = "metrics:\n  address: 127.0.0.1:0\n  probes:\n    app/readiness: \"http://@app/healthz?deep=1\"\n    \
                      db/liveness: \"tcp://@app\"\nlisteners:\n  inbound: { address: \"127.0.0.1:0\", upstream: \"@app\" }\n";

#[test]
fn the_apps_answer_is_the_probes() {
    let status = std::sync::Arc::new(std::sync::atomic::AtomicU16::new(200));
    let told = status.clone();
    let app = Upstream::scripted(move |served| {
        while served.request().is_some() {
            let status = told.load(std::sync::atomic::Ordering::SeqCst);
            served.send(format!("HTTP/1.1 {status} Told\r\nContent-Length: 2\r\n\r\nok"));
        }
    });
    let proxy = Proxy::start(CONFIG, &[("@app", &app.address())]);
    for code in [200, 302, 503] {
        status.store(code, std::sync::atomic::Ordering::SeqCst);
        let answer =
            once(proxy.metrics_address(), request("/probe/app/readiness", "X-Probe: 7\r\nHost: told.example\r\n"));
        assert_eq!(answer.status, code);
    }
    let asked = app.request(0);
    assert_eq!((asked.head.start.as_str(), asked.head.get("x-probe")), ("GET /healthz?deep=1 HTTP/1.1", Some("7")));
    assert_eq!(asked.head.get("host"), Some("told.example"));
    assert_eq!(once(proxy.metrics_address(), request("/probe/db/liveness", "Host: a\r\n")).status, 200);
    assert_eq!(once(proxy.metrics_address(), request("/probe/app/liveness", "Host: a\r\n")).status, 404);
    assert_eq!(once(proxy.metrics_address(), request("/config", "Host: a\r\n")).status, 404);
    let address = app.address();
    drop(app);
    for probe in ["app/readiness", "db/liveness"] {
        let answer = once(proxy.metrics_address(), request(&format!("/probe/{probe}"), "Host: a\r\n"));
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains(&format!("the app does not answer at {address}")), "{}", answer.text());
    }
}

#[test]
fn flags_add_what_the_file_does_not_say() {
    let app = Upstream::ok();
    let config = "listeners:\n  inbound: { address: \"127.0.0.1:0\", upstream: \"@app\" }\n";
    let probe = |name: &str| format!("{name}=http://{}/{name}", app.address());
    let proxy = Setup::new(config, &[("@app", &app.address())])
        .argument("--metrics=127.0.0.1:0")
        .argument(&format!("--probe={}", probe("app/liveness")))
        .argument(&format!("--probe={}", probe("app/startup")))
        .start();
    assert_eq!(once(proxy.metrics_address(), request("/probe/app/startup", "Host: a\r\n")).status, 200);
    assert_eq!(once(proxy.metrics_address(), request("/probe/app/liveness", "Host: a\r\n")).status, 200);
    assert_eq!((app.count("/app/startup"), app.count("/app/liveness")), (1, 1));
    // The file's word goes over the flags'.
    let file = format!(
        "metrics: {{ address: \"127.0.0.1:0\", probes: {{ app/liveness: \"http://{}/file\" }} }}\n",
        app.address()
    );
    let proxy = Setup::new(&format!("{file}{config}"), &[("@app", &app.address())])
        .argument("--metrics=127.0.0.1:1")
        .argument(&format!("--probe={}", probe("app/liveness")))
        .start();
    assert_eq!(once(proxy.metrics_address(), request("/probe/app/liveness", "Host: a\r\n")).status, 200);
    assert_eq!(app.count("/file"), 1);
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{headers}\r\n")
}
