//! `outrigger rollback`: back to an earlier configuration.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{Method, StatusCode};
use serde_json::Value;

use super::admin::{Admin, AdminArgs, Question, token};
use super::exit;

/// For the proxy's answer: a swap binds and compiles.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Let a running proxy go back to the configuration before. It holds until the source holds something else than what was
/// gone back from.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger rollback
  outrigger rollback --list
  outrigger rollback --to 5

Exit codes: 0 it has gone back, 1 nobody answers or it was refused, 2 usage")]
pub struct RollbackArgs {
    /// Which proxy is meant.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Go back to the generation of this number
    #[arg(long, value_name = "NUMBER", conflicts_with = "list")]
    pub to: Option<u64>,

    /// Show the generations that are remembered, and do nothing
    #[arg(long)]
    pub list: bool,

    /// The file of the admin token [default: admin.token_file of --config, then the token in $OUTRIGGER_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// Asks the proxy.
///
/// # Errors
///
/// Where the answer cannot be written.
pub fn rollback(args: &RollbackArgs, output: &mut dyn Write) -> io::Result<u8> {
    let body = match ask(args) {
        Ok(body) => body,
        Err(message) => return Ok(exit::fault(&message)),
    };
    if args.list && !args.json {
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        for generation in answer["generations"].as_array().into_iter().flatten() {
            let mark = match (generation["in_force"] == true, generation["rejected"] == true) {
                (true, _) => "in force",
                (false, true) => "rejected",
                (false, false) => "",
            };
            let text = |key: &str| generation[key].as_str().unwrap_or_default().to_owned();
            let (number, time, source, changes) =
                (&generation["generation"], text("time"), text("source"), text("changes"));
            writeln!(output, "{:<4} {time}  {mark:<8}  {source}: {changes}", number.to_string())?;
        }
    } else {
        // As it says it: what came back, and what changed by that.
        output.write_all(&body)?;
    }
    Ok(exit::DONE)
}

fn ask(args: &RollbackArgs) -> Result<Bytes, String> {
    let admin = Admin::find(&args.admin, true)?;
    let token = token(args.token_file.as_deref(), &admin)?;
    let format = if args.json { "json" } else { "text" };
    let (method, target) = match (args.list, args.to) {
        (true, _) => (Method::GET, "/config/history".to_owned()),
        (false, Some(number)) => (Method::POST, format!("/config/rollback?format={format}&to={number}")),
        (false, None) => (Method::POST, format!("/config/rollback?format={format}")),
    };
    let question = Question { method, target: &target, token: token.as_deref(), within: Some(ANSWER_WITHIN) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot make a runtime: {error}"))?;
    let (status, body) = runtime.block_on(admin.ask(&question))?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    // Warnings of what came back may stand before it.
    let says = || String::from_utf8_lossy(&body).lines().any(|line| line.starts_with("generation "));
    let is_text = !args.json && !args.list && says();
    match (status, answer["error"].as_str()) {
        (StatusCode::OK, None) if is_text || answer.is_object() => Ok(body),
        (_, Some(error)) => Err(format!("the proxy refused ({status}): {error}")),
        _ => Err(format!("the answer ({status}) is not that of an outrigger; is this its admin address?")),
    }
}
