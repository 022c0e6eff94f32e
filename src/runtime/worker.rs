//! Threads that carry requests: each a runtime of its own, whose tasks never leave it.

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::runtime::LocalOptions;

/// For work beside the thread that has not ended with it.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Starts a thread that runs `work` and whatever it spawns on the thread itself.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub(crate) fn start<W, F>(name: String, work: W) -> io::Result<JoinHandle<()>>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let (made, outcome) = std::sync::mpsc::channel();
    let thread = Builder::new().name(name).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => {
                let _ = made.send(Ok(()));
                runtime.block_on(work());
                // What a file system does not answer has no part in the end.
                runtime.shutdown_timeout(LAST_WORK);
            }
            Err(error) => {
                let _ = made.send(Err(error));
            }
        }
    })?;
    outcome.recv().map_err(io::Error::other)??;
    Ok(thread)
}

/// CPUs that this process may use: its affinity and its cgroup's quota, whichever is less.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
