//! Certificates, keys and authorities, from PEM files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use super::provider;
use crate::config::model::CertificateFiles;

/// Largest file that is read: the bundle of all public authorities has 220 KiB.
pub(super) const MAX_BYTES: u64 = 4 << 20;

/// Why a certificate, key or bundle cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FileError {
    #[error("cannot read {path}: {error}", path = .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{path} is larger than 4 MiB", path = .path.display())]
    TooLarge { path: PathBuf },
    #[error("{path} is not PEM: {error}", path = .path.display())]
    NotPem { path: PathBuf, error: pem::Error },
    #[error("{path} holds no certificate", path = .path.display())]
    NoCertificate { path: PathBuf },
    #[error("{path} holds no private key", path = .path.display())]
    NoKey { path: PathBuf },
    #[error("a certificate in {path} cannot be used: {error}", path = .path.display())]
    BadCertificate { path: PathBuf, error: String },
    #[error("the key {key} does not belong to the certificate {cert}", key = .key.display(), cert = .cert.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("the key {path} cannot be used: {error}", path = .path.display())]
    BadKey { path: PathBuf, error: rustls::Error },
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl FileError {
    /// The file at fault, where it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            FileError::Unreadable { path, .. }
            | FileError::TooLarge { path }
            | FileError::NotPem { path, .. }
            | FileError::NoCertificate { path }
            | FileError::NoKey { path }
            | FileError::BadCertificate { path, .. }
            | FileError::BadKey { path, .. } => Some(path),
            FileError::Mismatch { key, .. } => Some(key),
            FileError::Setup(_) => None,
        }
    }
}

/// A certificate chain with its key, and what stands in the first certificate.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) certificate: Certificate,
}

impl Pair {
    /// # Errors
    /// Where a file cannot be read, or one does not belong to the other.
    pub(super) fn read(files: &CertificateFiles) -> Result<Self, FileError> {
        let chain = certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|error| match error {
            pem::Error::NoItemsFound => FileError::NoKey { path: files.key.clone() },
            error => FileError::NotPem { path: files.key.clone(), error },
        })?;
        let bad = |error: String| FileError::BadCertificate { path: files.cert.clone(), error };
        let certificate = match chain.first() {
            Some(first) => Certificate::parse(first).map_err(|error| bad(error.to_string()))?,
            None => return Err(FileError::NoCertificate { path: files.cert.clone() }),
        };
        let key = CertifiedKey::from_der(chain, key, provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                FileError::Mismatch { cert: files.cert.clone(), key: files.key.clone() }
            }
            error => FileError::BadKey { path: files.key.clone(), error },
        })?;
        Ok(Pair { key: Arc::new(key), certificate })
    }
}

/// The authorities of a bundle.
///
/// # Errors
/// Where it cannot be read, or holds none.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| FileError::BadCertificate { path: path.to_owned(), error: error.to_string() })?;
    }
    if roots.is_empty() {
        return Err(FileError::NoCertificate { path: path.to_owned() });
    }
    Ok(roots)
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(path)?;
    CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| FileError::NotPem { path: path.to_owned(), error })
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}
