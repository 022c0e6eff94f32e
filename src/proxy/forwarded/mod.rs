//! What is told to the upstream about whom we speak for: `X-Forwarded-For`, `-Proto` and `-Host`, and RFC 7239's
//! `Forwarded`.
//!
//! `X-Forwarded-*` are always written, `Forwarded` only where somebody before us began it. Addresses are added to those
//! that are there. Proto and Host are what the *first* proxy saw, so they stay where they are there: a sidecar behind a
//! TLS gateway must not turn its `https` into `http`.
//!
//! On an edge listener, what trusted proxies did not write is dropped first: with `trust: { hops: 0 }`, all of it.

mod client;

use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

pub use self::client::Client;
use self::client::{Field, elements};
use super::list_field::{append, join, members};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The other end of a connection, in the words of these fields. Made once a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    address: Option<IpAddr>,
    /// `10.0.0.1`, `::1`, `unknown`.
    x_forwarded_for: HeaderValue,
    /// `for=10.0.0.1`, `for="[::1]"`, `for=unknown`.
    forwarded: Box<[u8]>,
}

impl Peer {
    /// A Unix socket has no address.
    pub fn new(address: Option<IpAddr>) -> Self {
        let address = address.map(|address| address.to_canonical());
        let text = address.map(|address| address.to_string());
        let unknown = HeaderValue::from_static("unknown");
        Peer {
            address,
            forwarded: match (address, text.as_deref()) {
                (Some(IpAddr::V6(_)), Some(text)) => ["for=\"[", text, "]\""].concat(),
                (_, text) => ["for=", text.unwrap_or("unknown")].concat(),
            }
            .into_bytes()
            .into(),
            x_forwarded_for: text.and_then(|text| HeaderValue::try_from(text).ok()).unwrap_or(unknown),
        }
    }

    /// Its address, IPv4 where it is a mapped one.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }
}

/// Writes the fields of a request that goes on.
///
/// `client` was found in the same headers; `scheme` is `http` or `https`; `host` is the Host that the client sent, and
/// has passed [`crate::route::target::valid_host`].
pub fn write(
    headers: &mut HeaderMap,
    edge: bool,
    client: &Client,
    peer: &Peer,
    scheme: &HeaderValue,
    host: Option<&HeaderValue>,
) {
    if edge {
        drop_unbelieved(headers, client);
    }
    append(headers, &X_FORWARDED_FOR, &peer.x_forwarded_for);
    if headers.contains_key(FORWARDED)
        && let Some(element) = element(peer, scheme, host)
    {
        append(headers, &FORWARDED, &element);
    }
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| scheme.clone());
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
}

/// Strangers' words: all of them, or those left of what trusted proxies wrote.
fn drop_unbelieved(headers: &mut HeaderMap, client: &Client) {
    if !client.peer_trusted {
        let names = headers.keys().filter(|name| name.as_str().starts_with("x-forwarded-") || *name == X_REAL_IP);
        for name in names.cloned().collect::<Vec<_>>() {
            headers.remove(name);
        }
    }
    let believed = |field| if client.field == field { client.believed } else { 0 };
    keep_last(headers, &X_FORWARDED_FOR, believed(Field::XForwardedFor), |line| members(line).rev().collect());
    keep_last(headers, &FORWARDED, believed(Field::Forwarded), |line| elements(line).rev().collect());
}

/// Keeps the last `count` members of a list field.
fn keep_last(headers: &mut HeaderMap, name: &HeaderName, count: usize, backwards: fn(&HeaderValue) -> Vec<&[u8]>) {
    let lines = headers.get_all(name).iter().rev();
    let mut kept: Vec<&[u8]> = lines.flat_map(backwards).take(count).collect();
    kept.reverse();
    match join(kept.into_iter()).filter(|line| !line.is_empty()) {
        Some(line) => headers.insert(name, line),
        None => headers.remove(name),
    };
}

/// Our element of `Forwarded`. A Host is quoted, as its colon must be (RFC 7239 §4).
fn element(peer: &Peer, scheme: &HeaderValue, host: Option<&HeaderValue>) -> Option<HeaderValue> {
    let mut element = Vec::with_capacity(96);
    element.extend_from_slice(&peer.forwarded);
    if let Some(host) = host
        && !host.as_bytes().iter().any(|byte| matches!(byte, b'"' | b'\\'))
    {
        element.extend_from_slice(b";host=\"");
        element.extend_from_slice(host.as_bytes());
        element.push(b'"');
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(scheme.as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(element)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Trust;

    fn written(edge: bool, hops: u8, peer: &str, fields: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let peer = Peer::new(peer.parse().ok());
        let client = Client::find(&Trust::Hops(hops), peer.address(), &headers);
        let host = HeaderValue::from_static("a.example:80");
        write(&mut headers, edge, &client, &peer, &HeaderValue::from_static("http"), Some(&host));
        let mut fields: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        fields.sort();
        fields
    }

    fn expect(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_plain_request_gets_the_three() {
        let expected = |peer| {
            expect(&[("x-forwarded-for", peer), ("x-forwarded-host", "a.example:80"), ("x-forwarded-proto", "http")])
        };
        assert_eq!(written(false, 0, "10.0.0.1", &[]), expected("10.0.0.1"));
        assert_eq!(written(false, 0, "::ffff:10.0.0.1", &[]), expected("10.0.0.1"));
        assert_eq!(written(true, 0, "2001:db8::1", &[]), expected("2001:db8::1"));
        assert_eq!(written(false, 0, "unix", &[]), expected("unknown"));
    }

    const FIELDS: [(&str, &str); 7] = [
        ("forwarded", "for=1.1.1.1"),
        ("x-forwarded-for", "1.1.1.1, 2.2.2.2"),
        ("x-forwarded-for", "3.3.3.3"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "1.1.1.1"),
    ];

    #[test]
    fn inside_the_chain_is_continued() {
        let expected = expect(&[
            ("forwarded", r#"for=1.1.1.1, for="[::9]";host="a.example:80";proto=http"#),
            ("x-forwarded-for", "1.1.1.1, 2.2.2.2, 3.3.3.3, ::9"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "1.1.1.1"),
        ]);
        assert_eq!(written(false, 0, "::9", &FIELDS), expected);
    }

    #[test]
    fn at_the_edge_only_trusted_words_stay() {
        let expected = expect(&[
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-host", "a.example:80"),
            ("x-forwarded-proto", "http"),
        ]);
        assert_eq!(written(true, 0, "9.9.9.9", &FIELDS), expected);

        let behind_two = written(true, 2, "9.9.9.9", &FIELDS);
        assert!(behind_two.contains(&("x-forwarded-for".into(), "2.2.2.2, 3.3.3.3, 9.9.9.9".into())));
        assert!(behind_two.contains(&("x-forwarded-proto".into(), "https".into())));
        assert!(!behind_two.iter().any(|(name, _)| name == "forwarded"));

        let forwarded = [("forwarded", "for=6.6.6.6, for=1.1.1.1"), ("forwarded", "for=2.2.2.2;by=\"a,b\"")];
        let continued = r#"for=1.1.1.1, for=2.2.2.2;by="a,b", for=9.9.9.9;host="a.example:80";proto=http"#;
        assert!(written(true, 2, "9.9.9.9", &forwarded).contains(&("forwarded".into(), continued.into())));
    }
}
