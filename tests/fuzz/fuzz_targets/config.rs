//! Any bytes as a configuration: no panic, no unbounded work, nothing of a variable's value in what is said, and a long
//! form that means the same.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none config tests/fuzz/corpus/config config tests/cases --
//! -dict=tests/fuzz/config.dict -max_len=4096 -runs=1000000`

#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger::config::render::{Format, render};
use outrigger::config::{Document, LoadOptions, examine};

const SECRET: &str = "7hunter7";

fuzz_target!(|bytes: &[u8]| {
    let environment = |name: &str| match name {
        "S" => Some(SECRET.to_owned()),
        "P" => Some("8080".to_owned()),
        _ => None,
    };
    let examine = |bytes: &[u8]| examine(Document { name: "f", bytes }, &environment, &LoadOptions::default());
    let report = examine(bytes);
    let shown = [Format::Text, Format::Json, Format::Github, Format::Sarif].map(|format| render(&report.diagnostics, format, true));
    if !bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()) {
        assert!(!shown.iter().any(|text| text.contains(SECRET)), "a secret is shown: {}", shown[0]);
        assert!(!report.effective.as_ref().is_some_and(|text| text.contains(SECRET)));
    }
    for diagnostic in &report.diagnostics.list {
        assert!(diagnostic.line >= 1 && diagnostic.column >= 1 && diagnostic.end_column >= diagnostic.column);
        assert!(!diagnostic.reason.contains(|character: char| character.is_control()), "{:?}", diagnostic.reason);
    }
    assert_eq!(report.config.is_some(), report.diagnostics.errors() == 0);
    if let (Some(config), Some(effective)) = (report.config, report.effective)
        && effective.len() < outrigger::config::MAX_BYTES
    {
        let again = examine(effective.as_bytes());
        assert_eq!(again.diagnostics.errors(), 0, "{effective}\n{}", render(&again.diagnostics, Format::Text, false));
        assert_eq!(format!("{:?}", again.config), format!("{:?}", Some(config)), "{effective}");
    }
});
