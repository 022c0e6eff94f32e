//! Where an agent is, and a connection to it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use tokio::net::{TcpStream, UnixStream};

use crate::config::model::AgentAddress;
use crate::runtime::stream::Stream;

/// Connects; names of hosts are resolved as the system does it. TLS will be one more arm here.
pub(super) async fn connect(address: &AgentAddress) -> io::Result<Stream> {
    match address {
        AgentAddress::Http { host, port } => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let tcp = match host.parse::<IpAddr>() {
                Ok(ip) => TcpStream::connect((ip, *port)).await?,
                // A resolver is not needed for it, and a bare image has none.
                Err(_) if host == "localhost" => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await?,
                Err(_) => TcpStream::connect((host, *port)).await?,
            };
            tcp.set_nodelay(true)?;
            Ok(Stream::Tcp(tcp))
        }
        AgentAddress::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
    }
}

/// The `Host` that its requests carry.
pub(super) fn authority(address: &AgentAddress) -> String {
    match address {
        AgentAddress::Http { host, port } => format!("{host}:{port}"),
        AgentAddress::Unix(_) => "localhost".to_owned(),
    }
}
