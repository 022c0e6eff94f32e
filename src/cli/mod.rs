//! One file a command.

mod admin;
pub mod awaiting;
mod beginning;
pub mod check;
pub mod completions;
pub mod demo;
pub mod diff;
pub mod drain;
pub mod eject;
pub mod exit;
pub mod explain;
mod flags;
pub mod inject;
mod manifests;
pub mod ready;
pub mod redirect;
pub mod rollback;
pub mod run;
pub mod schema;
mod signals;
mod successor;
pub mod tap;
pub mod top;
pub mod version;
pub mod webhook;

use std::io::{self, IsTerminal as _};

use clap::{Parser, Subcommand};

/// A service-mesh-lite sidecar proxy: one small binary and one short YAML file per pod.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // Their arguments say what they are, and so does --help.
pub enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Schema(schema::SchemaArgs),
    Explain(explain::ExplainArgs),
    Diff(diff::DiffArgs),
    Demo(demo::DemoArgs),
    Ready(ready::ReadyArgs),
    Drain(drain::DrainArgs),
    Rollback(rollback::RollbackArgs),
    Top(top::TopArgs),
    Tap(tap::TapArgs),
    #[command(name = "await")]
    Await(awaiting::AwaitArgs),
    Inject(inject::InjectArgs),
    Eject(eject::EjectArgs),
    Redirect(redirect::RedirectArgs),
    Webhook(webhook::WebhookArgs),
    Version(version::VersionArgs),
    Completions(completions::CompletionsArgs),
}

/// Does what the command line says; the answer is the exit code.
pub fn main(cli: &Cli) -> u8 {
    let environment = |name: &str| std::env::var(name).ok();
    let outcome = match &cli.command {
        Command::Run(args) => Ok(run::run(args)),
        Command::Check(args) => {
            let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let mut streams = check::Streams {
                input: &mut io::stdin(),
                output: &mut io::stdout(),
                errors: &mut io::stderr(),
                colours,
            };
            check::check(args, &mut streams, &environment)
        }
        Command::Schema(args) => schema::schema(args, &mut io::stdout()),
        Command::Explain(args) => explain::command(args, &mut io::stdout()),
        Command::Diff(args) => diff::command(args, &mut io::stdout()),
        Command::Demo(args) => demo::demo(args, &mut io::stdout()),
        Command::Ready(args) => ready::ready(args, &mut io::stdout()),
        Command::Drain(args) => drain::drain(args, &mut io::stdout()),
        Command::Rollback(args) => rollback::rollback(args, &mut io::stdout()),
        Command::Top(args) => top::top(args, &mut io::stdout()),
        Command::Tap(args) => tap::tap(args, &mut io::stdout()),
        Command::Await(args) => awaiting::await_ready(args, &mut io::stdout()),
        Command::Inject(args) => inject::inject(args, &mut io::stdout()),
        Command::Eject(args) => eject::eject(args, &mut io::stdout()),
        Command::Redirect(args) => redirect::redirect(args, &mut io::stdout()),
        Command::Webhook(args) => Ok(webhook::webhook(args)),
        Command::Version(args) => version::version(args, &mut io::stdout()),
        Command::Completions(args) => completions::completions(args, &mut io::stdout()),
    };
    outcome.unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => exit::UNREAD,
        _ => exit::fault(&error.to_string()),
    })
}
