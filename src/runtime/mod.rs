//! What everything runs on: sockets, timers, worker threads, the drain.
//!
//! Two kinds of thread: *workers* carry requests, each a current-thread runtime whose state nobody else touches;
//! the *control* thread does the rest (admin, signals, configuration) and can stall no request. It, and what it starts
//! beside it, gives way to them where they want the same core.

pub(crate) mod address;
pub(crate) mod complaints;
pub(crate) mod descriptors;
pub(crate) mod drain;
pub(crate) mod file_watch;
pub(crate) mod local;
pub(crate) mod memory;
pub(crate) mod pace;
pub(crate) mod patient_read;
pub(crate) mod priority;
pub(crate) mod stream;
pub(crate) mod timer;
pub(crate) mod tls_stream;
pub(crate) mod token_file;
pub(crate) mod worker;
