//! An export is tried a few times, and one that fails is mentioned now and then.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::client::{Client, Failure, Secure};
use super::{Signal, Target};
use crate::runtime::complaints::Complaints;

/// Tries of one export. The waits between them are 1, 2 and 4 s, each up to half as long again.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// A collector may ask for more patience than that, up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Delivers exports, one after the other.
#[derive(Debug)]
pub(in crate::telemetry) struct Delivery {
    signal: Signal,
    client: Client,
    /// Not ended by an export that arrives: collectors that take every second one would fill the log.
    complaints: Complaints,
    /// Something was said of it since it took everything.
    ailing: bool,
}

impl Delivery {
    pub(in crate::telemetry) fn new(signal: Signal, target: Target, secure: Secure) -> Self {
        Delivery {
            signal,
            client: Client::new(signal, target, secure),
            complaints: Complaints::default(),
            ailing: false,
        }
    }

    /// Delivers a message with this many items, and tells how many of them arrived.
    pub(in crate::telemetry) async fn deliver(&mut self, message: Bytes, items: u64) -> u64 {
        match self.tries(message).await {
            Ok(refused) => {
                let refused = refused.min(items);
                if refused > 0 {
                    self.complain("it refused some", &format!("it refused {refused} of {items}"));
                } else if std::mem::take(&mut self.ailing) {
                    let (collector, items) = (self.client.name(), self.signal.items());
                    tracing::info!(collector, "{items} are exported again");
                }
                items - refused
            }
            Err(failure) => {
                self.complain(&failure.detail, &failure.detail);
                0
            }
        }
    }

    /// How many items the collector did not take.
    async fn tries(&mut self, message: Bytes) -> Result<u64, Failure> {
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            match self.client.send(message.clone()).await {
                Err(failure) if failure.retryable => {
                    let asked = failure.retry_after.unwrap_or_default().min(LONGEST_WAIT);
                    tokio::time::sleep(wait.mul_f64(1.0 + fastrand::f64() / 2.0).max(asked)).await;
                    wait *= 2;
                }
                outcome => return outcome,
            }
        }
        self.client.send(message).await
    }

    fn complain(&mut self, cause: &str, detail: &str) {
        if self.complaints.is_news(cause, Instant::now()) {
            self.ailing = true;
            let (collector, items) = (self.client.name(), self.signal.items());
            tracing::warn!(collector, detail, "{items} cannot be exported and are dropped");
        }
    }
}
