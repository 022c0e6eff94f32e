//! Keeps what the README says true: its files pass `check`, its transcripts are what the program prints, its tables are
//! whole, its links lead somewhere.

#![allow(clippy::unwrap_used)] // A test says what is wrong by failing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::CommandFactory as _;
use outrigger::error::Reason;
use regex::Regex;
use serde_json::Value;

const README: &str = include_str!("../README.md");

/// Stands in where a block shows something else than listeners.
const A_LISTENER: &str = "\nlisteners: { inbound: { address: \":15006\", upstream: \"127.0.0.1:8080\" } }\n";

#[test]
fn configurations_pass_check() {
    let blocks = blocks("yaml");
    assert!(blocks.len() >= 4, "the README has shown more: {}", blocks.len());
    for mut block in blocks {
        if !block.contains("listeners:") {
            block.push_str(A_LISTENER);
        }
        let output = outrigger(&["check", "--no-files", "--strict", "-"], &block);
        assert!(output.status.success(), "{block}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn transcripts_are_what_the_program_prints() {
    let transcripts = blocks("console");
    assert!(!transcripts.is_empty());
    for transcript in transcripts {
        let (line, shown) = transcript.split_once('\n').unwrap();
        let words: Vec<&str> = line.strip_prefix("$ outrigger ").unwrap().split(' ').collect();
        let output = outrigger(&words, "");
        let printed = [output.stdout, output.stderr].concat();
        assert_eq!(String::from_utf8_lossy(&printed), shown, "{line}");
    }
}

#[test]
fn a_file_with_five_mistakes_is_refused() {
    let output = outrigger(&["check", "tests/cases/five.yaml"], "");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn every_key_of_the_file_is_explained() {
    let mut keys = BTreeSet::new();
    collect_keys(outrigger::config::schema::json_schema(), &mut keys);
    assert!(keys.contains("header_timeout"), "{keys:?}");
    let code = code();
    let missing: Vec<&String> =
        keys.iter().filter(|key| !Regex::new(&format!(r"\b{key}\b")).unwrap().is_match(&code)).collect();
    assert!(missing.is_empty(), "the README does not speak of {missing:?}");
}

#[test]
fn defaults_are_the_programs() {
    let output = outrigger(&["check", "--effective", "config/minimal.yaml"], "");
    let effective = flat(&String::from_utf8(output.stdout).unwrap());
    let row = Regex::new(r"(?m)^\| `([a-z_.]+)` \| `([^`]+)`").unwrap();
    // Of each table, where its keys stand in the file.
    let tables = [
        ("The file", 0, ""),
        ("The file", 1, "listeners.inbound."),
        ("The file", 2, "defaults."),
        ("Timeouts", 0, "defaults.timeouts."),
        ("Limits", 0, "listeners.inbound.limits."),
        ("Limits", 1, "defaults.limits."),
    ];
    let mut compared = 0;
    for (title, number, prefix) in tables {
        let table = section(title).split("\n| key |").nth(number + 1).unwrap().split("\n\n").next().unwrap();
        for [key, shown] in row.captures_iter(table).map(|found| found.extract().1) {
            // What is not in the long form has no default of its own.
            if let Some(real) = effective.get(&format!("{prefix}{key}")) {
                assert_eq!(milliseconds(shown), milliseconds(real), "{title}: {prefix}{key}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 25, "only {compared} defaults were found");
}

#[test]
fn every_command_is_in_the_table() {
    for command in outrigger::cli::Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(README.contains(&format!("| `outrigger {name}")), "the README's table has no `outrigger {name}`");
    }
}

#[test]
fn the_table_of_reasons_is_whole() {
    let row = Regex::new(r"(?m)^\| `([a-z_]+)` \| (\d{3})(?: \(log only\))? \| (\d+) \| .+ \|$").unwrap();
    let section = section("Reasons");
    let shown: Vec<_> = row.captures_iter(section).map(|row| row.extract::<3>().1.map(str::to_owned)).collect();
    let real = Reason::ALL.map(|reason| {
        [reason.as_str().to_owned(), reason.status().as_str().to_owned(), reason.grpc_status().to_string()]
    });
    assert_eq!(shown, real);
}

#[test]
fn the_table_of_metrics_is_whole() {
    assert!(
        section("Metrics").contains(include_str!("../src/telemetry/metrics/metrics.md").trim()),
        "copy src/telemetry/metrics/metrics.md into the README"
    );
}

#[test]
fn each_metric_answers_a_question() {
    let (table, questions) = section("Metrics").split_once("### What to ask").unwrap();
    let row = Regex::new(r"(?m)^\| `(outrigger_[a-z_]+)` \| (?:counter|gauge|histogram) \|").unwrap();
    let metrics: Vec<&str> = row.captures_iter(table).map(|row| row.get(1).unwrap().as_str()).collect();
    assert!(metrics.len() > 50, "only {} metrics were found", metrics.len());
    let asked = |metric: &str| {
        let name = Regex::new(&format!(r"\b{metric}(?:_bucket|_count|_sum)?\b")).unwrap();
        name.is_match(questions)
    };
    let unasked: Vec<&str> = metrics.into_iter().filter(|metric| !asked(metric)).collect();
    assert!(unasked.is_empty(), "what are {unasked:?} good for?");
}

#[test]
fn each_dependency_has_its_reason() {
    let manifest = std::fs::read_to_string("Cargo.toml").unwrap();
    let name = Regex::new(r"(?m)^([a-z0-9_-]+) = ").unwrap();
    let tables =
        manifest.split("\n[").filter(|table| table.starts_with("dependencies]") || table.starts_with("dev-dep"));
    let used: BTreeSet<String> = tables
        .flat_map(|table| name.captures_iter(table).map(|found| found[1].to_owned()).collect::<Vec<_>>())
        .collect();
    let row = Regex::new(r"(?m)^\| `([a-z0-9_-]+)`(?: \(tests\))? \| .+ \|$").unwrap();
    let explained: BTreeSet<String> =
        row.captures_iter(section("Dependencies")).map(|found| found[1].to_owned()).collect();
    assert_eq!(used, explained);
}

#[test]
fn links_lead_somewhere() {
    let anchors: BTreeSet<String> = README
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            title.chars().filter(|letter| letter.is_alphanumeric() || *letter == '-').collect()
        })
        .collect();
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let prose = code_pattern().replace_all(README, "");
    for target in link.captures_iter(&prose).map(|found| found[1].to_owned()) {
        match target.strip_prefix('#') {
            Some(anchor) => assert!(anchors.contains(anchor), "no section {target}: {anchors:?}"),
            None if target.starts_with("https://") => {}
            None => assert!(Path::new(&target).exists(), "no file {target}"),
        }
    }
}

fn outrigger(words: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What stands in fences of this language.
fn blocks(language: &str) -> Vec<String> {
    let opening = format!("\n```{language}\n");
    README.split(&opening).skip(1).map(|rest| format!("{}\n", rest.split_once("\n```").unwrap().0)).collect()
}

/// Everything in fences and between backticks.
fn code() -> String {
    code_pattern().find_iter(README).map(|found| found.as_str()).collect::<Vec<_>>().join("\n")
}

fn code_pattern() -> Regex {
    Regex::new(r"(?s)```.*?```|`[^`\n]+`").unwrap()
}

/// From a heading to the next of the same rank.
fn section(title: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n## {title}\n")).unwrap();
    rest.split_once("\n## ").map_or(rest, |(section, _)| section)
}

/// The scalars of an effective configuration by their paths. It is regular: a key a line, two spaces a level.
fn flat(effective: &str) -> BTreeMap<String, String> {
    let mut path: Vec<&str> = Vec::new();
    let mut scalars = BTreeMap::new();
    for line in effective.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        path.truncate((key.len() - key.trim_start().len()) / 2);
        path.push(key.trim());
        let value = value.trim().trim_matches('"');
        if !value.is_empty() {
            scalars.insert(path.join("."), value.to_owned());
        }
    }
    scalars
}

/// Durations in one form, so that `75s` is `1m15s`; everything else as it is.
fn milliseconds(text: &str) -> String {
    let period = Regex::new(r"^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$").unwrap();
    match period.captures(text).filter(|_| !text.is_empty()) {
        Some(parts) => {
            let part = |index: usize| parts.get(index).map_or(0, |digits| digits.as_str().parse::<u64>().unwrap());
            format!("{}000", part(1) * 3600 + part(2) * 60 + part(3))
        }
        None => text.to_owned(),
    }
}

/// The names of all properties in a JSON Schema.
fn collect_keys(schema: Value, keys: &mut BTreeSet<String>) {
    let mut open = vec![schema];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(Value::Object(properties)) = map.get("properties") {
                    keys.extend(properties.keys().cloned());
                }
                open.extend(map.into_iter().map(|(_, value)| value));
            }
            Value::Array(list) => open.extend(list),
            _ => {}
        }
    }
}
