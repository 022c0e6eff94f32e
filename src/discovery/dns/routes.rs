//! Which addresses this machine has a way to at all.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::walk::Endpoint;

/// Leaves out the family that this machine has no route for, where names have addresses of both: an IPv4-only pod would
/// else send every second attempt into nothing. Asks the routing table (a datagram socket that is connected sends
/// nothing), and keeps everything where that has a way to none.
pub(super) fn reachable(endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    reachable_by(endpoints, has_route)
}

fn reachable_by(endpoints: Vec<Endpoint>, has_route: impl Fn(SocketAddr) -> bool) -> Vec<Endpoint> {
    let v4 = endpoints.iter().filter(|endpoint| endpoint.address.is_ipv4()).count();
    if v4 == 0 || v4 == endpoints.len() {
        return endpoints;
    }
    let (with, without): (Vec<_>, Vec<_>) = endpoints.into_iter().partition(|endpoint| has_route(endpoint.address));
    if with.is_empty() { without } else { with }
}

fn has_route(address: SocketAddr) -> bool {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let none = [
        ErrorKind::NetworkUnreachable,
        ErrorKind::HostUnreachable,
        ErrorKind::AddrNotAvailable,
        // IPv6 is switched off.
        ErrorKind::Unsupported,
    ];
    match socket.and_then(|socket| socket.connect(address)) {
        Ok(()) => true,
        Err(error) => !none.contains(&error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str], has_route: impl Fn(SocketAddr) -> bool) -> Vec<String> {
        let endpoints =
            texts.iter().map(|text| Endpoint { address: text.parse().unwrap(), weight: 1, priority: 0 }).collect();
        let left = reachable_by(endpoints, has_route);
        left.iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    #[test]
    fn a_family_without_a_route_is_left_out_where_another_has_one() {
        let both = ["10.0.0.1:80", "[2001:db8::1]:80"];
        assert_eq!(addresses(&both, |_| true), both);
        assert_eq!(addresses(&both, |address| address.is_ipv4()), ["10.0.0.1:80"]);
        assert_eq!(addresses(&both, |address| address.is_ipv6()), ["[2001:db8::1]:80"]);
        assert_eq!(addresses(&both, |_| false).len(), 2);
        assert_eq!(addresses(&["[2001:db8::1]:80"], |_| false), ["[2001:db8::1]:80"]);
    }

    #[test]
    fn loopback_has_a_route() {
        assert!(has_route("127.0.0.1:80".parse().unwrap()));
    }
}
