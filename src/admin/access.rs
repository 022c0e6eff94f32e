//! Who may ask what.
//!
//! Everything in the pod can reach loopback, and so can every page in a developer's browser: by a form or script of a
//! foreign site (then `Origin` is foreign), or by a name of its own that it lets point to 127.0.0.1 (then `Host` is
//! foreign). Neither can be faked by a page, so both are looked at. A Unix socket is out of a browser's reach.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Request, StatusCode};

use super::token::Token;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which way a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `admin.socket`: its mode lets only its owner in.
    Socket,
    /// `admin.address` on loopback.
    Loopback,
    /// `admin.address` elsewhere; the configuration has seen to it that there is a token.
    Network,
    /// `metrics.address`: [`Exposure::Public`] and [`Exposure::Numbers`] only.
    Metrics,
}

/// What an answer gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exposure {
    /// Nothing. Probes come with any `Host`.
    Public,
    /// Names and numbers, which `metrics.address` would show to all. Still nothing for a foreign page.
    Numbers,
    /// It changes or reveals.
    Private,
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    NoToken,
    WrongToken,
    ForeignHost,
    ForeignOrigin,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Refusal::NoToken | Refusal::WrongToken => StatusCode::UNAUTHORIZED,
            Refusal::ForeignHost | Refusal::ForeignOrigin => StatusCode::FORBIDDEN,
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Refusal::NoToken => "send `Authorization: Bearer` with the token of admin.token_file, or use admin.socket",
            Refusal::WrongToken => "this is not the token of admin.token_file",
            Refusal::ForeignHost => {
                "ask with a Host of localhost, 127.0.0.1 or [::1], with the token, or by admin.socket"
            }
            Refusal::ForeignOrigin => "pages of other sites may not ask this",
        }
    }
}

/// Decides. A token is asked for only where it matters.
pub(super) fn judge<B>(
    way: Way,
    exposure: Exposure,
    request: &Request<B>,
    token: Option<&Token>,
) -> Result<(), Refusal> {
    let headers = request.headers();
    match (way, exposure) {
        (Way::Socket, _) | (Way::Metrics | Way::Network, Exposure::Numbers) | (_, Exposure::Public) => Ok(()),
        (Way::Metrics, Exposure::Private) => Err(Refusal::NoToken),
        (Way::Loopback | Way::Network, _) if headers.contains_key(AUTHORIZATION) && token.is_some() => {
            let right = bearer(headers).zip(token).is_some_and(|(presented, token)| token.is(presented));
            if right { Ok(()) } else { Err(Refusal::WrongToken) }
        }
        (Way::Network, Exposure::Private) => Err(Refusal::NoToken),
        (Way::Loopback, _) if !authority(request).is_some_and(|authority| is_loopback(&authority)) => {
            Err(Refusal::ForeignHost)
        }
        (Way::Loopback, _) if is_foreign(headers) => Err(Refusal::ForeignOrigin),
        (Way::Loopback, _) => Ok(()),
    }
}

/// RFC 6750, section 2.1; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = only(headers, &AUTHORIZATION)?.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

/// Whom the request means: its target's authority before its `Host` (RFC 9112, section 3.2.2).
fn authority<B>(request: &Request<B>) -> Option<Authority> {
    match request.uri().authority() {
        Some(authority) => Some(authority.clone()),
        None => Authority::try_from(only(request.headers(), &HOST)?).ok(),
    }
}

/// A page's requests say where the page is from, at least those that could do harm.
fn is_foreign(headers: &HeaderMap) -> bool {
    if headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site") {
        return true;
    }
    if !headers.contains_key(ORIGIN) {
        return false;
    }
    let origin = only(headers, &ORIGIN).and_then(|origin| std::str::from_utf8(origin).ok());
    let authority = origin
        .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")))
        .and_then(|authority| authority.parse::<Authority>().ok());
    !authority.is_some_and(|authority| is_loopback(&authority))
}

/// Names that no foreign site can have.
fn is_loopback(authority: &Authority) -> bool {
    // http's parser takes user information along; browsers never send it here.
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// The field's value where it is there once: of two, who knows which one counts?
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).map(|value| value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'f> = &'f [(&'f str, &'f str)];

    fn ask(way: Way, exposure: Exposure, fields: Fields<'_>, with_token: bool) -> Result<(), Refusal> {
        let mut request = Request::get("/config");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let token = Token::fixed("let-me-in");
        judge(way, exposure, &request.body(()).unwrap(), with_token.then_some(&token))
    }

    const RIGHT: (&str, &str) = ("authorization", "Bearer let-me-in");
    const LOCAL: (&str, &str) = ("host", "localhost:9901");
    const FOREIGN: (&str, &str) = ("host", "evil.test:9901");

    #[test]
    fn who_may_see_what_is_private() {
        use Refusal::{ForeignHost, ForeignOrigin, NoToken, WrongToken};
        use Way::{Loopback, Metrics, Network, Socket};
        let origin = |value| ("origin", value);
        let authorization = |value| ("authorization", value);
        let table: &[(Way, bool, Fields<'_>, Result<(), Refusal>)] = &[
            // The socket's mode is its protection.
            (Socket, false, &[], Ok(())),
            (Socket, true, &[("host", "outrigger")], Ok(())),
            // The metrics address shows nothing of it, whoever asks.
            (Metrics, true, &[LOCAL, RIGHT], Err(NoToken)),
            // The network needs the token.
            (Network, true, &[LOCAL], Err(NoToken)),
            (Network, true, &[FOREIGN, RIGHT], Ok(())),
            (Network, true, &[FOREIGN, authorization("bearer let-me-in")], Ok(())),
            (Network, true, &[FOREIGN, authorization("Bearer let-me-i")], Err(WrongToken)),
            (Network, true, &[FOREIGN, authorization("Bearer let-me-in!")], Err(WrongToken)),
            (Network, true, &[FOREIGN, authorization("Bearer ")], Err(WrongToken)),
            (Network, true, &[FOREIGN, authorization("Basic let-me-in")], Err(WrongToken)),
            (Network, true, &[FOREIGN, authorization("let-me-in")], Err(WrongToken)),
            (Network, true, &[FOREIGN, RIGHT, RIGHT], Err(WrongToken)),
            // Loopback needs a loopback host …
            (Loopback, false, &[LOCAL], Ok(())),
            (Loopback, true, &[LOCAL], Ok(())),
            (Loopback, false, &[("host", "LOCALHOST")], Ok(())),
            (Loopback, false, &[("host", "127.0.0.1")], Ok(())),
            (Loopback, false, &[("host", "127.3.2.1:80")], Ok(())),
            (Loopback, false, &[("host", "[::1]:9901")], Ok(())),
            (Loopback, false, &[("host", "[::ffff:127.0.0.1]")], Ok(())),
            (Loopback, false, &[], Err(ForeignHost)),
            (Loopback, false, &[LOCAL, LOCAL], Err(ForeignHost)),
            (Loopback, false, &[FOREIGN], Err(ForeignHost)),
            (Loopback, false, &[("host", "")], Err(ForeignHost)),
            (Loopback, false, &[("host", "127.0.0.1.evil.test")], Err(ForeignHost)),
            (Loopback, false, &[("host", "localhost.evil.test")], Err(ForeignHost)),
            (Loopback, false, &[("host", "evil.test@localhost")], Err(ForeignHost)),
            (Loopback, false, &[("host", "10.0.0.7:9901")], Err(ForeignHost)),
            (Loopback, false, &[("host", "[::2]")], Err(ForeignHost)),
            // … and no foreign page.
            (Loopback, false, &[LOCAL, origin("http://localhost:9901")], Ok(())),
            (Loopback, false, &[LOCAL, origin("https://127.0.0.1")], Ok(())),
            (Loopback, false, &[LOCAL, origin("http://[::1]:9901")], Ok(())),
            (Loopback, false, &[LOCAL, origin("http://evil.test")], Err(ForeignOrigin)),
            (Loopback, false, &[LOCAL, origin("http://localhost.evil.test:9901")], Err(ForeignOrigin)),
            (Loopback, false, &[LOCAL, origin("null")], Err(ForeignOrigin)),
            (Loopback, false, &[LOCAL, origin("")], Err(ForeignOrigin)),
            (Loopback, false, &[LOCAL, origin("chrome-extension://localhost")], Err(ForeignOrigin)),
            (Loopback, false, &[LOCAL, origin("http://localhost"), origin("http://localhost")], Err(ForeignOrigin)),
            (Loopback, false, &[LOCAL, ("sec-fetch-site", "cross-site")], Err(ForeignOrigin)),
            (Loopback, false, &[LOCAL, ("sec-fetch-site", "same-origin")], Ok(())),
            (Loopback, false, &[LOCAL, ("sec-fetch-site", "none")], Ok(())),
            // The token stands for all of this; a wrong one is never overlooked.
            (Loopback, true, &[FOREIGN, origin("http://evil.test"), RIGHT], Ok(())),
            (Loopback, true, &[LOCAL, authorization("Bearer nope")], Err(WrongToken)),
            // Without a token in the configuration, none is right and none is wrong.
            (Loopback, false, &[LOCAL, RIGHT], Ok(())),
            (Loopback, false, &[FOREIGN, RIGHT], Err(ForeignHost)),
            (Network, false, &[LOCAL, RIGHT], Err(NoToken)),
        ];
        for (way, with_token, fields, expected) in table {
            let verdict = ask(*way, Exposure::Private, fields, *with_token);
            assert_eq!(verdict, *expected, "{way:?}, {fields:?}, token: {with_token}");
        }
    }

    #[test]
    fn an_absolute_target_counts_before_the_host() {
        let request = Request::get("http://evil.test/config").header("host", "localhost").body(()).unwrap();
        assert_eq!(judge(Way::Loopback, Exposure::Private, &request, None), Err(Refusal::ForeignHost));
    }

    #[test]
    fn numbers_are_for_all_but_foreign_pages() {
        for way in [Way::Socket, Way::Network, Way::Metrics] {
            assert_eq!(ask(way, Exposure::Numbers, &[FOREIGN], true), Ok(()), "{way:?}");
        }
        assert_eq!(ask(Way::Loopback, Exposure::Numbers, &[LOCAL], true), Ok(()));
        assert_eq!(ask(Way::Loopback, Exposure::Numbers, &[FOREIGN], true), Err(Refusal::ForeignHost));
        assert_eq!(ask(Way::Loopback, Exposure::Numbers, &[FOREIGN, RIGHT], true), Ok(()));
    }

    #[test]
    fn probes_are_for_all() {
        for way in [Way::Socket, Way::Loopback, Way::Network, Way::Metrics] {
            let fields = [FOREIGN, ("origin", "http://evil.test"), ("authorization", "Bearer nope")];
            assert_eq!(ask(way, Exposure::Public, &fields, true), Ok(()), "{way:?}");
        }
    }
}
