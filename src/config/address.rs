//! Addresses as they are written: to listen on, and to connect to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::{Schema, json_schema};

use super::model::{BindAddress, EndpointAddress};
use super::scalar::{Invalid, Scalar, scalar};
use super::text::quote;

/// Longest path of a Unix socket: what fits into `sockaddr_un` with its final NUL (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

impl Scalar for BindAddress {
    const EXPECTED: &'static str = "an address to listen on such as `127.0.0.1:15001`";
    const SCHEMA_NAME: &'static str = "BindAddress";

    fn parse(text: &str) -> Result<Self, Invalid> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(text, path).map(BindAddress::Unix);
        }
        if let Some(port) = text.strip_prefix(':').filter(|rest| !rest.contains(':')) {
            return parse_port(text, port).map(BindAddress::AllInterfaces);
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let hint = format!("did you mean {}?", quote(&format!("127.0.0.1:{}", parse_port(text, port)?)));
            return Err(Invalid::new(format!("{} names a host, and an IP address is due", quote(text))).hint(hint));
        }
        if let Some(port) = text.strip_prefix("*:") {
            parse_port(text, port)?;
            return Err(wrong(text).hint(format!("write {} for all interfaces", quote(&format!(":{port}")))));
        }
        socket_address(text, "only IP addresses can be listened on").map(BindAddress::Tcp)
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "An address to listen on: `\":15006\"` (IPv4 and IPv6), `127.0.0.1:15001`, `\"[::1]:80\"`, `unix:/run/app.sock`.",
            "type": ["string", "number"]
        })
    }
}
scalar!(BindAddress);

impl Scalar for EndpointAddress {
    const EXPECTED: &'static str = "an address such as `127.0.0.1:8080` or `unix:/run/app.sock`";
    const SCHEMA_NAME: &'static str = "EndpointAddress";

    fn parse(text: &str) -> Result<Self, Invalid> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(text, path).map(EndpointAddress::Unix);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return Err(match scheme {
                "consul" | "dns" | "srv" => Invalid::new(format!("{} is not one endpoint but many", quote(text)))
                    .hint(format!("write `{scheme}` instead of `static`")),
                "http" | "h2c" => {
                    Invalid::new(format!("{} is a URL, and an address is due", quote(text))).hint(plain(rest))
                }
                "https" => Invalid::new(format!("{} is a URL, and an address is due", quote(text))).hint(secure(rest)),
                _ => wrong(text).hint("write it as in `127.0.0.1:8080` or `unix:/run/app.sock`"),
            });
        }
        if let Some(port) = text.strip_prefix(':').filter(|rest| !rest.contains(':')) {
            let port = nonzero(text, parse_port(text, port)?)?;
            return Err(Invalid::new(format!("{} does not say where to connect to", quote(text)))
                .hint(format!("did you mean {}?", quote(&format!("127.0.0.1:{port}")))));
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let port = nonzero(text, parse_port(text, port)?)?;
            return Ok(EndpointAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        }
        let address = socket_address(text, "a host's addresses are looked up where it is written `dns://NAME:PORT`")?;
        if address.ip().is_unspecified() {
            let hint = format!("did you mean {}?", quote(&format!("127.0.0.1:{}", address.port())));
            return Err(Invalid::new(format!("nothing can be reached at {}", quote(text))).hint(hint));
        }
        nonzero(text, address.port())?;
        Ok(EndpointAddress::Tcp(address))
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "An address to connect to: `127.0.0.1:8080`, `\"[::1]:80\"`, `localhost:8080`, `unix:/run/app.sock`.",
            "type": "string"
        })
    }
}
scalar!(EndpointAddress);

/// How what `http://` leads to is written.
fn plain(rest: &str) -> String {
    let (host, port) = host_and_port(rest, "80");
    if is_ip(host) || host == "localhost" {
        return format!("did you mean {}?", quote(&format!("{host}:{port}")));
    }
    format!("an upstream with a host that is looked up is {}", quote(&format!("dns://{host}:{port}")))
}

/// How what `https://` leads to is written.
fn secure(rest: &str) -> String {
    let (host, port) = host_and_port(rest, "443");
    let address = quote(&format!("{host}:{port}")).replace('`', "\"");
    let source = if is_ip(host) { format!("static: [{address}]") } else { format!("dns: {address}") };
    format!("make it one of the `upstreams`: `{{ {source}, tls: {{}} }}`")
}

/// Of what follows `://` in a URL.
fn host_and_port<'r>(rest: &'r str, default: &'r str) -> (&'r str, &'r str) {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (authority, default),
    }
}

fn is_ip(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// Whether a text where a name or an address can stand is an address. No name holds these characters.
pub(crate) fn looks_like_address(text: &str) -> bool {
    text.contains([':', '/', '['])
}

fn wrong(text: &str) -> Invalid {
    Invalid::new(format!("{} is not an address", quote(text)))
}

fn socket_path(text: &str, path: &str) -> Result<PathBuf, Invalid> {
    if !path.starts_with('/') {
        return Err(Invalid::new(format!("{} is not an absolute path", quote(path)))
            .hint("write it as in `unix:/run/app.sock`"));
    }
    if path.len() > LONGEST_SOCKET_PATH || path.contains('\0') {
        return Err(Invalid::new(format!(
            "the path in {} is not one of a socket: at most {LONGEST_SOCKET_PATH} bytes",
            quote(text)
        )));
    }
    Ok(PathBuf::from(path))
}

fn parse_port(text: &str, port: &str) -> Result<u16, Invalid> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if digits => Ok(number),
        _ if digits => {
            Err(Invalid::new(format!("the port in {} is out of range", quote(text))).hint("a port is at most 65535"))
        }
        _ => Err(wrong(text).hint("write it as in `127.0.0.1:8080` or `\":15006\"`")),
    }
}

fn nonzero(text: &str, port: u16) -> Result<u16, Invalid> {
    if port == 0 {
        Err(Invalid::new(format!("nothing can be reached at port 0, as in {}", quote(text))))
    } else {
        Ok(port)
    }
}

fn socket_address(text: &str, hosts: &str) -> Result<SocketAddr, Invalid> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong(text).hint(format!("did you mean {}?", quote(&format!(":{text}")))));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let bracketed = match (address, text.rsplit_once(':')) {
            (IpAddr::V4(_), _) => format!("{text}:8080"),
            // `::1:8080` is an address too, but hardly the one that is meant.
            (IpAddr::V6(_), Some((host, port)))
                if port.len() > 2 && host.parse::<IpAddr>().is_ok() && port.parse::<u16>().is_ok() =>
            {
                format!("[{host}]:{port}")
            }
            (IpAddr::V6(_), _) => format!("[{text}]:8080"),
        };
        return Err(
            Invalid::new(format!("{} has no port", quote(text))).hint(format!("write it as in {}", quote(&bracketed)))
        );
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(wrong(text).hint("write it as in `127.0.0.1:8080`"));
    };
    parse_port(text, port)?;
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(
            wrong(text).hint(format!("IPv6 addresses stand in brackets: {}", quote(&format!("[{host}]:{port}"))))
        );
    }
    let name =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let is_name = name && host.bytes().any(|byte| byte.is_ascii_alphabetic());
    Err(if is_name {
        Invalid::new(format!("{} names a host, and an IP address is due", quote(text))).hint(hosts)
    } else {
        wrong(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        assert_eq!(BindAddress::parse(":15006"), Ok(BindAddress::AllInterfaces(15006)));
        assert_eq!(BindAddress::parse("127.0.0.1:0"), Ok(BindAddress::Tcp(([127, 0, 0, 1], 0).into())));
        assert_eq!(BindAddress::parse("unix:/run/a.sock"), Ok(BindAddress::Unix("/run/a.sock".into())));
        assert!(matches!(BindAddress::parse("[::1]:80"), Ok(BindAddress::Tcp(address)) if address.is_ipv6()));
        for text in [
            "",
            ":",
            ":65536",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:99999",
            "localhost:80",
            "8080",
            "::1:80x",
            "unix:a",
            "*:80",
            ":+80",
        ] {
            assert!(BindAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_to_connect_to() {
        let local = |port| EndpointAddress::Tcp(([127, 0, 0, 1], port).into());
        assert_eq!(EndpointAddress::parse("127.0.0.1:8080"), Ok(local(8080)));
        assert_eq!(EndpointAddress::parse("localhost:8080"), Ok(local(8080)));
        assert_eq!(EndpointAddress::parse("unix:/run/app.sock"), Ok(EndpointAddress::Unix("/run/app.sock".into())));
        for text in [
            "",
            "app",
            ":80",
            "0.0.0.0:80",
            "127.0.0.1:0",
            "app:80",
            "http://127.0.0.1:80",
            "consul://app",
            "dns://app:80",
            "localhost:0",
        ] {
            assert!(EndpointAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mistakes_have_hints() {
        for (text, hint) in [
            ("app.svc:80", "dns://NAME:PORT"),
            (":80", "`127.0.0.1:80`"),
            ("http://127.0.0.1:80/", "`127.0.0.1:80`"),
            ("http://[::1]/a?b", "`[::1]:80`"),
            ("http://localhost:8080/a", "`localhost:8080`"),
            ("http://example.com", "`dns://example.com:80`"),
            ("http://example.com:8080/a", "`dns://example.com:8080`"),
            ("127.0.0.1", "`127.0.0.1:8080`"),
            ("127.0.0.1:70000", "at most 65535"),
        ] {
            let found = EndpointAddress::parse(text).unwrap_err().hint.unwrap_or_default();
            assert!(found.contains(hint), "{text}: {found}");
        }
        assert!(BindAddress::parse("8080").unwrap_err().hint.unwrap_or_default().contains("`:8080`"));
    }
}
