//! Filled buffers on their way from the workers to the thread that writes them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Buffers that may wait: 2 MiB of lines. What comes while they all wait is dropped.
const MAX_WAITING: usize = 64;

/// Empty buffers that are kept for the workers.
const MAX_SPARE: usize = 4;

/// A bounded queue that never makes a worker wait. Its lock is taken once for each buffer, not for each line.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    closed: bool,
    /// The writer has written what there was, and is gone.
    finished: bool,
}

impl Queue {
    /// Takes whole lines and gives an empty buffer for the next ones.
    pub(super) fn push(&self, mut lines: Vec<u8>) -> Vec<u8> {
        let mut state = self.lock();
        if state.closed || state.waiting.len() >= MAX_WAITING {
            drop(state);
            self.count_dropped(&lines);
            lines.clear();
            return lines;
        }
        state.waiting.push_back(lines);
        let spare = state.spare.pop();
        drop(state);
        self.changed.notify_all();
        spare.unwrap_or_default()
    }

    /// Waits for lines; `None` when the queue is closed and empty. `written` is the buffer of the last ones.
    pub(super) fn pop(&self, mut written: Vec<u8>) -> Option<Vec<u8>> {
        written.clear();
        let mut state = self.lock();
        if state.spare.len() < MAX_SPARE {
            state.spare.push(written);
        }
        loop {
            if let Some(lines) = state.waiting.pop_front() {
                return Some(lines);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes nothing more. What waits is still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The writer's last word.
    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
    }

    /// Waits for [`Queue::finish`], at most this long.
    pub(super) fn wait_until_finished(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        while !state.finished {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Counts lines that nobody will read. A line that was cut counts as lost.
    pub(super) fn count_dropped(&self, lines: &[u8]) {
        self.dropped.fetch_add(memchr::memchr_iter(b'\n', lines).count() as u64, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let queue = Queue::default();
        for _ in 0..MAX_WAITING {
            queue.push(b"a\n".to_vec());
        }
        let back = queue.push(b"b\nc\n".to_vec());
        assert!(back.is_empty() && back.capacity() >= 4, "the worker goes on with its own buffer");
        assert_eq!(queue.dropped(), 2);
        assert_eq!(queue.pop(Vec::new()).unwrap(), b"a\n");
        queue.push(b"d\n".to_vec());
        assert_eq!(queue.dropped(), 2);
    }

    #[test]
    fn a_closed_queue_gives_what_it_holds_and_then_ends() {
        let queue = Queue::default();
        queue.push(b"a\n".to_vec());
        queue.close();
        queue.push(b"late\n".to_vec());
        assert_eq!(queue.pop(Vec::new()).unwrap(), b"a\n");
        assert_eq!(queue.pop(Vec::new()), None);
        assert_eq!(queue.dropped(), 1);
        assert!(!queue.wait_until_finished(Duration::ZERO));
        queue.finish();
        assert!(queue.wait_until_finished(Duration::ZERO));
    }

    #[test]
    fn buffers_come_back() {
        let queue = Queue::default();
        queue.pop_spare(Vec::with_capacity(1_000));
        assert_eq!(queue.push(b"a\n".to_vec()).capacity(), 1_000);
    }

    impl Queue {
        pub(in super::super) fn is_waiting(&self) -> bool {
            !self.lock().waiting.is_empty()
        }

        fn pop_spare(&self, buffer: Vec<u8>) {
            self.lock().waiting.push_back(Vec::new());
            self.pop(buffer);
        }
    }
}
