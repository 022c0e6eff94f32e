//! Connections of the control side's own: few, so that their files are read for each.

use std::io;

use tokio_rustls::TlsConnector;

use super::client::{ClientTls, Offer};
use super::store::FromFiles as _;
use crate::config::model::{TlsName, UpstreamTls};
use crate::runtime::stream::Stream;
use crate::runtime::tls_stream::TlsStream;

/// Shakes hands for what is offered with `host`, unless the definition names somebody else.
///
/// # Errors
/// Where a file cannot be used, or the other end is not who it should be.
pub(crate) async fn secure(stream: Stream, definition: &UpstreamTls, host: &str, offer: Offer) -> io::Result<Stream> {
    let mut definition = definition.clone();
    if definition.server_name.is_none() {
        definition.server_name = TlsName::parse(host);
    }
    let tls = ClientTls::load(&definition).map_err(io::Error::other)?;
    let secured = TlsConnector::from(tls.config(offer)).connect(tls.server_name(None), stream).await?;
    Ok(Stream::Tls(Box::new(TlsStream::new(secured))))
}
