//! Files that hold a token.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Longest token. Larger files are no tokens.
const LONGEST: u64 = 4 << 10;

/// What is in one. Pipes and devices are no files: they may never begin, or never end.
///
/// # Errors
/// Where it cannot be read, or cannot be one.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.is_file() { read_once(path) } else { Err(wrong("it is not a regular file")) }
}

/// The same for a command: a shell's `<(…)` is a pipe, and who waits for it sees it.
///
/// # Errors
/// See [`read`].
pub(crate) fn read_once(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(wrong("the file is larger than 4 KiB; is it the right one?"));
    }
    Ok(bytes)
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_never_begins_or_ends_is_not_waited_for() {
        let pipe = std::env::temp_dir().join(format!("outrigger-token-pipe-{}", std::process::id()));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let (sender, said) = channel();
        std::thread::spawn({
            let pipe = pipe.clone();
            move || [pipe.as_path(), Path::new("/dev/zero")].map(|path| sender.send(read(path)))
        });
        for _ in 0..2 {
            let error = said.recv_timeout(Duration::from_secs(30)).expect("an answer").unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file");
        }
        std::fs::remove_file(&pipe).unwrap();
    }
}
