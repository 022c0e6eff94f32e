//! Standard error, without ever waiting for it.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;

/// Where `poll` says that there is room, a pipe takes this much without blocking (PIPE_BUF, pipe(7)).
const ATOMIC: usize = 4096;

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Loses what stderr does not take at once: whoever stops reading our log must not stop requests, and workers may log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = AtOnce<'static>;

    fn make_writer(&'a self) -> Self::Writer {
        /// Of the process' one standard error.
        static TORN: AtomicBool = AtomicBool::new(false);
        AtOnce::new(rustix::stdio::stderr(), &TORN)
    }
}

/// Writes what fits of a line and forgets the rest.
#[derive(Debug)]
pub(super) struct AtOnce<'fd> {
    descriptor: BorrowedFd<'fd>,
    /// The last line there has no end: its rest found no room. The next one begins by ending it.
    torn: &'fd AtomicBool,
    begun: bool,
}

impl<'fd> AtOnce<'fd> {
    fn new(descriptor: BorrowedFd<'fd>, torn: &'fd AtomicBool) -> Self {
        AtOnce { descriptor, torn, begun: false }
    }
}

impl io::Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let owed: &[u8] = if !self.begun && self.torn.load(Ordering::Relaxed) { b"\n" } else { b"" };
        let part = &bytes[..bytes.len().min(ATOMIC - owed.len())];
        let written = match has_room(self.descriptor) {
            true => rustix::io::writev(self.descriptor, &[IoSlice::new(owed), IoSlice::new(part)]),
            false => Err(Errno::AGAIN),
        };
        match written {
            Err(Errno::AGAIN) => {
                if self.begun {
                    self.torn.store(true, Ordering::Relaxed);
                }
                Ok(bytes.len())
            }
            written => {
                let written = written?;
                self.begun = true;
                if !owed.is_empty() {
                    self.torn.store(false, Ordering::Relaxed);
                }
                Ok(written.saturating_sub(owed.len()))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn has_room(descriptor: BorrowedFd<'_>) -> bool {
    let mut descriptors = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
    // Where it cannot be asked, the write says what is wrong.
    rustix::event::poll(&mut descriptors, Some(&AT_ONCE)).map_or(true, |ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_does_not_stop_the_writer() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        let torn = AtomicBool::new(false);
        for _ in 0..1_000 {
            AtOnce::new(pipe.as_fd(), &torn).write_all(&line).unwrap();
        }
        drop(pipe);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert!(text.len() > ATOMIC && text.len() < 1_000_000, "{}", text.len());
        assert!(text.chunks(1_000).all(|chunk| chunk == line), "whole lines");
    }

    #[test]
    fn long_lines_are_written_in_parts() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let line = [b"x".repeat(3 * ATOMIC), b"\n".to_vec()].concat();
        AtOnce::new(pipe.as_fd(), &AtomicBool::new(false)).write_all(&line).unwrap();
        drop(pipe);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text, line);
    }
    #[test]
    fn the_line_behind_one_that_was_torn_is_a_line_of_its_own() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let torn = AtomicBool::new(false);
        let say = |line: &[u8]| AtOnce::new(pipe.as_fd(), &torn).write_all(line).unwrap();
        let page = [b"x".repeat(ATOMIC - 1), b"\n".to_vec()].concat();
        let mut pages = 0;
        while has_room(pipe.as_fd()) {
            say(&page);
            pages += 1;
        }
        // Room for one part of the next.
        reader.read_exact(&mut page.clone()).unwrap();
        say(&[b"y".repeat(2 * ATOMIC), b"\n".to_vec()].concat());
        assert!(torn.load(Ordering::Relaxed));
        say(b"lost\n");
        let mut text = vec![0; pages * ATOMIC];
        reader.read_exact(&mut text).unwrap();
        say(b"first\n");
        say(b"second\n");
        drop(pipe);
        text.clear();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "\nfirst\nsecond\n");
    }
}
