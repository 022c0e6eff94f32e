//! Holds the plan of the house: which module may know which, and the habits that keep files readable.
//!
//! A request's way goes one way: listener → proxy → route, upstream, transport. `app` puts the parts together, `admin`
//! and `control` look at them from outside, and the ground floor (`config`, `telemetry`, `runtime`, `error`) knows none
//! of them. An arrow that is missing here is either a mistake or a decision: write it down with its reason.

#![allow(clippy::unwrap_used)] // A test says what is wrong by failing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;

/// Lines of a file, above which it holds more than one thing.
const MOST_LINES: usize = 600;

/// Module → the modules that it may use. Every arrow is there in the code, and none besides.
const ARROWS: &[(&str, &[&str])] = &[
    // The front door, and the composition root. cli → runtime: the demo's services run as workers do.
    ("main", &["cli"]),
    // cli → runtime: the sample services of `demo` run on a worker of their own.
    // cli → reload: `run` reads its source as it is read again later.
    // cli → succession: `run` alone asks the environment what it was started with.
    // cli → explain: `explain` of a file asks nobody.
    // cli → dns: the proxy that is asked may be named.
    (
        "cli",
        &[
            "app",
            "body",
            "config",
            "control",
            "dns",
            "explain",
            "kubernetes",
            "reload",
            "runtime",
            "succession",
            "telemetry",
        ],
    ),
    (
        "app",
        &[
            "admin",
            "body",
            "config",
            "control",
            "discovery",
            "identity",
            "health",
            "listener",
            "proxy",
            "registration",
            "reload",
            "runtime",
            "snapshot",
            "succession",
            "telemetry",
            "transport",
            "upstream",
        ],
    ),
    // What looks at the running proxy from outside.
    // admin → listener: it binds its sockets as listeners do. admin → app: see CIRCLES.
    // admin → snapshot, transport, upstream: `/upstreams` shows endpoints, their pools and their limits as they are.
    // admin → succession: its sockets may be inherited, as listeners' may.
    // admin → reload: `/config` shows, lays over and goes back.
    (
        "admin",
        &[
            "app",
            "config",
            "control",
            "error",
            "explain",
            "listener",
            "reload",
            "runtime",
            "snapshot",
            "succession",
            "telemetry",
            "transport",
            "upstream",
        ],
    ),
    // What changes what is in force: it binds as listeners do, compiles into the snapshot, starts sources of endpoints,
    // registers the proxy as it is now, and tells the workers through control.
    (
        "reload",
        &[
            "config",
            "consul",
            "control",
            "discovery",
            "identity",
            "listener",
            "registration",
            "runtime",
            "snapshot",
            "telemetry",
            "transport",
            "upstream",
        ],
    ),
    // explain → proxy, route: it asks what requests go by. explain → identity, telemetry, upstream: a configuration that
    // is in force nowhere is compiled beside empty stores.
    ("explain", &["config", "identity", "proxy", "route", "snapshot", "telemetry", "upstream"]),
    // What feeds the request's way.
    ("discovery", &["config", "consul", "dns", "runtime", "upstream"]),
    // health → identity, transport: a check goes the way that requests go, TLS included.
    ("health", &["config", "error", "identity", "runtime", "snapshot", "transport", "upstream"]),
    // registration → control: it follows the phases, and a proxy whose workers are stuck says nothing.
    ("registration", &["config", "consul", "control", "runtime"]),
    // control → listener: a connection that one worker hands to another is a command.
    // control → upstream: metrics count endpoints by their states; the limit of a listener's connections outlives its doors.
    // control → identity: it shows when certificates end, and has their files read again.
    // control → succession: doors take over sockets that others have bound.
    (
        "control",
        &["config", "identity", "listener", "runtime", "snapshot", "succession", "telemetry", "transport", "upstream"],
    ),
    // succession → listener: what was inherited stands in for what would have been bound.
    ("succession", &["config", "listener", "runtime"]),
    // The request's way.
    // listener → upstream: a limit is a limit, and `limits.connections` counts as those of upstreams do.
    // listener → route: a Host has to be one before anything is done with it.
    // listener → snapshot: a door is opened with the generation that has its listener.
    (
        "listener",
        &[
            "body",
            "config",
            "error",
            "http1",
            "identity",
            "proxy",
            "route",
            "runtime",
            "snapshot",
            "telemetry",
            "upstream",
        ],
    ),
    // proxy → identity: whom TLS says that a connection is with.
    (
        "proxy",
        &[
            "admission",
            "body",
            "config",
            "error",
            "identity",
            "outcome",
            "route",
            "runtime",
            "snapshot",
            "telemetry",
            "transport",
            "upstream",
        ],
    ),
    // route → runtime: many routes are compiled in bites.
    ("route", &["config", "runtime"]),
    // admission → error: who is refused, and why.
    ("admission", &["config", "error"]),
    // upstream → admission: the registry keeps limits, as it keeps upstreams, beyond a configuration.
    // upstream → outcome: breaker and ejection judge how attempts end.
    ("upstream", &["admission", "config", "outcome"]),
    // transport → telemetry: a handshake that fails is worth a line, and a flood of them is not.
    ("transport", &["body", "config", "error", "http1", "identity", "runtime", "telemetry", "upstream"]),
    // The wire. http1 → route: what may stand in `Host` is one rule, in one place.
    ("http1", &["body", "error", "route", "runtime"]),
    // body → runtime: what a tunnel is joined to is a connection.
    ("body", &["error", "runtime"]),
    // Who is who.
    ("identity", &["config", "runtime"]),
    // The hinge. snapshot → proxy: it holds header rules in their compiled form. snapshot → identity: a configuration
    // whose certificates cannot be read is refused.
    ("snapshot", &["admission", "config", "identity", "proxy", "route", "runtime", "telemetry", "upstream"]),
    // What is asked of Consul stands in the model, and sockets are everybody's.
    ("consul", &["config", "dns", "identity", "runtime"]),
    // The ground floor. telemetry → config: what is to be written where.
    // config → runtime: a long text is read in bites, for workers want the same core.
    ("config", &["runtime"]),
    // telemetry → runtime: spans are exported over HTTP from the thread that asks.
    // telemetry → dns: to a collector that has a name.
    ("telemetry", &["config", "dns", "error", "outcome", "runtime"]),
    ("runtime", &[]),
    ("dns", &[]),
    ("error", &[]),
    // outcome → error: what no endpoint answered has a reason.
    ("outcome", &["error"]),
    // Pure: text in, text out. kubernetes → config: what a pod's command line says has to be what flags can say.
    ("kubernetes", &["config"]),
];

/// What may only know the ground floor itself.
const GROUND_FLOOR: &[&str] = &["config", "telemetry", "runtime", "dns", "error", "outcome", "kubernetes"];

/// Modules that know each other, with the reason. No others do, in however wide a circle.
const CIRCLES: &[(&[&str], &str)] = &[
    (&["admin", "app"], "the root builds the admin, and the admin can end what the root has built"),
    (&["proxy", "snapshot"], "a snapshot holds compiled header rules; the proxy reads snapshots"),
];

#[test]
fn arrows_point_the_way_that_is_written_down() {
    let found = arrows();
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(module, targets)| (*module, targets.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for (module, targets) in &found {
        let known = allowed.get(module.as_str());
        for (target, place) in targets {
            if !known.is_some_and(|known| known.contains(target.as_str())) {
                wrong.push(format!("{module} → {target} is not in ARROWS: {place}"));
            }
        }
    }
    for (module, targets) in &allowed {
        match found.get(*module) {
            None => wrong.push(format!("there is no module {module} any more: remove it from ARROWS")),
            Some(used) => wrong.extend(
                targets
                    .iter()
                    .filter(|target| !used.contains_key(**target))
                    .map(|target| format!("{module} → {target} is not used any more: remove it from ARROWS")),
            ),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_ground_floor_knows_no_feature() {
    for (module, targets) in ARROWS.iter().filter(|(module, _)| GROUND_FLOOR.contains(module)) {
        for target in *targets {
            assert!(GROUND_FLOOR.contains(target), "{module} must not know {target}");
        }
    }
}

#[test]
fn only_known_circles_exist() {
    let reachable = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(module) = open.pop() {
            let targets = ARROWS.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, targets)| targets);
            open.extend(targets.iter().filter(|target| seen.insert((**target).to_owned())).map(|t| (*t).to_owned()));
        }
        seen
    };
    let all: BTreeMap<&str, BTreeSet<String>> = ARROWS.iter().map(|(module, _)| (*module, reachable(module))).collect();
    for (module, reach) in &all {
        let circle: Vec<&str> = all
            .iter()
            .filter(|(other, back)| reach.contains(**other) && back.contains(*module))
            .map(|(o, _)| *o)
            .collect();
        let known = circle.is_empty() || CIRCLES.iter().any(|(members, _)| *members == circle.as_slice());
        assert!(known, "{circle:?} import each other in a circle");
    }
    for (members, _) in CIRCLES {
        for member in *members {
            assert!(all[member].contains(*member), "{member} is in no circle any more: remove it from CIRCLES");
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    for file in files(&["src", "tests", "examples", "benches"]) {
        let text = read(&file);
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines: split it", file.display());
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        for vague in ["util", "utils", "common", "helper", "helpers", "misc"] {
            let named = file.iter().any(|part| part == vague) || stem == vague;
            assert!(!named, "{}: `{vague}` says nothing about what is in it", file.display());
        }
    }
}

#[test]
fn nothing_unsafe_and_no_test_left_out() {
    // In pieces, or this file would find itself.
    let forbidden = [concat!("un", "safe "), concat!("#[ig", "nore")];
    for file in files(&["src", "tests", "examples", "benches"]) {
        for (index, line) in read(&file).lines().enumerate() {
            let code = without_comment(line);
            for word in forbidden {
                assert!(!code.contains(word), "{}:{}: {word}", file.display(), index + 1);
            }
        }
    }
}

/// Clippy bans what no file may call (`.clippy.toml`); tests may call these, and commands that carry no requests.
#[test]
fn nothing_stalls_its_thread_or_leaves_it() {
    let forbidden = [
        ("thread::sleep", "it stalls every request of its worker"),
        ("tokio::spawn(", "work stays on the thread that owns its state: tokio::task::spawn_local"),
        ("task::spawn(", "work stays on the thread that owns its state: tokio::task::spawn_local"),
    ];
    for file in files(&["src"]).into_iter().filter(|file| !file.starts_with("src/cli")) {
        let text = read(&file);
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (index, line) in code.lines().map(without_comment).enumerate() {
            for (call, reason) in forbidden {
                assert!(!line.contains(call), "{}:{}: {call}: {reason}", file.display(), index + 1);
            }
        }
    }
}

/// Module → module → the first place that uses it.
fn arrows() -> BTreeMap<String, BTreeMap<String, String>> {
    let sources = files(&["src"]);
    let modules: BTreeSet<String> = sources.iter().map(|file| module_of(file)).collect();
    let absolute = Regex::new(r"\b(?:crate|outrigger)::(?:\{([^;]*?)\}|([a-z_0-9]+))").unwrap();
    let upwards = Regex::new(r"\b((?:super::)+)([a-z_0-9]+)").unwrap();
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for file in &sources {
        let module = module_of(file);
        if module == "lib" {
            continue; // The map of all modules.
        }
        let targets = found.entry(module.clone()).or_default();
        let code: Vec<String> = read(file).lines().map(|line| without_comment(line).to_owned()).collect();
        let code = code.join("\n");
        let mut add = |name: &str, offset: usize| {
            if name != module && modules.contains(name) {
                let line = code[..offset].lines().count();
                targets.entry(name.to_owned()).or_insert_with(|| format!("{}:{line}", file.display()));
            }
        };
        for captures in absolute.captures_iter(&code) {
            let offset = captures.get(0).unwrap().end();
            match (captures.get(1), captures.get(2)) {
                (Some(group), _) => {
                    for member in group.as_str().split(',') {
                        add(member.trim().split("::").next().unwrap_or_default(), offset);
                    }
                }
                (_, Some(name)) => add(name.as_str(), offset),
                _ => {}
            }
        }
        // As many `super` as the file is deep lead to the crate's root.
        for captures in upwards.captures_iter(&code) {
            if captures[1].matches("super").count() >= depth_of(file) {
                add(&captures[2], captures.get(0).unwrap().end());
            }
        }
    }
    found
}

/// The top-level module that a file of `src` belongs to.
fn module_of(file: &Path) -> String {
    let first = file.strip_prefix("src").unwrap().iter().next().unwrap().to_string_lossy().into_owned();
    first.strip_suffix(".rs").map(str::to_owned).unwrap_or(first)
}

/// How many modules lie between a file of `src` and the crate's root, its own included.
fn depth_of(file: &Path) -> usize {
    let parts = file.strip_prefix("src").unwrap().iter().count();
    if file.ends_with("mod.rs") { parts - 1 } else { parts }
}

fn without_comment(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// Rust files below these folders, without those of other packages.
fn files(folders: &[&str]) -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.join("Cargo.toml").exists() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(!files.is_empty());
    files
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}
