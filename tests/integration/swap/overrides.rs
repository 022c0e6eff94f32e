//! What lies over the source: by hand, for a while, or by going back.

use std::net::TcpListener;

use serde_json::Value;

use super::{admin, bound, config, generation, put, save, setup, start, swap, text};
use crate::support::wait::eventually_some;
use crate::support::{Proxy, Upstream, eventually};

fn json(response: &crate::support::Response) -> Value {
    serde_json::from_slice(&response.body.data).unwrap_or_else(|error| panic!("{error}: {}", response.text()))
}

/// The file's configuration with another response timeout, to be seen in the long form.
fn with_timeout(proxy: &Proxy, timeout: &str) -> String {
    let text = text(proxy);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("defaults:")).collect();
    format!("{}\ndefaults: {{ timeouts: {{ response: \"{timeout}\" }} }}\n", lines.join("\n"))
}

fn in_force(proxy: &Proxy, timeout: &str) -> bool {
    let response = &config(proxy)["effective"]["upstreams"]["app"]["timeouts"]["response"];
    // What holds where nobody has written anything has no word of its own: it is not the same for gRPC.
    response.as_str().unwrap_or("15s") == timeout
}

#[test]
fn an_override_stands_until_it_is_taken_away_and_what_the_source_says_waits() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let answer = put(&proxy, "?format=json", &with_timeout(&proxy, "7s"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = json(&answer);
    assert_eq!(answer["generation"], 2);
    assert_eq!(answer["changes"][0]["fields"][0]["key"], "timeouts.response");
    assert!(in_force(&proxy, "7s"));
    assert_eq!(config(&proxy)["override"]["by"], "PUT /config");
    assert!(proxy.metric("outrigger_config_info", &[("override", "")]) == 0.0, "the metric names the override");

    // Nothing waits where the source has not changed.
    assert!(config(&proxy)["pending"].is_null());
    assert!(!proxy.admin_get("/readyz").text().contains("waits"));
    // The source changes: checked, and reported as pending.
    save(&proxy, &with_timeout(&proxy, "9s"));
    eventually("the pending change", || config(&proxy)["pending"].is_string());
    // Also after another override.
    assert_eq!(put(&proxy, "", &with_timeout(&proxy, "6s")).status, 200);
    assert!(config(&proxy)["pending"].is_string());
    assert_eq!(put(&proxy, "", &with_timeout(&proxy, "7s")).status, 200);
    assert!(in_force(&proxy, "7s"));
    assert!(proxy.admin_get("/readyz").text().contains("waits for the override's end"));
    // A mistake there is found now, and not when the override ends.
    save(&proxy, "listeners: {}\n");
    eventually("the mistake", || config(&proxy)["refused"].is_object());

    assert_eq!(admin(&proxy, "DELETE /config/override", "", "").status, 200);
    assert!(in_force(&proxy, "9s"), "the last thing that the source held and that was right");
    assert!(config(&proxy)["override"].is_null());
    assert_eq!(admin(&proxy, "DELETE /config/override", "", "").status, 409, "there is none any more");
}

#[test]
fn that_the_source_is_broken_is_told_until_the_source_is_mended() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let good = text(&proxy);
    let told = || proxy.admin_get("/readyz").text().contains("was refused");
    let successful = || proxy.metric("outrigger_config_last_reload_successful", &[]);
    save(&proxy, "listeners: {}\n");
    eventually("the mistake", || told() && successful() == 0.0);
    // What others do well says nothing of it.
    let other = good.replace("listeners:", "defaults: { timeouts: { response: 7s } }\nlisteners:");
    assert_eq!(put(&proxy, "", &other).status, 200);
    assert!(told() && successful() == 0.0 && config(&proxy)["refused"].is_object());
    assert_eq!(admin(&proxy, "DELETE /config/override", "", "").status, 200);
    assert!(told() && successful() == 0.0 && config(&proxy)["refused"].is_object());
    save(&proxy, &good);
    eventually("it is mended", || !told() && successful() == 1.0 && config(&proxy)["refused"].is_null());
}

#[test]
fn what_waits_still_waits_after_an_override_was_gone_back_from() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    assert_eq!(put(&proxy, "", &with_timeout(&proxy, "7s")).status, 200);
    save(&proxy, &with_timeout(&proxy, "9s"));
    eventually("the pending change", || config(&proxy)["pending"].is_string());
    assert_eq!(admin(&proxy, "POST /config/rollback", "", "").status, 200);
    assert!(in_force(&proxy, "15s"), "what was before");
    let config = config(&proxy);
    assert_eq!((&config["override"]["by"], config["pending"].is_string()), (&"rollback".into(), true), "{config}");
    assert_eq!(admin(&proxy, "DELETE /config/override", "", "").status, 200);
    assert!(in_force(&proxy, "9s"), "its turn has come");
}

#[test]
fn what_a_start_alone_reads_is_told_as_long_as_it_is_otherwise() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let first = text(&proxy);
    assert_eq!(config(&proxy)["held"], serde_json::json!([]));
    swap(&proxy, &first.replace("workers: 2", "workers: 3"));
    assert_eq!(config(&proxy)["held"], serde_json::json!(["workers"]));
    let told = |proxy: &Proxy| {
        proxy.admin_get("/readyz").text().contains("workers: what is written holds from the next start")
    };
    assert!(told(&proxy), "{}", proxy.admin_get("/readyz").text());
    // Also after a swap that concerns something else.
    swap(&proxy, &with_timeout(&proxy, "7s"));
    assert!(told(&proxy));
    swap(&proxy, &first);
    assert!(!told(&proxy));
    assert_eq!(config(&proxy)["held"], serde_json::json!([]));
}

#[test]
fn an_override_can_end_by_itself() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    assert_eq!(put(&proxy, "?for=300ms", &with_timeout(&proxy, "7s")).status, 200);
    assert!(in_force(&proxy, "7s"));
    eventually("the override's end", || in_force(&proxy, "15s"));
    assert!(config(&proxy)["override"].is_null());
    assert_eq!(put(&proxy, "?for=soon", &with_timeout(&proxy, "7s")).status, 400);
}

#[test]
fn an_override_whose_return_is_refused_returns_later() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let without = text(&proxy);
    let extra = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = format!("listeners:\n  extra: {{ address: \"{extra}\", upstream: app }}\n");
    swap(&proxy, &without.replace("listeners:\n", &listener));
    assert_eq!(put(&proxy, "?for=1s", &without).status, 200);
    let taken = eventually_some("the address to be free", || TcpListener::bind(extra).ok());
    eventually("the refusal", || !config(&proxy)["refused"].is_null());
    assert!(!config(&proxy)["override"].is_null());
    drop(taken);
    eventually("the override's end", || config(&proxy)["override"].is_null());
    assert_eq!(bound(&proxy, "extra"), Some(extra));
    assert!(config(&proxy)["refused"].is_null());
}

#[test]
fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let answer = put(&proxy, "?dry_run=true", &with_timeout(&proxy, "7s"));
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("timeouts.response: 7s"), "{}", answer.text());
    assert_eq!(generation(&proxy), 1);
    assert!(config(&proxy)["override"].is_null());
    assert_eq!(put(&proxy, "?dry_run=true", "listeners: 7").status, 422);
    assert!(config(&proxy)["refused"].is_null(), "nobody wanted it in force");
}

#[test]
fn a_mistake_is_answered_with_the_diagnostics_of_check() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let wrong = with_timeout(&proxy, "7 seconds");
    let answer = put(&proxy, "", &wrong);
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("did you mean `7s`?") && answer.text().contains("^^^"), "{}", answer.text());
    let answer = json(&put(&proxy, "?format=json", &wrong));
    assert_eq!(answer["diagnostics"]["diagnostics"][0]["code"], "invalid-value", "{answer}");
    assert_eq!(generation(&proxy), 1);
    assert_eq!(proxy.metric("outrigger_config_last_reload_successful", &[]), 0.0);
}

#[test]
fn two_people_do_not_overwrite_each_other() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let seen = proxy.admin_get("/config").head.get("etag").unwrap().to_owned();
    let put = |tag: &str, timeout: &str| {
        admin(&proxy, "PUT /config", &format!("If-Match: {tag}\r\n"), &with_timeout(&proxy, timeout))
    };
    assert_eq!(put(&seen, "7s").status, 200);
    assert_eq!(put(&seen, "8s").status, 412);
    assert!(in_force(&proxy, "7s"));
    assert_eq!(put("\"2\"", "8s").status, 200);
    assert_eq!(put("*", "9s").status, 200);
    assert_eq!(put("yesterday", "9s").status, 400);
}

#[test]
fn a_rollback_holds_until_the_source_changes() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let bad = with_timeout(&proxy, "7s");
    swap(&proxy, &bad);
    assert_eq!(admin(&proxy, "POST /config/rollback", "", "").status, 200);
    assert!(in_force(&proxy, "15s"));
    let by = config(&proxy)["override"]["by"].as_str().unwrap().to_owned();
    assert!(by.starts_with("rollback, until the source is no longer"), "{by}");
    assert!(config(&proxy)["pending"].is_null(), "what was gone back from does not wait");
    assert!(!proxy.admin_get("/readyz").text().contains("waits"));
    // What was rejected does not come back because somebody touches the file.
    std::fs::write(proxy.directory().join("outrigger.yaml"), &bad).unwrap();
    assert_eq!(admin(&proxy, "POST /config/rollback", "", "").status, 409, "there is nothing before the first");
    assert!(in_force(&proxy, "15s"));
    swap(&proxy, &with_timeout(&proxy, "8s"));
    assert!(in_force(&proxy, "8s"));
    assert!(config(&proxy)["override"].is_null());

    let history = json(&proxy.admin_get("/config/history"));
    let generations = history["generations"].as_array().unwrap();
    let seen: Vec<_> =
        generations.iter().map(|entry| (entry["generation"].as_u64(), entry["rejected"].as_bool())).collect();
    // The one that could not be gone back from stayed in force, and nobody has rejected it.
    assert_eq!(seen, [(Some(4), Some(false)), (Some(3), Some(false)), (Some(2), Some(true)), (Some(1), Some(false))]);
    assert_eq!(generations[2]["changes"], "1 upstream changed");
    assert_eq!(admin(&proxy, "POST /config/rollback?to=2", "", "").status, 200);
    assert!(in_force(&proxy, "7s"));
    assert_eq!(admin(&proxy, "POST /config/rollback?to=99", "", "").status, 404);
}

#[test]
fn an_override_that_is_gone_back_from_is_gone() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    assert_eq!(put(&proxy, "", &with_timeout(&proxy, "7s")).status, 200);
    assert_eq!(admin(&proxy, "POST /config/rollback", "", "").status, 200);
    assert!(in_force(&proxy, "15s"));
    assert!(config(&proxy)["override"].is_null(), "{}", config(&proxy)["override"]);
}

#[test]
fn a_document_from_the_network_sees_no_variable_that_was_not_allowed() {
    let upstream = Upstream::ok();
    let proxy = setup(&upstream)
        .environment("SECRET", "sesame")
        .environment("OPEN", "7s")
        .argument("--allow-env")
        .argument("OPEN")
        .start();
    let answer = put(&proxy, "", &with_timeout(&proxy, "${SECRET:-1s}"));
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("may not use the variable `SECRET`") && !answer.text().contains("sesame"));
    assert_eq!(put(&proxy, "", &with_timeout(&proxy, "${OPEN}")).status, 200);
}

#[test]
fn what_only_a_start_can_change_is_said() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let answer = put(&proxy, "", &text(&proxy).replace("workers: 2", "workers: 3"));
    assert_eq!(answer.status, 200);
    assert!(
        answer.text().contains("workers: 2 → 3") && answer.text().contains("at the next start"),
        "{}",
        answer.text()
    );
}

/// One of the program's commands, asked of this proxy.
fn command(proxy: &Proxy, words: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(crate::support::proxy::binary());
    let output = command.args(words).arg("--admin").arg(proxy.admin().to_string()).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn the_command_rollback_goes_back_and_says_to_what() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    swap(&proxy, &with_timeout(&proxy, "7s"));
    let (code, list) = command(&proxy, &["rollback", "--list"]);
    assert!(code == Some(0) && list.contains("in force") && list.contains("1 upstream changed"), "{list}");
    let (code, said) = command(&proxy, &["rollback"]);
    assert!(code == Some(0) && said.starts_with("generation 3 is in force, with what generation 1 held\n"), "{said}");
    assert!(said.contains("- timeouts.response: 7s"), "{said}");
    assert!(in_force(&proxy, "15s"));
    let (code, refusal) = command(&proxy, &["rollback"]);
    assert!(code == Some(1) && refusal.contains("goes there all the same"), "{refusal}");
    assert_eq!(command(&proxy, &["rollback", "--to", "2"]).0, Some(0));
    assert!(in_force(&proxy, "7s"));
}

#[test]
fn a_rollback_before_anything_has_nothing_to_go_back_to() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let (code, refusal) = command(&proxy, &["rollback"]);
    assert!(code == Some(1) && refusal.contains("no earlier configuration"), "{refusal}");
}

#[test]
fn only_the_generation_that_was_left_is_rejected() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    for _ in 0..2 {
        assert_eq!(put(&proxy, "", &with_timeout(&proxy, "7s")).status, 200);
        assert_eq!(admin(&proxy, "DELETE /config/override", "", "").status, 200);
    }
    assert_eq!(admin(&proxy, "POST /config/rollback", "", "").status, 200);
    let history = json(&proxy.admin_get("/config/history"));
    let rejected: Vec<_> = history["generations"].as_array().unwrap().iter().map(|entry| &entry["rejected"]).collect();
    assert_eq!(rejected, [false, true, false, false, false, false]);
}

#[test]
fn a_live_diff_counts_who_would_be_seen_off() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    let next = proxy.directory().join("next.yaml");
    std::fs::write(&next, text(&proxy).replace("  inbound:", "  other:")).unwrap();
    let (code, shown) = command(&proxy, &["diff", "--exit-code", "--live", &next.display().to_string()]);
    assert_eq!(code, Some(1));
    assert!(shown.contains("- listener inbound") && shown.contains("drains (1 connection)"), "{shown}");
    let same = proxy.directory().join("outrigger.yaml").display().to_string();
    let (code, shown) = command(&proxy, &["diff", "--exit-code", "--live", &same]);
    assert_eq!((code, shown.as_str()), (Some(0), "nothing changes\n"));
    // Trouble is no difference.
    std::fs::write(&next, "listeners: {}\n").unwrap();
    for (words, expected) in [(&["diff", "--exit-code", "--live"][..], 2), (&["diff", "--live"], 1)] {
        let (code, _) = command(&proxy, &[words, &[&next.display().to_string()]].concat());
        assert_eq!(code, Some(expected), "{words:?}");
    }
}
