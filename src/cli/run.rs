//! `outrigger run`: the proxy.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::beginning::{self, Origin};
use super::exit;
use super::signals;
use super::successor::Successor;
use crate::app::{Builder, Running, StartError};
use crate::config::flags;
use crate::config::model::{BindAddress, Metrics, ProbeTarget};
use crate::control::Ending;
use crate::reload::document::Reading;
use crate::runtime::descriptors;
use crate::succession::{Manager, of_service_manager};
use crate::telemetry::log;

/// Run the proxy, from a file or from flags alone.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger run outrigger.yaml
  outrigger run --listen :15006 --upstream 127.0.0.1:8080
  outrigger run --listen 127.0.0.1:8080 --upstream consul://web

FILE is followed: what is saved there is checked and swapped in.
Signals: HUP reads FILE again; TERM and QUIT drain and end; INT (Ctrl-C) does the same without drain.delay; a second one
ends at once; USR1 does nothing, for log files need no signal; USR2 (with --take-over) starts the program anew, which takes over.
Exit codes: 0 every request was answered, 1 the configuration or the machine is at fault, 2 usage, 3 requests were cut")]
pub struct RunArgs {
    /// The configuration
    #[arg(value_name = "FILE", conflicts_with_all = ["config", "listen", "upstream", "admin"])]
    pub file: Option<PathBuf>,

    /// The same, as an option; or consul-kv://KEY, a key in Consul's KV store (CONSUL_HTTP_ADDR … say where)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "upstream", "admin"])]
    pub config: Option<PathBuf>,

    /// Without a file: listen here (may be given more than once)
    #[arg(long, value_name = "ADDRESS", requires = "upstream")]
    pub listen: Vec<String>,

    /// Without a file: send everything here: HOST:PORT, unix:PATH or consul://SERVICE
    #[arg(long, value_name = "ADDRESS", requires = "listen")]
    pub upstream: Option<String>,

    /// Without a file: where the admin is served, or `none`; default 127.0.0.1:9901
    #[arg(long, value_name = "ADDRESS", requires = "listen")]
    pub admin: Option<String>,

    /// Answer scrapes and probes here, where the file says nothing of `metrics.address`
    #[arg(long, value_name = "ADDRESS", value_parser = flags::bind_address)]
    pub metrics: Option<BindAddress>,

    /// What the app is asked when `/probe/NAME` is, besides `metrics.probes` (may be given more than once)
    #[arg(long, value_name = "NAME=URL", value_parser = flags::probe)]
    pub probe: Vec<(String, ProbeTarget)>,

    /// Share the listeners' addresses with another process of the same user, so that one takes over from the other; the
    /// addresses of admin and metrics have to be each one's own
    #[arg(long)]
    pub reuse_port: bool,

    /// Take the addresses over from the proxy that runs with the same PATH, if one does, without losing a connection; and
    /// let the next one take them over from this
    #[arg(long, value_name = "PATH")]
    pub take_over: Option<PathBuf>,

    /// Keep the last accepted configuration in this file, and start with it where FILE is none
    #[arg(long, value_name = "PATH")]
    pub last_good: Option<PathBuf>,

    /// Let configurations that come over the network use this variable (may be given more than once)
    #[arg(long, value_name = "NAME")]
    pub allow_env: Vec<String>,

    /// Once it listens, write the addresses that were bound to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Runs the proxy until it is told to end; the answer is the exit code.
pub fn run(args: &RunArgs) -> u8 {
    // First of all, for it changes the environment, which only a single thread may do.
    let inheritance = match of_service_manager() {
        Ok(inheritance) => inheritance,
        Err(message) => return exit::fault(&message),
    };
    descriptors::raise_limit();
    let origin = match origin(args) {
        Ok(origin) => origin,
        Err(message) => return exit::usage(&message),
    };
    let signals = match signals::Early::catch() {
        Ok(signals) => signals,
        Err(error) => return exit::fault(&format!("cannot catch signals: {error}")),
    };
    let metrics = Metrics { address: args.metrics.clone(), probes: args.probe.clone(), ..Metrics::default() };
    let reading = Reading { allowed: args.allow_env.clone(), metrics };
    let builder = match beginning::builder(&origin, args.last_good.as_deref(), &reading) {
        Ok(builder) => builder,
        Err(code) => return code,
    };
    let log = log::init(&builder.config().telemetry.log);
    // All signals that come from here on are kept for the proxy.
    let signals = match signals.and_the_rest() {
        Ok(signals) => signals,
        Err(error) => return exit::fault(&format!("cannot catch signals: {error}")),
    };
    let running = match start(builder.log(log).inherit(inheritance).service_manager(Manager::of_environment()), args) {
        Ok(running) => running,
        Err(error) => return exit::fault(&error.to_string()),
    };
    if let Some(path) = &args.ready_file
        && let Err(error) = write_ready_file(path, &running)
    {
        running.handle().end_now();
        running.wait();
        return exit::fault(&format!("cannot write {}: {error}", path.display()));
    }
    signals.direct(running.handle(), Successor::new(obstacle(args)));
    match running.wait() {
        Ending::Drained => exit::DONE,
        Ending::Forced => exit::FORCED,
    }
}

fn origin(args: &RunArgs) -> Result<Origin, String> {
    if let Some(upstream) = &args.upstream {
        return Ok(Origin::Flags(flags::text(&args.listen, upstream, args.admin.as_deref())));
    }
    let path =
        args.file.as_ref().or(args.config.as_ref()).ok_or_else(|| {
            "say what to run: `outrigger run FILE`, or `--listen ADDRESS --upstream ADDRESS`".to_owned()
        })?;
    Ok(Origin::named(path))
}

/// Why this process can have no successor that starts with the same arguments.
fn obstacle(args: &RunArgs) -> Option<&'static str> {
    let file = args.file.as_deref().or(args.config.as_deref());
    match (&args.take_over, file) {
        (None, _) => Some("this one was started without --take-over"),
        _ if std::process::id() == 1 => Some("it is the first process of its container, which ends with it"),
        (_, Some(file)) if file == Path::new("-") => Some("the configuration came by standard input"),
        _ => None,
    }
}

fn start(builder: Builder, args: &RunArgs) -> Result<Running, StartError> {
    let mut builder = builder.reuse_port(args.reuse_port).allow_variables(args.allow_env.iter().cloned());
    if let Some(path) = &args.last_good {
        builder = builder.keep_last_good(path);
    }
    if let Some(path) = &args.take_over {
        builder = builder.take_over(path);
    }
    let running = builder.start()?;
    for (listener, address) in running.listeners() {
        tracing::info!(listener, %address, "listening");
    }
    if let Some(address) = running.admin() {
        tracing::info!(%address, "admin");
    }
    if let Some(address) = running.metrics() {
        tracing::info!(%address, "metrics");
    }
    Ok(running)
}

/// Written beside and renamed, so that who waits for the file never reads half of it.
fn write_ready_file(path: &Path, running: &Running) -> std::io::Result<()> {
    let listeners: serde_json::Map<_, _> =
        running.listeners().iter().map(|(name, address)| (name.clone(), address.to_string().into())).collect();
    let ready = json!({
        "listeners": listeners,
        "admin": running.admin().map(ToString::to_string),
        "metrics": running.metrics().map(ToString::to_string),
        "pid": std::process::id(),
    });
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, format!("{ready}\n"))?;
    std::fs::rename(&beside, path)
}
