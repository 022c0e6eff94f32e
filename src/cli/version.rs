//! `outrigger version`: which program this is.

use std::env::consts::{ARCH, OS};
use std::io::{self, Write};

use clap::Args;
use serde_json::json;

/// Print the version.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger version
  outrigger version --json")]
pub struct VersionArgs {
    /// Print it as JSON, with the commit and the features that it was built with
    #[arg(long)]
    pub json: bool,
}

/// Set by whoever builds a release: `OUTRIGGER_COMMIT=$(git rev-parse HEAD) cargo build --release`.
const COMMIT: Option<&str> = option_env!("OUTRIGGER_COMMIT");

/// Prints it.
///
/// # Errors
///
/// Where it cannot be written.
pub fn version(args: &VersionArgs, output: &mut dyn Write) -> io::Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let target = format!("{ARCH}-{OS}-{}", environment());
    if args.json {
        let mut features = Vec::new();
        if cfg!(feature = "mimalloc") {
            features.push("mimalloc");
        }
        let answer = json!({ "version": version, "commit": COMMIT, "target": target, "features": features });
        writeln!(output, "{answer}")?;
        return Ok(super::exit::DONE);
    }
    let commit = COMMIT.map(|commit| format!("{}, ", commit.get(..12).unwrap_or(commit))).unwrap_or_default();
    writeln!(output, "outrigger {version} ({commit}{target})")?;
    Ok(super::exit::DONE)
}

/// The C library, and whether it is in the binary.
fn environment() -> &'static str {
    match (cfg!(target_env = "musl"), cfg!(target_feature = "crt-static")) {
        (true, _) => "musl",
        (false, true) => "gnu, static",
        (false, false) => "gnu",
    }
}
