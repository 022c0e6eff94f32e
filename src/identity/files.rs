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
    #[error("{path} is not PEM: {error}", path = .path.display(), error = in_words(.error))]
    NotPem { path: PathBuf, error: pem::Error },
    #[error("{path} holds no certificate as PEM", path = .path.display())]
    NoCertificate { path: PathBuf },
    #[error("{path} holds no private key", path = .path.display())]
    NoKey { path: PathBuf },
    #[error("{path} holds a key that is encrypted, and nobody is there to decrypt it; \
             `openssl pkey -in {path}` gives it as it can be used", path = .path.display())]
    EncryptedKey { path: PathBuf },
    #[error("the key {key} belongs to a certificate in {cert} that is not the first: the first has to be the one that is \
             shown, then come those between it and its authority", key = .key.display(), cert = .cert.display())]
    NotFirst { cert: PathBuf, key: PathBuf },
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
            | FileError::EncryptedKey { path }
            | FileError::BadCertificate { path, .. }
            | FileError::BadKey { path, .. } => Some(path),
            FileError::Mismatch { key, .. } => Some(key),
            FileError::NotFirst { cert, .. } => Some(cert),
            FileError::Setup(_) => None,
        }
    }
}

impl FileError {
    /// The ends of the keys at which the file is named that is at fault; empty where it would be of no use anywhere.
    pub(crate) fn keys(&self) -> &'static [&'static str] {
        match self {
            FileError::NoKey { .. }
            | FileError::EncryptedKey { .. }
            | FileError::BadKey { .. }
            | FileError::Mismatch { .. } => &["key_file"],
            FileError::NoCertificate { .. } | FileError::BadCertificate { .. } | FileError::NotFirst { .. } => {
                &["cert_file", "ca_file"]
            }
            FileError::Unreadable { .. }
            | FileError::TooLarge { .. }
            | FileError::NotPem { .. }
            | FileError::Setup(_) => &[],
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
        let pem = read(&files.key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
            _ if is_encrypted(&pem) => FileError::EncryptedKey { path: files.key.clone() },
            pem::Error::NoItemsFound => FileError::NoKey { path: files.key.clone() },
            error => FileError::NotPem { path: files.key.clone(), error },
        })?;
        let bad = |error: String| FileError::BadCertificate { path: files.cert.clone(), error };
        let certificate = match chain.first() {
            Some(first) => Certificate::parse(first).map_err(|error| bad(error.to_string()))?,
            None => return Err(FileError::NoCertificate { path: files.cert.clone() }),
        };
        let fits = |chain, key| CertifiedKey::from_der(chain, key, provider());
        let others: Vec<_> = chain.iter().skip(1).cloned().collect();
        let key = fits(chain, key.clone_key()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let (cert, key_file) = (files.cert.clone(), files.key.clone());
                if others.into_iter().any(|other| fits(vec![other], key.clone_key()).is_ok()) {
                    FileError::NotFirst { cert, key: key_file }
                } else {
                    FileError::Mismatch { cert, key: key_file }
                }
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

/// What the reader says, without bytes as numbers.
fn in_words(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it ends before an `-----END …-----`".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a line with `-----BEGIN` does not end in `-----`".to_owned(),
        error => error.to_string(),
    }
}

/// By a passphrase: in PKCS #8 (RFC 7468, section 11), or as OpenSSL did before that.
fn is_encrypted(pem: &[u8]) -> bool {
    let has = |words: &[u8]| memchr::memmem::find(pem, words).is_some();
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};

    use super::*;

    #[test]
    fn what_people_do_to_keys_and_chains_is_told_by_its_name() {
        let folder = std::env::temp_dir().join(format!("outrigger-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let issuer = CertifiedIssuer::self_signed(CertificateParams::default(), KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::default().signed_by(&key, &issuer).unwrap().pem();
        let files = CertificateFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        let error = |cert: &str, key: &str| {
            std::fs::write(&files.cert, cert).unwrap();
            std::fs::write(&files.key, key).unwrap();
            Pair::read(&files).map(|_| ()).unwrap_err()
        };
        let (plain, other) = (key.serialize_pem(), KeyPair::generate().unwrap().serialize_pem());
        let wrong_order = format!("{}{leaf}", issuer.pem());
        assert!(matches!(error(&wrong_order, &plain), FileError::NotFirst { .. }));
        assert!(matches!(error(&wrong_order, &other), FileError::Mismatch { .. }));
        assert!(matches!(error(&leaf, &other), FileError::Mismatch { .. }));
        assert!(matches!(error(&leaf, &leaf), FileError::NoKey { .. }));
        let cut = error(&leaf[..leaf.len() / 2], &plain).to_string();
        assert!(cut.ends_with("cert.pem is not PEM: it ends before an `-----END …-----`"), "{cut}");
        let new = plain.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let old = plain.replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n", 1);
        for encrypted in [new, old.replace("PRIVATE KEY", "RSA PRIVATE KEY")] {
            assert!(matches!(error(&leaf, &encrypted), FileError::EncryptedKey { .. }), "{encrypted}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
