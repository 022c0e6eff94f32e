//! `outrigger tap`: requests of a running proxy as they pass.

mod har;
mod values;

use std::io::{self, IsTerminal as _, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::admin::{Admin, AdminArgs, Question, token};
use super::exit;
use crate::config::flags;
use crate::telemetry::access_log::rfc3339;

/// An archive is written as a whole, so it is bounded.
const MOST_IN_ARCHIVE: usize = 10_000;

/// Show requests of a running proxy as they pass, with secrets hidden.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger tap --errors
  outrigger tap --route payments --slower 250ms
  outrigger tap --status 5xx --header 'x-user: 7' --json
  outrigger tap --bodies 4KiB --har requests.har --for 30s

Only requests that begin while this listens are shown. Ctrl-C ends it. A name that nothing in force has is said, and
waited for: the next configuration may have it.
Exit codes: 0 done, 1 nobody answers or it was refused, 2 usage")]
pub struct TapArgs {
    /// Which proxy is meant.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Only requests to this listener
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,

    /// Only requests that this route took
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,

    /// Only requests to this upstream
    #[arg(long, value_name = "NAME")]
    pub upstream: Option<String>,

    /// Only this status, or class of statuses: 404, 5xx
    #[arg(long, value_name = "STATUS", value_parser = values::status)]
    pub status: Option<String>,

    /// Only what went wrong: a reason, a status of 500 or more, a failing gRPC status
    #[arg(long)]
    pub errors: bool,

    /// Only requests with this header in request or response; several must all hold
    #[arg(long, value_name = "NAME[:VALUE]")]
    pub header: Vec<String>,

    /// Only requests that took at least so long, such as 250ms
    #[arg(long, value_name = "TIME", value_parser = flags::duration)]
    pub slower: Option<Duration>,

    /// Only this share of them, 0 to 1
    #[arg(long, value_name = "RATIO", value_parser = values::share)]
    pub sample: Option<f64>,

    /// Show queries and secrets as they are
    #[arg(long)]
    pub reveal: bool,

    /// Show the first bytes of each body, at most 64KiB
    #[arg(long, value_name = "SIZE", value_parser = values::body_bytes)]
    pub bodies: Option<u64>,

    /// End after so many requests
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<usize>,

    /// End after this time
    #[arg(long = "for", value_name = "TIME", value_parser = flags::duration)]
    pub duration: Option<Duration>,

    /// The file of the admin token [default: admin.token_file of --config, then the token in $OUTRIGGER_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Print each request as a line of JSON
    #[arg(long, conflicts_with = "har")]
    pub json: bool,

    /// Write what was seen into this file as an HTTP Archive, at the end
    #[arg(long, value_name = "FILE")]
    pub har: Option<PathBuf>,
}

/// Listens.
///
/// # Errors
///
/// Where nothing can be written.
pub fn tap(args: &TapArgs, output: &mut dyn Write) -> io::Result<u8> {
    match listen(args, output) {
        Ok(Ok(())) => Ok(exit::DONE),
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::DONE),
        Ok(Err(error)) => Err(error),
        Err(message) => Ok(exit::fault(&message)),
    }
}

fn listen(args: &TapArgs, output: &mut dyn Write) -> Result<io::Result<()>, String> {
    let admin = Admin::find(&args.admin, true)?;
    let token = token(args.token_file.as_deref(), &admin)?;
    let target = target(args);
    let question = Question { method: Method::GET, target: &target, token: token.as_deref(), within: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot make a runtime: {error}"))?;
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // Now, and not when everything has been seen.
    let file = args.har.as_deref().map(|path| {
        let file = std::fs::File::create(path);
        file.map(|file| (path, file)).map_err(|error| unwritable(path, &error))
    });
    let file = file.transpose()?;
    let mut archive = Vec::new();
    let (mut seen, mut written) = (0_usize, Ok(()));
    let mut event = |json: &str| {
        let request: Value = serde_json::from_str(json).unwrap_or_default();
        written = if args.json {
            writeln!(output, "{json}").and_then(|()| output.flush())
        } else {
            writeln!(output, "{}", line(&request, colours)).and_then(|()| output.flush())
        };
        if args.har.is_some() {
            archive.push(request);
        }
        seen += 1;
        let enough = args.count.is_some_and(|count| seen >= count) || archive.len() >= MOST_IN_ARCHIVE;
        if written.is_err() || enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let outcome = runtime.block_on(async {
        let over = async {
            match args.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            outcome = admin.listen(&question, &mut event) => outcome,
            () = over => Ok(()),
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    });
    outcome?;
    if let Some((path, mut file)) = file {
        let text = har::archive(&archive).to_string();
        file.write_all(text.as_bytes()).map_err(|error| unwritable(path, &error))?;
    }
    Ok(written)
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// The filters as the proxy wants them.
fn target(args: &TapArgs) -> String {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let names =
        [("listener", &args.listener), ("route", &args.route), ("upstream", &args.upstream), ("status", &args.status)];
    pairs.extend(names.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
    pairs.extend(args.header.iter().map(|header| ("header", header.clone())));
    pairs.extend(args.errors.then(|| ("errors", "true".to_owned())));
    pairs.extend(args.slower.map(|slower| ("slower", (slower.as_secs_f64() * 1e3).to_string())));
    pairs.extend(args.sample.map(|share| ("sample", share.to_string())));
    pairs.extend(args.reveal.then(|| ("reveal", "true".to_owned())));
    pairs.extend(args.bodies.map(|bytes| ("bodies", bytes.to_string())));
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))).collect();
    format!("/tap?{}", pairs.join("&"))
}

/// One request in one line.
fn line(request: &Value, colours: bool) -> String {
    let text = |key: &str| request[key].as_str().unwrap_or_default();
    let code = request["code"].as_u64().unwrap_or_default();
    let colour = match code {
        _ if !colours => ("", ""),
        500.. => ("\u{1b}[31m", "\u{1b}[0m"),
        400.. => ("\u{1b}[33m", "\u{1b}[0m"),
        _ => ("\u{1b}[32m", "\u{1b}[0m"),
    };
    let mut line = format!(
        "{} {}{code}{} {:>8.2} ms {} {}{}  {}",
        time_of_day(request["time"].as_f64().unwrap_or_default()),
        colour.0,
        colour.1,
        request["ms"]["total"].as_f64().unwrap_or_default(),
        text("method"),
        printable(text("host")),
        printable(text("target")),
        text("listener"),
    );
    if !text("route").is_empty() {
        line.push_str(&format!("/{}", text("route")));
    }
    if !text("endpoint").is_empty() {
        line.push_str(&format!(" -> {}", text("endpoint")));
    }
    for key in ["reason", "missed", "grpc_code"] {
        if !request[key].is_null() {
            line.push_str(&format!("  {key}={}", request[key].to_string().trim_matches('"')));
        }
    }
    if request["attempts"].as_u64() > Some(1) {
        line.push_str(&format!("  attempts={}", request["attempts"]));
    }
    for (key, arrow) in [("request_body", '>'), ("response_body", '<')] {
        for part in text(key).lines() {
            line.push_str(&format!("\n    {arrow} {}", printable(part)));
        }
    }
    line
}

/// As in the access log, so that the two can be laid side by side: in UTC, with milliseconds.
fn time_of_day(unix: f64) -> String {
    let date = rfc3339(UNIX_EPOCH + Duration::try_from_secs_f64(unix).unwrap_or_default());
    date.split('T').nth(1).unwrap_or_default().to_owned()
}

/// Nothing that a client sends may steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_matters_and_steers_no_terminal() {
        let request = json!({
            "time": 1_772_323_199.999, "code": 503, "ms": { "total": 4.4 }, "method": "GET", "host": "a", "target": "/\u{1b}[2J", "listener": "in",
            "route": "r", "endpoint": "10.0.0.7:80", "reason": "connect_failure", "attempts": 2, "grpc_code": null,
        });
        let expected =
            "23:59:59.999Z 503     4.40 ms GET a/\u{fffd}[2J  in/r -> 10.0.0.7:80  reason=connect_failure  attempts=2";
        assert_eq!(line(&request, false), expected);
        let nowhere = json!({ "code": 404, "ms": { "total": 0.31 }, "method": "GET", "host": "a", "target": "/",
            "listener": "in", "route": null, "reason": "no_route", "attempts": 0 });
        assert_eq!(line(&nowhere, false), "00:00:00.000Z 404     0.31 ms GET a/  in  reason=no_route");
    }
}
