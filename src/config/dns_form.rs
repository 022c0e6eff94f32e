//! Names in DNS as they are written: bare, with a port, as a URL.

use std::net::{IpAddr, SocketAddr};

use schemars::{Schema, json_schema};

use super::model::DnsTarget;
use super::scalar::{Invalid, Scalar, scalar};
use super::text::quote;

/// Of a name, its dots included (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;
/// Where nameservers listen.
const DNS_PORT: u16 = 53;

/// A name that addresses are looked up for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostName(pub(crate) String);

/// A name that SRV records are looked up for, bare or as `srv://NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceName(pub(crate) String);

/// A name and a port: `orders.internal:8080`, `dns://orders.internal:8080`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort(pub(crate) DnsTarget);

/// A nameserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nameserver(pub(crate) SocketAddr);

impl Scalar for HostName {
    const EXPECTED: &'static str = "a name such as `orders.default.svc`";
    const SCHEMA_NAME: &'static str = "HostName";

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.parse::<IpAddr>().is_ok() {
            return Err(Invalid::new(format!("{} is an address, not a name", quote(text)))
                .hint("addresses need no DNS: write `static`"));
        }
        name(text).map(HostName)
    }

    fn schema() -> Schema {
        json_schema!({ "description": "A name in DNS.", "type": "string" })
    }
}
scalar!(HostName);

impl Scalar for ServiceName {
    const EXPECTED: &'static str = "a name such as `_http._tcp.orders.default.svc`";
    const SCHEMA_NAME: &'static str = "ServiceName";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let bare = text.strip_prefix("srv://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        if bare.contains(':') {
            return Err(Invalid::new(format!("{} holds a port", quote(text)))
                .hint("SRV records bring their own: leave the port out, or write `dns` instead"));
        }
        name(bare).map(ServiceName)
    }

    fn schema() -> Schema {
        json_schema!({ "description": "A name that has SRV records: `_http._tcp.orders.default.svc`.", "type": "string" })
    }
}
scalar!(ServiceName);

impl Scalar for HostPort {
    const EXPECTED: &'static str = "a name and a port such as `orders.default.svc:8080`";
    const SCHEMA_NAME: &'static str = "HostPort";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let bare = text.strip_prefix("dns://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        if bare.parse::<SocketAddr>().is_ok() {
            return Err(Invalid::new(format!("{} holds an address, not a name", quote(text)))
                .hint(format!("addresses need no DNS: write {}", quote(bare))));
        }
        let Some((host, port)) = bare.rsplit_once(':') else {
            return Err(Invalid::new(format!("{} has no port", quote(text))).hint(format!(
                "write it as in {}; SRV records would bring their own",
                quote(&format!("{text}:8080"))
            )));
        };
        let host = HostName::parse(host)?.0;
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(HostPort(DnsTarget::Address { name: host, port })),
            _ => Err(Invalid::new(format!("the port in {} is none", quote(text))).hint("a port is 1 to 65535")),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "description": "A name in DNS and a port: `orders.default.svc:8080`.", "type": "string" })
    }
}
scalar!(HostPort);

impl Scalar for Nameserver {
    const EXPECTED: &'static str = "the IP address of a nameserver, with a port where that is not 53";
    const SCHEMA_NAME: &'static str = "Nameserver";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let address = text.parse::<SocketAddr>().ok();
        let address = address.or_else(|| text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT)));
        match address {
            Some(address) if address.port() > 0 => Ok(Nameserver(address)),
            _ => Err(Invalid::new(format!("{} is not the address of a nameserver", quote(text)))
                .hint("write it as in `10.0.0.2`, `127.0.0.1:8600` or `[fd00::2]:53`")),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "description": "A nameserver: `10.0.0.2`, `127.0.0.1:8600`.", "type": "string" })
    }
}
scalar!(Nameserver);

/// A name that DNS can be asked for: letters, digits, `-` and `_`, in labels.
fn name(text: &str) -> Result<String, Invalid> {
    let wrong = |why: &str| Invalid::new(format!("{} is not a name in DNS: {why}", quote(text)));
    if !text.is_ascii() {
        return Err(wrong("it holds a character that is not ASCII").hint("write it in its `xn--` form"));
    }
    if text.len() > LONGEST_NAME {
        return Err(wrong("it is longer than 253 characters"));
    }
    let mut labels = text.strip_suffix('.').unwrap_or(text).split('.');
    for label in labels.clone() {
        if label.is_empty() {
            return Err(wrong("a part of it is empty"));
        }
        if label.len() > LONGEST_LABEL {
            return Err(wrong("a part of it is longer than 63 characters"));
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if let Some(other) = label.bytes().find(|byte| !fits(*byte)) {
            return Err(wrong(&format!("{} has no place in it", quote(&char::from(other).to_string()))));
        }
    }
    if labels.next_back().is_some_and(|last| last.eq_ignore_ascii_case("localhost")) {
        return Err(
            Invalid::new(format!("{} is this machine", quote(text))).hint("write `localhost:PORT`, without DNS")
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let target = |text: &str| HostPort::parse(text).map(|host| host.0);
        let orders = DnsTarget::Address { name: "orders.default.svc".to_owned(), port: 8080 };
        assert_eq!(target("dns://orders.default.svc:8080"), Ok(orders.clone()));
        assert_eq!(target("orders.default.svc:8080"), Ok(orders));
        assert!(target("web.:80").is_ok());
        let service = Ok(ServiceName("_http._tcp.orders".to_owned()));
        assert_eq!(ServiceName::parse("srv://_http._tcp.orders"), service);
        assert_eq!(ServiceName::parse("_http._tcp.orders"), service);
        let server = |text: &str| Nameserver::parse(text).map(|server| server.0.to_string());
        assert_eq!(server("10.0.0.2"), Ok("10.0.0.2:53".to_owned()));
        assert_eq!(server("fd00::2"), Ok("[fd00::2]:53".to_owned()));
        assert_eq!(server("127.0.0.1:8600"), Ok("127.0.0.1:8600".to_owned()));
    }

    #[test]
    fn mistakes_have_hints() {
        let long = format!("{}:80", "a".repeat(64));
        for (text, said) in [
            ("dns://orders", "`dns://orders:8080`"),
            ("dns://10.0.0.1:80", "`10.0.0.1:80`"),
            ("dns://orders:0", "1 to 65535"),
            ("dns://orders:http", "1 to 65535"),
            ("dns://a..b:80", "empty"),
            ("dns://a b:80", "has no place in it"),
            ("dns://bücher:80", "xn--"),
            ("dns://localhost:80", "without DNS"),
            (&long, "longer than 63"),
        ] {
            let Err(Invalid { detail, hint }) = HostPort::parse(text) else { panic!("{text} is read") };
            assert!(format!("{detail} {hint:?}").contains(said), "{text}: {detail} {hint:?}");
        }
        for text in ["srv://_http._tcp.orders:80", "srv://", "a/b"] {
            assert!(ServiceName::parse(text).is_err(), "{text}");
        }
        for text in ["ns.example", "10.0.0.2:0", "10.0.0", ""] {
            assert!(Nameserver::parse(text).is_err(), "{text}");
        }
    }
}
