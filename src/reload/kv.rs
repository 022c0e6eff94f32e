//! A key in Consul's KV store as the source of truth of a fleet.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::Reload;
use crate::config::model::Consul;
use crate::consul::{Client, Settings, Watch};

/// How a start waits for an agent that does not answer.
const START: Duration = Duration::from_secs(30);

/// Between two words about that.
const WORD_EVERY: Duration = Duration::from_secs(5);

/// Nobody has written the key.
const MISSING: &str = "the key does not exist in Consul";

/// The configuration is not there to say how Consul is reached, so that the environment does.
fn client() -> Result<Rc<Client>, String> {
    Ok(Client::new(Settings::new(&Consul::default(), |name| std::env::var(name).ok())?))
}

/// Reads the key for a start, and blocks the thread until it is there, or 30 s are over. `waits` hears why it is waited
/// for, at once and every 5 s.
///
/// # Errors
/// A sentence.
pub(crate) fn read_for_start(key: &str, waits: &dyn Fn(&str)) -> Result<Vec<u8>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = runtime.map_err(|error| format!("cannot make a runtime: {error}"))?;
    runtime.block_on(async {
        let client = client()?;
        let mut watch = Watch::new();
        let (until, last) = (Instant::now() + START, RefCell::new(String::new()));
        let tell = || {
            let left = until.saturating_duration_since(Instant::now()).as_secs();
            waits(&format!("{}; waiting for {left} s more", last.borrow()));
        };
        let reading = async {
            loop {
                watch.turn().await;
                match client.key(key, None).await {
                    Ok(answer) => return answer.value.map(|value| value.to_vec()).ok_or(MISSING.to_owned()),
                    Err(error) => {
                        watch.failed(&error);
                        if last.replace(error.to_string()).is_empty() {
                            tell();
                        }
                    }
                }
            }
        };
        let mut reading = pin!(reading);
        loop {
            let word = (Instant::now() + WORD_EVERY).min(until);
            match tokio::time::timeout_at(word, reading.as_mut()).await {
                Ok(read) => return read,
                Err(_) if word == until => {
                    return Err(format!("no answer within {} s: {}", START.as_secs(), last.borrow()));
                }
                Err(_) => tell(),
            }
        }
    })
}

/// Follows the key for as long as the proxy runs.
///
/// # Errors
/// A sentence, where the environment says something of Consul that cannot be used.
pub(super) fn follow(key: String, reload: Rc<Reload>) -> Result<impl Future<Output = ()>, String> {
    let client = client()?;
    Ok(async move {
        let mut watch = Watch::new();
        loop {
            let index = watch.turn().await;
            match client.key(&key, index).await {
                Ok(answer) => {
                    watch.answered(&answer);
                    match answer.value {
                        Some(value) => {
                            let _ = reload.source_says(value.to_vec(), false).await;
                        }
                        None => reload.source_failed(MISSING),
                    }
                }
                Err(error) => {
                    watch.failed(&error);
                    reload.source_failed(&error.to_string());
                }
            }
        }
    })
}

/// Reads the key now.
pub(super) async fn read(key: &str) -> Result<Vec<u8>, String> {
    let answer = client()?.key(key, None).await.map_err(|error| error.to_string())?;
    answer.value.map(|value| value.to_vec()).ok_or(MISSING.to_owned())
}
