//! `outrigger top`: how a running proxy stands, live in the terminal.
//!
//! Events of `/events` become a `history`; a `view` says what of it is looked at, `table` puts it into rows, and
//! `draw` puts these into cells. All of that is pure; `screen` has the terminal, the keys and the connection.

mod draw;
mod event;
mod history;
mod link;
mod plain;
mod screen;
mod table;
mod view;
mod words;

use std::io::{self, IsTerminal as _, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::Method;

use super::admin::{Admin, AdminArgs, Question, token};
use super::exit;
use event::Event;
use history::History;
use view::View;

/// For an event that tells rates: one comes every second, and the first may not.
const EVENT_WITHIN: Duration = Duration::from_secs(5);

/// Show how a running proxy stands, live: rates, success and latency of routes and upstreams, and endpoints.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger top
  outrigger top --admin unix:/run/outrigger/admin.sock --filter payments
  outrigger top --json | jq .interval.total
  kubectl exec -it POD -c outrigger -- /outrigger top

Where the output is no terminal, it is one look as text. `?` shows the keys.
Exit codes: 0 done, 1 nobody answers or it was refused, 2 usage")]
pub struct TopArgs {
    /// Which proxy is meant.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Only rows that hold this text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub filter: String,

    /// Print one look as text, and end
    #[arg(long)]
    pub once: bool,

    /// Print one event of `/events` as a line of JSON, and end
    #[arg(long, conflicts_with_all = ["once", "filter"])]
    pub json: bool,

    /// The file of the admin token [default: admin.token_file of --config, then the token in $OUTRIGGER_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Shows it.
///
/// # Errors
///
/// Where nothing can be written.
pub fn top(args: &TopArgs, output: &mut dyn Write) -> io::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shown = runtime.block_on(look(args));
    // A key may still be waited for, by a thread that ends with the process.
    runtime.shutdown_background();
    match shown {
        Ok(text) => {
            output.write_all(text.as_bytes())?;
            output.flush()?;
            Ok(exit::DONE)
        }
        Err(message) => Ok(exit::fault(&message)),
    }
}

/// What is left to print.
async fn look(args: &TopArgs) -> Result<String, String> {
    let admin = Admin::find(&args.admin, true)?;
    let token = token(args.token_file.as_deref(), &admin)?;
    let question = Question { method: Method::GET, target: "/events", token: token.as_deref(), within: None };
    if args.once || args.json || !is_screen() {
        let look = once(&admin, &question, args);
        return tokio::time::timeout(EVENT_WITHIN, look)
            .await
            .unwrap_or_else(|_| Err(format!("no event came within {EVENT_WITHIN:?}")));
    }
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    screen::show(&admin, &question, View::new(&args.filter), colours).await?;
    Ok(String::new())
}

/// One that can be drawn on.
fn is_screen() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Of the first event that tells rates; where nothing ended meanwhile, of everything that was counted before.
async fn once(admin: &Admin, question: &Question<'_>, args: &TopArgs) -> Result<String, String> {
    let (mut history, mut sums, mut text) = (History::default(), None, None);
    let mut hear = |json: &str| {
        let Some(event) = Event::read(json) else { return ControlFlow::Continue(()) };
        if event.seconds == 0.0 {
            sums = Some(event.clone());
            history.add(event);
            return ControlFlow::Continue(());
        }
        let is_quiet = event.total.count == 0;
        history.add(event);
        if let Some(sums) = sums.take().filter(|sums| is_quiet && sums.total.count > 0) {
            history.show_sums(&sums);
        }
        text = Some(if args.json { format!("{json}\n") } else { plain::text(&history, &args.filter) });
        ControlFlow::Break(())
    };
    admin.listen(question, &mut hear).await?;
    text.ok_or_else(|| "the proxy has ended the stream".to_owned())
}
