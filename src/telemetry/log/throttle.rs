//! Lines that a stranger can cause must not fill a disk.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(1);

/// Admits so many lines a second. One thread's.
#[derive(Debug)]
pub(crate) struct Throttle {
    most: u32,
    began: Cell<Instant>,
    admitted: Cell<u32>,
}

impl Throttle {
    pub(crate) fn new(most: u32) -> Self {
        Throttle { most, began: Cell::new(Instant::now()), admitted: Cell::new(0) }
    }

    /// True where one more line may be written.
    pub(crate) fn admit(&self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.began.get()) >= WINDOW {
            self.began.set(now);
            self.admitted.set(0);
        }
        self.admitted.set(self.admitted.get().saturating_add(1));
        self.admitted.get() <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_a_second() {
        let throttle = Throttle::new(2);
        assert_eq!([0; 3].map(|_| throttle.admit()), [true, true, false]);
        tokio::time::advance(WINDOW).await;
        assert!(throttle.admit());
    }
}
