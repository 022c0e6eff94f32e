//! Where an agent is, and a connection to it.

use std::io;

use tokio::net::UnixStream;

use crate::config::model::{AgentAddress, UpstreamTls};
use crate::dns;
use crate::identity;
use crate::runtime::stream::Stream;

/// Connects. `tls` is for agents at `https://…`.
pub(super) async fn connect(address: &AgentAddress, tls: &UpstreamTls) -> io::Result<Stream> {
    match address {
        AgentAddress::Http { host, port } => connect_tcp(bare(host), *port).await,
        AgentAddress::Https { host, port } => {
            let stream = connect_tcp(bare(host), *port).await?;
            identity::secure(stream, tls, bare(host), identity::Offer::Http1).await
        }
        AgentAddress::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
    }
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<Stream> {
    let tcp = dns::connect(host, port).await?;
    tcp.set_nodelay(true)?;
    Ok(Stream::Tcp(tcp))
}

/// Without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The `Host` that its requests carry.
pub(super) fn authority(address: &AgentAddress) -> String {
    match address {
        AgentAddress::Http { host, port } | AgentAddress::Https { host, port } => format!("{host}:{port}"),
        AgentAddress::Unix(_) => "localhost".to_owned(),
    }
}
