//! The last configuration that the source held and that was accepted, in a file: what a start falls back to.

use std::fs::{OpenOptions, rename};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

/// The file, and the task that alone writes it.
pub(super) struct LastGood(watch::Sender<Option<Arc<str>>>);

impl LastGood {
    pub(super) fn start(path: PathBuf) -> Self {
        let (newest, mut texts) = watch::channel(None);
        tokio::task::spawn_local(async move {
            // One after the other, and of those that come meanwhile the newest.
            while texts.changed().await.is_ok() {
                let (path, text): (_, Option<Arc<str>>) = (path.clone(), texts.borrow_and_update().clone());
                let Some(text) = text else { continue };
                let keeping = tokio::task::spawn_blocking(move || {
                    if let Err(error) = write(&path, text.as_bytes()) {
                        tracing::warn!(path = %path.display(), %error, "cannot keep the last good configuration");
                    }
                });
                let _ = keeping.await;
            }
        });
        LastGood(newest)
    }

    /// Keeps `text`. What goes wrong is said, and stops nothing.
    pub(super) fn keep(&self, text: Arc<str>) {
        self.0.send_replace(Some(text));
    }
}

/// Written beside and renamed, so that a start never finds half of it. Nobody else needs to read it.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    rename(beside, path)
}
