//! The token that an agent is shown.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;

use http::HeaderValue;

use crate::runtime::patient_read::PatientRead;
use crate::runtime::token_file;

/// A token, from a file that may change while the proxy runs: it is read for every question. Where it cannot be read,
/// the token that was read last holds.
#[derive(Debug)]
pub(super) struct Token {
    path: Option<PathBuf>,
    latest: RefCell<Option<HeaderValue>>,
    stale: Cell<bool>,
    reads: PatientRead,
}

impl Token {
    /// The file goes before the value, which goes before none.
    pub(super) fn new(path: Option<PathBuf>, value: Option<&str>) -> Self {
        let value = value.and_then(|value| header(value.as_bytes()).ok());
        Token { path, latest: RefCell::new(value), stale: Cell::new(false), reads: PatientRead::default() }
    }

    /// The token as it is now.
    pub(super) async fn current(&self) -> Option<HeaderValue> {
        if let Some(path) = self.path.clone() {
            let token = self.reads.read({
                let path = path.clone();
                move || header(&token_file::read(&path)?)
            });
            match token.await {
                Ok(token) => {
                    self.stale.set(false);
                    *self.latest.borrow_mut() = Some(token);
                }
                Err(error) => {
                    if !self.stale.replace(true) {
                        tracing::warn!(path = %path.display(), %error, "cannot read the Consul token; the one read last holds");
                    }
                }
            }
        }
        self.latest.borrow().clone()
    }
}

fn header(bytes: &[u8]) -> io::Result<HeaderValue> {
    let token = bytes.trim_ascii();
    let usable = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    let value = HeaderValue::from_bytes(token).ok().filter(|_| usable);
    let mut value = value.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it holds no token"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_is_read_again_and_half_a_rotation_loses_nothing() {
        let path = std::env::temp_dir().join(format!("outrigger-consul-token-{}", std::process::id()));
        let token = Token::new(Some(path.clone()), None);
        assert_eq!(token.current().await, None);
        for (content, expected) in [(" first\n", "first"), ("", "first"), ("second", "second"), ("a b", "second")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(token.current().await.unwrap(), expected, "{content:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(token.current().await.unwrap(), "second");
        assert!(token.current().await.unwrap().is_sensitive());
        assert_eq!(Token::new(None, Some("fixed")).current().await.unwrap(), "fixed");
    }
}
