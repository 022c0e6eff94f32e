//! Endpoints that are known by their identity instead of their host.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

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
            _ => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
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
