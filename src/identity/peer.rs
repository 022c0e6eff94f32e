//! Whom a connection is with, once its handshake is over.

use std::sync::Arc;

use http::HeaderValue;
use rustls::ProtocolVersion;
use rustls::server::ServerConnection;

use super::certificate::Certificate;
use super::forwarded;
use super::server::ServerTls;
use crate::config::model::{IdentityPattern, TlsVersion};

/// The other end of a TLS connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) version: TlsVersion,
    /// Whom its certificate names, where it showed one that was verified.
    pub(crate) identity: Option<Arc<str>>,
    /// Whom the client asked for (SNI).
    pub(crate) server_name: Option<Box<str>>,
    /// What the app is told of the certificate, where it is to be told.
    pub(crate) forwarded: Option<HeaderValue>,
}

impl Peer {
    /// To be called after the handshake.
    pub(crate) fn of(connection: &ServerConnection, tls: &ServerTls) -> Self {
        let der = connection.peer_certificates().and_then(|chain| chain.first());
        let certificate = der.and_then(|der| Certificate::parse(der).ok());
        let forwarded = match (der, &certificate) {
            (Some(der), Some(certificate)) if tls.forwards_client_cert() => {
                forwarded::client_cert(der, certificate, tls.own_uri().as_deref())
            }
            _ => None,
        };
        Peer {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
                _ => TlsVersion::V1_3,
            },
            identity: certificate.and_then(|certificate| certificate.identity().map(Arc::from)),
            server_name: connection.server_name().map(Box::from),
            forwarded,
        }
    }

    /// True where the list is empty, or names the peer.
    pub(crate) fn is_allowed(peer: Option<&Self>, allow: &[IdentityPattern]) -> bool {
        allow.is_empty()
            || peer
                .and_then(|peer| peer.identity.as_deref())
                .is_some_and(|identity| allow.iter().any(|pattern| pattern.matches(identity)))
    }
}
