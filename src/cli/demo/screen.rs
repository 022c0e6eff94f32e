//! What the demo prints.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::tally::{Counts, Tally};
use super::{DemoArgs, Seen};

/// Where it prints.
pub(super) struct Screen<'o> {
    output: &'o mut dyn Write,
    colours: bool,
    /// Requests at the last line of a second.
    before: u64,
    /// A line that changes stands at the bottom.
    live: bool,
}

impl<'o> Screen<'o> {
    pub(super) fn new(output: &'o mut dyn Write, colours: bool) -> Self {
        Screen { output, colours, before: 0, live: false }
    }

    /// What runs, and what to try.
    pub(super) fn begin(&mut self, listener: SocketAddr, admin: SocketAddr, args: &DemoArgs) -> io::Result<()> {
        let title = self.bold(&format!("Outrigger {}", env!("CARGO_PKG_VERSION")));
        let (attempt, look) = (self.bold("Try"), self.bold("Look"));
        let until = match args.period {
            Some(period) => format!("It ends after {period:?}, or with Ctrl-C."),
            None => "Ctrl-C ends it.".to_owned(),
        };
        write!(
            self.output,
            "\
{title} before three services of its own, asked {rate} times a second.

  fast    two endpoints that answer at once, weights 3 and 1
  slow    takes about 40 ms
  flaky   1 of 10 answers is a 503, and 3 of 100 connections are reset instead

{attempt}
  curl -i http://{listener}/hello     through the proxy to fast; see the x-demo- headers
  curl -i http://{listener}/flaky     again and again: an answer, a 503, a reset
  curl -i http://{listener}/split     80 % fast, 20 % slow
  curl -i http://{listener}/old       a redirect

{look}
  http://{admin}/                     the dashboard, in a browser
  outrigger top --admin {admin}       much of the same, in a terminal
  curl http://{admin}/upstreams       endpoints, limits, connections
  curl http://{admin}/metrics         what Prometheus would read
  curl http://{admin}/config          the configuration in force

{until}
",
            rate = args.rate,
        )?;
        self.output.flush()
    }

    /// The line that changes once a second.
    pub(super) fn second(&mut self, tally: &Tally, since: Duration) -> io::Result<()> {
        let requests = tally.requests();
        let now = requests - std::mem::replace(&mut self.before, requests);
        let mut line = format!("{:5.0} s {now:5}/s  {:5.1} % ok", since.as_secs_f64(), tally.success());
        for (upstream, counts) in named(tally) {
            line.push_str(&format!("   {upstream} {}", millis(counts.percentile(0.5))));
            line.push_str(&format!("/{}", millis(counts.percentile(0.99))));
        }
        if !std::mem::replace(&mut self.live, true) {
            writeln!(self.output, "\n{}", self.dim("                              p50/p99 in milliseconds"))?;
        }
        write!(self.output, "\r\x1b[2K{line}")?;
        self.output.flush()
    }

    /// What was served.
    pub(super) fn end(&mut self, tally: &Tally, took: Duration, seen: &Seen) -> io::Result<()> {
        if self.live {
            writeln!(self.output)?;
        }
        let rate = tally.requests() as f64 / took.as_secs_f64().max(0.001);
        let summary = format!("Served {} requests in {:.1} s", tally.requests(), took.as_secs_f64());
        let success = tally.success();
        writeln!(self.output, "\n{}: {rate:.1} a second, {success:.1} % of them well\n", self.bold(&summary))?;
        self.table("upstream   requests    well       p50       p90       p99  (ms)")?;
        let itself = tally.upstreams.get("").map(|counts| ("(itself)", counts));
        for (upstream, counts) in named(tally).chain(itself) {
            let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| millis(counts.percentile(share)));
            let (requests, success) = (counts.requests, counts.success());
            writeln!(self.output, "  {upstream:<8} {requests:>10} {success:>5.1} % {p50:>9} {p90:>9} {p99:>9}")?;
        }
        writeln!(self.output)?;
        self.table("endpoint           upstream   weight   attempts   unanswered")?;
        for (upstream, endpoint) in endpoints(&seen.upstreams) {
            let text = |key: &str| endpoint[key].as_str().map_or_else(|| endpoint[key].to_string(), str::to_owned);
            let [address, weight, requests, failures] = ["address", "weight", "requests", "failures"].map(text);
            writeln!(self.output, "  {address:<18} {upstream:<9} {weight:>7} {requests:>10} {failures:>12}")?;
        }
        if !tally.failures.is_empty() {
            writeln!(self.output)?;
            self.table("failed because of")?;
            for (failure, count) in &tally.failures {
                writeln!(self.output, "  {failure:<28} {count:>6}")?;
            }
        }
        let saved = sum(&seen.metrics, "outrigger_stale_connection_replays_total");
        if saved > 0.0 {
            let (requests, were) = if saved == 1.0 { ("request", "was") } else { ("requests", "were") };
            writeln!(
                self.output,
                "\n{saved} {requests} met a connection that had died, and {were} sent again unnoticed."
            )?;
        }
        self.output.flush()
    }

    fn table(&mut self, heads: &str) -> io::Result<()> {
        let heads = self.dim(heads);
        writeln!(self.output, "  {heads}")
    }

    fn bold(&self, text: &str) -> String {
        if self.colours { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn dim(&self, text: &str) -> String {
        if self.colours { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Upstreams in the order in which the demo names them.
fn named(tally: &Tally) -> impl Iterator<Item = (&'static str, &Counts)> {
    ["fast", "slow", "flaky"].into_iter().filter_map(|name| Some((name, tally.upstreams.get(name)?)))
}

fn endpoints(upstreams: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let upstreams = upstreams["upstreams"].as_array().into_iter().flatten();
    upstreams.flat_map(|upstream| {
        let name = upstream["name"].as_str().unwrap_or_default();
        upstream["endpoints"].as_array().into_iter().flatten().map(move |endpoint| (name, endpoint))
    })
}

/// The sum of a metric's series.
fn sum(metrics: &str, family: &str) -> f64 {
    let series = metrics.lines().filter(|line| line.starts_with(family));
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Milliseconds with as many digits as matter.
fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 10.0 { format!("{millis:.1}") } else { format!("{millis:.0}") }
}
