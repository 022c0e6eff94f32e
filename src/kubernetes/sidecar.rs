//! The containers and the volume that a pod gets.

use super::PROXY_USER;
use super::options::{Form, Options};
use super::probes::Asked;
use super::value::{Value, map};

/// Of the proxy's container.
pub(super) const NAME: &str = "outrigger";
/// Of the init container that redirects the pod's connections.
pub(super) const REDIRECT_NAME: &str = "outrigger-redirect";
/// Of the volume with the configuration.
pub(super) const VOLUME: &str = "outrigger-config";
const FOLDER: &str = "/etc/outrigger";
/// The key of the ConfigMap.
pub(super) const FILE: &str = "outrigger.yaml";
const PROGRAM: &str = "/outrigger";

/// The proxy's container.
pub(super) fn proxy(options: &Options, asked: &[Asked]) -> Value {
    let metrics = options.metrics_port;
    let file = format!("{FOLDER}/{FILE}");
    let mut args = vec!["run".to_owned(), file.clone(), "--metrics".to_owned(), format!(":{metrics}")];
    asked.iter().for_each(|asked| args.extend(["--probe".to_owned(), asked.to_string()]));
    let get = |path: &str| map([("path", path.into()), ("port", metrics.into())]);
    let exec = |words: &[&str]| {
        // The file says where the proxy is asked.
        let words = words.iter().copied().chain(["--config", &file]);
        let command: Vec<&str> = [PROGRAM].into_iter().chain(words).collect();
        map([("command", command.into())])
    };
    let program = |words: &[&str]| map([("exec", exec(words))]);
    let mut lifecycle = vec![("preStop".to_owned(), program(&["drain", "--wait"]))];
    let mut container = vec![("name".to_owned(), NAME.into()), ("image".to_owned(), options.image.clone().into())];
    let mut put = |key: &str, value: Value| container.push((key.to_owned(), value));
    put("args", args.into());
    if options.form == Form::Native {
        put("restartPolicy", "Always".into());
    } else {
        // kubelet starts the next container when this has returned: the app finds the proxy ready.
        lifecycle.insert(0, ("postStart".to_owned(), program(&["ready", "--wait", "60s"])));
    }
    put("env", environment());
    put(
        "ports",
        Value::List(vec![
            map([("name", "outrigger-in".into()), ("containerPort", options.inbound_port.into())]),
            map([("name", "outrigger-prom".into()), ("containerPort", metrics.into())]),
        ]),
    );
    let mut startup = vec![("exec".to_owned(), exec(&["ready"]))];
    let patience = [("periodSeconds", 1u64), ("timeoutSeconds", 3), ("failureThreshold", 60)];
    startup.extend(patience.map(|(key, value)| (key.to_owned(), value.into())));
    put("startupProbe", Value::Map(startup));
    put("readinessProbe", map([("httpGet", get("/readyz")), ("periodSeconds", 2u64.into())]));
    put("livenessProbe", map([("httpGet", get("/livez")), ("periodSeconds", 10u64.into())]));
    put("lifecycle", Value::Map(lifecycle));
    put(
        "resources",
        map([
            ("requests", amounts(&options.cpu_request, &options.memory_request)),
            ("limits", amounts(&options.cpu_limit, &options.memory_limit)),
        ]),
    );
    put(
        "securityContext",
        map([
            ("runAsUser", PROXY_USER.into()),
            ("runAsGroup", PROXY_USER.into()),
            ("runAsNonRoot", true.into()),
            ("readOnlyRootFilesystem", true.into()),
            ("allowPrivilegeEscalation", false.into()),
            ("capabilities", map([("drop", vec!["ALL"].into())])),
            ("seccompProfile", map([("type", "RuntimeDefault".into())])),
        ]),
    );
    // As a directory: files that are mounted alone (subPath) never change.
    let mount = map([("name", VOLUME.into()), ("mountPath", FOLDER.into()), ("readOnly", true.into())]);
    put("volumeMounts", Value::List(vec![mount]));
    Value::Map(container)
}

/// The init container that redirects the pod's connections. It alone may change the network.
pub(super) fn redirect(options: &Options) -> Value {
    let mut args = vec!["redirect".to_owned(), "apply".to_owned()];
    let mut say = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    say("--inbound", options.inbound_port.to_string());
    say("--outbound", options.outbound_port.to_string());
    say("--exclude-uid", PROXY_USER.to_string());
    let inbound = [options.metrics_port].into_iter().chain(options.exclude_inbound_ports.iter().copied());
    inbound.for_each(|port| say("--exclude-inbound-port", port.to_string()));
    options.exclude_outbound_ports.iter().for_each(|port| say("--exclude-outbound-port", port.to_string()));
    options.exclude_networks.iter().for_each(|network| say("--exclude-network", network.clone()));
    map([
        ("name", REDIRECT_NAME.into()),
        ("image", options.image.clone().into()),
        ("args", args.into()),
        (
            "resources",
            map([
                ("requests", amounts(&options.cpu_request, &options.memory_request)),
                ("limits", amounts(&options.cpu_limit, &options.memory_limit)),
            ]),
        ),
        (
            "securityContext",
            map([
                // The kernel gives the capability to root only.
                ("runAsUser", 0u64.into()),
                ("runAsGroup", 0u64.into()),
                ("runAsNonRoot", false.into()),
                ("readOnlyRootFilesystem", true.into()),
                ("allowPrivilegeEscalation", false.into()),
                ("capabilities", map([("drop", vec!["ALL"].into()), ("add", vec!["NET_ADMIN"].into())])),
                ("seccompProfile", map([("type", "RuntimeDefault".into())])),
            ]),
        ),
    ])
}

/// The volume with the configuration.
pub(super) fn volume(options: &Options) -> Value {
    map([("name", VOLUME.into()), ("configMap", map([("name", options.config_map.clone().into())]))])
}

fn amounts(cpu: &str, memory: &str) -> Value {
    map([("cpu", cpu.into()), ("memory", memory.into())])
}

/// What a configuration may ask for as `${POD_IP}`, and where Kubernetes takes it from.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("POD_NAME", "metadata.name"),
    ("POD_NAMESPACE", "metadata.namespace"),
    ("POD_IP", "status.podIP"),
    ("POD_IPS", "status.podIPs"),
    ("NODE_NAME", "spec.nodeName"),
    ("HOST_IP", "status.hostIP"),
];

/// What a variable may hold in a pod of this address, to look at a configuration as in one. `None` for those that a pod
/// does not have.
pub fn example_of_variable(name: &str, address: &str) -> Option<String> {
    let (_, field) = ENVIRONMENT.iter().find(|(known, _)| *known == name)?;
    Some(if field.contains("IP") { address } else { "pod" }.to_owned())
}

fn environment() -> Value {
    let variable = |(name, path): (&str, &str)| {
        map([("name", name.into()), ("valueFrom", map([("fieldRef", map([("fieldPath", path.into())]))]))])
    };
    Value::List(ENVIRONMENT.into_iter().map(variable).collect())
}
