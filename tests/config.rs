//! What `outrigger check` says: of bad files (`tests/cases/*.yaml` beside what is expected), of the files in `config/`,
//! and of hostile ones.
//!
//! `OUTRIGGER_BLESS=1 cargo test --test config` writes what is said into the expected files; read the difference.

#![allow(clippy::unwrap_used)] // Clippy takes functions beside the tests for no tests.

use std::path::{Path, PathBuf};

use outrigger::cli::check::{CheckArgs, FormatArg, Streams, check};
use outrigger::config::template::{Segment, Variable};
use outrigger::config::{Document, LoadOptions, load};

/// What a run of `check` gave.
struct Run {
    code: u8,
    output: String,
    errors: String,
}

fn arguments(file: &str) -> CheckArgs {
    CheckArgs {
        files: vec![PathBuf::from(file)],
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
fn the_schema_is_that_of_the_types() {
    let (file, schema) = ("src/config/schema.json", format!("{:#}\n", outrigger::config::schema::json_schema()));
    if std::env::var_os("OUTRIGGER_BLESS").is_some() {
        std::fs::write(file, &schema).unwrap();
    }
    assert!(
        std::fs::read_to_string(file).unwrap() == schema,
        "{file} is old: OUTRIGGER_BLESS=1 cargo test --test config"
    );
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
fn several_files_are_checked_each_and_the_worst_counts() {
    let files = ["config/minimal.yaml", "tests/cases/five.yaml", "nowhere.yaml"].map(PathBuf::from).to_vec();
    let all = run(&CheckArgs { files: files.clone(), ..arguments("-") }, b"");
    assert_eq!(all.code, 1);
    assert!(all.output.starts_with("config/minimal.yaml: ok: "), "{}", all.output);
    assert!(all.errors.contains("tests/cases/five.yaml: 5 errors\n"), "{}", all.errors);
    assert!(all.errors.ends_with("nowhere.yaml cannot be read: No such file or directory (os error 2)\n"));
    let json = run(&CheckArgs { files: files.clone(), format: FormatArg::Json, ..arguments("-") }, b"").output;
    let reports = serde_json::Deserializer::from_str(&json).into_iter::<serde_json::Value>();
    let verdicts: Vec<_> = reports.map(|report| report.unwrap()["ok"].as_bool()).collect();
    assert_eq!(verdicts, [Some(true), Some(false), Some(false)]);
    for one in
        [CheckArgs { effective: true, ..arguments("-") }, CheckArgs { format: FormatArg::Sarif, ..arguments("-") }]
    {
        let refused = run(&CheckArgs { files: files.clone(), ..one }, b"");
        assert_eq!((refused.code, refused.output.as_str()), (2, ""), "{}", refused.errors);
    }
}

#[test]
fn text_is_read_from_standard_input() {
    let run = check_text("listeners: { inbound: { address: \":15006\", upstream: \"127.0.0.1:${PORT}\" } }");
    assert_eq!((run.code, run.output.as_str()), (0, "<stdin>: ok: 1 listener, 1 route, 1 upstream\n"));
}

#[test]
fn what_a_variable_holds_is_never_shown() {
    let text = std::fs::read_to_string("tests/cases/environment.yaml").unwrap();
    for format in [FormatArg::Text, FormatArg::Json, FormatArg::Github, FormatArg::Sarif] {
        let run = run(&CheckArgs { format, ..arguments("-") }, text.as_bytes());
        assert_eq!(run.code, 1);
        assert!(!format!("{}{}", run.output, run.errors).contains("hunter2"), "{format:?}");
    }
    let text = "listeners: { a: { address: \":1\", routes: [{ respond: { body: \"${SECRET} ${PORT}\" } }] } }";
    let run = run(&CheckArgs { effective: true, ..arguments("-") }, text.as_bytes());
    assert_eq!(run.code, 0);
    assert!(run.output.contains("body: \"${SECRET} ${PORT}\""), "{}", run.output);
}

#[test]
fn nothing_is_wrong_with_what_is_written_out_in_full() {
    let text = "
listeners: { a: { address: \":1\", upstream: b, rate_limit: { per_second: 1 } } }
upstreams: { b: { static: [\"127.0.0.1:1024\"], ejection: { for: 10m }, circuit_breaker: { open_for: 2m } } }
";
    let long = run(&CheckArgs { effective: true, ..arguments("-") }, text.as_bytes());
    let checked = run(&CheckArgs { strict: true, ..arguments("-") }, long.output.as_bytes());
    assert_eq!((long.code, checked.code), (0, 0), "{}{}", long.output, checked.errors);
}

#[test]
fn what_a_variable_holds_is_no_template() {
    let text = "listeners: { a: { address: \":1\", routes: [{ upstream: \"127.0.0.1:80\", \
                request_headers: { set: { authorization: \"%{route} ${SECRET}\" } } }] } }";
    let environment = |_: &str| Some("a%%b%{c".to_owned());
    let document = Document { name: "a.yaml", bytes: text.as_bytes() };
    let loaded = load(document, &environment, &LoadOptions::default()).unwrap();
    let (_, template) = &loaded.config.listeners[0].routes[0].request_headers.set[0];
    assert_eq!(template.segments, [Segment::Variable(Variable::Route), Segment::Literal(" a%%b%{c".to_owned())]);
    assert!(loaded.effective.contains("%{route} ${SECRET}"), "{}", loaded.effective);
}

#[test]
fn variables_come_from_a_file_or_may_be_missing() {
    let text = "listeners: { a: { address: \":${MISSING_PORT}\", upstream: \"127.0.0.1:${PORT}\" } }";
    assert_eq!(check_text(text).code, 1);

    let file = std::env::temp_dir().join(format!("outrigger-test-{}.env", std::process::id()));
    std::fs::write(&file, "# comment\nexport MISSING_PORT=\"15006\"\n").unwrap();
    let with_file = run(&CheckArgs { env_file: Some(file.clone()), ..arguments("-") }, text.as_bytes());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(with_file.code, 0, "{}", with_file.errors);

    let allowed = run(&CheckArgs { allow_missing_env: true, effective: true, ..arguments("-") }, text.as_bytes());
    assert_eq!(allowed.code, 0, "{}", allowed.errors);
    assert!(allowed.output.contains("${MISSING_PORT}"), "{}", allowed.output);
    // The rest is looked at all the same.
    let wrong = format!("{text}\ndrain: {{ delay: soon }}");
    let still = run(&CheckArgs { allow_missing_env: true, ..arguments("-") }, wrong.as_bytes());
    assert_eq!(still.code, 1);
    assert!(still.errors.contains("`soon` is not a duration"), "{}", still.errors);
}

#[test]
fn files_that_are_named_must_exist_unless_told_otherwise() {
    let text =
        "admin: { token_file: /nowhere/token }\nlisteners: { a: { address: \":1\", upstream: \"127.0.0.1:1024\" } }";
    let looked = run(&CheckArgs { no_files: false, ..arguments("-") }, text.as_bytes());
    assert_eq!(looked.code, 1);
    assert!(
        looked.errors.contains("the file `/nowhere/token` does not exist") && looked.errors.contains(":1:22"),
        "{}",
        looked.errors
    );
    assert_eq!(check_text(text).code, 0);
}

#[test]
fn strict_makes_warnings_errors() {
    let file = "tests/cases/warnings.yaml";
    assert_eq!(run(&arguments(file), b"").code, 0);
    let strict = run(&CheckArgs { strict: true, ..arguments(file) }, b"");
    assert_eq!(strict.code, 1);
    assert!(strict.errors.starts_with("error[unused-upstream]"), "{}", strict.errors);
}

#[test]
fn tools_read_the_mistakes() {
    let of = |format| run(&CheckArgs { format, ..arguments("tests/cases/five.yaml") }, b"");

    let json: serde_json::Value = serde_json::from_str(&of(FormatArg::Json).output).unwrap();
    assert_eq!((&json["ok"], &json["errors"]), (&false.into(), &5.into()));
    let first = &json["diagnostics"][0];
    assert_eq!(
        (&first["line"], &first["column"], &first["key"]),
        (&3.into(), &14.into(), &"listeners.inbound.address".into())
    );

    let github = of(FormatArg::Github).output;
    assert_eq!(github.lines().count(), 5);
    assert!(
        github.starts_with(
            "::error file=tests/cases/five.yaml,line=3,col=14,endColumn=32,title=invalid-value::the port in"
        )
    );

    let sarif: serde_json::Value = serde_json::from_str(&of(FormatArg::Sarif).output).unwrap();
    let result = &sarif["runs"][0]["results"][2];
    assert_eq!(result["ruleId"], "unknown-upstream");
    assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], 10);
    assert_eq!(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "tests/cases/five.yaml");
}

#[test]
fn a_right_file_satisfies_tools_too() {
    for (format, expected) in
        [(FormatArg::Json, "\"ok\": true"), (FormatArg::Sarif, "\"results\": []"), (FormatArg::Github, "")]
    {
        let run = run(&CheckArgs { format, ..arguments("config/minimal.yaml") }, b"");
        assert_eq!((run.code, run.errors.as_str()), (0, ""));
        assert!(run.output.contains(expected), "{format:?}: {}", run.output);
    }
}

/// What is refused before it costs much. Each of these took seconds or gigabytes in one YAML reader or another.
#[test]
fn hostile_files_are_refused() {
    let mut bomb = String::from("x-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..30 {
        bomb.push_str(&format!("x-{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", ")));
    }
    let mut merges =
        format!("x-0: &a0 {{ {} }}\n", (0..2_000).map(|key| format!("k{key}: 1")).collect::<Vec<_>>().join(", "));
    for level in 1..2_000 {
        merges.push_str(&format!("x-{level}: {{ <<: *a0 }}\n"));
    }
    let deep_block: String = (0..1_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    let with_paths = |paths: Vec<String>| {
        let routes: String =
            paths.iter().map(|path| format!("{{ match: {{ path: {path} }}, upstream: \"127.0.0.1:1\" }}, ")).collect();
        format!("listeners: {{ a: {{ address: \":1\", routes: [{routes}] }} }}")
    };
    let expressions = with_paths((0..1_001).map(|number| format!("{{ regex: \"/a{number}\" }}")).collect());
    let large_expressions = with_paths(vec![r"{ regex: '\w{1,20}' }".to_owned(); 33]);
    for (name, text, code) in [
        ("expressions", expressions, "invalid-regex"),
        ("large expressions", large_expressions, "invalid-regex"),
        ("billion laughs", bomb, "too-many-values"),
        ("merges", merges, "too-many-values"),
        ("deep lists", "[".repeat(100_000), "too-deep"),
        ("deep mappings", "{a: ".repeat(100_000), "too-deep"),
        ("deep block lists", "- ".repeat(100_000), "too-deep"),
        ("deep keys", "? ".repeat(100_000), "too-deep"),
        ("deep block mappings", deep_block, "too-deep"),
        ("large", "a".repeat(10 << 20), "too-large"),
        ("many values", format!("a: [{}]", "1,".repeat(500_000)), "too-many-values"),
        ("an alias of itself", "a: &a [*a]".to_owned(), "syntax"),
        ("NUL", "version: 1\0\nlisteners: {}".to_owned(), "encoding"),
        ("escape", "version: \u{1b}[2J".to_owned(), "encoding"),
    ] {
        let run = check_text(&text);
        assert_eq!(run.code, 1, "{name}");
        assert!(run.errors.contains(&format!("error[{code}]")), "{name}: {}", run.errors);
        assert!(run.errors.len() < 30_000, "{name}: {}", run.errors);
    }
    for (name, bytes) in [("UTF-16", &b"\xff\xfev\x00"[..]), ("Latin-1", &b"service: caf\xe9"[..])] {
        let run = run(&arguments("-"), bytes);
        assert!(run.code == 1 && run.errors.contains("error[encoding]"), "{name}: {}", run.errors);
    }
}

#[test]
fn many_mistakes_are_counted_and_not_all_shown() {
    let keys: String = (0..20_000).map(|key| format!("key{key}: 1\n")).collect();
    let run = check_text(&keys);
    assert!(run.errors.matches("error[").count() <= 50);
    assert!(run.errors.contains("20000 errors"), "{}", run.errors.lines().last().unwrap());

    let routes: String = (0..5_000)
        .map(|route| format!("      - {{ match: {{ host: h{route} }}, upstream: payment{route} }}\n"))
        .collect();
    let upstreams: String = (0..5_000).map(|upstream| format!("  payments{upstream}: \"127.0.0.1:80\"\n")).collect();
    let run =
        check_text(&format!("listeners:\n  a:\n    address: \":1\"\n    routes:\n{routes}upstreams:\n{upstreams}"));
    assert!(run.errors.contains("5000 errors"), "{}", run.errors.lines().last().unwrap());
}

/// All pairs of these routes have 7 thousand million pairs of hosts.
#[test]
fn routes_with_many_hosts_are_compared_in_bounded_work() {
    let hosts: Vec<String> = (0..200).map(|host| format!("h{host}")).collect();
    let hosts = hosts.join(", ");
    let routes: String = (0..600)
        .map(|route| format!("{{ match: {{ host: [{hosts}], path: /p{route} }}, upstream: \"127.0.0.1:1024\" }}, "))
        .collect();
    let run = check_text(&format!("listeners: {{ a: {{ address: \":1\", routes: [{routes}] }} }}"));
    assert_eq!(run.output, "<stdin>: ok: 1 listener, 600 routes, 1 upstream\n", "{}", run.errors);
}

#[test]
fn text_from_other_systems_is_read() {
    let unix = std::fs::read_to_string("config/sidecar.yaml").unwrap();
    for text in
        [unix.replace('\n', "\r\n"), format!("\u{feff}{unix}"), format!("---\n{unix}...\n"), unix.replace('\n', "\r")]
    {
        let run = check_text(&text);
        assert_eq!(run.code, 0, "{}", run.errors);
    }
    let run = check_text("service: orders\r\nlisteners:\r\n  a: {}\r\n");
    assert!(run.errors.contains("<stdin>:3:3"), "{}", run.errors);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        run(&arguments("-"), &bytes);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-a-z:{}\\[\\]&*!|>'\"%#@, \n\t?<.0-9$]{0,80}") {
        check_text(&text);
    }
}

/// A file that is there can be of no use: `run` would say so, and so does `check`.
#[test]
fn files_are_looked_into() {
    let folder = std::env::temp_dir().join(format!("outrigger-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let pairs = ["one", "two"].map(|name| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![format!("{name}.test")]).unwrap().self_signed(&key).unwrap();
        write(&format!("{name}.crt"), &certificate.pem());
        write(&format!("{name}.key"), &key.serialize_pem());
        name
    });
    write("token", "");
    let config = |certificate: &str, key: &str, token: &str| {
        format!(
            "admin: {{ token_file: {0}/{token} }}\n\
             telemetry: {{ access_log: {{ path: {0}/log }} }}\n\
             listeners: {{ in: {{ address: \":1\", upstream: \"127.0.0.1:2\", tls: {{\n  cert_file: {0}/{certificate},\n  key_file: {0}/{key} }} }} }}\n",
            folder.display()
        )
    };
    let looking = CheckArgs { no_files: false, ..arguments("-") };
    let said = |text: String| run(&looking, text.as_bytes());
    write("good-token", "let-me-in");
    let good = said(config("one.crt", "one.key", "good-token"));
    assert_eq!(good.code, 0, "{}", good.errors);
    for (text, at, reason) in [
        (config(pairs[0], "two.key", "good-token"), "4:14", "does not exist"),
        (config("one.crt", "two.key", "good-token"), "5:13", "does not belong to the certificate"),
        (config("one.key", "one.key", "good-token"), "4:14", "holds no certificate"),
        (config("one.crt", "two.crt", "good-token"), "5:13", "holds no private key"),
        (config("one.crt", "one.key", "token"), "1:22", "the file is empty"),
    ] {
        let said = said(text.clone());
        assert_eq!(said.code, 1, "{text}");
        assert!(said.errors.contains(reason) && said.errors.contains(&format!("<stdin>:{at}")), "{}", said.errors);
        assert_eq!(check_text(&text).code, 0, "`--no-files` looks into none");
    }
    let relative = said(
        config("one.crt", "one.key", "good-token").replace(&format!("{}/one.crt", folder.display()), "tls/one.crt"),
    );
    let full = std::env::current_dir().unwrap().join("tls/one.crt");
    let expected = format!("the file `tls/one.crt` does not exist (it would be {})", full.display());
    assert!(relative.errors.contains(&expected), "{}", relative.errors);
    // One file at several keys: what is wrong is wrong at one of them.
    let authority = config("one.crt", "one.key", "good-token")
        .replace(" } } }", &format!(",\n  client_ca_file: {}/one.key }} }} }}", folder.display()));
    let consul =
        format!("consul: {{ token_file: {0}/token }}\n{1}", folder.display(), config("one.crt", "one.key", "token"));
    for (text, key) in [(authority, "listeners.in.tls.client_ca_file"), (consul, "admin.token_file")] {
        let said = said(text);
        assert!(said.code == 1 && said.errors.contains(&format!("= key: {key}\n")), "{}", said.errors);
    }
    // The access log's file is a folder.
    std::fs::create_dir(folder.join("log")).unwrap();
    let log = said(config("one.crt", "one.key", "good-token"));
    assert!(log.errors.contains("cannot open the access log") && log.errors.contains("<stdin>:2:"), "{}", log.errors);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A report that a machine reads is one also where there is no file.
#[test]
fn a_file_that_is_not_there_is_a_finding() {
    for (format, word) in
        [(FormatArg::Json, "unreadable"), (FormatArg::Sarif, "unreadable"), (FormatArg::Github, "::error")]
    {
        let missing = run(&CheckArgs { format, ..arguments("tests/cases/nowhere.yaml") }, b"");
        assert_eq!((missing.code, missing.errors.as_str()), (1, ""));
        assert!(missing.output.contains(word) && missing.output.contains("cannot be read"), "{}", missing.output);
    }
}
