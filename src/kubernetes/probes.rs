//! Probes of the app by way of the proxy.
//!
//! kubelet has no client certificate, and with capture a TCP probe would be answered by the proxy whatever the app
//! does. So the proxy's metrics address takes the probe and asks the app over loopback.

use std::fmt;

use super::plan::{Change, Path, Step};
use super::value::Value;
use super::yaml::Node;
use crate::config::flags;

const KINDS: [(&str, &str); 3] =
    [("livenessProbe", "liveness"), ("readinessProbe", "readiness"), ("startupProbe", "startup")];

/// What the proxy asks for one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// `app/readiness`
    pub(super) name: String,
    /// `http://127.0.0.1:8080/healthz`
    pub(super) url: String,
}

impl Asked {
    /// Nothing where the proxy cannot ask it: it would not start.
    fn new(name: String, url: String) -> Option<Self> {
        let asked = Asked { name, url };
        flags::probe(&asked.to_string()).is_ok().then_some(asked)
    }
}

/// As the proxy's `--probe` takes it.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.url)
    }
}

/// Plans the changes of a container's probes. Those by `exec` and `grpc`, those of another host, and those that the
/// proxy has no way to ask (over HTTPS) stay.
pub(super) fn rewrite(
    at: &[Step],
    container: &Node,
    port: u16,
    changes: &mut Vec<Change>,
) -> Result<Vec<Asked>, String> {
    let Some(name) = container.text_at("name") else { return Ok(Vec::new()) };
    let mut asked = Vec::new();
    for (key, kind) in KINDS {
        let Some(probe) = container.get(key) else { continue };
        let step = |name: &str| Step::Key(name.to_owned());
        let at = |more: &[&str]| -> Path {
            at.iter().cloned().chain([step(key)]).chain(more.iter().map(|name| step(name))).collect()
        };
        let asked_name = format!("{name}/{kind}");
        let path: Value = format!("/probe/{asked_name}").into();
        if let Some(http) = probe.get("httpGet") {
            if http.get("host").is_some() {
                continue;
            }
            let app_port = app_port(container, http).ok_or_else(|| unknown_port(key))?;
            let target = http.text_at("path").unwrap_or("/");
            let slash = if target.starts_with('/') { "" } else { "/" };
            let scheme = http.text_at("scheme").unwrap_or("HTTP").to_ascii_lowercase();
            let url = format!("{scheme}://127.0.0.1:{app_port}{slash}{target}");
            let Some(question) = Asked::new(asked_name, url) else { continue };
            asked.push(question);
            if http.get("path").is_some() {
                changes.push(Change::Replace { path: at(&["httpGet", "path"]), value: path });
            } else {
                changes.push(Change::Add { path: at(&["httpGet", "path"]), value: path });
            }
            changes.push(Change::Replace { path: at(&["httpGet", "port"]), value: port.into() });
        } else if let Some(tcp) = probe.get("tcpSocket") {
            if tcp.get("host").is_some() {
                continue;
            }
            let app_port = app_port(container, tcp).ok_or_else(|| unknown_port(key))?;
            let Some(question) = Asked::new(asked_name, format!("tcp://127.0.0.1:{app_port}")) else { continue };
            asked.push(question);
            changes.push(Change::Add { path: at(&["tcpSocket", "path"]), value: path });
            changes.push(Change::Replace { path: at(&["tcpSocket", "port"]), value: port.into() });
            changes.push(Change::Rename { path: at(&["tcpSocket"]), key: "httpGet" });
        }
    }
    Ok(asked)
}

fn unknown_port(probe: &str) -> String {
    format!("its `{probe}` has no port that the container knows")
}

/// The number of the port that a probe names.
fn app_port(container: &Node, handler: &Node) -> Option<u16> {
    let written = handler.text_at("port")?;
    if let Ok(number) = written.parse() {
        return Some(number);
    }
    let ports = container.get("ports").map(Node::items).unwrap_or_default();
    ports.iter().find(|port| port.text_at("name") == Some(written))?.text_at("containerPort")?.parse().ok()
}
