//! `outrigger ready`: whether a running proxy is ready.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::admin::{Admin, AdminArgs, Question};
use super::exit;
use crate::config::flags;

/// For one answer. A probe that waits longer is late anyway.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Between two questions of `--wait`.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Ask whether a running proxy is ready: for probes, in an image that holds no shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger ready
  outrigger ready --wait 30s --config /etc/outrigger.yaml
  HEALTHCHECK CMD [\"/outrigger\", \"ready\"]                 in a Dockerfile
  startupProbe: { exec: { command: [/outrigger, ready] } }   in a pod

Exit codes: 0 ready, 1 not ready or nobody answers, 2 usage")]
pub struct ReadyArgs {
    /// Which proxy is meant.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Ask again until it is ready, for at most this long
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    pub wait: Option<Duration>,

    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// Asks.
///
/// # Errors
///
/// Where the answer cannot be written.
pub fn ready(args: &ReadyArgs, output: &mut dyn Write) -> io::Result<u8> {
    let admin = match Admin::find(&args.admin, false) {
        Ok(admin) => admin,
        Err(message) => return Ok(exit::fault(&message)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(ask_until_ready(&admin, args.wait.unwrap_or_default()));
    let ready = answer.as_ref().is_ok_and(|answer| answer["ready"] == true);
    let code = if ready { exit::DONE } else { exit::FAULT };
    if args.json {
        writeln!(output, "{}", answer.unwrap_or_else(|message| json!({ "ready": false, "error": message })))?;
        return Ok(code);
    }
    match answer {
        Ok(answer) if ready => {
            writeln!(output, "ready")?;
            for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                writeln!(output, "warning: {warning}")?;
            }
        }
        Ok(answer) => writeln!(output, "not ready: {}", answer["phase"].as_str().unwrap_or("no phase was said"))?,
        Err(message) => return Ok(exit::fault(&message)),
    }
    Ok(code)
}

/// The first answer that is yes, or the last within this time.
async fn ask_until_ready(admin: &Admin, within: Duration) -> Result<Value, String> {
    let began = Instant::now();
    loop {
        let answer = ask(admin).await;
        let left = within.saturating_sub(began.elapsed());
        if answer.as_ref().is_ok_and(|answer| answer["ready"] == true) || left.is_zero() {
            return answer;
        }
        tokio::time::sleep(left.min(AGAIN_AFTER)).await;
    }
}

async fn ask(admin: &Admin) -> Result<Value, String> {
    let question = Question { method: Method::GET, target: "/readyz", token: None, within: Some(ANSWER_WITHIN) };
    let (status, body) = admin.ask(&question).await?;
    match (status, serde_json::from_slice::<Value>(&body)) {
        (StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE, Ok(answer)) if answer["ready"].is_boolean() => Ok(answer),
        _ => Err(format!("the answer ({status}) is not that of an outrigger; is this its admin address?")),
    }
}
