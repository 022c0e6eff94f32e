//! Files whose content matters while the proxy runs: the configuration, certificates, tokens.
//!
//! The kernel's events only say when to look; what counts is whether the content differs. Kinds of events are not to be
//! trusted (a ConfigMap's symlink swap shows as anything), events get lost (a folder that is replaced, NFS), so every
//! file is also looked at now and then. The folders are watched and not the files, since editors and kubelet replace
//! files instead of writing into them; what happens there to files of other names is nobody's business.
//!
//! Reading happens on a thread of its own: a network file system that hangs stalls nobody else.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

/// Without an event, files are looked at this often. kubelet itself takes up to a minute.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// And never more often than this, whatever happens in their folders.
const PAUSE: Duration = Duration::from_millis(100);
/// A content counts once it has been the same for this long: writers that write in pieces are faster than that.
const SETTLED: Duration = Duration::from_millis(10);
/// A writer that goes on for longer is not waited for.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);
/// A file that is gone or empty is probably being replaced; after this long it is not.
const GONE: Duration = Duration::from_secs(1);
/// Links that a path may lead through: MAXSYMLINKS, path_resolution(7).
const LINKS: usize = 40;

/// A file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WatchedFile {
    pub(crate) path: PathBuf,
    /// What is in it, or why that is not known.
    pub(crate) content: Result<Vec<u8>, Unreadable>,
}

/// Why a file's content is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(String);

/// Looks after a set of files for as long as it lives.
#[derive(Debug)]
pub(crate) struct FileWatch {
    latest: watch::Receiver<Arc<[WatchedFile]>>,
    /// Wakes the thread.
    event: SyncSender<()>,
    /// Nobody wants to know any more.
    ended: Arc<AtomicBool>,
}

impl FileWatch {
    /// Reads the files, of each at most `largest` bytes (and one, so that more is noticed), and watches them from now on.
    ///
    /// # Errors
    /// Where the thread cannot be started. Without events (the machine's watches are used up), looking now and then is
    /// left.
    pub(crate) fn start(paths: impl IntoIterator<Item = PathBuf>, largest: usize) -> io::Result<Self> {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        // One event that waits says as much as a thousand.
        let (event, events) = sync_channel(1);
        // Folders are watched before the first look, or a change between the two would go unnoticed.
        let mut folders = Folders::new({
            let event = event.clone();
            move || {
                let _ = event.try_send(());
            }
        });
        folders.watch(&paths);
        let first = read_all(&paths, largest);
        let (publisher, latest) = watch::channel(first.into());
        let ended = Arc::new(AtomicBool::new(false));
        let looker = Looker { paths, largest, folders, events, ended: ended.clone(), publisher };
        thread::Builder::new().name("file-watch".to_owned()).spawn(move || looker.run())?;
        Ok(FileWatch { latest, event, ended })
    }

    /// The files, as they were found last.
    pub(crate) fn latest(&self) -> Arc<[WatchedFile]> {
        self.latest.borrow().clone()
    }

    /// Waits until any of the files differs from what it was when somebody last waited, and returns all of them.
    pub(crate) async fn changed(&mut self) -> Arc<[WatchedFile]> {
        if self.latest.changed().await.is_err() {
            // The thread has ended, which it does only after us.
            std::future::pending::<()>().await;
        }
        self.latest.borrow_and_update().clone()
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.event.try_send(());
    }
}

struct Looker {
    paths: Vec<PathBuf>,
    largest: usize,
    folders: Folders,
    events: Receiver<()>,
    ended: Arc<AtomicBool>,
    publisher: watch::Sender<Arc<[WatchedFile]>>,
}

impl Looker {
    fn run(mut self) {
        let mut happened = false;
        loop {
            if !happened {
                let _ = self.events.recv_timeout(LOOK_EVERY);
            }
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            self.look();
            happened = self.rest(PAUSE);
        }
    }

    /// Lets this time pass. True where something has happened meanwhile.
    fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut happened = false;
        while let Some(left) = until.checked_duration_since(Instant::now())
            && !self.ended.load(Ordering::Relaxed)
        {
            happened |= self.events.recv_timeout(left).is_ok();
        }
        happened
    }

    fn look(&mut self) {
        self.folders.watch(&self.paths);
        let mut files = read_all(&self.paths, self.largest);
        if *files == **self.publisher.borrow() {
            return;
        }
        let began = Instant::now();
        loop {
            self.rest(SETTLED);
            let again = read_all(&self.paths, self.largest);
            let steady = std::mem::replace(&mut files, again) == files;
            let patience = if files.iter().any(WatchedFile::is_absent) { GONE } else { Duration::ZERO };
            let waited = began.elapsed();
            if (steady && waited >= patience) || waited >= SETTLE_WITHIN.max(patience) {
                break;
            }
        }
        self.folders.watch(&self.paths);
        self.publisher.send_if_modified(|latest| {
            let differs = **latest != *files;
            if differs {
                *latest = files.into();
            }
            differs
        });
    }
}

impl WatchedFile {
    fn read(path: &Path, largest: usize) -> Self {
        let read = || {
            let mut bytes = Vec::new();
            File::open(path)?.take(largest as u64 + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let content = read().map_err(|error: io::Error| Unreadable(error.to_string()));
        WatchedFile { path: path.to_owned(), content }
    }

    fn is_absent(&self) -> bool {
        self.content.as_ref().is_ok_and(Vec::is_empty) || self.content.is_err()
    }
}

fn read_all(paths: &[PathBuf], largest: usize) -> Vec<WatchedFile> {
    paths.iter().map(|path| WatchedFile::read(path, largest)).collect()
}

/// The folders of the files, and of what these point to.
struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
    /// Of the files, their folders, and all that is on the way to them.
    names: Arc<Mutex<HashSet<OsString>>>,
}

impl Folders {
    /// `happened` is called for what may have changed a file.
    fn new(happened: impl Fn() + Send + 'static) -> Self {
        let names = Arc::<Mutex<HashSet<OsString>>>::default();
        let wanted = names.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let names = wanted.lock().unwrap_or_else(PoisonError::into_inner);
            // Of an error, such as events that were lost, nobody knows what it concerns.
            if event.is_ok_and(|event| !concerns(&event, &names)) {
                return;
            }
            happened();
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "cannot watch files; they are looked at every 5 s instead"));
        Folders { watcher: watcher.ok(), watched: HashSet::new(), names }
    }

    /// Watches what is not watched yet. A folder that went and came back is another one, so that all are told again.
    fn watch(&mut self, paths: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: HashSet<PathBuf> = paths.iter().flat_map(|path| folders_of(path)).collect();
        let of_folders = wanted.iter().filter_map(|folder| folder.file_name().map(OsStr::to_owned));
        let names = paths.iter().flat_map(|path| names_of(path)).chain(of_folders).collect();
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        for gone in self.watched.difference(&wanted) {
            let _ = watcher.unwatch(gone);
        }
        self.watched =
            wanted.into_iter().filter(|folder| watcher.watch(folder, RecursiveMode::NonRecursive).is_ok()).collect();
    }
}

/// Reading is an event, too, and ours would never end; and a log that is written beside a file is none of its.
fn concerns(event: &notify::Event, names: &HashSet<OsString>) -> bool {
    let named = |path: &PathBuf| path.file_name().is_none_or(|name| names.contains(name));
    !event.kind.is_access() && (event.paths.is_empty() || event.paths.iter().any(named))
}

/// What may be swapped on the way to a file: itself, and whatever links lead through.
fn names_of(path: &Path) -> HashSet<OsString> {
    let mut names: HashSet<_> = path.file_name().map(OsStr::to_owned).into_iter().collect();
    let mut at = path.to_owned();
    for _ in 0..LINKS {
        let Ok(target) = std::fs::read_link(&at) else { break };
        names.extend(target.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            _ => None,
        }));
        at = at.parent().unwrap_or(Path::new("")).join(target);
    }
    names
}

fn folders_of(path: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = |path: &Path| match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) => folder.to_owned(),
        None => path.to_owned(),
    };
    let target = path.canonicalize().ok();
    [Some(folder(path)), target.map(|target| folder(&target))].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("outrigger-watch-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn join(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_happens_to_other_files_of_the_folder_is_none_of_our_business() {
        use std::sync::atomic::AtomicUsize;
        let folder = Folder::new("others");
        let path = folder.join("file");
        std::fs::write(&path, "one").unwrap();
        let happened = Arc::new(AtomicUsize::new(0));
        let mut folders = Folders::new({
            let happened = happened.clone();
            move || {
                happened.fetch_add(1, Ordering::SeqCst);
            }
        });
        folders.watch(std::slice::from_ref(&path));
        for line in 0..500 {
            std::fs::write(folder.join("access.log"), line.to_string()).unwrap();
        }
        std::fs::write(&path, "two").unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while happened.load(Ordering::SeqCst) == 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        assert!((1..100).contains(&happened.load(Ordering::SeqCst)), "{happened:?}");
    }

    #[test]
    fn everything_on_the_way_to_a_file_counts() {
        let folder = Folder::new("names");
        std::fs::create_dir(folder.join("..1")).unwrap();
        std::fs::write(folder.join("..1").join("file"), "one").unwrap();
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/file", folder.join("file")).unwrap();
        symlink("file", folder.join("alias")).unwrap();
        let names = names_of(&folder.join("alias"));
        assert!(["alias", "file", "..data"].iter().all(|name| names.contains(OsStr::new(name))), "{names:?}");
    }

    async fn next(watch: &mut FileWatch) -> Result<String, Unreadable> {
        let files = tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.expect("a change");
        files[0].content.clone().map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[tokio::test]
    async fn every_way_of_saving_is_noticed() {
        let folder = Folder::new("saving");
        let path = folder.join("file");
        std::fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::start([path.clone()], 100).unwrap();
        assert_eq!(watch.latest()[0].content.as_deref(), Ok(&b"one"[..]));
        // In place.
        std::fs::write(&path, "two").unwrap();
        assert_eq!(next(&mut watch).await.as_deref(), Ok("two"));
        // Beside it, and renamed over it.
        std::fs::write(folder.join("file.new"), "three").unwrap();
        std::fs::rename(folder.join("file.new"), &path).unwrap();
        assert_eq!(next(&mut watch).await.as_deref(), Ok("three"));
        // The old one away first, as vim does.
        std::fs::rename(&path, folder.join("file~")).unwrap();
        std::fs::write(&path, "four").unwrap();
        assert_eq!(next(&mut watch).await.as_deref(), Ok("four"));
    }

    #[tokio::test]
    async fn a_config_map_is_swapped_by_its_link() {
        let folder = Folder::new("links");
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            std::fs::create_dir(folder.join(version)).unwrap();
            std::fs::write(folder.join(version).join("file"), text).unwrap();
        }
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/file", folder.join("file")).unwrap();
        let mut watch = FileWatch::start([folder.join("file")], 100).unwrap();
        symlink("..2", folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        std::fs::remove_dir_all(folder.join("..1")).unwrap();
        assert_eq!(next(&mut watch).await.as_deref(), Ok("two"));
    }

    #[tokio::test]
    async fn a_file_that_is_gone_for_a_moment_is_not_missed_and_one_that_stays_away_is() {
        let folder = Folder::new("gone");
        let path = folder.join("file");
        std::fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::start([path.clone()], 100).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(next(&mut watch).await.is_err());
        std::fs::write(&path, "").unwrap();
        std::fs::write(&path, "two").unwrap();
        assert_eq!(next(&mut watch).await.as_deref(), Ok("two"));
    }
}
