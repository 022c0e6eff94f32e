//! Waits that end: every one has a bound and says what it waited for.

use std::future::Future;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Far above what anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` holds, looking ever more rarely; panics with `what` when it never does.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(what, || condition().then_some(()));
}

/// Waits until `look` returns something.
#[track_caller]
pub fn eventually_some<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, look).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for: {what}"))
}

/// What `look` returned first, or `None` where it had nothing for `limit`.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

/// Bounds a future; panics with `what` when it does not end.
pub async fn bounded<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} in vain for: {what}"),
    }
}

/// [`eventually`] for asynchronous tests, whose connections move only while they wait.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    bounded(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Holds a script until the test opens it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Gate::default()
    }

    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }

    /// Blocks until the gate opens; panics with `what` when nobody opens it.
    #[track_caller]
    pub fn wait(&self, what: &str) {
        let opened = self.0.0.lock().unwrap();
        let (opened, _) = self.0.1.wait_timeout_while(opened, PATIENCE, |open| !*open).unwrap();
        assert!(*opened, "waited {PATIENCE:?} in vain for: {what}");
    }

    /// The same for asynchronous scripts.
    pub async fn opened(&self, what: &str) {
        until(what, || self.is_open()).await;
    }
}
