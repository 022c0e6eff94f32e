//! `outrigger drain`: no new work for a running proxy.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::admin::{Admin, AdminArgs, Question, token};
use super::exit;

/// For the answer to a drain that is not waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Drain a running proxy: it is unready at once, takes nothing new inbound after drain.delay, and goes on outbound.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger drain
  outrigger drain --wait --config /etc/outrigger.yaml
  preStop: { exec: { command: [/outrigger, drain, --wait] } }   in a pod

The proxy runs on until it gets SIGTERM, which then ends it without another delay. Draining again changes nothing.
Exit codes: 0 it drains (with --wait: it has drained), 1 nobody answers or it was refused, 2 usage,
3 requests were left when drain.timeout was over")]
pub struct DrainArgs {
    /// Which proxy is meant.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Return when inbound is drained, or drain.timeout is over
    #[arg(long)]
    pub wait: bool,

    /// The file of the admin token [default: admin.token_file of --config, then the token in $OUTRIGGER_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// Tells the proxy.
///
/// # Errors
///
/// Where the answer cannot be written.
pub fn drain(args: &DrainArgs, output: &mut dyn Write) -> io::Result<u8> {
    let answer = match tell(args) {
        Ok(answer) => answer,
        Err(message) if args.json => {
            writeln!(output, "{}", json!({ "drained": false, "error": message }))?;
            return Ok(exit::FAULT);
        }
        Err(message) => return Ok(exit::fault(&message)),
    };
    let drained = answer["drained"] == true;
    if args.json {
        writeln!(output, "{answer}")?;
    } else if drained {
        writeln!(output, "drained")?;
    } else if args.wait {
        writeln!(output, "not drained in time: inbound requests that are left: {}", answer["inbound_requests"])?;
    } else {
        writeln!(output, "draining; `--wait` waits for the end")?;
    }
    Ok(if args.wait && !drained { exit::FORCED } else { exit::DONE })
}

fn tell(args: &DrainArgs) -> Result<Value, String> {
    let admin = Admin::find(&args.admin, true)?;
    let token = token(args.token_file.as_deref(), &admin)?;
    let question = Question {
        method: Method::POST,
        target: if args.wait { "/drain?wait=true" } else { "/drain" },
        token: token.as_deref(),
        // The proxy bounds its drain by itself.
        within: (!args.wait).then_some(ANSWER_WITHIN),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot make a runtime: {error}"))?;
    let (status, body) = runtime.block_on(admin.ask(&question))?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    match status {
        StatusCode::OK | StatusCode::ACCEPTED if answer["phase"].is_string() => Ok(answer),
        _ => Err(match answer["error"].as_str() {
            Some(error) => format!("the proxy refused ({status}): {error}"),
            None => format!("the answer ({status}) is not that of an outrigger; is this its admin address?"),
        }),
    }
}
