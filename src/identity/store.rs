//! Everything that TLS was set up with, kept for as long as some configuration in use names it, and kept up to date.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::files::FileError;
use super::server::ServerTls;
use crate::config::model::{ClientCertificates, ListenerTls};

/// How often files are looked at. A look is one system call a file; kubelet itself takes up to a minute.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What TLS of listeners stands on.
#[derive(Debug, Default)]
pub(crate) struct Store(Mutex<HashMap<ListenerTls, Entry>>);

#[derive(Debug)]
struct Entry {
    tls: Weak<ServerTls>,
    /// How the files looked when they were read last.
    read: Vec<Look>,
    /// How they looked a moment ago, where that differs: whoever writes them may not have finished.
    seen: Option<Vec<Look>>,
    refused: Option<String>,
}

/// A certificate's end.
#[derive(Debug, Clone)]
pub(crate) struct Expiry {
    /// The file.
    pub(crate) file: PathBuf,
    /// Since the Unix epoch, in seconds.
    pub(crate) not_after: u64,
}

/// What the file system says of a file: another content looks different, also behind links.
type Look = Option<(u64, u64, i64, i64, u64)>;

impl Store {
    /// A listener's side of TLS: the one that is in use, or else made anew.
    ///
    /// # Errors
    /// Where a file cannot be read or used.
    pub(crate) fn server(&self, definition: &ListenerTls) -> Result<Arc<ServerTls>, FileError> {
        let mut entries = self.entries();
        if let Some(tls) = entries.get(definition).and_then(|entry| entry.tls.upgrade()) {
            return Ok(tls);
        }
        // Looked at first: what changes while it is read is read again.
        let read = looks(definition);
        let tls = Arc::new(ServerTls::load(definition)?);
        let entry = Entry { tls: Arc::downgrade(&tls), read, seen: None, refused: None };
        entries.insert(definition.clone(), entry);
        Ok(tls)
    }

    /// Reads files again when they change, for ever.
    pub(crate) async fn keep_current(&self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.refresh();
        }
    }

    /// What was refused when it was read again, in sentences.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let entries = self.entries();
        let mut warnings: Vec<String> = entries.values().filter_map(|entry| entry.refused.clone()).collect();
        warnings.sort();
        warnings
    }

    /// When each certificate in use ends.
    pub(crate) fn expiries(&self) -> Vec<Expiry> {
        let mut expiries = Vec::new();
        for tls in self.entries().values().filter_map(|entry| entry.tls.upgrade()) {
            let files = tls.definition.certificates.iter().zip(tls.certificates());
            expiries.extend(
                files.map(|(files, certificate)| Expiry { file: files.cert.clone(), not_after: certificate.not_after }),
            );
        }
        expiries.sort_by(|a, b| (&a.file, a.not_after).cmp(&(&b.file, b.not_after)));
        // Two listeners may share a file. What one of them has refused counts, for it is in use.
        expiries.dedup_by(|b, a| a.file == b.file);
        expiries
    }

    fn refresh(&self) {
        self.entries().retain(|definition, entry| {
            let Some(tls) = entry.tls.upgrade() else { return false };
            let now = looks(definition);
            if now == entry.read {
                entry.seen = None;
                return true;
            }
            if entry.seen.as_ref() != Some(&now) {
                entry.seen = Some(now);
                return true;
            }
            entry.read = now;
            entry.seen = None;
            let file = definition.certificates.first().map(|files| files.cert.display().to_string());
            let file = file.unwrap_or_default();
            match tls.reload() {
                Ok(()) => {
                    entry.refused = None;
                    tracing::info!(file, "TLS files have changed and are in use");
                }
                Err(error) => {
                    tracing::error!(%error, "TLS files have changed and cannot be used; what was read before stays");
                    entry.refused = Some(format!("changed TLS files cannot be used: {error}"));
                }
            }
            true
        });
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<ListenerTls, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn looks(definition: &ListenerTls) -> Vec<Look> {
    let authorities = match &definition.client {
        ClientCertificates::Ignored => None,
        ClientCertificates::Optional(file) | ClientCertificates::Required(file) => Some(file),
    };
    let pairs = definition.certificates.iter().flat_map(|files| [&files.cert, &files.key]);
    pairs.chain(authorities).map(|file| look(file)).collect()
}

fn look(path: &Path) -> Look {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
}
