//! What keeps requests together, for balancers that send like to like.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::COOKIE;

use super::forwarded::Client;
use crate::config::model::{HashKey, LoadBalancer};
use crate::upstream::hashing::hash;

/// The hash that decides where the request goes; `None` where that is open. Headers are as they go out.
pub(crate) fn key(load_balancer: &LoadBalancer, headers: &HeaderMap, client: &Client) -> Option<u64> {
    let (LoadBalancer::RingHash(key) | LoadBalancer::Maglev(key)) = load_balancer else { return None };
    match key {
        HashKey::Header(name) => headers.get(name).map(|value| hash(value.as_bytes())),
        HashKey::Cookie(name) => cookie(headers, name.as_bytes()).map(hash),
        HashKey::ClientAddress => client.address.map(|address| match address {
            IpAddr::V4(address) => hash(&address.octets()),
            IpAddr::V6(address) => hash(&address.octets()),
        }),
    }
}

/// The first value of a cookie (RFC 6265, section 4.2.1); HTTP/2 may send one line for each.
fn cookie<'h>(headers: &'h HeaderMap, name: &[u8]) -> Option<&'h [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("xsession=1; session=two; session=3"));
        headers.append(COOKIE, HeaderValue::from_static("other=4"));
        assert_eq!(cookie(&headers, b"session"), Some(&b"two"[..]));
        assert_eq!(cookie(&headers, b"other"), Some(&b"4"[..]));
        assert_eq!(cookie(&headers, b"sess"), None);
    }
}
