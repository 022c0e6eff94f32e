//! `outrigger explain`: what would become of a request.

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::admin::{Admin, AdminArgs, Question, token};
use super::exit;
use crate::config::{Document, LoadOptions, load};
use crate::explain::{Asked, Explanation, compile, explain, page};

/// For the proxy's answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Say what would become of a request, without sending it: which route takes it and why those before it do not, what
/// the upstream would see, who is asked, how long, and whether once more.
#[derive(Debug, Args)]
#[command(
    override_usage = "outrigger explain [OPTIONS] FILE METHOD URL\n       outrigger explain [OPTIONS] --live METHOD URL",
    after_help = "Examples:
  outrigger explain outrigger.yaml GET http://payments/v1/refunds
  outrigger explain outrigger.yaml POST /v1/refunds -H 'Host: payments' -H 'x-canary: true' --listener outbound
  outrigger explain --live GET http://payments/ --json

Exit codes: 0 explained, 1 the file is wrong or nobody answers, 2 usage. With --exit-code: 0 some route takes it, 1 none
does, 2 the file is wrong, nobody answers, or usage"
)]
pub struct ExplainArgs {
    /// The configuration (with --live, that of the proxy), the request's method, and its URL or path
    #[arg(value_names = ["FILE", "METHOD", "URL"], num_args = 2..=3, required = true)]
    pub words: Vec<String>,

    /// A header of the request; a `Host` goes over the URL's
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,

    /// As it is at this listener; without it, at each that could take the request
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,

    /// Ask a running proxy, and show how its endpoints stand
    #[arg(long)]
    pub live: bool,

    /// Which proxy is meant.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// The file of the admin token [default: admin.token_file of --config, then the token in $OUTRIGGER_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Exit with 1 where no route takes the request, and with 2 where that cannot be told
    #[arg(long)]
    pub exit_code: bool,

    /// Print the explanation as JSON
    #[arg(long)]
    pub json: bool,
}

/// Explains.
///
/// # Errors
///
/// Where the answer cannot be written.
pub fn command(args: &ExplainArgs, output: &mut dyn Write) -> io::Result<u8> {
    let (file, [method, url]) = match (&*args.words, args.live) {
        ([method, url], true) => (None, [method, url]),
        ([file, method, url], false) => (Some(Path::new(file)), [method, url]),
        (_, live) => {
            exit::fault(match live {
                true => "with --live, write METHOD URL: the configuration is the proxy's",
                false => "write FILE METHOD URL, or --live METHOD URL",
            });
            return Ok(exit::USAGE);
        }
    };
    if let Err(message) = args.admin.only_if(args.live, args.token_file.as_deref()) {
        return Ok(exit::usage(message));
    }
    let asked = match Asked::parse(method, url, args.headers.iter().map(String::as_str)) {
        Ok(asked) => asked,
        Err(message) => {
            exit::fault(&message);
            return Ok(exit::USAGE);
        }
    };
    let explained = match file {
        Some(file) => of_file(file, &asked, args.listener.as_deref()),
        None => of_proxy(args, method, url),
    };
    let explanation = match explained {
        Ok(explanation) => explanation,
        Err(message) if args.exit_code => return Ok(exit::unanswered(message.trim_end())),
        Err(message) => return Ok(exit::fault(message.trim_end())),
    };
    if args.json {
        writeln!(output, "{}", serde_json::to_string(&explanation)?)?;
    } else {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        output.write_all(page(&explanation, colours).as_bytes())?;
    }
    Ok(if args.exit_code && !explanation.is_taken() { exit::FAULT } else { exit::DONE })
}

fn of_file(file: &Path, asked: &Asked, listener: Option<&str>) -> Result<Explanation, String> {
    let name = file.display().to_string();
    let bytes =
        super::check::read(file, &mut std::io::stdin()).map_err(|error| format!("cannot read {name}: {error}"))?;
    let variable = |name: &str| std::env::var(name).ok();
    let loaded = load(Document { name: &name, bytes: &bytes }, &variable, &LoadOptions::default())
        .map_err(|diagnostics| diagnostics.to_string())?;
    let snapshot = compile(&loaded.config)?;
    explain(asked, listener, &loaded.config, &snapshot, false)
}

fn of_proxy(args: &ExplainArgs, method: &str, url: &str) -> Result<Explanation, String> {
    let admin = Admin::find(&args.admin, true)?;
    let token = token(args.token_file.as_deref(), &admin)?;
    let encoded = |key: &str, value: &str| format!("&{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    let mut target = format!("/explain?format=json{}{}", encoded("method", method), encoded("url", url));
    args.headers.iter().for_each(|header| target.push_str(&encoded("header", header)));
    if let Some(listener) = &args.listener {
        target.push_str(&encoded("listener", listener));
    }
    let question =
        Question { method: Method::GET, target: &target, token: token.as_deref(), within: Some(ANSWER_WITHIN) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot make a runtime: {error}"))?;
    let (status, body) = runtime.block_on(admin.ask(&question))?;
    serde_json::from_slice(&body).map_err(|_| {
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        match answer["error"].as_str() {
            Some(error) => format!("the proxy refused ({status}): {error}"),
            None => "the answer is not that of an outrigger; is this its admin address?".to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent_and_have_an_example() {
        let mut command = ExplainArgs::augment_args(clap::Command::new("explain"));
        command.clone().debug_assert();
        assert!(command.render_long_help().to_string().contains("outrigger explain outrigger.yaml GET"));
    }
}
