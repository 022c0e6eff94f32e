//! The thread that writes lines to their target, however slow or broken that is.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::queue::Queue;
use crate::runtime::complaints::Complaints;

/// How often a file's path is looked at, for who has moved it.
const LOOK_AT_PATH_EVERY: Duration = Duration::from_secs(1);

/// How often a wait for a full target looks whether the proxy ends.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Where lines go.
#[derive(Debug)]
pub(super) enum Target {
    Stdout,
    Stderr,
    File(LogFile),
}

/// A file that may be moved away under us, as logrotate does.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl LogFile {
    /// Appends, and creates the file where there is none. A named pipe that nobody reads yet is opened from both ends, and
    /// keeps the first lines: to wait for its reader would be to wait for ever.
    fn open(path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        match options.open(path) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => options.read(true).open(path),
            outcome => outcome,
        }
    }

    /// Opens the path again where it names another file by now. One that cannot be opened changes nothing: the lines
    /// go on to where the old file was moved.
    fn follow(&mut self) -> io::Result<()> {
        if self.looked.elapsed() < LOOK_AT_PATH_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        let ours = self.file.metadata()?;
        let same = match std::fs::metadata(&self.path) {
            Ok(there) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !same {
            self.file = LogFile::open(&self.path)?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Stdout => f.write_str("stdout"),
            Target::Stderr => f.write_str("stderr"),
            Target::File(log) => log.path.display().fmt(f),
        }
    }
}

impl Target {
    /// See [`LogFile::open`].
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Target::File(LogFile { path: path.to_owned(), file: LogFile::open(path)?, looked: Instant::now() }))
    }

    /// Without the buffer of the standard library, which would keep half a line of what an error interrupts.
    fn descriptor(&self) -> BorrowedFd<'_> {
        // The handles of the standard streams live as long as the process.
        match self {
            Target::Stdout => rustix::stdio::stdout(),
            Target::Stderr => rustix::stdio::stderr(),
            Target::File(log) => log.file.as_fd(),
        }
    }
}

/// Writes until the queue is closed and empty.
pub(super) fn run(queue: &Queue, target: Target) {
    let mut writer = Writer { target, queue, is_mid_line: false, complaints: Complaints::default() };
    let mut buffer = Vec::new();
    while let Some(lines) = queue.pop(buffer) {
        writer.write(&lines);
        buffer = lines;
    }
    queue.finish();
}

struct Writer<'a> {
    target: Target,
    queue: &'a Queue,
    /// The last thing written was cut by an error.
    is_mid_line: bool,
    complaints: Complaints,
}

impl Writer<'_> {
    fn write(&mut self, lines: &[u8]) {
        if let Target::File(log) = &mut self.target
            && let Err(error) = log.follow()
        {
            self.complain(&error);
        }
        if self.is_mid_line {
            self.is_mid_line = self.write_all(b"\n").is_err();
        }
        if let Err((written, error)) = self.write_all(lines) {
            self.is_mid_line |= written > 0 && lines[written - 1] != b'\n';
            self.queue.count_dropped(&lines[written..]);
            self.complain(&error);
        }
    }

    /// What was written before the error, and the error.
    fn write_all(&self, bytes: &[u8]) -> Result<(), (usize, Errno)> {
        let descriptor = self.target.descriptor();
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::write(descriptor, &bytes[written..]) {
                Ok(0) => return Err((written, Errno::IO)),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                // Whoever gave us the pipe has made it non-blocking.
                Err(Errno::AGAIN) => self.wait_for_room(descriptor).map_err(|error| (written, error))?,
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }

    fn wait_for_room(&self, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
        loop {
            let mut descriptors = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
            match rustix::event::poll(&mut descriptors, Some(&LOOK_EVERY)) {
                Ok(0) if self.queue.is_closed() => return Err(Errno::AGAIN),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn complain(&mut self, error: &dyn std::fmt::Display) {
        // Tokio's clock is the system's outside its runtimes, as here.
        if self.complaints.is_news(&error.to_string(), tokio::time::Instant::now()) {
            tracing::warn!(path = %self.target, %error, "the access log cannot be written; lines are dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use rustix::fs::{FileType, Mode};

    use super::*;

    /// What a target got, and the lines dropped, after these buffers.
    fn written_to(target: Target, buffers: &[&[u8]]) -> u64 {
        let queue = Queue::default();
        for buffer in buffers {
            queue.push(buffer.to_vec());
        }
        queue.close();
        run(&queue, target);
        assert!(queue.wait_until_finished(Duration::ZERO));
        queue.dropped()
    }

    fn stream() -> (Target, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (over(ours), theirs)
    }

    /// Not looked at again: there is no path.
    fn over(stream: UnixStream) -> Target {
        let looked = Instant::now() + Duration::from_secs(3600);
        Target::File(LogFile { path: PathBuf::new(), file: File::from(std::os::fd::OwnedFd::from(stream)), looked })
    }

    #[test]
    fn a_pipe_that_nobody_reads_yet_keeps_the_first_lines() {
        let path = std::env::temp_dir().join(format!("outrigger-log-{}.pipe", std::process::id()));
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let (opened, target) = std::sync::mpsc::channel();
        let name = path.clone();
        thread::spawn(move || opened.send(Target::file(&name)));
        let target = target.recv_timeout(Duration::from_secs(30)).expect("opening does not wait").unwrap();
        let mut reader = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(written_to(target, &[b"one\n", b"two\n"]), 0);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn a_full_non_blocking_target_is_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let target = over(ours);
        // Far more than a socket's buffer holds.
        let line = [b"x".repeat(99_999), b"\n".to_vec()].concat();
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            theirs.read_to_end(&mut text).unwrap();
            text
        });
        let queue = Queue::default();
        let writer = thread::scope(|scope| {
            let writer = scope.spawn(|| run(&queue, target));
            for _ in 0..50 {
                queue.push(line.clone());
            }
            // Closing early would end the wait for room that this test is about.
            while queue.is_waiting() {
                thread::yield_now();
            }
            queue.close();
            writer.join()
        });
        writer.unwrap();
        assert_eq!(reader.join().unwrap(), line.repeat(50));
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_target_that_stays_full_does_not_outlive_the_queue() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let target = over(ours);
        let line = [b"x".repeat(10_000_000), b"\n".to_vec()].concat();
        assert_eq!(written_to(target, &[&line]), 1);
    }

    #[test]
    fn a_closed_target_costs_lines_and_nothing_else() {
        let (target, theirs) = stream();
        drop(theirs);
        assert_eq!(written_to(target, &[b"a\nb\n", b"c\n"]), 3);
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let target = Target::file(Path::new("/dev/full")).unwrap();
        assert_eq!(written_to(target, &[b"a\nb\n"]), 2);
    }

    #[test]
    fn a_file_that_was_moved_is_opened_again() {
        let path = std::env::temp_dir().join(format!("outrigger-rotated-{}", std::process::id()));
        let old = path.with_extension("1");
        let queue = Queue::default();
        let mut writer = Writer {
            target: Target::file(&path).unwrap(),
            queue: &queue,
            is_mid_line: false,
            complaints: Complaints::default(),
        };
        writer.write(b"before\n");
        std::fs::rename(&path, &old).unwrap();
        let Target::File(log) = &mut writer.target else { panic!() };
        log.looked -= LOOK_AT_PATH_EVERY;
        writer.write(b"after\n");
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "before\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
        std::fs::remove_file(&old).unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let (target, mut theirs) = stream();
        let queue = Queue::default();
        let mut writer = Writer { target, queue: &queue, is_mid_line: true, complaints: Complaints::default() };
        writer.write(b"next\n");
        drop(writer);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\nnext\n");
    }
}
