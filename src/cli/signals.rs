//! Signals as wishes of a running proxy.

use std::io;
use std::thread;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::Handle;

/// Signals that are caught from now on.
pub(super) struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let _inside = runtime.enter();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        drop(_inside);
        Ok(Signals { runtime, terminate, interrupt })
    }

    /// Passes them on for as long as the process lives.
    pub(super) fn direct(mut self, handle: Handle) {
        thread::spawn(move || {
            self.runtime.block_on(async move {
                loop {
                    tokio::select! {
                        Some(()) = self.terminate.recv() => handle.end(),
                        Some(()) = self.interrupt.recv() => handle.end_soon(),
                        else => return,
                    }
                }
            });
        });
    }
}
