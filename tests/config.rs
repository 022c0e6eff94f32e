//! What `outrigger check` says: of bad files (`tests/cases/*.yaml` beside what is expected), of the files in `config/`,
//! and of hostile ones.
//!
//! `OUTRIGGER_BLESS=1 cargo test --test config` writes what is said into the expected files; read the difference.

#![allow(clippy::unwrap_used)] // A test says what is wrong by failing.

use std::path::{Path, PathBuf};

use outrigger::cli::check::{CheckArgs, FormatArg, Streams, check};

/// What a run of `check` gave.
struct Run {
    code: u8,
    output: String,
    errors: String,
}

fn arguments(file: &str) -> CheckArgs {
    CheckArgs {
        file: PathBuf::from(file),
        env_file: None,
        allow_missing_env: false,
        no_files: true,
        effective: false,
        format: FormatArg::Text,
        strict: false,
    }
}

fn run(args: &CheckArgs, input: &[u8]) -> Run {
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let mut input = input;
    let mut streams = Streams { input: &mut input, output: &mut output, errors: &mut errors, colours: false };
    let environment = |name: &str| match name {
        "SECRET" => Some("hunter2".to_owned()),
        "PORT" => Some("8080".to_owned()),
        _ => None,
    };
    let code = check(args, &mut streams, &environment).unwrap();
    Run { code, output: String::from_utf8(output).unwrap(), errors: String::from_utf8(errors).unwrap() }
}

fn check_text(text: &str) -> Run {
    run(&arguments("-"), text.as_bytes())
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn each_bad_file_is_explained() {
    let mut differences = Vec::new();
    for file in files("tests/cases") {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read(&file).unwrap();
        let run = run(&arguments("-"), &text);
        let said = format!("{}{}exit {}\n", run.errors, run.output, run.code).replace("<stdin>", &name);
        let expected_file = file.with_extension("expected");
        if std::env::var_os("OUTRIGGER_BLESS").is_some() {
            std::fs::write(&expected_file, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_file).unwrap_or_default();
        if said != expected {
            differences.push(format!("{name}: expected\n{expected}\nbut it says\n{said}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn files_of_config_are_right() {
    for file in files("config") {
        let run = run(&CheckArgs { strict: true, ..arguments(&file.display().to_string()) }, b"");
        assert_eq!(run.code, 0, "{}", run.errors);
    }
}

#[test]
fn five_mistakes_are_all_found_at_once() {
    let run = run(&arguments("tests/cases/five.yaml"), b"");
    assert_eq!(run.code, 1);
    for place in [":3:14", ":5:5", ":10:19", ":11:31", ":16:3"] {
        assert!(run.errors.contains(&format!("five.yaml{place}\n")), "{place}: {}", run.errors);
    }
    assert!(run.errors.matches("= hint:").count() >= 3);
    assert!(run.errors.ends_with("five.yaml: 5 errors\n"));
}

#[test]
fn a_file_that_is_not_there_is_said() {
    let run = run(&arguments("tests/cases/none.yaml"), b"");
    assert_eq!(run.code, 1);
    assert!(run.errors.contains("none.yaml cannot be read"), "{}", run.errors);
    assert!(!Path::new("tests/cases/none.yaml").exists());
}

#[test]
fn text_is_read_from_standard_input() {
    let run = check_text("listeners: { inbound: { address: \":15006\", upstream: \"127.0.0.1:${PORT}\" } }");
    assert_eq!((run.code, run.output.as_str()), (0, "<stdin>: ok: 1 listener, 1 route, 1 upstream\n"));
}
