//! The file, in every way in which it may change.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::{BASE, bound, config, generation, save, setup, start, swap, text};
use crate::support::pki::Authority;
use crate::support::proxy::Setup;
use crate::support::{Proxy, Upstream, eventually};

/// Another configuration than that of the test's file, told apart by its answer.
fn answering(proxy: &Proxy, word: &str) -> String {
    text(proxy).replace(
        "routes:\n",
        &format!("routes:\n      - {{ match: {{ path: {{ exact: /word }} }}, respond: {{ body: {word} }} }}\n"),
    )
}

/// The word that the configuration in force answers with.
fn word(proxy: &Proxy) -> String {
    proxy.client().get("/word").text()
}

#[test]
fn what_is_saved_is_in_force_and_what_is_wrong_changes_nothing() {
    let upstream = Upstream::ok();
    let mut proxy = start(&upstream);
    let good = answering(&proxy, "one");
    swap(&proxy, &good);
    assert_eq!(word(&proxy), "one");
    assert_eq!(proxy.metric("outrigger_config_last_reload_successful", &[]), 1.0);

    save(&proxy, &good.replace("body: one", "bodi: two"));
    eventually("the refusal", || proxy.metric("outrigger_config_last_reload_successful", &[]) == 0.0);
    assert_eq!((word(&proxy).as_str(), generation(&proxy)), ("one", 2));
    let ready = proxy.admin_get("/readyz");
    assert_eq!(ready.status, 200, "a refused configuration makes nobody unready");
    let line = 1 + good.lines().position(|line| line.contains("body: one")).unwrap();
    let place = format!(".yaml:{line}:");
    assert!(ready.text().contains("was refused") && ready.text().contains(&place), "{place}: {}", ready.text());
    let refused = config(&proxy)["refused"]["error"].as_str().unwrap().to_owned();
    assert!(refused.contains("unknown key `bodi`") && refused.contains("^^^^"), "{refused}");
    assert_eq!(proxy.metric("outrigger_config_reloads_total", &[("result", "refused")]), 1.0);

    save(&proxy, &good);
    eventually("the word that all is well", || proxy.process().stderr().contains("the source is well again"));
    assert_eq!(generation(&proxy), 2);

    swap(&proxy, &good.replace("body: one", "body: three"));
    assert_eq!(word(&proxy), "three");
    assert!(!proxy.admin_get("/readyz").text().contains("was refused"));
}

#[test]
fn what_only_its_surroundings_refuse_is_in_force_once_they_allow_it() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let before = text(&proxy);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let extra = format!("listeners:\n  extra: {{ address: \"{address}\", upstream: app }}\n");
    save(&proxy, &before.replace("listeners:\n", &extra));
    eventually("the refusal", || !config(&proxy)["refused"].is_null());
    drop(taken);
    eventually("the address to be taken", || bound(&proxy, "extra") == Some(address));
    assert!(config(&proxy)["refused"].is_null());

    let later = proxy.directory().join("later.pem");
    let tls = format!("tls: {{ ca_file: {} }}", later.display());
    let secure = format!("upstreams:\n  secure: {{ static: [\"127.0.0.1:1\"], {tls} }}\n");
    save(&proxy, &before.replace("upstreams:\n", &secure));
    eventually("the refusal", || !config(&proxy)["refused"].is_null());
    std::fs::write(later, Authority::new("later").pem()).unwrap();
    eventually("the file to be found", || generation(&proxy) == 3);
    assert!(config(&proxy)["refused"].is_null());
}

#[test]
fn a_config_map_is_swapped_as_kubelet_does_it() {
    let upstream = Upstream::ok();
    let mut setup = setup(&upstream);
    let good = setup.text().to_owned();
    let folder = setup.folder("mounted");
    let version = |name: &str, text: &str| {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("outrigger.yaml"), text).unwrap();
    };
    version("..2026_1", &good);
    symlink("..2026_1", folder.join("..data")).unwrap();
    symlink("..data/outrigger.yaml", folder.join("outrigger.yaml")).unwrap();
    let proxy = setup.start_with(&folder.join("outrigger.yaml"));
    version("..2026_2", &good.replace("path: / ", "path: /api "));
    symlink("..2026_2", folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    std::fs::remove_dir_all(folder.join("..2026_1")).unwrap();
    eventually("the second version", || generation(&proxy) == 2);
    assert_eq!(proxy.client().get("/elsewhere").status, 404);
    assert_eq!(proxy.client().get("/api").status, 200);
}

#[test]
fn sed_and_vim_save_in_ways_of_their_own() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let path = proxy.directory().join("outrigger.yaml");
    swap(&proxy, &answering(&proxy, "one"));
    // sed -i writes a new file and renames it.
    assert!(Command::new("sed").arg("-i").arg("s/body: one/body: two/").arg(&path).status().unwrap().success());
    eventually("sed's version", || word(&proxy) == "two");
    // vim moves the old file away, writes a new one, and removes the old.
    let third = text(&proxy).replace("body: two", "body: three");
    std::fs::rename(&path, proxy.directory().join("outrigger.yaml~")).unwrap();
    std::fs::write(&path, third).unwrap();
    std::fs::remove_file(proxy.directory().join("outrigger.yaml~")).unwrap();
    eventually("vim's version", || word(&proxy) == "three");
    // Others write into the file.
    std::fs::write(&path, text(&proxy).replace("body: three", "body: four")).unwrap();
    eventually("the version written in place", || word(&proxy) == "four");
    assert_eq!(proxy.metric("outrigger_config_reloads_total", &[("result", "refused")]), 0.0);
}

#[test]
fn half_a_file_is_not_taken_for_the_whole() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let path = proxy.directory().join("outrigger.yaml");
    let whole = answering(&proxy, "whole");
    // In the middle of what does not end there; at other places, half a file may be a whole one.
    let half = whole.split_once("{ static").unwrap().0.to_owned() + "{ static";
    std::fs::write(&path, half).unwrap();
    eventually("the half to be refused", || proxy.metric("outrigger_config_last_reload_successful", &[]) == 0.0);
    assert_eq!(generation(&proxy), 1);
    std::fs::write(&path, &whole).unwrap();
    eventually("the whole file", || word(&proxy) == "whole");
}

#[test]
fn a_file_that_disappears_and_comes_back_is_followed() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let path = proxy.directory().join("outrigger.yaml");
    let next = answering(&proxy, "back");
    std::fs::remove_file(&path).unwrap();
    eventually("the loss to be noticed", || proxy.metric("outrigger_config_last_reload_successful", &[]) == 0.0);
    assert_eq!(proxy.client().get("/").status, 200);
    std::fs::write(&path, next).unwrap();
    eventually("the file's return", || word(&proxy) == "back");
    assert_eq!(proxy.metric("outrigger_config_last_reload_successful", &[]), 1.0);
}

#[test]
fn of_two_swaps_within_a_millisecond_the_last_one_holds() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    for round in 0..10 {
        let base = text(&proxy);
        let lines: Vec<&str> = base.lines().filter(|line| !line.contains("/word")).collect();
        let with = |word: &str| {
            let route =
                format!("routes:\n      - {{ match: {{ path: {{ exact: /word }} }}, respond: {{ body: {word} }} }}");
            lines.join("\n").replace("routes:", &route) + "\n"
        };
        save(&proxy, &with(&format!("first{round}")));
        save(&proxy, &with(&format!("second{round}")));
        eventually("the second of two", || word(&proxy) == format!("second{round}"));
    }
}

#[test]
fn sighup_reads_the_file_again() {
    let upstream = Upstream::ok();
    let mut proxy = start(&upstream);
    // Another process has the port, so that the configuration is refused; the file does not change when it has gone.
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = squatter.local_addr().unwrap();
    let wanted = text(&proxy)
        .replace("listeners:\n", &format!("listeners:\n  second: {{ address: \"{address}\", upstream: app }}\n"));
    save(&proxy, &wanted);
    eventually("the refusal", || proxy.metric("outrigger_config_last_reload_successful", &[]) == 0.0);
    assert!(config(&proxy)["refused"]["error"].as_str().unwrap().contains("another process has it"));
    drop(squatter);
    proxy.process().signal(Signal::HUP);
    eventually("the second try", || generation(&proxy) == 2);
    assert_eq!(crate::support::Client::connect(address).get("/").status, 200);
    proxy.process().signal(Signal::HUP);
    let unchanged = "the source holds what is in force already";
    eventually("a word where nothing has changed", || proxy.process().stderr().contains(unchanged));
}

#[test]
fn the_last_good_one_is_kept_and_started_with() {
    let upstream = Upstream::ok();
    let directory = crate::support::files::Directory::new();
    let kept = directory.join("last-good.yaml");
    let argument = kept.display().to_string();
    let base = format!("{BASE}telemetry: {{ access_log: {{ path: none }} }}\n");
    let setup = Setup::new(&base, &[("@app", &upstream.address())]);
    let proxy = setup.argument("--last-good").argument(&argument).start();
    let good = answering(&proxy, "good");
    swap(&proxy, &good);
    eventually("the file to be kept", || std::fs::read_to_string(&kept).is_ok_and(|text| text == good));
    proxy.stop();

    let broken = Setup::new(BASE, &[("@app", &"nonsense")]).argument("--last-good").argument(&argument);
    let mut proxy = broken.start();
    assert_eq!(word(&proxy), "good");
    // And says so, wherever somebody looks.
    let stands_in = format!("last-good {argument}");
    let readyz = proxy.admin_get("/readyz").text();
    assert!(readyz.contains("was refused") && readyz.contains(&format!("{stands_in} stands in for ")), "{readyz}");
    assert_eq!(proxy.metric("outrigger_config_last_reload_successful", &[]), 0.0);
    assert_eq!(config(&proxy)["source"], stands_in.as_str());
    assert_eq!(proxy.metric("outrigger_config_info", &[("source", &stands_in)]), 1.0);
    let history: serde_json::Value = serde_json::from_slice(&proxy.admin_get("/config/history").body.data).unwrap();
    assert_eq!(history["generations"][0]["source"], stands_in.as_str());
    eventually("the log's word", || proxy.process().stderr().contains("started with the last good configuration"));

    swap(&proxy, &good.replace("body: good", "body: better"));
    assert_eq!(word(&proxy), "better");
    assert!(!proxy.admin_get("/readyz").text().contains("stands in"));
    assert!(config(&proxy)["source"].as_str().unwrap().ends_with("outrigger.yaml"));
}

#[test]
fn a_start_with_the_last_good_one_waits_for_what_the_source_lacks() {
    let upstream = Upstream::ok();
    let directory = crate::support::files::Directory::new();
    let (kept, folder) = (directory.join("last-good.yaml"), directory.join("logs"));
    let log = |path: &str| format!("{BASE}telemetry: {{ access_log: {{ path: {path} }} }}\n");
    let good = log("none").replace("@app", &upstream.address().to_string());
    std::fs::write(&kept, good).unwrap();
    let source = log(&folder.join("access.log").display().to_string());
    let setup = Setup::new(&source, &[("@app", &upstream.address())]);
    let proxy = setup.argument("--last-good").argument(&kept.display().to_string()).start();
    let readyz = || proxy.admin_get("/readyz").text();
    assert!(readyz().contains("stands in for "), "{}", readyz());
    // Nobody touches the source.
    std::fs::create_dir(&folder).unwrap();
    eventually("what the source holds", || !readyz().contains("stands in for "));
    assert_eq!(proxy.metric("outrigger_config_last_reload_successful", &[]), 1.0);
    assert!(config(&proxy)["source"].as_str().unwrap().ends_with("outrigger.yaml"));
}

#[test]
fn a_swap_holds_within_fifty_milliseconds() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let mut client = proxy.client();
    let mut best = Duration::MAX;
    // The best of several, since other tests share the machine.
    for round in 0..10 {
        let word = format!("round{round}");
        let base = text(&proxy);
        let lines: Vec<&str> = base.lines().filter(|line| !line.contains("/word")).collect();
        let route =
            format!("routes:\n      - {{ match: {{ path: {{ exact: /word }} }}, respond: {{ body: {word} }} }}");
        let next = lines.join("\n").replace("routes:", &route) + "\n";
        save(&proxy, &next);
        let saved = std::time::Instant::now();
        eventually("the new answer", || client.get("/word").text() == word);
        best = best.min(saved.elapsed());
    }
    assert!(best < Duration::from_millis(50), "the quickest swap took {best:?}");
}
