//! Endpoints that are known by their identity instead of their host.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::certificate::Certificate;
use super::provider;
use crate::config::model::IdentityPattern;

/// Holds a chain to the authorities, and the first certificate to a list of identities. The host that was asked for
/// plays no part: a SPIFFE certificate names none.
#[derive(Debug)]
pub(super) struct ByIdentity {
    authorities: RootCertStore,
    allow: Vec<IdentityPattern>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ByIdentity {
    pub(super) fn new(authorities: RootCertStore, allow: &[IdentityPattern]) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        ByIdentity { authorities, allow: allow.to_vec(), algorithms }
    }

    /// True where the certificate names somebody on the list: its SPIFFE ID, or any of its hosts.
    fn allows(&self, certificate: &Certificate) -> bool {
        let names = certificate.identity().into_iter().chain(certificate.dns_names.iter().map(String::as_str));
        names.into_iter().any(|name| self.allow.iter().any(|pattern| pattern.matches(name)))
    }
}

impl ServerCertVerifier for ByIdentity {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.authorities, intermediates, now, self.algorithms.all)?;
        match Certificate::parse(end_entity) {
            Ok(certificate) if self.allows(&certificate) => Ok(ServerCertVerified::assertion()),
            Ok(certificate) => Err(refused(format!("it is {}, whom `tls.allow` does not name", whom(&certificate)))),
            Err(_) => Err(refused("its certificate cannot be read".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whom a certificate names, for a person.
fn whom(certificate: &Certificate) -> String {
    match (certificate.identity(), certificate.uris.as_slice()) {
        (Some(name), _) => quoted(name),
        (None, []) => "nobody (its certificate has no names)".to_owned(),
        (None, several) => several.iter().map(|uri| quoted(uri)).collect::<Vec<_>>().join(" and "),
    }
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.escape_debug())
}

fn refused(words: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(words)))))
}

/// Why somebody is not the one who is meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);
