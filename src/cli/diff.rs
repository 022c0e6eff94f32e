//! `outrigger diff`: what a swap would change.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::admin::{Admin, AdminArgs, Question, token};
use super::exit;
use crate::config::diff::{Diff, Kind, Part, diff};
use crate::config::environment::MissingVariables;
use crate::config::{Document, LoadOptions, examine};

/// For the proxy's answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Show what a swap from one configuration to another changes: what comes, what goes, what drains, what only a start
/// takes over.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger diff outrigger.yaml next.yaml
  outrigger diff --live next.yaml
  outrigger diff --exit-code old.yaml new.yaml

Exit codes: 0 compared, 1 a file is wrong or nobody answers, 2 usage. With --exit-code: 0 nothing differs, 1 something does, 2 a file is wrong, nobody answers, or usage")]
pub struct DiffArgs {
    /// What is in force; with --live, that is the running proxy's
    #[arg(value_name = "OLD", required_unless_present = "live", conflicts_with = "live")]
    pub old: Option<PathBuf>,

    /// What would be
    #[arg(value_name = "NEW", required_unless_present = "live")]
    pub new: Option<PathBuf>,

    /// Compare this file with what a running proxy serves, and count the connections that would be seen off
    #[arg(long, value_name = "NEW")]
    pub live: Option<PathBuf>,

    /// Which proxy is meant.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// The file of the admin token [default: admin.token_file of --config, then the token in $OUTRIGGER_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Exit with 1 where something differs, and with 2 where that cannot be told
    #[arg(long)]
    pub exit_code: bool,

    /// Print the comparison as JSON
    #[arg(long)]
    pub json: bool,
}

/// Compares.
///
/// # Errors
///
/// Where the answer cannot be written.
pub fn command(args: &DiffArgs, output: &mut dyn Write) -> io::Result<u8> {
    if let Err(message) = args.admin.only_if(args.live.is_some(), args.token_file.as_deref()) {
        return Ok(exit::usage(message));
    }
    let compared = match compare(args) {
        Ok(compared) => compared,
        Err(message) if args.exit_code => return Ok(exit::unanswered(message.trim_end())),
        Err(message) => return Ok(exit::fault(message.trim_end())),
    };
    if args.json {
        let Diff { changes, unchanged } = &compared;
        let facts = json!({ "changes": changes, "unchanged": unchanged, "needs_restart": compared.needs_restart() });
        writeln!(output, "{facts}")?;
    } else {
        write!(output, "{compared}")?;
    }
    Ok(if args.exit_code && !compared.is_empty() { exit::FAULT } else { exit::DONE })
}

fn compare(args: &DiffArgs) -> Result<Diff, String> {
    match (&args.live, &args.old, &args.new) {
        (Some(new), ..) => compare_live(args, new),
        (None, Some(old), Some(new)) => Ok(diff(&effective(old)?, &effective(new)?)),
        _ => Err("name two files, or one with --live".to_owned()),
    }
}

/// The long form. Variables need not be known: they are compared as they are written.
fn effective(path: &Path) -> Result<String, String> {
    let name = if path == Path::new("-") { "<stdin>".to_owned() } else { path.display().to_string() };
    let bytes =
        super::check::read(path, &mut std::io::stdin()).map_err(|error| format!("cannot read {name}: {error}"))?;
    let options = LoadOptions { missing_variables: MissingVariables::Allow, ..LoadOptions::default() };
    let variable = |name: &str| std::env::var(name).ok();
    let report = examine(Document { name: &name, bytes: &bytes }, &variable, &options);
    report.effective.ok_or_else(|| report.diagnostics.to_string())
}

fn compare_live(args: &DiffArgs, new: &Path) -> Result<Diff, String> {
    let new = effective(new)?;
    let admin = Admin::find(&args.admin, true)?;
    let token = token(args.token_file.as_deref(), &admin)?;
    let ask = async |target: &str| {
        let question = Question { method: Method::GET, target, token: token.as_deref(), within: Some(ANSWER_WITHIN) };
        let (status, body) = admin.ask(&question).await?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        match answer["error"].as_str() {
            Some(error) => Err(format!("the proxy refused ({status}): {error}")),
            None => Ok((answer, body)),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot make a runtime: {error}"))?;
    let ((_, old), (listeners, _), (upstreams, _)) = runtime.block_on(async {
        Ok::<_, String>((ask("/config").await?, ask("/listeners").await?, ask("/upstreams").await?))
    })?;
    let old = str::from_utf8(&old).ok().filter(|old| old.starts_with("version:"));
    let mut compared = diff(old.ok_or("the answer is not that of an outrigger; is this its admin address?")?, &new);
    let find =
        |all: &Value, name: &str| -> Option<Value> { all.as_array()?.iter().find(|one| one["name"] == name).cloned() };
    for change in &mut compared.changes {
        let moves = change.fields.iter().any(|field| field.key == "address");
        change.connections = match (change.part, change.kind) {
            (Part::Listener, kind) if kind == Kind::Removed || moves => {
                find(&listeners["listeners"], &change.name).and_then(|it| it["connections"]["used"].as_u64())
            }
            (Part::Upstream, Kind::Removed) => {
                find(&upstreams["upstreams"], &change.name).and_then(|it| it["connections"]["open"].as_u64())
            }
            _ => None,
        };
    }
    Ok(compared)
}
