//! Everything that TLS was set up with, kept for as long as some configuration in use names it, and kept up to date.

use std::collections::HashMap;
use std::fs;
use std::hash::Hash;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::client::ClientTls;
use super::files::FileError;
use super::server::ServerTls;
use crate::config::model::{ListenerTls, UpstreamTls};

/// How often files are looked at. A look is one system call a file; kubelet itself takes up to a minute.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What TLS of listeners and upstreams stands on.
#[derive(Debug, Default)]
pub(crate) struct Store {
    servers: Table<ServerTls>,
    clients: Table<ClientTls>,
}

/// A certificate's end.
#[derive(Debug, Clone)]
pub(crate) struct Expiry {
    /// The file.
    pub(crate) file: PathBuf,
    /// Since the Unix epoch, in seconds.
    pub(crate) not_after: u64,
}

/// One side of TLS, made of what is in files.
pub(super) trait FromFiles: Sized {
    type Definition: Clone + Eq + Hash;

    fn load(definition: &Self::Definition) -> Result<Self, FileError>;

    /// Reads the files again; where that fails, what was there stays.
    fn reload(&self) -> Result<(), FileError>;

    /// Those that it is made of.
    fn files(definition: &Self::Definition) -> Vec<PathBuf>;

    fn expiries(&self) -> Vec<Expiry>;
}

impl Store {
    /// A listener's side of TLS: the one that is in use, or else made anew.
    ///
    /// # Errors
    /// Where a file cannot be read or used.
    pub(crate) fn server(&self, definition: &ListenerTls) -> Result<Arc<ServerTls>, FileError> {
        self.servers.get_or_load(definition)
    }

    /// An upstream's side of TLS, as [`Store::server`].
    ///
    /// # Errors
    /// Where a file cannot be read or used.
    pub(crate) fn client(&self, definition: &UpstreamTls) -> Result<Arc<ClientTls>, FileError> {
        self.clients.get_or_load(definition)
    }

    /// Reads files again when they change, for ever; on a thread of its own, for a file system may hang.
    pub(crate) async fn keep_current(self: Arc<Self>) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.servers.is_empty() && self.clients.is_empty() {
                continue;
            }
            let store = self.clone();
            let looking = tokio::task::spawn_blocking(move || {
                store.servers.refresh();
                store.clients.refresh();
            });
            let _ = looking.await;
        }
    }

    /// What was refused when it was read again, in sentences.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.servers.warnings();
        warnings.extend(self.clients.warnings());
        warnings.sort();
        warnings.dedup();
        warnings
    }

    /// When each certificate in use ends.
    pub(crate) fn expiries(&self) -> Vec<Expiry> {
        let mut expiries = self.servers.expiries();
        expiries.extend(self.clients.expiries());
        expiries.sort_by(|a, b| (&a.file, a.not_after).cmp(&(&b.file, b.not_after)));
        // Where one of two users of a file has refused a change, the older certificate counts, for it is in use.
        expiries.dedup_by(|later, earlier| later.file == earlier.file);
        expiries
    }
}

#[derive(Debug)]
struct Table<T: FromFiles>(Mutex<HashMap<T::Definition, Entry<T>>>);

#[derive(Debug)]
struct Entry<T> {
    made: Weak<T>,
    /// How the files looked when they were read last.
    read: Vec<Look>,
    /// How they looked a moment ago, where that differs: whoever writes them may not have finished.
    seen: Option<Vec<Look>>,
    refused: Option<String>,
}

/// What the file system says of a file: another content looks different, also behind links.
type Look = Option<(u64, u64, i64, i64, u64)>;

impl<T: FromFiles> Table<T> {
    fn get_or_load(&self, definition: &T::Definition) -> Result<Arc<T>, FileError> {
        let mut entries = self.entries();
        if let Some(made) = entries.get(definition).and_then(|entry| entry.made.upgrade()) {
            return Ok(made);
        }
        // Looked at first: what changes while it is read is read again.
        let read = looks::<T>(definition);
        let made = Arc::new(T::load(definition)?);
        let entry = Entry { made: Arc::downgrade(&made), read, seen: None, refused: None };
        entries.insert(definition.clone(), entry);
        Ok(made)
    }

    fn refresh(&self) {
        self.entries().retain(|definition, entry| {
            let Some(made) = entry.made.upgrade() else { return false };
            let now = looks::<T>(definition);
            if now == entry.read {
                entry.seen = None;
            } else if entry.seen.as_ref() != Some(&now) {
                entry.seen = Some(now);
            } else {
                entry.read = now;
                entry.seen = None;
                entry.refused = made.reload().err().map(|error| format!("changed TLS files cannot be used: {error}"));
                let files: Vec<String> = T::files(definition).iter().map(|file| file.display().to_string()).collect();
                let files = files.join(", ");
                match &entry.refused {
                    None => tracing::info!(files, "TLS files have changed and are in use"),
                    Some(refused) => tracing::error!(files, "{refused}; what was read before stays"),
                }
            }
            true
        });
    }

    fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    fn warnings(&self) -> Vec<String> {
        self.entries().values().filter_map(|entry| entry.refused.clone()).collect()
    }

    fn expiries(&self) -> Vec<Expiry> {
        self.entries().values().filter_map(|entry| entry.made.upgrade()).flat_map(|made| made.expiries()).collect()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<T::Definition, Entry<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: FromFiles> Default for Table<T> {
    fn default() -> Self {
        Table(Mutex::default())
    }
}

fn looks<T: FromFiles>(definition: &T::Definition) -> Vec<Look> {
    T::files(definition).iter().map(|file| look(file)).collect()
}

fn look(path: &Path) -> Look {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
}
