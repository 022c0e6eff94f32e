//! Fields that are meant for the next hop only, and so end here: RFC 9110 §7.6.1.

use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::list_field::members;

const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// What the removed fields said.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HopByHop {
    /// The value of `Upgrade` where `Connection: upgrade` backs it (RFC 9110 §7.8 asks for both). Of several lines the
    /// first: an upgrade may be ignored, so one of the wishes is enough.
    pub upgrade: Option<HeaderValue>,
    /// `TE: trailers`: the sender takes trailers. To be said again to an HTTP/2 peer, for gRPC servers insist on it.
    pub trailers: bool,
}

/// Removes, in either direction, `Connection`, every field that it names, `Proxy-Connection`, `Keep-Alive`, `TE`,
/// `Transfer-Encoding` and `Upgrade`.
///
/// `Connection` cannot name away what is meant for the recipient (RFC 9110 §7.6.1 forbids senders to try, and names
/// `Cache-Control`): were it obeyed, a client could have us erase credentials, framing, and what proxies before us said
/// about it, as in CVE-2022-1388 and CVE-2022-31813. Such names are passed over.
///
/// `Trailer` stays: RFC 9110 §6.6.2 knows it as a field of the message, and trailers are passed on. So does
/// `Proxy-Authorization`, which may be for a proxy further on (§11.7.2).
pub fn strip(headers: &mut HeaderMap) -> HopByHop {
    let mut found = HopByHop::default();
    let present = headers.keys().fold(0, |present, name| present | bit(name));
    if present == 0 {
        return found;
    }
    let is_there = |name: &HeaderName| present & bit(name) != 0;
    if is_there(&TE) {
        found.trailers = headers.get_all(TE).iter().flat_map(members).any(is_trailers);
        headers.remove(TE);
    }
    let upgrade = if is_there(&UPGRADE) { headers.remove(UPGRADE) } else { None };
    for name in [PROXY_CONNECTION, KEEP_ALIVE, TRANSFER_ENCODING] {
        if is_there(&name) {
            headers.remove(name);
        }
    }
    if !is_there(&CONNECTION) {
        return found;
    }
    // Out of the map, for names are taken from it. Nearly always one line.
    let further: SmallVec<[HeaderValue; 1]> = headers.get_all(CONNECTION).iter().skip(1).cloned().collect();
    let connection = headers.remove(CONNECTION);
    for option in connection.iter().chain(&further).flat_map(members) {
        match option {
            _ if option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive") => {}
            _ if option.eq_ignore_ascii_case(b"upgrade") => found.upgrade = upgrade.clone(),
            _ => remove_named(headers, option),
        }
    }
    found
}

/// One for each field that is meant for the next hop; 0 for all others.
fn bit(name: &HeaderName) -> u8 {
    // By text, which is quicker than six comparisons of names.
    match name.as_str() {
        "connection" => 1,
        "proxy-connection" => 1 << 1,
        "keep-alive" => 1 << 2,
        "te" => 1 << 3,
        "transfer-encoding" => 1 << 4,
        "upgrade" => 1 << 5,
        _ => 0,
    }
}

fn remove_named(headers: &mut HeaderMap, option: &[u8]) {
    if let Ok(name) = HeaderName::from_bytes(option)
        && !is_end_to_end(name.as_str())
    {
        headers.remove(name);
    }
}

/// Fields that no `Connection` removes (lower case).
fn is_end_to_end(name: &str) -> bool {
    match name {
        // Where the message goes, and where it ends.
        "host" | "content-length" | "trailer" | "expect" => true,
        // How its content reads.
        "content-type" | "content-encoding" | "content-language" | "content-location" | "content-range" | "range" => {
            true
        }
        // Who asks.
        "authorization"
        | "proxy-authorization"
        | "www-authenticate"
        | "proxy-authenticate"
        | "cookie"
        | "set-cookie" => true,
        "cache-control" | "vary" | "date" | "location" | "origin" | "max-forwards" => true,
        // What proxies say of the request's way.
        "via" | "forwarded" | "x-real-ip" | "x-request-id" | "traceparent" | "tracestate" | "baggage"
        | "grpc-timeout" => true,
        _ => ["x-forwarded-", "x-outrigger-", "access-control-", "sec-", "x-b3-"]
            .iter()
            .any(|prefix| name.starts_with(prefix)),
    }
}

/// `trailers`, of which a weight would make no sense (RFC 9110 §10.1.4), but is passed over.
fn is_trailers(coding: &[u8]) -> bool {
    let name = coding.split(|byte| *byte == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(b"trailers")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    #[test]
    fn named_and_known_fields_go_and_the_rest_stays_in_order() {
        let mut headers = map(&[
            ("x-a", "1"),
            ("connection", "close, X-B ,, x-c"),
            ("x-b", "1"),
            ("x-b", "2"),
            ("x-a", "2"),
            ("Connection", "x-D,x-missing, not a name"),
            ("x-c", "1"),
            ("x-d", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip;q=0.5, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("trailer", "x-checksum"),
            ("proxy-authorization", "Basic x"),
        ]);
        let found = strip(&mut headers);
        assert_eq!(found, HopByHop { trailers: true, ..HopByHop::default() });
        assert_eq!(
            headers,
            map(&[("x-a", "1"), ("x-a", "2"), ("trailer", "x-checksum"), ("proxy-authorization", "Basic x")])
        );
    }

    #[test]
    fn each_known_field_goes_without_the_others() {
        for name in ["connection", "proxy-connection", "keep-alive", "te", "transfer-encoding", "upgrade"] {
            let mut headers = map(&[(name, "x"), ("x-a", "1")]);
            strip(&mut headers);
            assert_eq!(headers, map(&[("x-a", "1")]), "{name}");
        }
    }

    #[test]
    fn wishes_are_reported() {
        let mut headers =
            map(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AA")]);
        let found = strip(&mut headers);
        assert_eq!(found.upgrade, Some(HeaderValue::from_static("h2c")));
        assert!(headers.is_empty());
        assert_eq!(strip(&mut map(&[("upgrade", "websocket")])).upgrade, None);
        assert_eq!(strip(&mut map(&[("connection", "upgrade")])).upgrade, None);
        assert!(!strip(&mut map(&[("te", "x-trailers")])).trailers);
        assert!(strip(&mut map(&[("te", "Trailers;q=1")])).trailers);
    }

    #[test]
    fn connection_cannot_name_away_what_is_meant_for_the_recipient() {
        let names =
            ["host", "content-length", "authorization", "cookie", "x-forwarded-for", "forwarded", "via", "traceparent"];
        let mut headers = map(&names.map(|name| (name, "1")));
        headers.insert(CONNECTION, HeaderValue::try_from(names.join(",").to_uppercase()).unwrap());
        strip(&mut headers);
        assert_eq!(headers, map(&names.map(|name| (name, "1"))));
    }

    proptest! {
        #[test]
        fn nothing_hop_by_hop_is_left(
            fields in prop::collection::vec(
                ("(connection|te|upgrade|keep-alive|x-[ab]|host|transfer-encoding)", "((close|X-A|x-b|host|te|trailers|upgrade)[, ]{0,2}){0,4}"),
                0..8,
            ),
        ) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let before = map(&fields);
            let mut headers = before.clone();
            strip(&mut headers);
            prop_assert!(headers.keys().all(|name| bit(name) == 0));
            prop_assert_eq!(before.get_all("host").iter().count(), headers.get_all("host").iter().count());
            for name in ["x-a", "x-b"] {
                let named = before.get_all(CONNECTION).iter().flat_map(members).any(|token| token.eq_ignore_ascii_case(name.as_bytes()));
                prop_assert_eq!(headers.contains_key(name), before.contains_key(name) && !named);
            }
            prop_assert_eq!(strip(&mut headers), HopByHop::default());
        }
    }
}
