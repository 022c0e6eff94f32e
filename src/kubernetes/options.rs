//! What inject can be told: by whoever calls it, and by annotations of the pod, which win.

use super::yaml::Node;
use crate::config::flags;

/// Annotations of ours begin with this.
pub(super) const PREFIX: &str = "outrigger/";
/// Says that a pod is to be left alone (`disabled`), or not (`enabled`).
const INJECT: &str = "inject";
/// What was done to a pod; see `record`.
pub(super) const INJECTED: &str = "outrigger/injected";

/// The sidecar's user. Not 65532, under which many apps run that come from small images: capture tells the proxy's
/// traffic from the app's by this number.
pub const PROXY_USER: u32 = 15001;

/// How an app's traffic comes to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The app calls the proxy by its address.
    Explicit,
    /// The pod's connections are redirected, by an init container that may change its network.
    Transparent,
}

/// How the proxy stands in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An init container that restarts always: Kubernetes 1.29 and newer.
    Native,
    /// One more container, for older ones.
    Container,
}

/// How a sidecar is put into a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The sidecar's image.
    pub image: String,
    /// The ConfigMap, in the pod's namespace, that holds `outrigger.yaml`.
    pub config_map: String,
    /// Explicit unless told otherwise.
    pub mode: Mode,
    /// Native unless told otherwise.
    pub form: Form,
    /// What the configuration would need for transparent mode and does not have, where that is known.
    pub lacks: Option<String>,
    /// Where the configuration's inbound listener is.
    pub inbound_port: u16,
    /// Where its outbound listener is.
    pub outbound_port: u16,
    /// Where its transparent listeners are, inbound and outbound, if they are elsewhere.
    pub captured_ports: [Option<u16>; 2],
    /// Where metrics and probes are served.
    pub metrics_port: u16,
    /// Ports of the pod that are not captured.
    pub exclude_inbound_ports: Vec<u16>,
    /// Ports of others that are not captured.
    pub exclude_outbound_ports: Vec<u16>,
    /// Networks that are not captured, as CIDR.
    pub exclude_networks: Vec<String>,
    /// Seconds between the pod's end being decided and the app hearing of it.
    pub pre_stop: u32,
    /// Whether probes go through the proxy.
    pub rewrite_probes: bool,
    /// CPU asked for.
    pub cpu_request: String,
    /// Most CPU; also decides how many workers there are.
    pub cpu_limit: String,
    /// Memory asked for.
    pub memory_request: String,
    /// Most memory.
    pub memory_limit: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            image: format!("outrigger:{}", env!("CARGO_PKG_VERSION")),
            config_map: "outrigger".to_owned(),
            mode: Mode::Explicit,
            form: Form::Native,
            lacks: None,
            inbound_port: 15006,
            outbound_port: 15001,
            captured_ports: [None; 2],
            metrics_port: 9902,
            exclude_inbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_networks: Vec::new(),
            // `drain.delay`, 5 s unless written, and 2 s for the requests that came in its last moment.
            pre_stop: 7,
            rewrite_probes: true,
            cpu_request: "50m".to_owned(),
            // One worker: without a limit, `workers: auto` makes one for each CPU of the node.
            cpu_limit: "1".to_owned(),
            memory_request: "32Mi".to_owned(),
            // An idle sidecar has 10 MiB; 10,000 connections take about 80.
            memory_limit: "128Mi".to_owned(),
        }
    }
}

impl Options {
    /// These, with what a pod's annotations say instead. `None` where they say that it is to be left alone.
    pub(super) fn tuned(&self, annotations: &[&Node]) -> Result<Option<Options>, String> {
        let mut options = self.clone();
        let mut wanted = true;
        let entries = annotations.iter().flat_map(|annotations| annotations.entries());
        for (key, value) in entries {
            let (Some(key), Some(value)) = (key.text(), value.text()) else { continue };
            match key.strip_prefix(PREFIX) {
                Some(INJECT) => wanted = choice(key, value, &[("enabled", true), ("disabled", false)])?,
                Some(name) if key != INJECTED => options.set(key, name, value)?,
                _ => {}
            }
        }
        if options.mode == Mode::Transparent {
            let [inbound, outbound] = options.captured_ports;
            options.inbound_port = inbound.unwrap_or(options.inbound_port);
            options.outbound_port = outbound.unwrap_or(options.outbound_port);
        }
        for (what, request, limit) in [
            ("cpu", &options.cpu_request, &options.cpu_limit),
            ("memory", &options.memory_request, &options.memory_limit),
        ] {
            if amount(request) > amount(limit) {
                return Err(format!("{PREFIX}{what}-request, {request}, is more than {PREFIX}{what}-limit, {limit}"));
            }
        }
        Ok(wanted.then_some(options))
    }

    fn set(&mut self, key: &str, name: &str, value: &str) -> Result<(), String> {
        match name {
            "image" => self.image = value.to_owned(),
            "config-map" => self.config_map = value.to_owned(),
            "mode" => {
                self.mode = choice(key, value, &[("explicit", Mode::Explicit), ("transparent", Mode::Transparent)])?;
            }
            "sidecar" => self.form = choice(key, value, &[("native", Form::Native), ("container", Form::Container)])?,
            "exclude-inbound-ports" => self.exclude_inbound_ports = ports(key, value)?,
            "exclude-outbound-ports" => self.exclude_outbound_ports = ports(key, value)?,
            "exclude-networks" => self.exclude_networks = networks(key, value)?,
            "pre-stop" => {
                let seconds = value.strip_suffix('s').unwrap_or(value).parse();
                self.pre_stop = seconds.map_err(|_| format!("{key}: `{value}` is not a number of seconds"))?;
            }
            "probes" => self.rewrite_probes = choice(key, value, &[("rewrite", true), ("keep", false)])?,
            _ => {
                let amounts = [
                    ("cpu-request", &mut self.cpu_request),
                    ("cpu-limit", &mut self.cpu_limit),
                    ("memory-request", &mut self.memory_request),
                    ("memory-limit", &mut self.memory_limit),
                ];
                let Some((_, known)) = amounts.into_iter().find(|(known, _)| *known == name) else {
                    return Err(format!("there is no annotation `{key}`"));
                };
                if amount(value).is_none() {
                    return Err(format!("{key}: `{value}` is not an amount, such as `500m` or `64Mi`"));
                }
                value.clone_into(known);
            }
        }
        Ok(())
    }
}

fn choice<T: Copy>(key: &str, value: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(word, _)| *word == value).map(|(_, choice)| *choice).ok_or_else(|| {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
        format!("{key}: `{value}` is not one of {}", words.join(", "))
    })
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn ports(key: &str, value: &str) -> Result<Vec<u16>, String> {
    words(value).map(|word| word.parse().map_err(|_| format!("{key}: `{word}` is not a port"))).collect()
}

fn networks(key: &str, value: &str) -> Result<Vec<String>, String> {
    let network = |word| flags::network(word).map(|_| word.to_owned()).map_err(|why| format!("{key}: {why}"));
    words(value).map(network).collect()
}

/// A quantity of Kubernetes', which is not negative here: `100m`, `1.5`, `64Mi`, `1e3`.
fn amount(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 16] = [
        ("", 1.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
    ];
    let (number, suffix) = text.split_at(text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len()));
    let number: f64 = number.parse().ok().filter(|_| number.starts_with(|first: char| first.is_ascii_digit()))?;
    let scale = SUFFIXES.iter().find(|(known, _)| *known == suffix).map(|(_, scale)| *scale);
    let exponent = || suffix.strip_prefix(['e', 'E'])?.parse::<i8>().ok().map(|exponent| 10f64.powi(exponent.into()));
    scale.or_else(exponent).map(|scale| number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_those_of_kubernetes() {
        for (text, expected) in
            [("1", 1.0), ("0", 0.0), ("500m", 0.5), ("1.5", 1.5), ("64Mi", 67_108_864.0), ("2e3", 2e3)]
        {
            assert_eq!(amount(text), Some(expected), "{text}");
        }
        for wrong in ["", "lots", "-1", "1 Mi", "64mi", "1.2.3", "Mi", "1e", "inf", "+1", "64MB"] {
            assert_eq!(amount(wrong), None, "{wrong}");
        }
    }
}
