//! TLS as the file means it. Files are named here and read by whoever uses them.

use std::path::PathBuf;

use rustls::pki_types::ServerName;

pub use crate::config::identity::IdentityPattern;

/// `listeners.*.tls`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerTls {
    /// True where HTTP is spoken under it, so that the client can choose the version.
    pub http: bool,
    /// What the listener shows, at least one. The first is for clients that name no host, or one that is in none.
    pub certificates: Vec<CertificateFiles>,
    /// What it asks of clients.
    pub client: ClientCertificates,
    /// True where the app is told of the client's certificate. Default false.
    pub forward_client_cert: bool,
    /// True where clients may also speak without TLS. Default false.
    pub plaintext: bool,
    /// Default 1.2.
    pub min_version: TlsVersion,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The chain, its owner's certificate first.
    pub cert: PathBuf,
    /// The owner's key.
    pub key: PathBuf,
}

/// What a listener asks of its clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClientCertificates {
    /// Nothing.
    Ignored,
    /// A certificate of these authorities, where the client has one.
    Optional(PathBuf),
    /// A certificate of these authorities.
    Required(PathBuf),
}

/// `upstreams.*.tls`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// Whom endpoints' certificates have to come from. `None`: public authorities.
    pub authorities: Option<PathBuf>,
    /// Whom endpoints have to be, and are asked for. Default: with DNS the domain that is asked for; `None`: their IP
    /// address.
    pub server_name: Option<TlsName>,
    /// What endpoints are shown, where they ask.
    pub certificate: Option<CertificateFiles>,
    /// Where it is not empty, endpoints have to be one of these instead of `server_name`.
    pub allow: Vec<IdentityPattern>,
}

/// A host or an IP address that a certificate can name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsName(ServerName<'static>);

impl TlsName {
    /// `None` where the text is neither.
    pub fn parse(text: &str) -> Option<Self> {
        ServerName::try_from(text.to_owned()).ok().map(TlsName)
    }

    /// For rustls.
    pub fn as_server_name(&self) -> &ServerName<'static> {
        &self.0
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

impl TlsVersion {
    /// As people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        }
    }
}
