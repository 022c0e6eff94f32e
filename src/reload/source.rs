//! Sources of truth, each followed by a task for as long as the proxy runs.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::document::Trust;
use super::{Reload, kv};
use crate::config::MAX_BYTES;
use crate::runtime::file_watch::FileWatch;

/// Where the configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the command line, or in the program: it cannot change.
    Fixed,
    File(PathBuf),
    /// A key in Consul's KV store.
    ConsulKv(String),
}

impl Source {
    /// Begins to follow the source.
    pub(crate) fn follow(&self, reload: &Rc<Reload>) -> io::Result<()> {
        match self {
            Source::Fixed => Ok(()),
            Source::File(path) => follow_file(path, reload),
            Source::ConsulKv(key) => {
                tokio::task::spawn_local(kv::follow(key.clone(), reload.clone()).map_err(io::Error::other)?);
                Ok(())
            }
        }
    }

    /// Who wrote what it holds.
    pub(crate) fn trust(&self) -> Trust {
        match self {
            Source::Fixed | Source::File(_) => Trust::Local,
            Source::ConsulKv(_) => Trust::Network,
        }
    }

    /// Reads the source again, be it unchanged.
    pub(crate) async fn read_again(&self, reload: &Rc<Reload>) {
        let read = match self {
            Source::Fixed => {
                tracing::info!("the configuration is in no file, so that there is nothing to read again");
                return;
            }
            Source::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read(&path)).await;
                read.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| error.to_string())
            }
            Source::ConsulKv(key) => kv::read(key).await,
        };
        match read {
            Ok(bytes) => {
                let _ = reload.source_says(bytes, true).await;
            }
            Err(error) => reload.source_failed(&error),
        }
    }
}

fn follow_file(path: &Path, reload: &Rc<Reload>) -> io::Result<()> {
    if is_mounted_alone(path) {
        tracing::warn!(
            path = %path.display(),
            "this file is a mount of its own (`subPath` in Kubernetes), which never changes; mount its folder instead"
        );
    }
    let mut watch = FileWatch::start([path.to_owned()], MAX_BYTES)?;
    let reload = reload.clone();
    tokio::task::spawn_local(async move {
        // Between the start's own reading and the watch's first, it may have changed.
        let mut files = watch.latest();
        loop {
            match files.first().map(|file| &file.content) {
                Some(Ok(bytes)) => {
                    let _ = reload.source_says(bytes.clone(), false).await;
                }
                Some(Err(error)) => reload.source_failed(&error.to_string()),
                None => {}
            }
            files = watch.changed().await;
        }
    });
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// True where the file itself, and not a folder above it, is a mount (proc_pid_mountinfo(5)).
fn is_mounted_alone(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|mount| Path::new(mount) == path)
}
