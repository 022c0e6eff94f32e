//! `outrigger await`: a program that starts once the proxy is ready.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use clap::Args;

use super::admin::AdminArgs;
use super::exit;
use super::ready::{ReadyArgs, ready};
use crate::config::flags;

/// Wait until a running proxy is ready, then become another program: for apps that cannot try again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger await -- /app --listen :8080
  command: [/outrigger, await, --]     before the app's own words, in a pod whose image holds both

The program takes this one's place, so signals and exit codes are its own. With a native sidecar (outrigger inject)
Kubernetes does the waiting.
Exit codes: the program's; 1 the proxy was not ready in time or the program cannot be run, 2 usage")]
pub struct AwaitArgs {
    /// Which proxy is meant.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = flags::duration, default_value = "1m")]
    pub timeout: Duration,

    /// The program and its arguments; without one, only wait
    #[arg(last = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

/// Waits, and runs the program; returns only where there is none, or it cannot be run.
///
/// # Errors
///
/// Where what is said cannot be written.
pub fn await_ready(args: &AwaitArgs, output: &mut dyn Write) -> io::Result<u8> {
    let asked = ReadyArgs { admin: args.admin.clone(), wait: Some(args.timeout), json: false };
    // The program's output is its own: what is said of the proxy goes nowhere, but for what is wrong.
    let mut said = Vec::new();
    let code = ready(&asked, &mut said)?;
    let Some((program, arguments)) = args.program.split_first() else {
        output.write_all(&said)?;
        return Ok(code);
    };
    if code != exit::DONE {
        return Ok(exit::fault(&format!("the proxy was not ready within {:?}", args.timeout)));
    }
    let error = Command::new(program).args(arguments).exec();
    Ok(exit::fault(&format!("cannot run {}: {error}", program.display())))
}
