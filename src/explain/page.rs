//! An explanation as people read it: a label, and what there is to say.

use std::fmt::{self, Write as _};

use super::live::{Endpoint, Now};
use super::policy::share;
use super::report::{Change, Explanation, Kind, Listener, Origin, Route, Skipped, Timeout, Upstream};

/// Routes that did not match are told one by one up to this number; of more, those for other hosts are counted.
const SKIPPED: usize = 12;
/// Endpoints that are shown.
const ENDPOINTS: usize = 12;
/// Where the second column begins.
const LABEL: usize = 12;

/// Ends with a new line.
pub(crate) fn page(explanation: &Explanation, colours: bool) -> String {
    let mut page = Page { text: String::new(), colours, indent: 0 };
    // Into a string; that never fails.
    let _ = page.write(explanation);
    page.text
}

struct Page {
    text: String,
    colours: bool,
    indent: usize,
}

impl Page {
    fn write(&mut self, explanation: &Explanation) -> fmt::Result {
        for (position, listener) in explanation.listeners.iter().enumerate() {
            if position > 0 {
                self.text.push('\n');
            }
            self.listener(listener)?;
        }
        Ok(())
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line; the label stands beside the first of several with the same.
    fn line(&mut self, label: &str, what: &str) -> fmt::Result {
        let padding = " ".repeat(LABEL.saturating_sub(label.chars().count() + self.indent));
        let label = self.dim(label);
        writeln!(self.text, "{}{label}{padding}{what}", " ".repeat(self.indent))
    }

    fn lines<'t>(&mut self, label: &str, all: impl IntoIterator<Item = &'t str>) -> fmt::Result {
        all.into_iter()
            .enumerate()
            .try_for_each(|(position, what)| self.line(if position == 0 { label } else { "" }, what))
    }

    fn listener(&mut self, listener: &Listener) -> fmt::Result {
        let head = format!("{} ({})", self.bold(&listener.name), listener.address);
        self.line("listener", &head)?;
        self.indent = 2;
        if let Some(note) = &listener.note {
            self.line("but", note)?;
        }
        self.callers(&listener.callers)?;
        self.lines("limit", listener.limits.iter().map(String::as_str))?;
        self.skipped(&listener.skipped)?;
        if let Some(refused) = &listener.refused {
            let (reason, why) = refused.split_once(": ").unwrap_or((refused, ""));
            let reason = self.paint("1;31", reason);
            self.line("refused", &format!("{reason}: {why}"))?;
        }
        if let Some(route) = &listener.route {
            let name = self.bold(&route.name);
            self.line("matches", &format!("{name}, route {} of {}", route.position, listener.routes))?;
            self.route(route)?;
        }
        self.indent = 0;
        Ok(())
    }

    fn callers(&mut self, callers: &[String]) -> fmt::Result {
        if callers.is_empty() {
            return Ok(());
        }
        self.line("only from", &format!("{}; others get 403 denied", callers.join(", ")))
    }

    fn skipped(&mut self, skipped: &[Skipped]) -> fmt::Result {
        let other_host = |skipped: &&Skipped| matches!(&*skipped.because, [only] if only.starts_with("host is"));
        let (mut shown, mut counted): (Vec<_>, Vec<_>) = (skipped.iter().collect(), Vec::new());
        if skipped.len() > SKIPPED {
            (counted, shown) = skipped.iter().partition(other_host);
        }
        let more = shown.len().saturating_sub(SKIPPED);
        let shown = &shown[..shown.len() - more];
        let widest = shown.iter().map(|skipped| skipped.route.chars().count()).max().unwrap_or_default();
        let mut lines: Vec<String> =
            shown.iter().map(|skipped| format!("{:widest$}  {}", skipped.route, skipped.because.join("; "))).collect();
        if more > 0 {
            lines.push(format!("and {more} more for reasons of this kind (--json has them)"));
        }
        if !counted.is_empty() {
            lines.push(format!("and {} for other hosts", counted.len()));
        }
        self.lines("skips", lines.iter().map(String::as_str))
    }

    fn route(&mut self, route: &Route) -> fmt::Result {
        self.callers(&route.callers)?;
        self.lines("limit", route.limits.iter().map(String::as_str))?;
        if let Some(fault) = &route.fault {
            self.line("fault", fault)?;
        }
        if let Some(redirect) = &route.redirect {
            self.line("redirects", &format!("{} to {}", redirect.status, redirect.location))?;
        }
        if let Some(respond) = &route.respond {
            let body = match &*respond.body {
                "" => "without a body".to_owned(),
                body => format!("with {} bytes", body.len()),
            };
            self.line("answers", &format!("{} {body}", respond.status))?;
        }
        if let Some(sends) = &route.sends {
            match &sends.error {
                Some(error) => {
                    let reason = self.paint("1;31", "bad_request");
                    self.line("refused", &format!("{reason}: {error}"))?;
                }
                None => self.line("sends", &format!("{} {} with Host {}", sends.method, sends.target, sends.host))?,
            }
            let changes: Vec<String> = sends.headers.iter().map(change).collect();
            self.lines("headers", changes.iter().map(String::as_str))?;
        }
        if let Some(mirror) = &route.mirror {
            self.line("mirrors", mirror)?;
        }
        route.upstreams.iter().try_for_each(|upstream| self.upstream(upstream))
    }

    fn upstream(&mut self, upstream: &Upstream) -> fmt::Result {
        let name = self.bold(&upstream.name);
        let part = upstream.share.map(|part| format!(", {} of the requests", share(part)));
        self.line("to", &format!("{name}{}", part.unwrap_or_default()))?;
        self.indent = 4;
        self.line("at", &upstream.endpoints)?;
        self.line("turns", &upstream.balancer)?;
        self.line("speaks", &upstream.protocol)?;
        if let Some(tls) = &upstream.tls {
            self.line("TLS", tls)?;
        }
        let timeouts: Vec<String> = grouped(&upstream.timeouts);
        self.lines("waits", timeouts.iter().map(String::as_str))?;
        self.line("retries", &upstream.retries.verdict)?;
        if upstream.retries.max > 0 {
            self.line("", &upstream.retries.terms)?;
        }
        self.line("limits", &upstream.limits.join(", "))?;
        let policies =
            [("ejects", &upstream.ejection), ("breaker", &upstream.circuit_breaker), ("health", &upstream.health)];
        for (label, policy) in policies {
            if let Some(policy) = policy {
                self.line(label, policy)?;
            }
        }
        if let Some(now) = &upstream.now {
            self.now(now)?;
        }
        self.indent = 2;
        Ok(())
    }

    fn now(&mut self, now: &Now) -> fmt::Result {
        let breaker = now.breaker.as_ref().map(|breaker| {
            let left = breaker.seconds_left.map(|left| format!(" for {left:.1} s"));
            format!(", breaker {}{}", breaker.state, left.unwrap_or_default())
        });
        let flight = format!("{} of {} requests in flight", now.requests, now.requests_max);
        self.line("now", &format!("{flight}{}", breaker.unwrap_or_default()))?;
        if let Some(error) = &now.discovery_error {
            self.line("", &format!("its endpoints cannot be looked up: {error}"))?;
        }
        let widest =
            now.endpoints.iter().take(ENDPOINTS).map(|endpoint| endpoint.address.len()).max().unwrap_or_default();
        for endpoint in now.endpoints.iter().take(ENDPOINTS) {
            let state = match &*endpoint.state {
                "ready" => self.paint("32", "ready"),
                other => self.paint("1;31", other),
            };
            self.line("", &format!("{:widest$}  {state}{}", endpoint.address, standing(endpoint)))?;
        }
        match now.endpoints.len().saturating_sub(ENDPOINTS) {
            0 => {}
            more => self.line("", &format!("and {more} more (--json has them)"))?,
        }
        let next = match (now.aside.as_ref().or(now.next.as_ref()), now.endpoints.is_empty()) {
            (Some(next), _) => next.clone(),
            (None, true) => "nobody: there are no endpoints".to_owned(),
            (None, false) => "as each worker's turns go: not known beforehand".to_owned(),
        };
        self.line("next", &next)
    }
}

fn standing(endpoint: &Endpoint) -> String {
    let mut facts = vec![format!("weight {}", endpoint.weight), format!("{} in flight", endpoint.in_flight)];
    facts.extend((endpoint.priority > 0).then(|| format!("priority {}", endpoint.priority)));
    facts.extend(endpoint.zone.as_ref().map(|zone| format!("zone {zone}")));
    facts.extend(endpoint.latency_ms.map(|latency| format!("{latency:.1} ms")));
    facts.extend(endpoint.ejected_seconds.map(|left| format!("back in {left:.0} s")));
    facts.extend(endpoint.check_error.as_ref().map(|error| format!("check: {error}")));
    format!(", {}", facts.join(", "))
}

fn change(change: &Change) -> String {
    let value = change.value.as_deref().unwrap_or_default();
    match change.change {
        Kind::Set => format!("{} set to {value}", change.name),
        Kind::Added => format!("{} added: {value}", change.name),
        Kind::Removed => format!("{} removed", change.name),
    }
}

/// A line for each of those who have said something.
fn grouped(timeouts: &[Timeout]) -> Vec<String> {
    let by = |origin: Origin, who: &str| {
        let said = timeouts.iter().filter(|timeout| timeout.from == origin);
        let said: Vec<String> = said.map(|timeout| format!("{} {}", timeout.name, timeout.value)).collect();
        (!said.is_empty()).then(|| format!("{} ({who})", said.join(", ")))
    };
    let all = [
        by(Origin::Client, "the client says so"),
        by(Origin::Route, "the route says so"),
        by(Origin::Upstream, "the upstream says so"),
        by(Origin::Defaults, "defaults say so"),
        by(Origin::BuiltIn, "built in"),
    ];
    all.into_iter().flatten().collect()
}
