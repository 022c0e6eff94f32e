//! Whom a connection is with, once its handshake is over.

use std::sync::Arc;

use rustls::{CommonState, ProtocolVersion};

use super::certificate::Certificate;
use crate::config::model::TlsVersion;

/// The other end of a TLS connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) version: TlsVersion,
    /// Whom its certificate names, where it showed one that was verified.
    pub(crate) identity: Option<Arc<str>>,
}

impl Peer {
    /// To be called after the handshake.
    pub(crate) fn of(connection: &CommonState) -> Self {
        let certificate = connection.peer_certificates().and_then(|chain| Certificate::parse(chain.first()?).ok());
        Peer {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
                _ => TlsVersion::V1_3,
            },
            identity: certificate.and_then(|certificate| certificate.identity().map(Arc::from)),
        }
    }
}
