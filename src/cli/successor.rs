//! This program once more, as it is installed now, to take this process' place.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Starts it, one at a time.
#[derive(Debug)]
pub(super) struct Successor {
    /// Why there can be none.
    impossible: Option<&'static str>,
    starting: Arc<AtomicBool>,
}

impl Successor {
    pub(super) fn new(impossible: Option<&'static str>) -> Self {
        Successor { impossible, starting: Arc::default() }
    }

    /// With the arguments that this process was started with, and by the same name: what has been installed there since.
    pub(super) fn start(&self) {
        if let Some(why) = self.impossible {
            tracing::error!("cannot start a process that takes over: {why}");
            return;
        }
        if self.starting.swap(true, Ordering::Relaxed) {
            tracing::warn!("a process that takes over is starting already");
            return;
        }
        let mut words = std::env::args_os();
        let program = words.next().unwrap_or_else(|| "outrigger".into());
        let child = Command::new(&program).args(words).stdin(Stdio::null()).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(%error, program = %program.display(), "cannot start a process that takes over");
                self.starting.store(false, Ordering::Relaxed);
                return;
            }
        };
        tracing::info!(pid = child.id(), program = %program.display(), "started a process that takes over");
        let starting = self.starting.clone();
        // It outlives this process, or else somebody has to ask how it ended.
        thread::spawn(move || {
            let pid = child.id();
            match child.wait() {
                Ok(status) => tracing::error!(pid, %status, "the process that was to take over has ended"),
                Err(error) => tracing::error!(pid, %error, "the process that was to take over cannot be waited for"),
            }
            starting.store(false, Ordering::Relaxed);
        });
    }
}
