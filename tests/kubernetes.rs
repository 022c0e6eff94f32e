//! Manifests with the sidecar: what goes in, that Kubernetes takes it, and that it comes out without a trace.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)] // A test says what is wrong by failing.

#[path = "kubernetes/made.rs"]
mod made;
#[path = "kubernetes/patch.rs"]
mod patch;
#[path = "integration/support/tools.rs"]
mod tools;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use outrigger::config::{Document, LoadOptions, load};
use outrigger::kubernetes::{Companion, Form, Mode, Options, Outcome, Policy, SyntaxError, eject, review};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Manifests of every kind, with what inject makes of them beside: `NAME.injected.yaml`.
const MANIFESTS: [&str; 6] =
    ["deployment.yaml", "statefulset.yaml", "daemonset.yaml", "jobs.yaml", "pod.yaml", "list.json"];
/// The oldest with native sidecars by default and a `sleep` before the end, one between, and the newest known.
const VERSIONS: [&str; 3] = ["1.30", "1.33", "1.37"];
const CONFIGURATION: &str = include_str!("../config/sidecar.yaml");

fn manifest(name: &str) -> String {
    std::fs::read_to_string(Path::new("tests/kubernetes").join(name)).unwrap()
}

fn options() -> Options {
    Options { image: "outrigger:test".to_owned(), ..Options::default() }
}

fn inject(text: &str, options: &Options, configuration: Option<&str>) -> Result<Outcome, SyntaxError> {
    outrigger::kubernetes::inject(text, options, configuration.map(Companion::new).as_mut())
}

#[test]
fn what_inject_makes_is_what_was_reviewed() {
    for name in MANIFESTS {
        let injected = inject(&manifest(name), &options(), None).unwrap();
        let notes: String = injected.notes.iter().map(|note| format!("# note: {}\n", note.text)).collect();
        let path = Path::new("tests/kubernetes").join(name.replace('.', ".injected."));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, format!("{notes}{}", injected.text)).unwrap();
        }
        let reviewed = std::fs::read_to_string(&path).unwrap();
        assert_eq!(format!("{notes}{}", injected.text), reviewed, "UPDATE_SNAPSHOTS=1 writes {}", path.display());
    }
}

#[test]
fn kubernetes_takes_what_comes_out() {
    let python = tools::python_environment("kubernetes", include_str!("kubernetes/requirements.txt"));
    for form in [Form::Native, Form::Container] {
        for mode in [Mode::Explicit, Mode::Transparent] {
            let options = Options { form, mode, ..options() };
            for name in MANIFESTS {
                let configuration = (!name.ends_with(".json")).then_some(CONFIGURATION);
                let injected = inject(&manifest(name), &options, configuration).unwrap();
                let mut validate = Command::new(&python);
                validate.arg("tests/kubernetes/validate.py").args(VERSIONS);
                let output = piped(&mut validate, &injected.text);
                let said = String::from_utf8_lossy(&output.stdout);
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{name} {form:?} {mode:?}: {said}{errors}\n{}", injected.text);
            }
        }
    }
}

#[test]
fn twice_is_once_and_eject_gives_back_every_byte() {
    for name in MANIFESTS {
        for newline in ["\n", "\r\n"] {
            let original = manifest(name).replace('\n', newline);
            for text in [original.as_str(), original.trim_end()] {
                there_and_back(text, (!name.ends_with(".json")).then_some(CONFIGURATION));
            }
        }
    }
}

#[track_caller]
fn there_and_back(text: &str, configuration: Option<&str>) {
    let mut before = String::new();
    for mode in [Mode::Explicit, Mode::Transparent] {
        let options = Options { mode, ..options() };
        let once = inject(text, &options, configuration).unwrap();
        assert!(once.changed > 0 && once.notes.iter().all(|note| !note.error), "{text}\n{:?}", once.notes);
        assert_eq!(inject(&once.text, &options, configuration).unwrap(), once, "{text}");
        assert_eq!(eject(&once.text).unwrap().text, text, "{}", once.text);
        // Other options over what the first have made.
        if !before.is_empty() {
            assert_eq!(inject(&before, &options, configuration).unwrap().text, once.text);
        }
        before = once.text;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn however_it_is_written(text in made::manifest()) {
        there_and_back(&text, Some(CONFIGURATION));
    }
}

#[test]
fn it_comes_out_of_what_another_program_has_written_anew() {
    // `kubectl get -o yaml` sorts keys, loses comments and has styles of its own.
    let python = tools::python_environment("kubernetes", include_str!("kubernetes/requirements.txt"));
    let anew = |text: &str, style: &str| {
        let program =
            format!("import sys, yaml, json\nfor d in filter(None, yaml.safe_load_all(sys.stdin)): {style}\n",);
        let output = piped(Command::new(&python).args(["-c", &program]), text);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for style in ["print('---'); yaml.safe_dump(d, sys.stdout)", "print(json.dumps(d, indent=2)); print('---')"] {
        for name in ["deployment.yaml", "daemonset.yaml", "jobs.yaml", "statefulset.yaml"] {
            let injected = inject(&manifest(name), &options(), None).unwrap().text;
            let ejected = eject(&anew(&injected, style)).unwrap().text;
            let same = "print(json.dumps(d, sort_keys=True))";
            assert_eq!(anew(&ejected, same), anew(&manifest(name), same), "{ejected}");
        }
    }
}

#[test]
fn what_cannot_carry_it_is_said() {
    let pod = |spec: &str| format!("kind: Pod\nmetadata: {{ name: a }}\nspec:\n{spec}");
    let transparent = Options { mode: Mode::Transparent, ..options() };
    for (text, said) in [
        (pod("  containers:\n  - name: outrigger\n    image: a\n"), "that inject did not put there"),
        (
            pod("  containers:\n  - name: a\n  volumes:\n  - name: outrigger-config\n    emptyDir: {}\n"),
            "it has a volume `outrigger-config` that inject did not put there",
        ),
        (pod("  containers: *x\n").replace("kind", "x: &x []\nkind"), "no containers"),
        (
            pod("  hostNetwork: false\n  <<: *x\n  containers:\n  - name: a\n")
                .replace("kind", "x: &x { volumes: [] }\nkind"),
            "merge",
        ),
        (
            pod("  containers:\n  - name: a\n    readinessProbe: { httpGet: { port: web } }\n"),
            "no port that the container knows",
        ),
        (pod("  containers:\n  - name: a\n    securityContext: { runAsUser: 15001 }\n"), "runs as user 15001"),
    ] {
        let outcome = inject(&text, &transparent, None).unwrap_or_else(|error| panic!("{error}: {text}"));
        let notes: Vec<&str> = outcome.notes.iter().filter(|note| note.error).map(|note| note.text.as_str()).collect();
        assert!(
            notes.len() == 1 && notes[0].starts_with("Pod a cannot be changed") && notes[0].contains(said),
            "{text}\n{notes:?}"
        );
    }
    for (annotation, said) in [
        ("outrigger/mod: explicit", "there is no annotation `outrigger/mod`"),
        ("outrigger/mode: magic", "`magic` is not one of `explicit`, `transparent`"),
        ("outrigger/exclude-inbound-ports: '80,http'", "`http` is not a port"),
        ("outrigger/exclude-networks: '10.0.0.0/8, 10.0.0.0/33'", "10.0.0.0/33"),
        ("outrigger/memory-limit: lots", "`lots` is not an amount"),
        ("outrigger/cpu-limit: '-1'", "`-1` is not an amount"),
        ("outrigger/memory-limit: 16Mi", "memory-request, 32Mi, is more than outrigger/memory-limit, 16Mi"),
        ("outrigger/pre-stop: 4000000000", "killed after 30 s"),
        ("outrigger/pre-stop: 30s", "killed after 30 s"),
    ] {
        let text = format!(
            "kind: Pod\nmetadata: {{ annotations: {{ {annotation} }} }}\nspec: {{ containers: [{{ name: a }}] }}"
        );
        let outcome = inject(&text, &options(), None).unwrap();
        assert!(outcome.notes.iter().any(|note| note.error && note.text.contains(said)), "{:?}", outcome.notes);
    }
    // Kubernetes refuses a pod that sleeps for longer than it has.
    let short = pod("  terminationGracePeriodSeconds: 5\n  containers:\n  - name: a\n");
    let outcome = inject(&short, &options(), None).unwrap();
    assert!(outcome.notes[0].error && outcome.notes[0].text.contains("killed after 5 s"), "{:?}", outcome.notes);
    let own = format!("{short}    lifecycle: {{ preStop: {{ sleep: {{ seconds: 1 }} }} }}\n");
    assert_eq!(inject(&own, &options(), None).unwrap().changed, 1);
    assert!(inject("a: [", &options(), None).is_err());
    // Keys that are written as such.
    let outcome = inject(&pod("  ? containers\n  :\n    - name: a\n"), &options(), None).unwrap();
    assert!(outcome.notes.iter().any(|note| note.error && note.text.contains("cannot be edited")), "{}", outcome.text);
}

/// With capture, a sidecar there would redirect all that its node does.
#[test]
fn pods_in_the_network_of_their_node_are_left_alone_however_that_is_written() {
    let transparent = Options { mode: Mode::Transparent, ..options() };
    let pod = |spec: &str| format!("kind: Pod\nmetadata: {{ name: a }}\nspec:\n{spec}  containers: [{{ name: a }}]\n");
    for word in ["true", "True", "TRUE", "yes", "YES", "on", "On", "y"] {
        let text = pod(&format!("  hostNetwork: {word}\n"));
        let outcome = inject(&text, &transparent, None).unwrap();
        assert_eq!((outcome.changed, outcome.text.as_str()), (0, text.as_str()), "{word}");
        assert!(outcome.notes[0].text.contains("hostNetwork") && !outcome.notes[0].error, "{:?}", outcome.notes);
    }
    for word in ["false", "no", "off"] {
        assert_eq!(inject(&pod(&format!("  hostNetwork: {word}\n")), &transparent, None).unwrap().changed, 1, "{word}");
    }
    for (head, spec) in
        [("x: &x true\n", "  hostNetwork: *x\n"), ("x: &x { hostNetwork: true, volumes: [] }\n", "  <<: *x\n")]
    {
        let outcome = inject(&format!("{head}{}", pod(spec)), &transparent, None).unwrap();
        assert!(
            outcome.changed == 0 && outcome.notes[0].error && outcome.notes[0].text.contains("hostNetwork"),
            "{:?}",
            outcome.notes
        );
    }
}

#[test]
fn json_may_escape_in_two() {
    let pod = r#"{"kind":"Pod","metadata":{"annotations":{"a":"\ud83e\udd80"}},"spec":{"containers":[{"name":"é"}]}}"#;
    there_and_back(pod, None);
}

#[test]
fn pods_for_windows_are_left_alone() {
    for spec in ["os: { name: windows }", "nodeSelector: { kubernetes.io/os: windows }"] {
        let text = format!("kind: Pod\nmetadata: {{ name: a }}\nspec:\n  {spec}\n  containers: [{{ name: a }}]\n");
        let outcome = inject(&text, &options(), None).unwrap();
        assert_eq!((outcome.changed, outcome.text.as_str()), (0, text.as_str()));
        assert!(outcome.notes[0].text.contains("Windows"), "{:?}", outcome.notes);
    }
}

#[test]
fn what_holds_pods_gets_the_sidecar_or_a_note() {
    let template = "template: { spec: { containers: [{ name: a }] } }";
    let controller = format!("kind: ReplicationController\nmetadata: {{ name: a }}\nspec:\n  {template}\n");
    there_and_back(&controller, None);
    for (text, said) in [
        (
            format!("kind: Rollout\nmetadata: {{ name: a }}\nspec:\n  {template}\n"),
            "Rollout a is left alone: inject does",
        ),
        (
            format!("kind: PodTemplate\nmetadata: {{ name: a }}\n{template}\n"),
            "PodTemplate a is left alone: inject does",
        ),
        (
            "kind: PodList\nitems:\n- metadata: { name: a }\n  spec: { containers: [{ name: a }] }\n".to_owned(),
            "PodList without a name is left alone: its items do not say",
        ),
    ] {
        let outcome = inject(&text, &options(), None).unwrap();
        assert_eq!((outcome.changed, outcome.text.as_str()), (0, text.as_str()));
        assert!(outcome.notes.len() == 1 && outcome.notes[0].text.starts_with(said), "{:?}", outcome.notes);
        assert!(!outcome.notes[0].error);
    }
    let others = "kind: Service\nspec: { ports: [] }\n---\nkind: ConfigMapList\nitems: [{ data: { a: b } }]\n";
    assert_eq!(inject(others, &options(), None).unwrap().notes, []);
}

/// Pods find a ConfigMap only where they are themselves.
#[test]
fn the_configuration_comes_to_every_namespace_once() {
    let pod = |name: &str, namespace: &str| {
        format!("kind: Pod\nmetadata: {{ name: {name}{namespace} }}\nspec: {{ containers: [{{ name: a }}] }}\n")
    };
    let (shop, bill) = (", namespace: shop", ", namespace: bill");
    let text = [pod("a", shop), pod("b", bill), pod("c", shop), pod("d", "")].join("---\n");
    for text in [text.as_str(), text.trim_end()] {
        let mut companion = Companion::new(CONFIGURATION);
        let injected = outrigger::kubernetes::inject(text, &options(), Some(&mut companion)).unwrap();
        let maps: Vec<&str> = injected.text.split("kind: ConfigMap\n").skip(1).collect();
        let named = maps.iter().map(|map| map.lines().find_map(|line| line.trim().strip_prefix("namespace: ")));
        assert_eq!(named.collect::<Vec<_>>(), [Some("shop"), Some("bill"), None], "{}", injected.text);
        there_and_back(text, Some(CONFIGURATION));
        // Another file of the same command.
        let more = outrigger::kubernetes::inject(&pod("e", shop), &options(), Some(&mut companion)).unwrap();
        assert!(!more.text.contains("ConfigMap"), "{}", more.text);
        let more = pod("f", ", namespace: till");
        let more = outrigger::kubernetes::inject(&more, &options(), Some(&mut companion)).unwrap();
        assert!(more.text.contains("namespace: till\n"), "{}", more.text);
    }
}

/// A proxy that were told to ask this would not start, and the pod with it.
#[test]
fn probes_that_the_proxy_cannot_ask_stay() {
    for probe in [
        "{ httpGet: { scheme: HTTPS, path: /h, port: 8443 } }",
        "{ httpGet: { path: /health check, port: 8080 } }",
        "{ httpGet: { path: '/a?b=c d', port: 8080 } }",
        "{ tcpSocket: { port: 0 } }",
    ] {
        let text = format!(
            "kind: Pod\nmetadata: {{ name: a }}\nspec:\n  containers:\n  - name: app\n    livenessProbe: {probe}\n"
        );
        let injected = inject(&text, &options(), None).unwrap();
        assert_eq!((injected.changed, injected.notes.len()), (1, 0), "{:?}", injected.notes);
        assert!(injected.text.contains(&format!("livenessProbe: {probe}\n")), "{}", injected.text);
        assert!(!injected.text.contains("--probe"), "{}", injected.text);
    }
}

/// Where the pod had no list or mapping of its own, ours are not the only ones in it for ever.
#[test]
fn what_others_have_added_since_stays() {
    let original =
        "kind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n      - name: app\n        image: a\n";
    let additions = [
        ("      volumes:\n", "      - name: data\n        emptyDir: {}\n"),
        ("      initContainers:\n", "      - name: migrate\n        image: m\n"),
        ("      annotations:\n", "        kubectl.kubernetes.io/restartedAt: now\n"),
        ("        lifecycle:\n", "          postStart: { exec: { command: [warm] } }\n"),
    ];
    let injected = inject(original, &options(), None).unwrap().text;
    let changed = additions.iter().fold(injected, |text, (list, item)| {
        assert!(text.matches(list).count() >= 1, "{text}");
        // The app is the last to have a lifecycle.
        let at = text.rfind(list).unwrap() + list.len();
        format!("{}{item}{}", &text[..at], &text[at..])
    });
    let ejected = eject(&changed).unwrap().text;
    let there = |text: &str| additions.iter().all(|(list, item)| text.contains(&format!("{list}{item}")));
    assert!(there(&ejected) && !ejected.contains("outrigger") && !ejected.contains("preStop"), "{ejected}");
    let again = inject(&changed, &options(), None).unwrap();
    assert_eq!(eject(&again.text).unwrap().text, ejected, "{}", again.text);
}

/// As JSON has them: between others, and at the end, where a comma before them goes as well.
#[test]
fn ours_come_out_from_among_others_in_json() {
    for own in [json!({}), json!({ "annotations": {} }), json!({ "annotations": { "a": "b" } })] {
        let pod = json!({
            "kind": "Pod",
            "metadata": own,
            "spec": { "containers": [{ "name": "app", "readinessProbe": { "tcpSocket": { "port": 80 } } }] },
        });
        let mut injected: Value =
            serde_json::from_str(&inject(&pod.to_string(), &options(), None).unwrap().text).unwrap();
        let mut wanted = pod.clone();
        for pod in [&mut injected, &mut wanted] {
            pod["metadata"]["annotations"]["mine"] = "x".into();
            let volumes = &mut pod["spec"]["volumes"];
            let ours = volumes.as_array().cloned().unwrap_or_default();
            *volumes = json!([[json!({ "name": "first" })].as_slice(), &ours, &[json!({ "name": "last" })]].concat());
        }
        // The API server writes out its defaults.
        injected["spec"]["containers"][0]["readinessProbe"]["httpGet"]["scheme"] = "HTTP".into();
        for text in [injected.to_string(), format!("{injected:#}")] {
            let ejected = eject(&text).unwrap().text;
            let ejected: Value = serde_json::from_str(&ejected).unwrap_or_else(|error| panic!("{error}: {ejected}"));
            assert_eq!(ejected, wanted);
        }
    }
}

#[test]
fn the_webhook_makes_of_a_pod_what_inject_makes_of_it() {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "generateName": "orders-", "annotations": { "note": "\u{1f980} \"<&>\"" } },
        "spec": {
            "containers": [
                {
                    "name": "app",
                    "image": "a",
                    "readinessProbe": { "tcpSocket": { "port": 80 } },
                    "livenessProbe": { "httpGet": { "port": 80 } },
                    "lifecycle": {},
                },
                { "name": "other", "image": "b", "livenessProbe": { "httpGet": { "path": "/", "port": "80" } } },
            ],
            "volumes": [],
            "initContainers": [
                { "name": "first", "image": "c" },
                {
                    "name": "helper",
                    "image": "d",
                    "restartPolicy": "Always",
                    "startupProbe": { "tcpSocket": { "port": 81 } },
                },
            ],
        },
    });
    for form in [Form::Native, Form::Container] {
        for mode in [Mode::Explicit, Mode::Transparent] {
            let options = Options { form, mode, ..options() };
            let body = json!({
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "request": { "uid": "u", "kind": { "kind": "Pod" }, "operation": "CREATE", "object": pod },
            });
            let answer = review(body.to_string().as_bytes(), &options, Policy::Deny).unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!((&answer["response"]["uid"], &answer["response"]["allowed"]), (&json!("u"), &json!(true)));
            let patched = patch::apply(&pod, answer["response"]["patch"].as_str().unwrap());
            let injected = inject(&pod.to_string(), &options, None).unwrap().text;
            assert_eq!(patched, serde_json::from_str::<Value>(&injected).unwrap(), "{form:?} {mode:?}");
            // With mTLS nobody but the proxy reaches a native sidecar; before an ordinary container it starts alone.
            let asks = injected.contains("helper/startup=tcp://127.0.0.1:81");
            assert_eq!(asks, form == Form::Native, "{injected}");
        }
    }
}

#[test]
fn kubernetes_takes_the_examples() {
    let python = tools::python_environment("kubernetes", include_str!("kubernetes/requirements.txt"));
    let validates = |name: &str, text: &str| {
        let output = piped(Command::new(&python).arg("tests/kubernetes/validate.py").args(VERSIONS), text);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    };
    let folder = Path::new("examples/kubernetes");
    for name in ["standalone.yaml", "canary.yaml", "consul.yaml", "webhook.yaml"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        validates(name, &text);
        checks(name, &text);
    }
    let configuration = std::fs::read_to_string(folder.join("sidecar/outrigger.yaml")).unwrap();
    let app = std::fs::read_to_string(folder.join("sidecar/app.yaml")).unwrap();
    let injected = inject(&app, &options(), Some(&configuration)).unwrap().text;
    validates("sidecar/app.yaml", &injected);
    checks("sidecar/outrigger.yaml", &injected);
    // The chart, as `helm lint --strict` and `helm template` see it.
    let all = r#"{"autoscaling":{"enabled":true,"requestsInFlight":50},"env":[{"name":"A","value":"b"}],
                  "tolerations":[{"key":"x"}],"imagePullSecrets":[{"name":"p"}],"image":{"tag":"1"}}"#;
    for values in ["{}", all] {
        let chart = Command::new(&python)
            .args(["tests/kubernetes/render_chart.py", "examples/kubernetes/chart", values])
            .output()
            .unwrap();
        assert!(chart.status.success(), "{}", String::from_utf8_lossy(&chart.stderr));
        let rendered = String::from_utf8(chart.stdout).unwrap();
        validates("chart", &rendered);
        checks("chart", &rendered);
    }
}

/// Whether each configuration in these manifests can be run.
#[track_caller]
fn checks(name: &str, manifests: &str) {
    let blocks = manifests.split("  outrigger.yaml: |\n").skip(1);
    for block in blocks {
        let text: String = block
            .lines()
            .take_while(|line| line.starts_with("    ") || line.trim().is_empty())
            .map(|line| format!("{}\n", line.get(4..).unwrap_or_default()))
            .collect();
        let environment = |variable: &str| (variable == "CONSUL_HTTP_ADDR").then(|| "http://10.96.0.9:8500".to_owned());
        let loaded = load(Document { name, bytes: text.as_bytes() }, &environment, &LoadOptions::default());
        let loaded = loaded.unwrap_or_else(|diagnostics| panic!("{name}: {diagnostics}\n{text}"));
        assert_eq!(loaded.warnings.errors(), 0, "{name}");
    }
}

#[test]
fn as_commands() {
    let program = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command.env_remove("OUTRIGGER_IMAGE");
        command
    };
    let original = manifest("deployment.yaml");
    let injected = piped(program().args(["inject", "--config", "config/sidecar.yaml", "-"]), &original);
    assert_eq!(injected.status.code(), Some(0), "{}", String::from_utf8_lossy(&injected.stderr));
    let injected = String::from_utf8(injected.stdout).unwrap();
    assert!(injected.contains("kind: ConfigMap"), "{injected}");
    let ejected = piped(program().arg("eject"), &injected);
    assert_eq!(String::from_utf8(ejected.stdout).unwrap(), original);

    // Two files become one stream, with one ConfigMap.
    let both = program()
        .args([
            "inject",
            "--config",
            "config/sidecar.yaml",
            "tests/kubernetes/statefulset.yaml",
            "tests/kubernetes/jobs.yaml",
        ])
        .output()
        .unwrap();
    let both = String::from_utf8(both.stdout).unwrap();
    assert_eq!(both.matches("kind: ConfigMap").count(), 1);
    assert_eq!(both.matches("restartPolicy: Always").count(), 3);

    // What is piped into a cluster is whole or not at all.
    let refused = piped(program().arg("inject"), "kind: Pod\nmetadata: { name: a }\nspec: { containers: [] }\n");
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("error: <stdin>: Pod a cannot be changed"));
    let template = piped(program().arg("inject"), "kind: Pod\nmetadata:\n  {{- toYaml .Values.metadata }}\n");
    assert!(template.status.code() == Some(1) && String::from_utf8_lossy(&template.stderr).contains("`helm template`"));
    for network in ["bogus", "10.0.0.0/33"] {
        let refused = piped(program().args(["inject", "--exclude-network", network]), &original);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{network}");
    }
    let wrong = piped(program().args(["inject", "--config", "tests/cases/five.yaml", "-"]), &original);
    assert_eq!((wrong.status.code(), wrong.stdout.len()), (Some(1), 0));
}

/// What `inject` says to a configuration with this in it.
fn with_configuration(text: &str, args: &[&str], manifests: &str) -> Output {
    static FILES: AtomicU32 = AtomicU32::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("outrigger-inject-{}-{number}.yaml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    let output = piped(program.arg("inject").args(args).arg("--config").arg(&file), manifests);
    std::fs::remove_file(&file).unwrap();
    output
}

const INBOUND: &str = "listeners: { inbound: { address: \":15006\", upstream: \"127.0.0.1:8080\" } }\n";

#[test]
fn connections_are_redirected_only_to_listeners_that_can_take_them() {
    let pod = |mode: &str| {
        format!(
            "kind: Pod\nmetadata: {{ name: a, annotations: {{ outrigger/mode: {mode} }} }}\n\
             spec: {{ containers: [{{ name: a }}] }}\n"
        )
    };
    let (bare, annotated) = ("kind: Pod\nspec: { containers: [{ name: a }] }\n".to_owned(), pod("transparent"));
    let inbound = "  inbound: { address: \":15106\", upstream: \"127.0.0.1:8080\" }\n";
    let outbound = "  outbound: { address: \":15101\", MODE, routes: [{ respond: { status: 204 } }] }\n";
    let http = outbound.replace(" MODE,", "");
    let captured = outbound.replace("MODE", "mode: transparent").replace("outbound:", "outbound-all:");
    let flag: &[&str] = &["--mode", "transparent"];
    for (listeners, said) in [
        (captured.clone(), "the configuration has no inbound listener"),
        (format!("{inbound}{http}"), "the configuration has no outbound listener with `mode: transparent`"),
        (inbound.to_owned(), "the configuration has no outbound listener with `mode: transparent`"),
    ] {
        let configuration = format!("listeners:\n{listeners}");
        for (args, text) in [(flag, &bare), (&[], &annotated)] {
            let refused = with_configuration(&configuration, args, text);
            let errors = String::from_utf8_lossy(&refused.stderr);
            assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{errors}");
            assert!(errors.contains(said), "{errors}");
        }
        for (args, text) in [(&[][..], &bare), (flag, &pod("explicit"))] {
            assert_eq!(with_configuration(&configuration, args, text).status.code(), Some(0), "{configuration}");
        }
    }
    let http = http.replace("15101", "15102");
    let output = with_configuration(&format!("listeners:\n{http}{captured}{inbound}"), flag, &bare);
    let injected = String::from_utf8_lossy(&output.stdout);
    assert!(
        injected.contains("\"15101\"") && injected.contains("\"15106\"") && !injected.contains("\"15102\""),
        "{injected}"
    );
}

/// A command in the pod has to find the admin, wherever the configuration has it.
#[test]
fn a_configuration_that_kubelet_can_do_nothing_with_is_refused() {
    for (section, said) in [
        ("admin: { address: none }", "`admin.address` is `none`"),
        ("metrics: 127.0.0.1:9902", "`metrics.address` is 127.0.0.1:9902"),
        ("metrics: \"[::1]:9902\"", "`metrics.address` is [::1]:9902"),
        ("metrics: unix:/run/metrics.sock", "`metrics.address` is unix:/run/metrics.sock"),
    ] {
        let output = with_configuration(&format!("{section}\n{INBOUND}"), &[], &manifest("deployment.yaml"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{errors}");
        assert!(errors.contains(said), "{errors}");
    }
    for section in [
        "admin: { address: none, socket: /run/admin.sock }",
        "admin: { address: \"127.0.0.1:9911\" }",
        "metrics: \"${POD_IP:-127.0.0.1}:9902\"",
        "metrics: \"[${POD_IP:-::1}]:9902\"",
    ] {
        let output = with_configuration(&format!("{section}\n{INBOUND}"), &[], &manifest("deployment.yaml"));
        let injected = String::from_utf8_lossy(&output.stdout);
        for command in [r#""ready""#, r#""drain", "--wait""#] {
            let command = format!("[\"/outrigger\", {command}, \"--config\", \"/etc/outrigger/outrigger.yaml\"]");
            assert!(injected.contains(&command), "{command}: {injected}");
        }
    }
}

/// Runs a command with this on its standard input.
fn piped(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writing.join();
    output
}
