//! The proxy's threads, none of which outlives a start that fails.

use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::StartError;
use crate::control::Command;
use crate::runtime::worker as thread;

/// Those that have been started so far. Dropped, they end.
pub(super) struct Threads {
    /// A worker holds a sender of its own, among those of its peers, so that it does not end by itself.
    workers: Vec<mpsc::UnboundedSender<Command>>,
    started: Vec<JoinHandle<()>>,
}

impl Threads {
    /// None yet; `workers` are those to be told to end.
    pub(super) fn of(workers: Vec<mpsc::UnboundedSender<Command>>) -> Self {
        Threads { workers, started: Vec::new() }
    }

    /// One more.
    ///
    /// # Errors
    /// When it or its runtime cannot be made.
    pub(super) fn start<W, F>(&mut self, name: String, work: W) -> Result<(), StartError>
    where
        W: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        self.started.push(thread::start(name, work).map_err(StartError::Thread)?);
        Ok(())
    }

    /// The start has succeeded.
    pub(super) fn keep(mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.started)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if self.started.is_empty() {
            return;
        }
        for worker in &self.workers {
            let _ = worker.send(Command::Stop);
        }
        for thread in self.started.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_has_started_ends_with_a_start_that_fails() {
        let ended = Arc::new(AtomicBool::new(false));
        let (sender, mut commands) = mpsc::unbounded_channel();
        let mut threads = Threads::of(vec![sender.clone()]);
        let work = {
            let ended = ended.clone();
            move || async move {
                let _of_a_peer = sender;
                while !matches!(commands.recv().await, Some(Command::Stop) | None) {}
                ended.store(true, Ordering::SeqCst);
            }
        };
        threads.start("worker-0".to_owned(), work).unwrap();
        drop(threads);
        assert!(ended.load(Ordering::SeqCst));
    }
}
