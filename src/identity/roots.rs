//! Public authorities: the platform's, or those that are built in.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;

use super::files::{FileError, certificates};

/// Where distributions keep the bundle: Debian and Alpine, Fedora, openSUSE, RHEL, and BSDs.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The platform's bundle: what `SSL_CERT_FILE` names, as for OpenSSL and Go, else the first one that is there.
pub(super) fn bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| BUNDLES.map(PathBuf::from).into_iter().find(|path| path.exists()))
}

/// The authorities of the platform's bundle. Without one, as in an image that holds nothing else, those that Mozilla
/// trusted when this proxy was built.
///
/// # Errors
/// Where there is a bundle that cannot be read.
pub(super) fn public_authorities(bundle: Option<&Path>) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    let Some(bundle) = bundle else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    // A bundle of a hundred may hold some that nobody understands any more.
    let (usable, _) = roots.add_parsable_certificates(certificates(bundle)?);
    if usable == 0 {
        return Err(FileError::NoCertificate { path: bundle.to_owned() });
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_public_authorities_on_a_machine_that_has_none() {
        assert!(public_authorities(None).unwrap().len() > 50);
        let missing = public_authorities(Some(Path::new("/nonexistent/bundle.pem")));
        assert!(matches!(missing, Err(FileError::Unreadable { .. })), "what is named has to be there");
    }
}
