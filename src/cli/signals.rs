//! Signals as wishes of a running proxy.

use std::io;
use std::thread;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::successor::Successor;
use crate::app::Handle;

/// What the signals mean that are caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// SIGHUP: read the configuration again.
    Hangup,
    /// SIGTERM: the machine wants it. SIGQUIT too, as whoever knows nginx says it.
    Terminate,
    /// SIGINT: a person does.
    Interrupt,
    /// SIGUSR2: start the program anew beside this process, to take its place.
    Upgrade,
    /// SIGUSR1: programs that move log files away send it, for others to open theirs again.
    Reopen,
}

/// Signals that mean nothing yet to a start, and would end it: those that come meanwhile are for the proxy.
pub(super) struct Early {
    runtime: Runtime,
    hangup: Signal,
    upgrade: Signal,
    reopen: Signal,
}

impl Early {
    pub(super) fn catch() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let _inside = runtime.enter();
        let hangup = signal(SignalKind::hangup())?;
        let (reopen, upgrade) = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
        drop(_inside);
        Ok(Early { runtime, hangup, upgrade, reopen })
    }

    /// Also those that say that it is over, which until here have ended the process.
    pub(super) fn and_the_rest(self) -> io::Result<Signals> {
        let _inside = self.runtime.enter();
        let (terminate, quit) = (signal(SignalKind::terminate())?, signal(SignalKind::quit())?);
        let interrupt = signal(SignalKind::interrupt())?;
        drop(_inside);
        Ok(Signals { early: self, terminate, quit, interrupt })
    }
}

/// All signals that are caught, from now on.
pub(super) struct Signals {
    early: Early,
    terminate: Signal,
    quit: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        Early::catch()?.and_the_rest()
    }

    /// Passes them on for as long as the process lives.
    pub(super) fn direct(self, handle: Handle, successor: Successor) {
        self.each(move |kind| match kind {
            Kind::Hangup => handle.reload(),
            Kind::Terminate => handle.end(),
            Kind::Interrupt => handle.end_soon(),
            Kind::Upgrade => successor.start(),
            Kind::Reopen => tracing::info!("SIGUSR1: log files that were moved away are opened again without it"),
        });
    }

    /// Calls `act` for each, for as long as the process lives.
    pub(super) fn each(mut self, mut act: impl FnMut(Kind) + Send + 'static) {
        thread::spawn(move || {
            let Early { runtime, mut hangup, mut upgrade, mut reopen } = self.early;
            runtime.block_on(async move {
                loop {
                    tokio::select! {
                        Some(()) = hangup.recv() => act(Kind::Hangup),
                        Some(()) = self.terminate.recv() => act(Kind::Terminate),
                        Some(()) = self.quit.recv() => act(Kind::Terminate),
                        Some(()) = self.interrupt.recv() => act(Kind::Interrupt),
                        Some(()) = upgrade.recv() => act(Kind::Upgrade),
                        Some(()) = reopen.recv() => act(Kind::Reopen),
                        else => return,
                    }
                }
            });
        });
    }
}
