//! Everything that TLS was set up with, kept for as long as some configuration in use names it, and kept up to date.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::hash::Hash;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::certificate::Certificate;
use super::client::ClientTls;
use super::files::{FileError, MAX_BYTES};
use super::server::ServerTls;
use crate::config::model::{ListenerTls, UpstreamTls};
use crate::config::write_duration;
use crate::runtime::file_watch::FileWatch;

/// A certificate and its key are two files: where one does not fit the other, the other gets this long to follow.
const PAIRED_WITHIN: Duration = Duration::from_secs(1);
/// When a certificate's end is worth a warning, in seconds: somebody who renews them by hand needs a working day.
const SOON: u64 = 86_400;
/// How often what no configuration uses any more is let go.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// What TLS of listeners and upstreams stands on.
#[derive(Debug, Default)]
pub(crate) struct Store {
    servers: Table<ServerTls>,
    clients: Table<ClientTls>,
    /// There are others than before.
    more: Notify,
}

/// From when to when a certificate is valid, since the Unix epoch, in seconds.
#[derive(Debug, Clone)]
pub(crate) struct Expiry {
    /// The file.
    pub(crate) file: PathBuf,
    pub(crate) not_after: u64,
    not_before: u64,
}

impl Expiry {
    pub(super) fn of(file: &Path, certificate: &Certificate) -> Self {
        let Certificate { not_before, not_after, .. } = *certificate;
        Expiry { file: file.to_owned(), not_after, not_before }
    }

    /// What to say of it at this time, where it has not begun, has ended, or is about to.
    pub(crate) fn warning(&self, now: u64) -> Option<String> {
        let file = self.file.display();
        if let Some(left) = self.not_before.checked_sub(now).filter(|left| *left > 0) {
            let left = write_duration(coarse(left));
            return Some(format!(
                "the certificate {file} is not valid for another {left}: whoever is shown it refuses it"
            ));
        }
        match self.not_after.checked_sub(now) {
            None => {
                let ago = write_duration(coarse(now - self.not_after));
                Some(format!("the certificate {file} has expired, {ago} ago: whoever is shown it refuses it"))
            }
            // Those of an hour are renewed by the hour.
            Some(left) if left < SOON.min(self.not_after.saturating_sub(self.not_before) / 4) => {
                Some(format!("the certificate {file} expires in {}", write_duration(coarse(left))))
            }
            Some(_) => None,
        }
    }
}

/// Whole days, hours or minutes, where it is that long.
fn coarse(seconds: u64) -> Duration {
    let unit = [86_400, 3_600, 60].into_iter().find(|unit| seconds >= *unit).unwrap_or(1);
    Duration::from_secs(seconds - seconds % unit)
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
        let server = self.servers.get_or_load(definition);
        self.more.notify_one();
        server
    }

    /// An upstream's side of TLS, as [`Store::server`].
    ///
    /// # Errors
    /// Where a file cannot be read or used.
    pub(crate) fn client(&self, definition: &UpstreamTls) -> Result<Arc<ClientTls>, FileError> {
        let client = self.clients.get_or_load(definition);
        self.more.notify_one();
        client
    }

    /// Reads files again when they change, for ever; beside the thread, for a file system may hang.
    pub(crate) async fn keep_current(self: Arc<Self>) {
        let mut watched: Option<(BTreeSet<PathBuf>, FileWatch)> = None;
        let mut unpaired: Option<Instant> = None;
        loop {
            let wanted = self.files();
            if watched.as_ref().is_none_or(|(files, _)| *files != wanted) {
                watched = watch(wanted).await;
                // They may have changed since they were read.
                let fits = self.clone().refresh(true).await;
                unpaired = (!fits).then(|| Instant::now() + PAIRED_WITHIN);
            }
            let changed = async {
                match &mut watched {
                    Some((_, watch)) => drop(watch.changed().await),
                    None => std::future::pending().await,
                }
            };
            let patience = async {
                match unpaired {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {
                    let fits = self.clone().refresh(true).await;
                    unpaired = (!fits).then(|| Instant::now() + PAIRED_WITHIN);
                }
                () = patience => {
                    unpaired = None;
                    self.clone().refresh(false).await;
                }
                () = self.more.notified() => {}
                () = tokio::time::sleep(TIDY_EVERY) => {}
            }
        }
    }

    /// Every file that something in use is made of.
    fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = self.servers.files();
        files.append(&mut self.clients.files());
        files
    }

    /// False where something does not fit. Where it is `early`, nothing is said of that, for the rest may follow.
    async fn refresh(self: Arc<Self>, early: bool) -> bool {
        let refreshing = tokio::task::spawn_blocking(move || {
            let servers = self.servers.refresh(early);
            let clients = self.clients.refresh(early);
            servers && clients
        });
        refreshing.await.unwrap_or(true)
    }

    /// What was refused when it was read again, and what ends, in sentences. `now` is in seconds since the Unix epoch.
    pub(crate) fn warnings(&self, now: u64) -> Vec<String> {
        let mut warnings = self.servers.warnings();
        warnings.extend(self.clients.warnings());
        warnings.extend(self.expiries().iter().filter_map(|expiry| expiry.warning(now)));
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

async fn watch(files: BTreeSet<PathBuf>) -> Option<(BTreeSet<PathBuf>, FileWatch)> {
    if files.is_empty() {
        return None;
    }
    let paths = files.clone();
    let largest = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
    let starting = tokio::task::spawn_blocking(move || FileWatch::start(paths, largest));
    match starting.await {
        Ok(Ok(watch)) => Some((files, watch)),
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot watch TLS files; they are read again with the next configuration");
            None
        }
        Err(_) => None,
    }
}

#[derive(Debug)]
struct Table<T: FromFiles>(Mutex<HashMap<T::Definition, Entry<T>>>);

#[derive(Debug)]
struct Entry<T> {
    made: Weak<T>,
    /// How the files looked when they were used last.
    read: Vec<Look>,
    refused: Option<String>,
}

/// What the file system says of a file: another content looks different, also behind links.
type Look = Option<(u64, u64, i64, i64, u64)>;

impl<T: FromFiles> Table<T> {
    fn get_or_load(&self, definition: &T::Definition) -> Result<Arc<T>, FileError> {
        if let Some(made) = self.made(definition) {
            return Ok(made);
        }
        // Looked at first: what changes while it is read is read again.
        let read = looks::<T>(definition);
        let made = Arc::new(T::load(definition)?);
        let mut entries = self.entries();
        // Somebody else may have been faster.
        if let Some(made) = entries.get(definition).and_then(|entry| entry.made.upgrade()) {
            return Ok(made);
        }
        let entry = Entry { made: Arc::downgrade(&made), read, refused: None };
        entries.insert(definition.clone(), entry);
        Ok(made)
    }

    fn made(&self, definition: &T::Definition) -> Option<Arc<T>> {
        self.entries().get(definition).and_then(|entry| entry.made.upgrade())
    }

    fn refresh(&self, early: bool) -> bool {
        let mut fits = true;
        for (definition, made, read) in self.in_use() {
            let now = looks::<T>(&definition);
            if now == read {
                continue;
            }
            let refused = made.reload().err().map(|error| format!("changed TLS files cannot be used: {error}"));
            if refused.is_some() && early {
                fits = false;
                continue;
            }
            let files: Vec<String> = T::files(&definition).iter().map(|file| file.display().to_string()).collect();
            let files = files.join(", ");
            match &refused {
                None => tracing::info!(files, "TLS files have changed and are in use"),
                Some(refused) => tracing::error!(files, "{refused}; what was read before stays"),
            }
            let mut entries = self.entries();
            if let Some(entry) = entries.get_mut(&definition).filter(|entry| entry.made.as_ptr() == Arc::as_ptr(&made))
            {
                entry.read = now;
                entry.refused = refused;
            }
        }
        fits
    }

    /// What is in use, and how its files looked; what is not is let go.
    fn in_use(&self) -> Vec<(T::Definition, Arc<T>, Vec<Look>)> {
        let mut entries = self.entries();
        entries.retain(|_, entry| entry.made.strong_count() > 0);
        let entries = entries.iter();
        entries
            .filter_map(|(definition, entry)| Some((definition.clone(), entry.made.upgrade()?, entry.read.clone())))
            .collect()
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        let entries = self.entries();
        let in_use = entries.iter().filter(|(_, entry)| entry.made.strong_count() > 0);
        in_use.flat_map(|(definition, _)| T::files(definition)).collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.entries().values().filter_map(|entry| entry.refused.clone()).collect()
    }

    fn expiries(&self) -> Vec<Expiry> {
        self.entries().values().filter_map(|entry| entry.made.upgrade()).flat_map(|made| made.expiries()).collect()
    }

    /// Never held while files are read: a file system may hang, and the control thread only wants to know how things stand.
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

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::config::model::{CertificateFiles, ClientCertificates, TlsVersion};

    #[test]
    fn what_ends_is_said_in_time_and_what_is_renewed_by_the_hour_is_not() {
        let says = |lasts: u64, left: i64| {
            let not_after = 2_000_000_000;
            let expiry = Expiry { file: "a".into(), not_after, not_before: not_after.saturating_sub(lasts) };
            expiry.warning(not_after.saturating_add_signed(-left))
        };
        const HOUR: i64 = 3_600;
        let year = 365 * SOON;
        assert_eq!(says(year, 25 * HOUR), None);
        assert_eq!(says(year, 23 * HOUR + 100).as_deref(), Some("the certificate a expires in 23h"));
        assert_eq!(says(year, 0).as_deref(), Some("the certificate a expires in 0s"));
        let said = says(year, -50 * HOUR).unwrap();
        assert!(said.starts_with("the certificate a has expired, 2d ago: "), "{said}");
        let said = says(3_600, 4 * HOUR).unwrap();
        assert!(said.starts_with("the certificate a is not valid for another 3h: "), "{said}");
        assert_eq!(says(3_600, 1_000), None);
        assert_eq!(says(3_600, 800).as_deref(), Some("the certificate a expires in 13m"));
    }

    // A pipe that nobody writes into: opening it hangs.
    #[test]
    fn a_file_system_that_hangs_keeps_nobody_from_asking_how_things_stand() {
        let path = std::env::temp_dir().join(format!("outrigger-store-{}", std::process::id()));
        mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let store = Arc::<Store>::default();
        let definition = ListenerTls {
            certificates: vec![CertificateFiles { cert: path.clone(), key: path.with_extension("none") }],
            client: ClientCertificates::Ignored,
            min_version: TlsVersion::V1_2,
            forward_client_cert: false,
            plaintext: false,
            http: true,
        };
        let loading = {
            let (store, definition) = (store.clone(), definition.clone());
            std::thread::spawn(move || store.server(&definition).is_ok())
        };
        // Opened for writing it is once somebody opens it for reading, and so far has not been answered.
        let writer = fs::File::options().write(true).open(&path).unwrap();
        let (told, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send((store.expiries().len(), store.warnings(0).len())));
        assert_eq!(answer.recv_timeout(Duration::from_secs(20)).unwrap(), (0, 0));
        drop(writer);
        assert!(!loading.join().unwrap(), "nothing was in it");
        fs::remove_file(&path).unwrap();
    }
}
