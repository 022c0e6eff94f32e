//! What is decided by a request and its listener or route alone: requests go by it, and whoever asks beforehand what
//! would become of one is told by the same lines.

use http::header::{HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Uri};

use crate::config::model::{Direction, Mode, PathRewrite};
use crate::error::{Error, Reason};
use crate::route::Target;
use crate::route::rewrite::rewrite_path;
use crate::snapshot::{Action, Listener, Route, Snapshot};

/// Ports of a Host that names none.
pub(crate) const HTTP_PORT: u16 = 80;
pub(crate) const HTTPS_PORT: u16 = 443;

/// The host that a request is for.
#[inline]
pub(crate) fn host<B>(request: &Request<B>) -> &str {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| request.uri().authority().map(|authority| authority.as_str())).unwrap_or_default()
}

/// What routes look at. `port`: that the connection was going to, where it was redirected here.
pub(crate) fn target<B>(request: &Request<B>, default_port: u16, port: Option<u16>) -> Target<'_> {
    let (uri, host) = (request.uri(), host(request));
    Target { host, default_port, path: uri.path(), query: uri.query(), port, method: request.method() }
}

/// CONNECT is for the app beside us, and for nobody else. `local`: only this machine can call. `captured`: the kernel has
/// led the app's connection here, so it meant a proxy of its own, which is where the CONNECT goes on to.
pub(crate) fn takes_connect(
    snapshot: &Snapshot,
    listener: &Listener,
    route: Option<&Route>,
    local: bool,
    captured: bool,
) -> bool {
    if listener.mode == Mode::Tcp {
        return true;
    }
    let goes_on = |route: &Route| match &route.action {
        Action::Upstream(target) => snapshot.upstream(target.upstream).is_original,
        _ => false,
    };
    listener.direction == Direction::Outbound
        && route.is_some_and(|route| (local || captured) && route.names_host || captured && goes_on(route))
}

/// The path as the endpoint gets it.
///
/// # Errors
/// Where the client's path and the route's rewrite make none.
pub(crate) fn rewrite<B>(route: &Route, request: &mut Request<B>) -> Result<(), Error> {
    if !matches!(route.rewrite.path, PathRewrite::Keep)
        && let Some(target) = request.uri().path_and_query()
    {
        let rewritten = rewrite_path(&route.rewrite.path, &route.path, target)
            .map_err(|error| Error::downstream(Reason::BadRequest).because(error))?;
        if let Some(target) = rewritten {
            *request.uri_mut() = Uri::from(target);
        }
    }
    Ok(())
}

/// The Host that the endpoint gets.
pub(crate) fn set_host(route: &Route, headers: &mut HeaderMap) {
    if let Some(host) = &route.rewrite.host {
        headers.insert(HOST, host.clone());
    } else if !headers.contains_key(HOST) {
        // An HTTP/1.0 client need not send one; an HTTP/1.1 endpoint insists on it.
        headers.insert(HOST, HeaderValue::from_static("localhost"));
    }
}

/// Fields that proxies of this kind tell each other, and strangers neither say nor see.
pub(crate) fn drop_own_fields(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-outrigger-")).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

/// Removes a field however it is spelt: CGI, WSGI and PHP make `_` of `-`, and know one from the other no more.
pub(crate) fn drop_spellings(headers: &mut HeaderMap, field: &HeaderName) {
    let field = field.as_str().as_bytes();
    let is_one = |name: &&HeaderName| {
        let same = |(one, other): (&u8, &u8)| one == other || (*one, *other) == (b'_', b'-');
        name.as_str().len() == field.len() && name.as_str().as_bytes().iter().zip(field).all(same)
    };
    while let Some(name) = headers.keys().find(is_one).cloned() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_goes_in_every_spelling() {
        let names = ["x-some-field", "x_some_field", "x-some_field", "x-some-fields", "x.some-field", "x-some-fielt"];
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("a"));
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("b"));
        }
        drop_spellings(&mut headers, &HeaderName::from_static("x-some-field"));
        let mut kept: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["x-some-fields", "x-some-fielt", "x.some-field"]);
    }
}
