//! Manifests that nobody has written: the same pod in every style that comes to mind.

use proptest::prelude::*;

/// A workload, or several in a stream.
pub fn manifest() -> impl Strategy<Value = String> {
    let documents = prop::collection::vec(document(), 1..3);
    (documents, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(documents, marked, crlf, ends)| {
        let mut text = if marked { "---\n".to_owned() } else { String::new() };
        text.push_str(&documents.join("---\n"));
        let text = if ends { text } else { text.trim_end().to_owned() };
        if crlf { text.replace('\n', "\r\n") } else { text }
    })
}

fn document() -> impl Strategy<Value = String> {
    (pod(), prop::sample::select(vec!["Pod", "Deployment", "CronJob"]), comment()).prop_map(|(pod, kind, comment)| {
        let head = format!("{comment}apiVersion: v1\nkind: {kind}\n");
        match kind {
            "Pod" => format!("{head}{pod}"),
            "Deployment" => {
                format!("{head}metadata:\n  name: a\nspec:\n  replicas: 2\n  template:\n{}", indent(&pod, 4))
            }
            _ => format!("{head}spec:\n  jobTemplate:\n    spec:\n      template:\n{}", indent(&pod, 8)),
        }
    })
}

fn pod() -> impl Strategy<Value = String> {
    (
        metadata(),
        list("initContainers"),
        list("volumes"),
        prop::collection::vec(container(), 1..3),
        comment(),
        any::<bool>(),
    )
        .prop_map(|(metadata, init, volumes, containers, comment, wide)| {
            let width = if wide { 2 } else { 0 };
            let containers: String = containers.iter().map(|container| indent(container, width)).collect();
            let spec = format!("{comment}containers:\n{containers}{init}{volumes}# the end\nrestartPolicy: Always\n");
            format!("{metadata}spec:\n{}", indent(&spec, 2))
        })
}

fn metadata() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "metadata:\n",
        "metadata: ~\n",
        "metadata: {}\n",
        "metadata:   # nothing\n",
        "metadata:\n  labels: { a: b }\n",
        "metadata:\n  # some\n  annotations:\n    # more\n    a: b # c\n    'd': e\n",
        "metadata:\n  annotations: &a\n    a: b\n",
        "metadata:\n  annotations:\n  labels:\n    a: b\n",
        "metadata:\n  annotations: {} # none\n",
        "metadata: { annotations: {\n  a: b } }\n",
        "\"metadata\":\n    \"annotations\": { \"prometheus.io/scrape\": \"false\" }\n",
    ])
    .prop_map(str::to_owned)
}

fn list(key: &'static str) -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "KEY:\n",
        "KEY: null\n",
        "KEY: []\n",
        "KEY: [ ] # none\n",
        "KEY: [{ name: x }, { name: y }]\n",
        "KEY:\n- name: x\n",
        "KEY:\n- name: x\n  restartPolicy: Always\n  startupProbe:\n    httpGet: { port: 80 }\n",
        "KEY: # some\n  # first\n  - name: x\n\n  # second\n  - &y\n    name: y\n",
        "KEY:\n  -   x: |\n        - name\n        # no comment\n      name: \"z\"\n",
    ])
    .prop_map(move |text| text.replace("KEY", key))
}

fn container() -> impl Strategy<Value = String> {
    let lifecycle = prop::sample::select(vec![
        "",
        "lifecycle:\n",
        "lifecycle: {}\n",
        "lifecycle: { postStart: { exec: { command: [a] } } }\n",
        "lifecycle:\n    # soon\n    postStart: { exec: { command: [a] } }\n",
        "lifecycle:\n  preStop: { exec: { command: [a] } }\n",
    ]);
    let probe = prop::sample::select(vec![
        "",
        "KIND:\n  httpGet:\n    port: 80 # web\n",
        "KIND:\n  httpGet: { path: \"/a,b\", port: \"80\" }\n  periodSeconds: 5\n",
        "KIND:\n  httpGet:\n    scheme: 'HTTP'\n    path: >-\n      /x\n    port: 80\n",
        "KIND:\n  httpGet:\n    scheme: 'HTTPS'\n    path: >-\n      /x\n    port: 443\n",
        "KIND:\n  # by TCP\n  tcpSocket:\n    port: 5432\n",
        "KIND: { tcpSocket: { port: 5432 } }\n",
        "KIND: {\"tcpSocket\": {\"port\": 5432}}\n",
        "KIND:\n  exec:\n    command:\n    - a\n",
    ]);
    let style = prop::sample::select(vec![
        "- name: NAME\n",
        "-   name: NAME # c\n",
        "-\n  name: NAME\n",
        "- &NAME\n  name: NAME\n",
    ]);
    (lifecycle, probe.clone(), probe, style, comment(), "[a-z]{3,8}").prop_map(
        |(lifecycle, liveness, readiness, style, comment, name)| {
            let width = if style.starts_with("-   ") { 4 } else { 2 };
            let liveness = liveness.replace("KIND", "livenessProbe");
            let readiness = readiness.replace("KIND", "readinessProbe");
            let rest = format!("{comment}{readiness}image: x\n{lifecycle}{liveness}");
            format!("{}{}", style.replace("NAME", &name), indent(&rest, width))
        },
    )
}

fn comment() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "# a: b\n", "\n", "# one\n# two\n", "\n# ü\n\n"]).prop_map(str::to_owned)
}

fn indent(text: &str, width: usize) -> String {
    text.lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{}{line}\n", " ".repeat(width)) })
        .collect()
}
