//! An upstream's side of TLS.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

use super::certificate::Certificate;
use super::files::{FileError, Pair, authorities};
use super::provider;
use super::roots::{bundle, public_authorities};
use super::store::{Expiry, FromFiles};
use super::verifier::ByIdentity;
use crate::config::model::UpstreamTls;

/// What may be spoken to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
    /// HTTP/2 where the endpoint has it.
    Either,
    /// No HTTP.
    Nothing,
}

/// What an upstream's endpoints have to show, and what they are shown. The same for as long as the configuration says
/// the same; what is in the files may change.
#[derive(Debug)]
pub(crate) struct ClientTls {
    definition: UpstreamTls,
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    /// Never used twice: a connection that was made with other files is another one.
    id: u64,
    /// By [`Offer`].
    configs: [Arc<ClientConfig>; 4],
    own: Option<Certificate>,
}

impl ClientTls {
    /// Names what new connections are made with. Changes when files do.
    pub(crate) fn id(&self) -> u64 {
        self.current.load().id
    }

    /// For a new connection.
    pub(crate) fn config(&self, offer: Offer) -> Arc<ClientConfig> {
        self.current.load().configs[offer as usize].clone()
    }

    /// True where endpoints are shown a certificate.
    pub(crate) fn shows_certificate(&self) -> bool {
        self.definition.certificate.is_some()
    }

    /// Whom the endpoint at this address has to be. On a Unix socket, which has none, it is this machine.
    pub(crate) fn server_name(&self, address: Option<IpAddr>) -> ServerName<'static> {
        match (&self.definition.server_name, address) {
            (Some(name), _) => name.as_server_name().clone(),
            (None, address) => ServerName::IpAddress(address.unwrap_or(IpAddr::from([127, 0, 0, 1])).into()),
        }
    }
}

impl FromFiles for ClientTls {
    type Definition = UpstreamTls;

    fn load(definition: &UpstreamTls) -> Result<Self, FileError> {
        let current = ArcSwap::from_pointee(Current::load(definition)?);
        Ok(ClientTls { definition: definition.clone(), current })
    }

    fn reload(&self) -> Result<(), FileError> {
        self.current.store(Arc::new(Current::load(&self.definition)?));
        Ok(())
    }

    fn files(definition: &UpstreamTls) -> Vec<PathBuf> {
        let authorities = definition.authorities.clone().or_else(bundle);
        let pair = definition.certificate.iter().flat_map(|files| [files.cert.clone(), files.key.clone()]);
        authorities.into_iter().chain(pair).collect()
    }

    fn expiries(&self) -> Vec<Expiry> {
        let current = self.current.load();
        let shown = self.definition.certificate.iter().zip(&current.own);
        shown.map(|(files, own)| Expiry::of(&files.cert, own)).collect()
    }
}

impl Current {
    fn load(definition: &UpstreamTls) -> Result<Self, FileError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let roots = match &definition.authorities {
            Some(file) => authorities(file)?,
            None => public_authorities(bundle().as_deref())?,
        };
        let setup = |error: String| FileError::Setup(error);
        let builder = ClientConfig::builder_with_provider(provider().clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| setup(error.to_string()))?;
        let builder = if definition.allow.is_empty() {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider().clone());
            builder.with_webpki_verifier(verifier.build().map_err(|error| setup(error.to_string()))?)
        } else {
            let verifier = ByIdentity::new(roots, &definition.allow);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        };
        let own = definition.certificate.as_ref().map(Pair::read).transpose()?;
        let mut config = match &own {
            None => builder.with_no_client_auth(),
            Some(pair) => builder.with_client_cert_resolver(Arc::new(Always(pair.key.clone()))),
        };
        if own.is_some() {
            // Whoever we were when the session began is not who we are after a rotation.
            config.resumption = Resumption::disabled();
        }
        let configs = [&[&b"http/1.1"[..]][..], &[b"h2"], &[b"h2", b"http/1.1"], &[]].map(|alpn| {
            let mut config = config.clone();
            config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        });
        Ok(Current { id: NEXT.fetch_add(1, Ordering::Relaxed), configs, own: own.map(|pair| pair.certificate) })
    }
}

/// One certificate, whoever asks.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
