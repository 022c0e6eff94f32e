//! File descriptors: each connection takes one.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process have as many as it may. The soft limit that shells and service managers give is 1,024, for programs
/// whose `select` knows no more; it is below what one listener takes by default. Go's programs, HAProxy and Envoy's images
/// raise it as well. What stands in the way (a sandbox) is met as too few descriptors are.
pub(crate) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// EMFILE and ENFILE: the process or the machine has no file descriptor left.
pub(crate) fn are_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| exhausted.contains(&code))
}
