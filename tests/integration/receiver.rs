//! A collector that is not ours: OpenTelemetry's own definitions, over both protocols.

use serde_json::Value;

use crate::peers::{port_of, script};
use crate::support::eventually;
use crate::support::files::Directory;
use crate::support::process::Process;

/// A collector in a process of its own.
pub struct Receiver {
    process: Process,
    pub port: u16,
    _directory: Directory,
}

impl Receiver {
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        let directory = Directory::new();
        let mut process = Process::start("otlp_receiver", script("otlp_receiver.py").args(arguments), &directory);
        let port = port_of(&mut process);
        Receiver { process, port, _directory: directory }
    }

    /// All that have come so far.
    pub fn spans(&self) -> Vec<Value> {
        self.lines().filter(|line| line.get("metric").is_none()).collect()
    }

    /// Data points of all metrics of this name that have come so far, the latest last.
    pub fn points(&self, metric: &str) -> Vec<Value> {
        self.lines().filter(|line| line["metric"] == metric).collect()
    }

    fn lines(&self) -> impl Iterator<Item = Value> {
        let text = self.process.stdout();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines: Vec<Value> = whole.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.into_iter()
    }

    /// Waits until the trace has this many spans, and returns them: the earliest first.
    #[track_caller]
    pub fn trace(&self, id: &str, count: usize) -> Vec<Value> {
        let of_trace = || self.spans().into_iter().filter(|span| span["trace_id"] == id).collect::<Vec<_>>();
        eventually(&format!("{count} spans of trace {id}"), || of_trace().len() >= count);
        let mut spans = of_trace();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans.sort_by_key(|span| span["began"].as_u64());
        spans
    }
}
