//! The JSON Schema of the configuration, for completion in editors.

use schemars::generate::SchemaSettings;
use schemars::{Schema, transform::transform_subschemas};
use serde_json::{Value, json};

use super::later;
use super::raw::Configuration;
use super::scalar::VARIABLE_PATTERN;

/// The schema (draft 2020-12), made from the types that read the file.
///
/// It accepts whatever `check` accepts. What takes more than one key to know, `check` alone finds. The program has it as a
/// text, `schema.json`, which a test compares with this.
pub fn json_schema() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.meta_schema = Some("https://json-schema.org/draft/2020-12/schema".into());
    let mut schema = settings.into_generator().into_root_schema_for::<Configuration>();
    schema.insert("title".to_owned(), "Outrigger".into());
    let mut schema = schema.to_value();
    complete(&mut schema, "Configuration");
    if let Some(Value::Object(definitions)) = schema.get_mut("$defs") {
        for (name, definition) in definitions {
            let name = if name == "UpstreamLong" { "Upstream".to_owned() } else { name.clone() };
            complete(definition, &name);
        }
    }
    let Ok(mut schema) = Schema::try_from(schema) else { return Value::Bool(true) };
    open(&mut schema);
    schema.to_value()
}

/// Adds the keys that are known and not there yet: shown by editors, and refused.
fn complete(schema: &mut Value, name: &str) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for key in later::keys(name) {
        properties
            .insert((*key).to_owned(), json!({ "not": {}, "description": "Known, but not in this version yet." }));
    }
}

/// What holds for all types: `x-…` keys stand wherever keys are ours, and a variable wherever a word is.
fn open(schema: &mut Schema) {
    transform_subschemas(&mut open, schema);
    let Some(object) = schema.as_object_mut() else { return };
    if object.get("additionalProperties") == Some(&Value::Bool(false)) {
        object.insert("patternProperties".to_owned(), json!({ "^x-": true }));
    }
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    let variable = json!({ "type": "string", "pattern": VARIABLE_PATTERN });
    if let Some(words) = object.remove("enum") {
        object.remove("type");
        object.insert("anyOf".to_owned(), json!([{ "enum": words }, variable]));
    } else if let Some(Value::Array(mut words)) = object.remove("oneOf") {
        words.push(variable);
        object.insert("anyOf".to_owned(), Value::Array(words));
    }
}

#[cfg(test)]
mod tests {
    use jsonschema::Validator;
    use proptest::prelude::*;
    use serde_json::Number;

    use super::*;
    use crate::config::findings::Findings;
    use crate::config::source::Source;
    use crate::config::tree::{Kind, NodeId, Tree};
    use crate::config::{Document, LoadOptions, Report, examine};

    fn validator() -> Validator {
        jsonschema::validator_for(&json_schema()).unwrap()
    }

    fn report(text: &str) -> Report {
        let environment = |name: &str| (name == "PORT").then(|| "8080".to_owned());
        examine(Document { name: "test", bytes: text.as_bytes() }, &environment, &LoadOptions::default())
    }

    /// The document as other readers of YAML see it (YAML 1.2.2, section 10.3.2).
    fn json(text: &str) -> Value {
        let tree = Tree::parse(&Source::new(text), text, &mut Findings::default()).unwrap();
        value(&tree, tree.root())
    }

    fn value(tree: &Tree, node: NodeId) -> Value {
        match &tree.node(node).kind {
            Kind::Sequence(items) => items.iter().map(|item| value(tree, *item)).collect(),
            Kind::Mapping(entries) => Value::Object(
                entries.iter().map(|(key, item)| (tree.written(*key).to_owned(), value(tree, *item))).collect(),
            ),
            Kind::Scalar(scalar) if scalar.is_null() => Value::Null,
            Kind::Scalar(scalar) if scalar.is_plain() => match scalar.written.as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                number => match (number.parse::<u64>(), number.parse::<f64>()) {
                    (Ok(number), _) => Value::Number(number.into()),
                    (_, Ok(float)) => Number::from_f64(float).map_or(number.into(), Value::Number),
                    _ => number.into(),
                },
            },
            Kind::Scalar(scalar) => scalar.written.clone().into(),
        }
    }

    /// What `check` accepts, the schema accepts; the long form is accepted by both and means the same.
    fn holds(validator: &Validator, text: &str) {
        let report = report(text);
        assert_eq!(report.diagnostics.errors(), 0, "{text}\n{:#?}", report.diagnostics);
        let refused: Vec<String> =
            validator.iter_errors(&json(text)).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(refused.is_empty(), "{text}\n{refused:#?}");
        let effective = report.effective.unwrap();
        let again = self::report(&effective);
        assert_eq!(again.diagnostics.errors(), 0, "{effective}\n{:#?}", again.diagnostics);
        assert_eq!(format!("{:#?}", again.config), format!("{:#?}", report.config), "{effective}");
        assert_eq!(again.effective.as_ref(), Some(&effective));
        assert!(validator.is_valid(&json(&effective)), "{effective}");
    }

    #[test]
    fn the_schema_is_one() {
        assert!(jsonschema::draft202012::meta::is_valid(&json_schema()));
    }

    #[test]
    fn it_accepts_the_files_of_config() {
        let validator = validator();
        for file in ["minimal", "sidecar", "standalone", "reference"] {
            let path = format!("{}/config/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
            holds(&validator, &std::fs::read_to_string(path).unwrap());
        }
    }

    #[test]
    fn it_refuses_what_needs_no_second_look() {
        let validator = validator();
        for text in [
            "[]",
            "listener: {}",
            "consul: {}",
            "listeners: { a: { address: \":1\", upstream: a, tls: {} } }",
            "listeners: { a: { adress: \":1\" } }",
            "drain: { delay: 5 }",
            "drain: { delay: 5 seconds }",
            "workers: -1",
            "upstreams: { a: { static: [{ address: \"127.0.0.1:1\", weight: 70000 }] } }",
            "upstreams: { a: { timeouts: { per_try: 1s } } }",
            "listeners: { a: { routes: [{ match: { path: {} } }] } }",
            "listeners: { a: { edge: yes } }",
            "telemetry: { log: { level: loud } }",
            "service: orders",
            "listeners: { a: { upstream: \"127.0.0.1:1\" } }",
        ] {
            assert!(!validator.is_valid(&json(text)), "{text}");
            assert!(report(text).diagnostics.errors() > 0, "{text}");
        }
    }

    /// Most validators follow such a circle until their stack is full.
    #[test]
    fn no_definition_is_made_of_itself() {
        fn parts(schema: &Value) -> Vec<&str> {
            let own = schema["$ref"].as_str().and_then(|place| place.strip_prefix("#/$defs/"));
            let alternatives = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|word| schema[word].as_array());
            own.into_iter().chain(alternatives.flatten().flat_map(parts)).collect()
        }
        let schema = json_schema();
        let definitions = schema["$defs"].as_object().unwrap();
        for (name, definition) in definitions {
            let mut reached = parts(definition);
            let mut next = 0;
            while let Some(part) = reached.get(next).copied() {
                assert_ne!(part, name);
                let more = parts(&definitions[part]);
                let new: Vec<&str> = more.into_iter().filter(|part| !reached.contains(part)).collect();
                reached.extend(new);
                next += 1;
            }
        }
    }

    #[test]
    fn each_key_has_a_description() {
        fn check(path: &str, schema: &Value) {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                assert!(property.get("description").is_some(), "{path}.{name}");
            }
        }
        let schema = json_schema();
        check("", &schema);
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            check(name, definition);
        }
    }

    const TOP: &[&str] = &[
        "",
        "version: 1",
        "version: '1'",
        "service: orders",
        "service: 7",
        "workers: auto",
        "workers: 4",
        "workers: \"${NONE:-4}\"",
        "admin: { address: none }",
        "admin: { address: \"[::1]:9901\", socket: /run/a.sock, x-note: true }",
        "admin: { address: 0.0.0.0:9901, token_file: /etc/token }",
        "metrics: :9902",
        "metrics: none",
        "metrics: { address: 127.0.0.1:9902 }",
        "metrics: { address: :2, probes: { app/readiness: \"http://127.0.0.1:80/\", x-a: 1, db: tcp://localhost:5432 } }",
        "drain: { delay: 0s, timeout: 1m30s }",
        "telemetry: { log: { level: debug, format: text }, access_log: { path: /var/log/a.log, only: all, sample: 0.5 } }",
        "telemetry: { access_log: { path: none, sample: 1, format: json } }",
        "defaults: { timeouts: { idle: 30s, request: none }, limits: { waiting: 0 }, protocol: http1 }",
        "x-anything: [1, { a: null }]",
        "telemetry: { log: { level: \"${NONE:-debug}\" }, access_log: { only: \"${NONE:-all}\" } }",
        "defaults: { protocol: \"${NONE:-http2}\", timeouts: { connect: \"${NONE:-2s}\" } }",
    ];
    const LISTENER: &[&str] = &[
        "address: :15006",
        "address: unix:/run/in.sock",
        "address: 127.0.0.1:0\n    edge: true",
        "address: \"[::]:${PORT}\"\n    edge: 'false'\n    direction: outbound",
        "address: :1\n    trust: { hops: 2 }\n    mode: http\n    no_route: 404",
        "address: :1\n    trust: { cidr: 10.0.0.0/8 }\n    no_route: \"404\"",
        "address: :1\n    limits: { connections: '5', header_bytes: 1024, header_timeout: 1s, idle: 2h, streams: 1, body_bytes: 1MB }",
        "address: :1\n    limits: { body_bytes: none, x-a: 1 }",
    ];
    const MATCH: &[&str] = &[
        "",
        "match: {}",
        "match: { host: A.example.org. }",
        "match: { host: [\"*.a\", \"b:80\", \"[::1]\"], path: / }",
        "match: { path: /v1/ }",
        "match: { path: { exact: /a } }",
        "match: { path: { prefix: /a } }",
        "match: { path: { regex: \"/[a-z]+$|/$\" } }",
        "match: { method: [GET, PURGE] }",
        "match: { method: POST, headers: { x-a: true, x-b: 1, X-C: { not: { regex: a.* } } } }",
        "match: { headers: { a: { present: false }, b: { exact: '' }, c: { not: 1 } }, query: { \"q[]\": { regex: \".*\" }, p: 1.5 } }",
    ];
    const ACTION: &[&str] = &[
        "upstream: app",
        "upstream: \"127.0.0.1:${PORT}\"",
        "upstream: localhost:9000",
        "upstream: unix:/run/b.sock",
        "split: { app: 95, \"127.0.0.1:8081\": \"5\" }",
        "redirect: { path: /new, status: 301 }",
        "redirect: { scheme: https, host: example.org:8443 }",
        "respond: {}",
        "respond: { status: 503, body: \"a\\nb: 'c' \\\"d\\\" # e\", content_type: text/html }",
        "respond: { body: yes }",
        "name: custom\n        upstream: app",
    ];
    const EXTRA: &[&str] = &[
        "",
        "rewrite: { host: a:80 }",
        "rewrite: { path_regex: { pattern: \"^/(?P<a>[^/]+)/(.*)$\", replacement: \"/$2/$${a}$$$$\" } }",
        "request_headers: { set: { x-a: \"%{client.address} 100%%\", X-B: 1 }, add: { x-c: [a, '${PORT}'], x-d: e }, remove: [a, b] }",
        "response_headers: { remove: server, add: { set-cookie: [a=b, c=d] } }",
        "timeouts: { connect: 1s, response: none, idle: 5m, request: 10s, tunnel_idle: 2d }",
    ];
    const UPSTREAM: &[&str] = &[
        "127.0.0.1:8080",
        "\"unix:/run/app.sock\"",
        "[\"127.0.0.1:8080\", { address: \"[::1]:8080\", weight: 3 }]",
        "{ static: [\"127.0.0.1:${PORT}\"], protocol: auto, load_balancer: round_robin }",
        "{ static: [{ address: 10.0.0.1:80, weight: '0' }, 10.0.0.2:80], protocol: http2, timeouts: { idle: none }, limits: { connections: 1, requests: 2 } }",
        "{ static: [10.0.0.1:80], timeouts: &t { connect: 10ms }, x-more: { <<: *t } }",
    ];

    proptest! {
        #[test]
        fn it_accepts_what_check_accepts(
            top in prop::sample::subsequence(TOP, 0..4),
            listener in prop::sample::select(LISTENER),
            matcher in prop::sample::select(MATCH),
            action in prop::sample::select(ACTION),
            extra in prop::sample::select(EXTRA),
            upstream in prop::sample::select(UPSTREAM),
        ) {
            // One of each key.
            let mut seen = std::collections::HashSet::new();
            let top: Vec<&str> = top.into_iter().filter(|line| seen.insert(line.split(':').next())).collect();
            let mut route = vec!["x-route: 1"];
            route.extend([matcher, action, extra].iter().filter(|line| !line.is_empty()));
            let route = route.join("\n        ");
            let text = format!("{}\nlisteners:\n  main:\n    {listener}\n    routes:\n      - {route}\nupstreams:\n  app: {upstream}\n", top.join("\n"));
            thread_local! {
                static VALIDATOR: Validator = validator();
            }
            VALIDATOR.with(|validator| holds(validator, &text));
        }
    }
}
