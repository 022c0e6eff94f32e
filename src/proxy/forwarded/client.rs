//! Who the client is: the peer, or whom trusted proxies name.

use std::net::{IpAddr, Ipv6Addr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderValue};

use super::X_FORWARDED_FOR;
use crate::config::model::{Network, Trust};
use crate::proxy::list_field::members;

/// Who the client is, and how much of what proxies before us said is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The client's address, as far as trust reaches; `None` where the peer is a Unix socket and names nobody.
    pub address: Option<IpAddr>,
    /// The peer itself is a trusted proxy.
    pub(super) peer_trusted: bool,
    /// Which field was read, where one was.
    pub(super) field: Field,
    /// How many of its members, counted from the right, were written by trusted proxies.
    pub(super) believed: usize,
}

/// Where addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    XForwardedFor,
    Forwarded,
}

impl Client {
    /// Walks the addresses that proxies wrote from the last (which the peer wrote) to the first, and stops where trust
    /// ends, or at what is no address.
    ///
    /// `X-Forwarded-For` decides where it is there, for nearly every proxy writes it; RFC 7239's `Forwarded` only where
    /// it is not. A trusted proxy writes one of them and lets the other pass as a stranger wrote it.
    pub fn find(trust: &Trust, peer: Option<IpAddr>, headers: &HeaderMap) -> Self {
        let peer = peer.map(|address| address.to_canonical());
        let peer_trusted = match trust {
            Trust::Hops(hops) => *hops > 0,
            Trust::Networks(networks) => peer.is_some_and(|peer| contains(networks, peer)),
        };
        let mut client = Client { address: peer, peer_trusted, field: Field::XForwardedFor, believed: 0 };
        if !peer_trusted {
            return client;
        }
        if !headers.contains_key(&X_FORWARDED_FOR) && headers.contains_key(FORWARDED) {
            client.field = Field::Forwarded;
        }
        match client.field {
            Field::XForwardedFor => client.walk(
                trust,
                headers.get_all(&X_FORWARDED_FOR).iter().rev().flat_map(|line| members(line).rev()).map(node_address),
            ),
            Field::Forwarded => client.walk(
                trust,
                headers.get_all(FORWARDED).iter().rev().flat_map(|line| elements(line).rev()).map(element_address),
            ),
        }
        client
    }

    fn walk(&mut self, trust: &Trust, addresses: impl Iterator<Item = Option<IpAddr>>) {
        for address in addresses {
            let believed = match trust {
                Trust::Hops(hops) => self.believed < usize::from(*hops),
                Trust::Networks(networks) => self.address.is_some_and(|address| contains(networks, address)),
            };
            let Some(address) = address.filter(|_| believed) else { return };
            self.address = Some(address);
            self.believed += 1;
        }
    }
}

fn contains(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| match (network.address, address) {
        (IpAddr::V4(network_address), IpAddr::V4(address)) => {
            let differing = u32::from(network_address) ^ u32::from(address);
            differing.leading_zeros() >= u32::from(network.prefix)
        }
        (IpAddr::V6(network_address), IpAddr::V6(address)) => {
            let differing = u128::from(network_address) ^ u128::from(address);
            differing.leading_zeros() >= u32::from(network.prefix)
        }
        _ => false,
    })
}

/// An address with or without port, brackets, quotes: proxies differ. `None` for `unknown` and invented names.
fn node_address(node: &[u8]) -> Option<IpAddr> {
    let node = str::from_utf8(node).ok()?.trim();
    let node = node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node);
    let address = match node.strip_prefix('[') {
        Some(bracketed) => IpAddr::V6(bracketed.split_once(']')?.0.parse::<Ipv6Addr>().ok()?),
        None => match node.split_once(':') {
            Some((address, port)) if !port.contains(':') => address.parse().ok()?,
            _ => node.parse().ok()?,
        },
    };
    Some(address.to_canonical())
}

/// Elements of a `Forwarded` line (RFC 7239 §4).
pub(super) fn elements(line: &HeaderValue) -> impl DoubleEndedIterator<Item = &[u8]> {
    let elements = split_unquoted(line.as_bytes(), b',');
    elements.into_iter().map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The address of an element's `for`.
fn element_address(element: &[u8]) -> Option<IpAddr> {
    split_unquoted(element, b';').into_iter().find_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        let (name, value) = pair.split_at(at);
        name.trim_ascii().eq_ignore_ascii_case(b"for").then(|| node_address(value[1..].trim_ascii()))?
    })
}

/// Splits outside of quoted strings. One that does not end holds all that follows.
fn split_unquoted(text: &[u8], delimiter: u8) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (index, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == delimiter && !quoted => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(trust: &Trust, peer: &str, fields: &[(&'static str, &'static str)]) -> (String, usize) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let client = Client::find(trust, peer.parse().ok(), &headers);
        (client.address.map_or("unknown".into(), |address| address.to_string()), client.believed)
    }

    fn networks() -> Trust {
        let network = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
        Trust::Networks(vec![network("10.0.0.0", 8), network("fd00::", 8), network("192.168.1.1", 32)])
    }

    #[test]
    fn hops_are_counted_from_the_right() {
        let fields = [("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-for", "3.3.3.3:4711,, [::5]:80")];
        for (hops, expected, believed) in [
            (0, "9.9.9.9", 0),
            (1, "::5", 1),
            (2, "3.3.3.3", 2),
            (3, "2.2.2.2", 3),
            (4, "1.1.1.1", 4),
            (9, "1.1.1.1", 4),
        ] {
            assert_eq!(find(&Trust::Hops(hops), "9.9.9.9", &fields), (expected.into(), believed), "{hops}");
        }
        assert_eq!(find(&Trust::Hops(1), "9.9.9.9", &[]), ("9.9.9.9".into(), 0));
        assert_eq!(find(&Trust::Hops(1), "unix", &fields), ("::5".into(), 1));
        assert_eq!(find(&Trust::Hops(0), "unix", &fields), ("unknown".into(), 0));
    }

    #[test]
    fn networks_end_at_the_first_stranger() {
        let fields = [("x-forwarded-for", "6.6.6.6, 1.1.1.1, fd00::1, ::ffff:10.1.2.3")];
        assert_eq!(find(&networks(), "10.0.0.1", &fields), ("1.1.1.1".into(), 3));
        assert_eq!(find(&networks(), "::ffff:10.0.0.1", &fields), ("1.1.1.1".into(), 3));
        assert_eq!(find(&networks(), "11.0.0.1", &fields), ("11.0.0.1".into(), 0));
        assert_eq!(find(&networks(), "192.168.1.1", &[("x-forwarded-for", "192.168.1.2")]), ("192.168.1.2".into(), 1));
        assert_eq!(find(&networks(), "unix", &fields), ("unknown".into(), 0));
    }

    #[test]
    fn what_is_no_address_ends_the_walk() {
        for entry in ["1.1.1.1, unknown", "1.1.1.1, _hidden", "1.1.1.1, 2.2.2.2.2", "1.1.1.1, [::1", "1.1.1.1, ::1:x"] {
            assert_eq!(
                find(&Trust::Hops(9), "9.9.9.9", &[("x-forwarded-for", entry)]),
                ("9.9.9.9".into(), 0),
                "{entry}"
            );
        }
    }

    #[test]
    fn forwarded_is_read_where_it_stands_alone() {
        let forwarded = r#"for=1.1.1.1;by="a,b\",;for=6.6.6.6", For="[2001:db8::1]:4711";proto=http"#;
        assert_eq!(find(&Trust::Hops(1), "9.9.9.9", &[("forwarded", forwarded)]), ("2001:db8::1".into(), 1));
        assert_eq!(find(&Trust::Hops(2), "9.9.9.9", &[("forwarded", forwarded)]), ("1.1.1.1".into(), 2));
        let both = [("forwarded", forwarded), ("x-forwarded-for", "3.3.3.3")];
        assert_eq!(find(&Trust::Hops(2), "9.9.9.9", &both), ("3.3.3.3".into(), 1));
        for broken in
            [r#"for=1.1.1.1, for=""#, r#"for=", for=1.1.1.1"#, "for=1.1.1.1, proto=http", "for=1.1.1.1, for=unknown"]
        {
            assert_eq!(find(&Trust::Hops(9), "9.9.9.9", &[("forwarded", broken)]), ("9.9.9.9".into(), 0), "{broken}");
        }
    }
}
