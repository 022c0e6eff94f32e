//! The request that is asked about: what a client would send for a method, a URL and headers.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use crate::config::model::BindAddress;
use crate::route::target::{split_port, valid_host};

/// A request that nobody sends.
#[derive(Debug)]
pub(crate) struct Asked {
    method: Method,
    /// In the form in which a proxy gets it.
    target: Uri,
    headers: HeaderMap,
    /// As it was written.
    pub(super) url: String,
    pub(super) https: bool,
    /// The host that the URL names: whom the client would connect to.
    host: String,
    /// The port that it names.
    pub(super) port: Option<u16>,
}

impl Asked {
    /// `url` is absolute (`http` where it names no scheme), a path, or the `host:port` of a CONNECT. Headers are as
    /// `Name: value`; as with curl, a `Host` goes over the URL's.
    ///
    /// # Errors
    /// A sentence that says what cannot be understood.
    pub(crate) fn parse<'h>(
        method: &str,
        url: &str,
        headers: impl IntoIterator<Item = &'h str>,
    ) -> Result<Self, String> {
        let method: Method =
            method.parse().map_err(|_| format!("`{method}` is no method; write GET, POST and so on"))?;
        let wrong = || format!("`{url}` is no URL; write http://payments/v1/refunds, or the path alone");
        let has_scheme = url.contains("://") || url.starts_with('/') || url == "*" || method == Method::CONNECT;
        let absolute = if has_scheme { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = absolute.parse().map_err(|_| wrong())?;
        let https = match uri.scheme_str() {
            None | Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            Some(other) => return Err(format!("`{other}` is none of http, https, ws and wss")),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if !authority.is_empty() && !valid_host(authority.as_bytes()) {
            return Err(format!("`{authority}` cannot stand in a Host; write host or host:port"));
        }
        let mut fields = HeaderMap::new();
        for header in headers {
            let (name, value) =
                header.split_once(':').ok_or_else(|| format!("`{header}` is no header; write `Name: value`"))?;
            let name: HeaderName = name.trim().parse().map_err(|_| format!("`{name}` is no header's name"))?;
            let value =
                HeaderValue::from_str(value.trim()).map_err(|_| format!("the value of `{name}` cannot be sent"))?;
            if name == HOST && !valid_host(value.as_bytes()) {
                return Err(format!("`{header}` holds no host; write `Host: payments`"));
            }
            fields.append(name, value);
        }
        if !fields.contains_key(HOST) && !authority.is_empty() {
            fields.insert(HOST, HeaderValue::from_str(authority).map_err(|_| wrong())?);
        }
        let (host, port) = split_port(authority);
        let target = match uri.path_and_query().filter(|_| method != Method::CONNECT) {
            Some(target) => Uri::from(target.clone()),
            None => uri.clone(),
        };
        Ok(Asked { host: host.to_owned(), port, target, method, headers: fields, url: url.to_owned(), https })
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn path(&self) -> &str {
        self.target.path()
    }

    pub(super) fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// True where the URL names the very address that somebody listens on.
    pub(super) fn is_at(&self, address: &BindAddress) -> bool {
        let (ip, port) = match address {
            BindAddress::AllInterfaces(port) => (None, *port),
            BindAddress::Tcp(address) => (Some(address.ip()).filter(|ip| !ip.is_unspecified()), address.port()),
            BindAddress::Unix(_) => return false,
        };
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let loopback = host.eq_ignore_ascii_case("localhost");
        let named: Option<std::net::IpAddr> = host.parse().ok();
        let same = match ip {
            Some(ip) => named == Some(ip) || loopback && ip.is_loopback(),
            None => loopback || named.is_some_and(|named| named.is_loopback()),
        };
        same && self.port == Some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_clients_send_them() {
        for (method, url, target, host) in [
            ("GET", "http://payments/v1?a=b", "/v1?a=b", Some("payments")),
            ("GET", "payments:8080", "/", Some("payments:8080")),
            ("GET", "/v1", "/v1", None),
            ("OPTIONS", "*", "*", None),
            ("CONNECT", "payments:443", "payments:443", Some("payments:443")),
            ("GET", "wss://[::1]:9/x", "/x", Some("[::1]:9")),
        ] {
            let asked = Asked::parse(method, url, []).unwrap();
            assert_eq!(asked.target.to_string(), target, "{url}");
            assert_eq!(asked.headers.get(HOST).map(|host| host.to_str().unwrap()), host, "{url}");
        }
        let asked = Asked::parse("GET", "http://127.0.0.1:15001/", ["Host: payments", "X-A:1"]).unwrap();
        assert_eq!(asked.headers[HOST], "payments");
        assert_eq!(asked.headers["x-a"], "1");
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for (method, url, header) in [
            ("G E T", "/", "a: b"),
            ("GET", "ftp://a/", "a: b"),
            ("GET", "http://user@a/", "a: b"),
            ("GET", "http://a/ b", "a: b"),
            ("GET", "/", "a"),
            ("GET", "/", "a b: c"),
            ("GET", "/", "Host: a/b"),
        ] {
            assert!(Asked::parse(method, url, [header]).is_err(), "{method} {url} {header}");
        }
    }

    #[test]
    fn the_proxys_own_address_is_known() {
        let at = |url: &str, address: &BindAddress| Asked::parse("GET", url, []).unwrap().is_at(address);
        let loopback = BindAddress::Tcp("127.0.0.1:15001".parse().unwrap());
        assert!(at("http://127.0.0.1:15001/", &loopback) && at("http://localhost:15001/", &loopback));
        assert!(!at("http://127.0.0.1:15002/", &loopback) && !at("http://payments:15001/", &loopback));
        assert!(at("http://[::1]:15006/", &BindAddress::AllInterfaces(15006)));
        assert!(!at("http://127.0.0.1/", &BindAddress::AllInterfaces(15006)));
    }
}
