//! `outrigger demo`: the newcomer's first minute. The proxy before sample services of its own, some faulty, under a
//! gentle load.

mod load;
mod screen;
mod services;
mod tally;

use std::cell::RefCell;
use std::io::{self, IsTerminal as _, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::admin::{Admin, Question};
use super::exit;
use super::signals::{Kind, Signals};
use crate::BoundAddress;
use crate::app::{BindError, Builder, Running, StartError};
use crate::config::{Document, LoadOptions, flags, load};
use crate::runtime::descriptors;
use crate::telemetry::log;
use screen::Screen;
use services::Services;
use tally::Tally;

const CONFIG: &str = include_str!("config.yaml");
/// For the admin's answers to us.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Show the proxy at work: before sample services that it starts itself, some faulty, with generated load.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger demo
  outrigger demo --for 10s
  outrigger demo --print-config | outrigger check -

Ctrl-C ends it. Everything is on loopback, and nothing is left behind.
Exit codes: 0 it ran, 1 it could not start, 2 usage")]
pub struct DemoArgs {
    /// End by itself after this long
    #[arg(long = "for", value_name = "DURATION", value_parser = flags::duration)]
    pub period: Option<Duration>,

    /// Requests a second
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rate: u32,

    /// Print the configuration that it runs, and do nothing else
    #[arg(long)]
    pub print_config: bool,
}

/// Runs the demo until its time is over or a signal comes.
///
/// # Errors
///
/// Where nothing can be written.
pub fn demo(args: &DemoArgs, output: &mut dyn Write) -> io::Result<u8> {
    if args.print_config {
        output.write_all(CONFIG.as_bytes())?;
        return Ok(exit::DONE);
    }
    descriptors::raise_limit();
    let (services, signals) = match Services::start().and_then(|services| Ok((services, Signals::catch()?))) {
        Ok(ready) => ready,
        Err(error) => return Ok(exit::fault(&format!("cannot start the sample services: {error}"))),
    };
    let running = match start(&services) {
        Ok(running) => running,
        Err(message) => return Ok(exit::fault(&message)),
    };
    let (Some((_, BoundAddress::Tcp(listener))), Some(BoundAddress::Tcp(admin))) =
        (running.listeners().first(), running.admin())
    else {
        return Ok(exit::fault("the demo's configuration has no TCP listener and admin"));
    };
    let (listener, admin) = (*listener, *admin);
    let (stop, stopped) = watch::channel(false);
    signals.each({
        let handle = running.handle();
        move |kind| {
            if kind != Kind::Reopen && stop.send_replace(true) {
                handle.end_now();
            }
        }
    });

    let terminal = io::stdout().is_terminal();
    let mut screen = Screen::new(output, terminal && std::env::var_os("NO_COLOR").is_none());
    screen.begin(listener, admin, args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let (tally, took) = runtime.block_on(drive(args, listener, stopped, terminal.then_some(&mut screen)))?;
    let seen = runtime.block_on(see(admin));
    running.handle().end_soon();
    running.wait();
    screen.end(&tally, took, &seen)?;
    Ok(exit::DONE)
}

/// Starts the proxy, on other ports where the usual ones are taken.
fn start(services: &Services) -> Result<Running, String> {
    let mut variables: Vec<(&str, SocketAddr)> = services.addresses.clone();
    loop {
        let lookup = |name: &str| {
            let known = variables.iter().find(|(variable, _)| *variable == name);
            known.map(|(_, address)| address.to_string())
        };
        let document = Document { name: "demo", bytes: CONFIG.as_bytes() };
        let loaded = load(document, &lookup, &LoadOptions::default())
            .map_err(|_| "the demo's own configuration has mistakes".to_owned())?;
        let log = log::init(&loaded.config.telemetry.log);
        let variable = match Builder::new(loaded, "demo").log(log).start() {
            Ok(running) => return Ok(running),
            Err(StartError::Bind(BindError { what, error, .. })) if error.kind() == io::ErrorKind::AddrInUse => {
                if what == "admin" { "DEMO_ADMIN" } else { "DEMO_LISTEN" }
            }
            Err(error) => return Err(error.to_string()),
        };
        if variables.iter().any(|(known, _)| *known == variable) {
            return Err("no free port on loopback".to_owned());
        }
        variables.push((variable, SocketAddr::from(([127, 0, 0, 1], 0))));
    }
}

/// Asks until it is time to end; gives what came back, and how long it took.
async fn drive(
    args: &DemoArgs,
    target: SocketAddr,
    mut stopped: watch::Receiver<bool>,
    mut screen: Option<&mut Screen<'_>>,
) -> io::Result<(Tally, Duration)> {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let (enough, enough_said) = watch::channel(false);
    let began = Instant::now();
    let clients = load::start(target, f64::from(args.rate), &tally, &enough_said);
    let mut seconds = tokio::time::interval_at(began + Duration::from_secs(1), Duration::from_secs(1));
    let period = args.period;
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            () = async { match period {
                Some(period) => tokio::time::sleep_until(began + period).await,
                None => std::future::pending().await,
            } } => break,
            _ = seconds.tick() => {
                if let Some(screen) = screen.as_mut() {
                    screen.second(&tally.borrow(), began.elapsed())?;
                }
            }
        }
    }
    enough.send_replace(true);
    for client in clients {
        let _ = client.await;
    }
    let took = began.elapsed();
    Ok((tally.take(), took))
}

/// What the proxy says of itself.
#[derive(Debug, Default)]
struct Seen {
    upstreams: Value,
    metrics: String,
}

async fn see(admin: SocketAddr) -> Seen {
    let admin = Admin::at(&admin.to_string());
    let ask = async |target| {
        let question = Question { method: Method::GET, target, token: None, within: Some(ANSWER_WITHIN) };
        admin.ask(&question).await.map(|(_, body)| body).unwrap_or_default()
    };
    Seen {
        upstreams: serde_json::from_slice(&ask("/upstreams").await).unwrap_or_default(),
        metrics: String::from_utf8_lossy(&ask("/metrics").await).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_right_without_its_variables() {
        let document = Document { name: "demo", bytes: CONFIG.as_bytes() };
        let loaded = load(document, &|_: &str| None, &LoadOptions::default()).unwrap();
        assert!(loaded.warnings.is_empty());
    }
}
