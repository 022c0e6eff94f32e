//! A listener's side of TLS.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::certificate::Certificate;
use super::files::{FileError, Pair, authorities};
use super::provider;
use super::store::{Expiry, FromFiles};
use crate::config::model::{ClientCertificates, ListenerTls, TlsVersion};

/// What clients may choose, the better first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a listener shows to its clients and asks of them. The same for as long as the configuration says the same;
/// what is in the files may change.
#[derive(Debug)]
pub(crate) struct ServerTls {
    definition: ListenerTls,
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    certificates: Vec<Certificate>,
}

impl ServerTls {
    /// For the next connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.load().config.clone()
    }

    /// True where the app is told of the client's certificate.
    pub(super) fn forwards_client_cert(&self) -> bool {
        self.definition.forward_client_cert
    }

    /// The URI in our own certificate.
    pub(super) fn own_uri(&self) -> Option<String> {
        self.current.load().certificates.first().and_then(|own| own.uris.first().cloned())
    }

    /// True where clients may also speak without TLS.
    pub(crate) fn allows_plaintext(&self) -> bool {
        self.definition.plaintext
    }
}

impl FromFiles for ServerTls {
    type Definition = ListenerTls;

    fn load(definition: &ListenerTls) -> Result<Self, FileError> {
        let current = ArcSwap::from_pointee(Current::load(definition)?);
        Ok(ServerTls { definition: definition.clone(), current })
    }

    fn reload(&self) -> Result<(), FileError> {
        self.current.store(Arc::new(Current::load(&self.definition)?));
        Ok(())
    }

    fn files(definition: &ListenerTls) -> Vec<PathBuf> {
        let authorities = match &definition.client {
            ClientCertificates::Ignored => None,
            ClientCertificates::Optional(file) | ClientCertificates::Required(file) => Some(file),
        };
        let pairs = definition.certificates.iter().flat_map(|files| [&files.cert, &files.key]);
        pairs.chain(authorities).cloned().collect()
    }

    fn expiries(&self) -> Vec<Expiry> {
        let current = self.current.load();
        let files = self.definition.certificates.iter().zip(&current.certificates);
        files.map(|(files, shown)| Expiry::of(&files.cert, shown)).collect()
    }
}

impl Current {
    fn load(definition: &ListenerTls) -> Result<Self, FileError> {
        let pairs = definition.certificates.iter().map(Pair::read).collect::<Result<Vec<_>, _>>()?;
        let builder = ServerConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(versions(definition.min_version))
            .map_err(|error| FileError::Setup(error.to_string()))?;
        let asked = match &definition.client {
            ClientCertificates::Ignored => None,
            ClientCertificates::Optional(file) => Some((file, true)),
            ClientCertificates::Required(file) => Some((file, false)),
        };
        let resolver = Arc::new(ByName::new(&pairs));
        let mut config = match asked {
            None => {
                let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
                // Stateless, so that a thousand clients that come back cost no memory in between.
                config.ticketer =
                    rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| FileError::Setup(error.to_string()))?;
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config
            }
            Some((file, optional)) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(file)?), provider().clone());
                let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
                let verifier = verifier.build().map_err(|error| FileError::Setup(error.to_string()))?;
                let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
                // A resumed session is not verified again: whoever lost its authority's trust would keep ours.
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
                config
            }
        };
        if definition.http {
            config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        }
        Ok(Current { config: Arc::new(config), certificates: pairs.into_iter().map(|pair| pair.certificate).collect() })
    }
}

fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    const ALL: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    match least {
        TlsVersion::V1_2 => ALL,
        TlsVersion::V1_3 => &ALL[..1],
    }
}

/// Picks the certificate that names the host which a client asks for.
#[derive(Debug)]
struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the `*` of a wildcard: `.example.org`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl ByName {
    /// Of two certificates with the same name, the earlier one is shown.
    fn new(pairs: &[Pair]) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for pair in pairs {
            for name in &pair.certificate.dns_names {
                let (table, name) = match name.strip_prefix('*') {
                    Some(suffix) => (&mut wildcard, suffix),
                    None => (&mut exact, name.as_str()),
                };
                table.entry(name.to_owned()).or_insert_with(|| pair.key.clone());
            }
        }
        ByName { exact, wildcard, first: pairs.first().map(|pair| pair.key.clone()) }
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        // A wildcard stands for exactly one label (RFC 6125, section 6.4.3).
        let suffix = || name.find('.').and_then(|dot| self.wildcard.get(&name[dot..]));
        self.exact.get(&name).or_else(suffix)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.server_name().and_then(|name| self.find(name)).or(self.first.as_ref()).cloned()
    }
}
