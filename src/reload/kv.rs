//! A key in Consul's KV store as the source of truth of a fleet.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::Reload;
use crate::config::model::Consul;
use crate::consul::{Client, Settings, Watch};

/// How a start waits for an agent that does not answer.
const START: Duration = Duration::from_secs(30);

/// Nobody has written the key.
const MISSING: &str = "the key does not exist in Consul";

/// The configuration is not there to say how Consul is reached, so that the environment does.
fn client() -> Result<Rc<Client>, String> {
    Ok(Client::new(Settings::new(&Consul::default(), |name| std::env::var(name).ok())?))
}

/// Reads the key for a start, and blocks the thread until it is there, or 30 s are over.
///
/// # Errors
/// A sentence.
pub(crate) fn read_for_start(key: &str) -> Result<Vec<u8>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = runtime.map_err(|error| format!("cannot make a runtime: {error}"))?;
    runtime.block_on(async {
        let client = client()?;
        let mut watch = Watch::new();
        let mut last = String::new();
        let reading = async {
            loop {
                watch.turn().await;
                match client.key(key, None).await {
                    Ok(answer) => return answer.value.map(|value| value.to_vec()).ok_or(MISSING.to_owned()),
                    Err(error) => {
                        watch.failed(&error);
                        last = error.to_string();
                    }
                }
            }
        };
        let read = tokio::time::timeout(START, reading).await;
        read.unwrap_or_else(|_| Err(format!("no answer within {} s: {last}", START.as_secs())))
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
