//! `outrigger inject`: the sidecar into Kubernetes manifests.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{exit, manifests};
use crate::config::environment::MissingVariables;
use crate::config::model::{self, BindAddress, Config, Direction};
use crate::config::render::{Format, render};
use crate::config::{Document, LoadOptions, examine, flags};
use crate::kubernetes::{self, Companion, Form, Mode, Options};

/// Whole seconds for the requests that came in the last moment of `drain.delay`.
const LAST_REQUESTS: u64 = 2;

/// Addresses of documentation (RFC 5737, RFC 3849), for the pod's while there is no pod.
const POD_IPV4: &str = "192.0.2.1";
const POD_IPV6: &str = "2001:db8::1";

/// Put the sidecar into Kubernetes manifests: Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job,
/// CronJob, Pod, List.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger inject app.yaml | kubectl apply -f -
  kubectl get deployment orders -o yaml | outrigger inject | kubectl apply -f -
  helm template ./chart | outrigger inject --config outrigger.yaml --image registry.example/outrigger:0.1.0 -
  outrigger inject --mode transparent --exclude-outbound-port 5432 app.yaml

Everything else in the manifests stays byte for byte. Injecting again changes nothing, or what the options now say;
`outrigger eject` takes it out again. Annotations of a pod tell more: outrigger/inject: disabled, outrigger/mode, …

Exit codes: 0 done, 1 something cannot be injected (nothing is written then), 2 usage")]
pub struct InjectArgs {
    /// Manifests, or - for standard input, which is read where none is named
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// What is put in.
    #[command(flatten)]
    pub sidecar: SidecarArgs,

    /// The proxy's configuration: it is checked, and comes along as a ConfigMap in each namespace of what is injected.
    /// Ports and drain.delay are taken from it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How the sidecar is put into pods.
#[derive(Debug, Clone, Default, Args)]
pub struct SidecarArgs {
    /// The sidecar's image
    #[arg(long, value_name = "IMAGE", env = "OUTRIGGER_IMAGE")]
    pub image: Option<String>,

    /// The ConfigMap, in the pod's namespace, with the key outrigger.yaml [default: outrigger]
    #[arg(long, value_name = "NAME")]
    pub config_map: Option<String>,

    /// How the app's traffic comes to the proxy [default: explicit]
    #[arg(long, value_enum, value_name = "MODE")]
    pub mode: Option<ModeArg>,

    /// How the proxy stands in the pod [default: native]
    #[arg(long, value_enum, value_name = "FORM")]
    pub sidecar: Option<FormArg>,

    /// A port of the pod that is not captured (may be given more than once)
    #[arg(long, value_name = "PORT")]
    pub exclude_inbound_port: Vec<u16>,

    /// A port of others that is not captured (may be given more than once)
    #[arg(long, value_name = "PORT")]
    pub exclude_outbound_port: Vec<u16>,

    /// A network that is not captured (may be given more than once)
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub exclude_network: Vec<String>,

    /// Leave the app's probes as they are
    #[arg(long)]
    pub keep_probes: bool,
}

/// How the app's traffic comes to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// The app calls the proxy by its address
    Explicit,
    /// The pod's connections are redirected; needs an init container with NET_ADMIN
    Transparent,
}

/// How the proxy stands in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormArg {
    /// An init container that restarts always (Kubernetes 1.29 and newer)
    Native,
    /// One more container
    Container,
}

/// As it is written, if `redirect` will take it.
fn network(text: &str) -> Result<String, String> {
    flags::network(text).map(|_| text.to_owned())
}

impl SidecarArgs {
    /// The options that these arguments make of the defaults.
    pub(super) fn options(&self) -> Options {
        let mut options = Options::default();
        if let Some(image) = &self.image {
            options.image.clone_from(image);
        }
        if let Some(name) = &self.config_map {
            options.config_map.clone_from(name);
        }
        if self.mode == Some(ModeArg::Transparent) {
            options.mode = Mode::Transparent;
        }
        if self.sidecar == Some(FormArg::Container) {
            options.form = Form::Container;
        }
        options.exclude_inbound_ports.clone_from(&self.exclude_inbound_port);
        options.exclude_outbound_ports.clone_from(&self.exclude_outbound_port);
        options.exclude_networks.clone_from(&self.exclude_network);
        options.rewrite_probes = !self.keep_probes;
        options
    }
}

/// Puts it in.
///
/// # Errors
///
/// Where the manifests cannot be written.
pub fn inject(args: &InjectArgs, output: &mut dyn Write) -> io::Result<u8> {
    let mut options = args.sidecar.options();
    let mut companion = None;
    if let Some(file) = &args.config {
        match read_configuration(file) {
            Ok((text, config)) => {
                if let Some(Err(why)) = config.map(|config| fit(&mut options, &config)) {
                    return Ok(exit::fault(&format!("{}: {why}", file.display())));
                }
                companion = Some(Companion::new(text));
            }
            Err(message) => {
                writeln!(io::stderr(), "{message}")?;
                return Ok(exit::FAULT);
            }
        }
    }
    manifests::change(&args.files, output, |text| kubernetes::inject(text, &options, companion.as_mut()))
}

/// The text of a configuration that has no mistakes, as far as that can be said away from its pod; and what it means,
/// where that does not hang on variables that only the pod has.
fn read_configuration(file: &Path) -> Result<(String, Option<Config>), String> {
    let name = file.display().to_string();
    let bytes =
        super::check::read(file, &mut io::stdin()).map_err(|error| format!("error: cannot read {name}: {error}"))?;
    // Variables and files are those of the pod.
    let options = LoadOptions { missing_variables: MissingVariables::Allow, ..LoadOptions::default() };
    let in_pod_of = |address: &str| {
        let environment = |variable: &str| kubernetes::example_of_variable(variable, address);
        examine(Document { name: &name, bytes: &bytes }, &environment, &options)
    };
    let mut report = in_pod_of(POD_IPV4);
    if report.diagnostics.errors() > 0 {
        // `[${POD_IP}]:15006` is for pods of the other family.
        let other = in_pod_of(POD_IPV6);
        if other.diagnostics.errors() > 0 {
            return Err(render(&report.diagnostics, Format::Text, false));
        }
        report = other;
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("error: {name} is not UTF-8"))?;
    Ok((text, report.config))
}

/// What the configuration says of ports and of the drain.
///
/// # Errors
/// Where kubelet could not do what the pod asks of it.
fn fit(options: &mut Options, config: &Config) -> Result<(), String> {
    if config.admin.address.is_none() && config.admin.socket.is_none() {
        const WHY: &str = "`admin.address` is `none`, so nobody could tell the proxy that its pod ends; write an \
                           address, or a `socket` where the container may write";
        return Err(WHY.to_owned());
    }
    if let Some(address) = config.metrics.address.as_ref().filter(|address| is_of_the_pod_alone(address)) {
        return Err(format!(
            "`metrics.address` is {address}, where kubelet cannot ask and nobody can scrape; write it as in `\":9902\"`"
        ));
    }
    let of = |direction: Direction| config.listeners.iter().filter(move |listener| listener.direction == direction);
    let captured = |direction| of(direction).find(|listener| listener.mode == model::Mode::Transparent);
    // A pod may say by its annotation that it is captured.
    options.lacks = if of(Direction::Inbound).next().is_none() {
        Some("no inbound listener".to_owned())
    } else if captured(Direction::Outbound).is_none() {
        Some("no outbound listener with `mode: transparent`".to_owned())
    } else {
        None
    };
    options.captured_ports = [Direction::Inbound, Direction::Outbound]
        .map(|direction| captured(direction).and_then(|listener| port_of(&listener.address)));
    let port = |direction| of(direction).find_map(|listener| port_of(&listener.address));
    let (inbound, outbound) = (port(Direction::Inbound), port(Direction::Outbound));
    options.inbound_port = inbound.unwrap_or(options.inbound_port);
    options.outbound_port = outbound.unwrap_or(options.outbound_port);
    options.metrics_port = config.metrics.address.as_ref().and_then(port_of).unwrap_or(options.metrics_port);
    let delay = config.drain.delay.as_secs_f64().ceil() as u64 + LAST_REQUESTS;
    options.pre_stop = u32::try_from(delay).unwrap_or(options.pre_stop);
    Ok(())
}

fn is_of_the_pod_alone(address: &BindAddress) -> bool {
    match address {
        BindAddress::AllInterfaces(_) => false,
        BindAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
        BindAddress::Unix(_) => true,
    }
}

fn port_of(address: &BindAddress) -> Option<u16> {
    match address {
        BindAddress::AllInterfaces(port) => Some(*port),
        BindAddress::Tcp(address) => Some(address.port()),
        BindAddress::Unix(_) => None,
    }
}
