//! What of a request is matched, and what may stand in a Host field.

use std::net::Ipv6Addr;

use http::Method;

/// The parts of a request that routes look at, besides its headers.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// As received: any case, perhaps with a port or a final dot. Must have passed [`valid_host`].
    pub host: &'a str,
    /// The port of a host that names none: 80 for `http`, 443 for `https`.
    pub default_port: u16,
    /// As received, without the query.
    pub path: &'a str,
    /// As received, without the `?`.
    pub query: Option<&'a str>,
    /// The port that the connection was going to, where the kernel redirected it here.
    pub port: Option<u16>,
    /// The method.
    pub method: &'a Method,
}

/// Whether this may be the value of `Host` or `:authority`: `host[:port]`, the host not empty (RFC 9110 §4.2.1, RFC 3986
/// §3.2.2).
///
/// User information is refused (RFC 9110 §4.2.4), as are IPv6 zone ids and bytes that the grammar has no place for: a
/// value that two servers read differently is how one of them is made to serve another's requests.
pub fn valid_host(authority: &[u8]) -> bool {
    let (valid_name, port) = match authority.first() {
        None => return false,
        Some(b'[') => {
            let Some(end) = memchr::memchr(b']', authority) else { return false };
            let literal = str::from_utf8(&authority[1..end]);
            (literal.is_ok_and(|literal| literal.parse::<Ipv6Addr>().is_ok()), &authority[end + 1..])
        }
        Some(_) => {
            let end = memchr::memchr(b':', authority).unwrap_or(authority.len());
            (end > 0 && valid_name(&authority[..end]), &authority[end..])
        }
    };
    valid_name && valid_port(port)
}

/// The host (an IPv6 address in its brackets) and the port, where one is written. What follows must be valid.
pub(crate) fn split_port(authority: &str) -> (&str, Option<u16>) {
    let end = match authority.starts_with('[') {
        true => authority.find(']').map(|bracket| bracket + 1),
        false => authority.find(':'),
    };
    let (host, port) = authority.split_at(end.unwrap_or(authority.len()));
    (host, port.strip_prefix(':').and_then(|port| port.parse().ok()))
}

/// `reg-name` of RFC 3986 §3.2.2: unreserved, sub-delims and percent-encoded octets.
fn valid_name(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(&byte) = bytes.next() {
        let valid = match byte {
            b'a'..=b'z' | b'0'..=b'9' => true, // Nearly all of them.
            b'%' => [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(u8::is_ascii_hexdigit)),
            b'-' | b'.' | b'_' | b'~' => true,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !valid {
            return false;
        }
    }
    true
}

/// Nothing, or a colon and digits (none is allowed, RFC 3986 §3.2.3) that are a port.
fn valid_port(port: &[u8]) -> bool {
    let Some((b':', digits)) = port.split_first() else { return port.is_empty() };
    let number = digits.iter().try_fold(0_u32, |number, digit| {
        let number = number * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        (number <= u32::from(u16::MAX)).then_some(number)
    });
    number.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_held_to_the_grammar() {
        for good in ["a", "A.example.", "a:80", "a:", "10.0.0.1:65535", "[::1]", "[::1]:80", "a_b", "x%2fy", "a:00080"]
        {
            assert!(valid_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "user@a",
            "user:pw@a",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:-1",
            "a:+1",
            "[::1",
            "::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[1.2.3.4]",
            "[v1.a]",
            "[]",
            "a%2",
            "a%zz",
            "a,b@c",
            "\u{e9}",
            "a\0",
            "a\t",
            "<a>",
            "a:99999999999999999999",
        ] {
            assert!(!valid_host(bad.as_bytes()), "{bad}");
        }
        assert!(!valid_host(b"a\xff"));
    }

    #[test]
    fn ports_are_split_off() {
        assert_eq!(split_port("a"), ("a", None));
        assert_eq!(split_port("a:80"), ("a", Some(80)));
        assert_eq!(split_port("a:"), ("a", None));
        assert_eq!(split_port("[::1]"), ("[::1]", None));
        assert_eq!(split_port("[::1]:8080"), ("[::1]", Some(8080)));
    }
}
