//! Standard error, without ever waiting for it.

use std::io;
use std::os::fd::BorrowedFd;

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
        AtOnce(rustix::stdio::stderr())
    }
}

/// Writes what fits and forgets the rest.
#[derive(Debug)]
pub(super) struct AtOnce<'fd>(BorrowedFd<'fd>);

impl io::Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(ATOMIC)];
        if !has_room(self.0) {
            return Ok(bytes.len());
        }
        match rustix::io::write(self.0, part) {
            Err(Errno::AGAIN) => Ok(bytes.len()),
            written => Ok(written?),
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
        let mut writer = AtOnce(pipe.as_fd());
        for _ in 0..1_000 {
            writer.write_all(&line).unwrap();
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
        AtOnce(pipe.as_fd()).write_all(&line).unwrap();
        drop(pipe);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text, line);
    }
}
