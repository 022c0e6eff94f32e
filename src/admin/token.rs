//! The bearer token of `admin.token_file`.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::patient_read::PatientRead;
use crate::runtime::token_file;

/// A token that may change while the proxy runs: its file is read again whenever somebody presents one.
///
/// A file that cannot be read, or is empty while it is being rewritten, changes nothing: whoever is to stop the proxy
/// must not be locked out by half a rotation. [`Token::is_stale`] says so.
pub(super) struct Token {
    path: Option<PathBuf>,
    latest: RefCell<Vec<u8>>,
    stale: Cell<bool>,
    reads: PatientRead,
}

impl Token {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// Where the file cannot be read, or is not a token.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let latest = RefCell::new(content(path)?);
        Ok(Token { path: Some(path.to_owned()), latest, stale: Cell::new(false), reads: PatientRead::default() })
    }

    /// True where `presented` is the token. Takes as long for a token that is nearly right as for one that is not.
    pub(super) fn is(&self, presented: &[u8]) -> bool {
        let token = self.latest.borrow();
        let differences = token.iter().zip(presented).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        token.len() == presented.len() && differences == 0
    }

    /// True where the file could not be read when it was last wanted.
    pub(super) fn is_stale(&self) -> bool {
        self.stale.get()
    }

    /// Reads it again, before it is compared.
    pub(super) async fn refresh(&self) {
        let Some(path) = self.path.clone() else { return };
        let read = self.reads.read({
            let path = path.clone();
            move || content(&path)
        });
        match read.await {
            Ok(token) => {
                self.stale.set(false);
                *self.latest.borrow_mut() = token;
            }
            Err(error) => {
                if !self.stale.replace(true) {
                    tracing::warn!(path = %path.display(), %error, "cannot read the admin token; the one read last holds");
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn fixed(token: &str) -> Self {
        Token { path: None, latest: RefCell::new(token.into()), stale: Cell::new(false), reads: PatientRead::default() }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The file's text without the white space around it.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = token_file::read(path)?;
    let token = bytes.trim_ascii();
    let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if token.is_empty() {
        return wrong("the file is empty; write a token into it (`openssl rand -hex 32` makes one)");
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return wrong("the file holds more than one word, or what cannot be sent in a header");
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_is_read_again_and_half_a_rotation_locks_nobody_out() {
        let path = std::env::temp_dir().join(format!("outrigger-token-{}", std::process::id()));
        std::fs::write(&path, " first\n").unwrap();
        let token = Token::read(&path).unwrap();
        assert!(token.is(b"first") && !token.is(b"firs") && !token.is(b"first ") && !token.is(b""));
        std::fs::write(&path, "").unwrap();
        token.refresh().await;
        assert!(token.is(b"first") && token.is_stale());
        std::fs::write(&path, "second").unwrap();
        token.refresh().await;
        assert!(token.is(b"second") && !token.is(b"first") && !token.is_stale());
        std::fs::remove_file(&path).unwrap();
        token.refresh().await;
        assert!(token.is(b"second") && token.is_stale());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let path = std::env::temp_dir().join(format!("outrigger-no-token-{}", std::process::id()));
        for text in ["", " \n", "two words", "ü", &"x".repeat(5_000)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Token::read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
