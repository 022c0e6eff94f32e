//! Heads of messages: `httparse` splits the bytes, this file decides what they mean.
//!
//! Whatever two parties could read in two ways is refused, for that is how requests are smuggled
//! (RFC 9112, sections 6.1 to 6.3 and 11.2).

use std::hint::cold_path;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use memchr::memmem::Finder;

use super::{BodyLength, Malformed};
use crate::body::Body;

/// Header fields of one message. RFC 9110, section 5.4 leaves the number to us; hyper and nginx settle near 100.
const MAX_HEADERS: usize = 128;

/// `Via`, `X-Forwarded-*`, `X-Request-Id`, `Traceparent`, and one to spare.
const ADDED_TO_REQUEST: usize = 7;
/// `Via`.
const ADDED_TO_RESPONSE: usize = 1;

/// Why a head cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// Not HTTP, or not to be told apart from an attack.
    Malformed(Malformed),
    /// More bytes or fields than allowed.
    TooLarge,
    /// The request line alone is more than allowed.
    TargetTooLong,
}

#[cold]
fn malformed(what: &'static str) -> HeadError {
    HeadError::Malformed(Malformed(what))
}

/// A request's head, and what it says about the connection.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// Absolute-form is taken apart: the authority is in `Host`, the URI holds path and query. Its body is still empty,
    /// but has the bytes of the head as they came: headers are written from them where nobody changed them.
    ///
    /// On the heap, where it stays: whoever passes it on moves a pointer.
    pub(crate) request: Box<Request<Body>>,
    pub(crate) length: BodyLength,
    /// The client would send another request on this connection.
    pub(crate) keep_alive: bool,
    /// The client waits for a 100 before it sends the body.
    pub(crate) expects_continue: bool,
}

/// A response's head, and what it says about the connection.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    /// As in [`RequestHead`].
    pub(crate) response: Box<Response<Body>>,
    pub(crate) length: BodyLength,
    /// The endpoint would take another request on this connection.
    pub(crate) keep_alive: bool,
}

/// A reason phrase that is not the status's own; in a response's extensions.
#[derive(Clone, Debug)]
pub(crate) struct ReasonPhrase(pub(crate) Bytes);

/// Takes a request's head off `buffer`. `Ok(None)`: it has not arrived whole.
///
/// `scanned` remembers how far the buffer was searched for the head's end, so that bytes that trickle in are not
/// parsed again and again; 0 for a new message.
pub(crate) fn parse_request(
    buffer: &mut BytesMut,
    scanned: &mut usize,
    max_bytes: usize,
) -> Result<Option<RequestHead>, HeadError> {
    skip_empty_lines(buffer);
    let Some(head) = take_head(buffer, scanned, max_bytes)? else { return Ok(None) };
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    check_parsed(parsed.parse_with_uninit_headers(&head, &mut slots), &head)?;
    if has_bare_line_end(parsed.headers, &head) {
        return Err(malformed("a line that does not end with CRLF"));
    }
    let version = version_of(parsed.version);
    let method =
        Method::from_bytes(parsed.method.unwrap_or_default().as_bytes()).map_err(|_| malformed("invalid method"))?;
    let target = head.slice_ref(parsed.path.unwrap_or_default().as_bytes());
    let (mut headers, seen) = collect(parsed.headers, &head, ADDED_TO_REQUEST)?;
    let connection = Connection::read(&headers, seen);
    let uri = take_target(&method, target, &mut headers)?;
    check_host(&headers, version)?;
    let length = request_length(&mut headers, seen, version)?;
    // Behind a CONNECT that is refused comes what was meant for the tunnel.
    let keep_alive = version == Version::HTTP_11 && !connection.close && method != Method::CONNECT;
    let expects_continue = seen.expect
        && version == Version::HTTP_11
        && headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));

    let mut request = Box::new(Request::new(Body::empty()));
    request.body_mut().set_raw_head(head);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    Ok(Some(RequestHead { request, length, keep_alive, expects_continue }))
}

/// Takes a response's head off `buffer`. `Ok(None)`: it has not arrived whole.
///
/// `method` is that of the request: it decides whether there is a body.
pub(crate) fn parse_response(
    buffer: &mut BytesMut,
    scanned: &mut usize,
    max_bytes: usize,
    method: &Method,
) -> Result<Option<ResponseHead>, HeadError> {
    let Some(head) = take_head(buffer, scanned, max_bytes)? else { return Ok(None) };
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    // RFC 9112, section 5.1: space before a response's colon is stripped.
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    check_parsed(config.parse_response_with_uninit_headers(&mut parsed, &head, &mut slots), &head)?;
    let version = version_of(parsed.version);
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(|_| malformed("invalid status code"))?;
    let phrase = parsed.reason.filter(|&phrase| Some(phrase) != status.canonical_reason());
    let phrase = phrase.map(|phrase| head.slice_ref(phrase.as_bytes()));
    let (mut headers, seen) = collect(parsed.headers, &head, ADDED_TO_RESPONSE)?;
    let connection = Connection::read(&headers, seen);
    let (length, trustworthy) = response_length(&mut headers, seen, status, version, method)?;
    let keep_alive = trustworthy
        && !connection.close
        && length != BodyLength::UntilClose
        && (version == Version::HTTP_11 || connection.keep_alive);

    let mut response = Box::new(Response::new(Body::empty()));
    response.body_mut().set_raw_head(head);
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = headers;
    if let Some(phrase) = phrase {
        cold_path();
        response.extensions_mut().insert(ReasonPhrase(phrase));
    }
    Ok(Some(ResponseHead { response, length, keep_alive }))
}

/// RFC 9112, section 2.2: empty lines before a request are skipped.
fn skip_empty_lines(buffer: &mut BytesMut) {
    let empty = buffer.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
    if empty > 0 {
        let _ = buffer.split_to(empty);
    }
}

/// Takes the bytes up to the empty line that ends a head, once it is there.
fn take_head(buffer: &mut BytesMut, scanned: &mut usize, max_bytes: usize) -> Result<Option<Bytes>, HeadError> {
    // The end may straddle what was there before.
    let from = scanned.saturating_sub(3).min(buffer.len());
    let end = empty_line_end(&buffer[from..]).map(|end| from + end);
    if let Some(end) = end.filter(|end| *end <= max_bytes) {
        *scanned = 0;
        return Ok(Some(buffer.split_to(end).freeze()));
    }
    *scanned = buffer.len();
    if buffer.len() < max_bytes {
        return Ok(None);
    }
    cold_path();
    match memchr::memchr(b'\n', &buffer[..max_bytes]) {
        Some(_) => Err(HeadError::TooLarge),
        None => Err(HeadError::TargetTooLong),
    }
}

/// Where the first empty line ends, also where a line ends without its CR.
fn empty_line_end(bytes: &[u8]) -> Option<usize> {
    static WITH_CR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\r\n"));
    static WITHOUT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\n"));
    let with_cr = WITH_CR.find(bytes).map(|at| at + 3);
    let before = &bytes[..with_cr.unwrap_or(bytes.len())];
    WITHOUT.find(before).map(|at| at + 2).or(with_cr)
}

/// The parser has to see the end of the head where we saw it.
fn check_parsed(parsed: httparse::Result<usize>, head: &Bytes) -> Result<(), HeadError> {
    match parsed {
        Ok(httparse::Status::Complete(length)) if length == head.len() => Ok(()),
        Ok(_) => Err(malformed("the head does not end with its empty line")),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(error) => Err(malformed(describe(error))),
    }
}

/// Where one proxy sees the end of a line, another sees a part of a value, and a field hides in between. RFC 9112, section
/// 2.2 lets a server take a line that ends without its CR, but asks nobody to.
fn has_bare_line_end(fields: &[httparse::Header<'_>], head: &Bytes) -> bool {
    let follows_bare = |field: &httparse::Header<'_>| {
        let start = (field.name.as_ptr() as usize).checked_sub(head.as_ptr() as usize);
        start.and_then(|start| head.get(..start)).is_none_or(|before| !before.ends_with(b"\r\n"))
    };
    !head.ends_with(b"\r\n\r\n") || fields.iter().any(follows_bare)
}

fn version_of(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

fn describe(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "invalid header name",
        httparse::Error::HeaderValue => "invalid header value",
        httparse::Error::NewLine => "invalid line ending",
        httparse::Error::Status => "invalid status line",
        httparse::Error::Token => "invalid request line",
        httparse::Error::TooManyHeaders => "too many headers",
        httparse::Error::Version => "unknown HTTP version",
    }
}

/// The fields as a map, whose values are parts of `head`. `added` is room for fields that the proxy will add, so that
/// the map need not grow.
fn collect(fields: &[httparse::Header<'_>], head: &Bytes, added: usize) -> Result<(HeaderMap, Seen), HeadError> {
    let mut headers = HeaderMap::with_capacity(fields.len() + added);
    let mut seen = Seen::default();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed("invalid header name"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        let value = value.map_err(|_| malformed("invalid header value"))?;
        seen.note(&name);
        headers.try_append(name, value).map_err(|_| HeadError::TooLarge)?;
    }
    Ok((headers, seen))
}

/// Which of the fields that decide about the connection are there at all; most heads have none, and need no look-ups.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    connection: bool,
    content_length: bool,
    transfer_encoding: bool,
    expect: bool,
}

impl Seen {
    fn note(&mut self, name: &HeaderName) {
        self.connection |= name == header::CONNECTION;
        self.content_length |= name == header::CONTENT_LENGTH;
        self.transfer_encoding |= name == header::TRANSFER_ENCODING;
        self.expect |= name == header::EXPECT;
    }
}

/// What `Connection` says about the connection itself.
struct Connection {
    close: bool,
    keep_alive: bool,
}

impl Connection {
    fn read(headers: &HeaderMap, seen: Seen) -> Self {
        let mut connection = Connection { close: false, keep_alive: false };
        if !seen.connection {
            return connection;
        }
        for value in headers.get_all(header::CONNECTION) {
            for token in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                connection.close |= token.eq_ignore_ascii_case(b"close");
                connection.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        connection
    }
}

/// Reads the request target (RFC 9112, section 3.2); the authority of an absolute target replaces `Host`.
fn take_target(method: &Method, target: Bytes, headers: &mut HeaderMap) -> Result<Uri, HeadError> {
    let invalid = |_| malformed("invalid request target");
    if memchr::memchr(b'#', &target).is_some() {
        return Err(malformed("a request target has no fragment"));
    }
    if method == Method::CONNECT {
        cold_path();
        let authority = Authority::from_maybe_shared(target).map_err(invalid)?;
        if authority.port().is_none() || authority.as_str().contains('@') {
            return Err(malformed("CONNECT needs HOST:PORT"));
        }
        // RFC 9112, section 3.2.3: the target is where it goes, whatever Host says.
        if headers.get_all(header::HOST).iter().count() <= 1 {
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_| malformed("invalid authority"))?;
            headers.insert(header::HOST, host);
        }
        let mut parts = http::uri::Parts::default();
        parts.authority = Some(authority);
        return Uri::from_parts(parts).map_err(|_| malformed("invalid request target"));
    }
    if target.first() == Some(&b'/') || &target[..] == b"*" {
        if target.len() == 1 && target[0] == b'*' && method != Method::OPTIONS {
            return Err(malformed("only OPTIONS has the target *"));
        }
        let path = PathAndQuery::from_maybe_shared(target).map_err(invalid)?;
        return Ok(Uri::from(path));
    }
    cold_path();
    let uri = Uri::from_maybe_shared(target).map_err(invalid)?;
    let parts = uri.into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        return Err(malformed("invalid request target"));
    };
    if (scheme != Scheme::HTTP && scheme != Scheme::HTTPS) || authority.as_str().contains('@') {
        return Err(malformed("the request target's scheme or authority is not served here"));
    }
    let host =
        HeaderValue::from_str(authority.as_str()).map_err(|_| malformed("invalid authority in the request target"))?;
    // Several Host fields stay several, so that the check below refuses them.
    if headers.get_all(header::HOST).iter().count() <= 1 {
        headers.insert(header::HOST, host);
    }
    match parts.path_and_query {
        // RFC 9112, section 3.2.1: an empty path is sent as a slash, also before a query.
        Some(target) if target.as_str().starts_with('?') => {
            let target = ["/", target.as_str()].concat();
            PathAndQuery::from_maybe_shared(Bytes::from(target)).map(Uri::from).map_err(invalid)
        }
        // RFC 9112, section 3.2.4: OPTIONS for a server as a whole, through a proxy.
        Some(path) if method == Method::OPTIONS && path.as_str() == "/" && path.query().is_none() => {
            Ok(Uri::from(PathAndQuery::from_static("*")))
        }
        Some(path) => Ok(Uri::from(path)),
        None => Ok(Uri::from(PathAndQuery::from_static("/"))),
    }
}

/// RFC 9112, section 3.2: exactly one `Host` in HTTP/1.1, at most one before.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), HeadError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if crate::route::target::valid_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => Err(malformed("invalid Host")),
        (None, _) if version == Version::HTTP_10 => Ok(()),
        (None, _) => Err(malformed("no Host")),
        (Some(_), Some(_)) => Err(malformed("more than one Host")),
    }
}

fn request_length(headers: &mut HeaderMap, seen: Seen, version: Version) -> Result<BodyLength, HeadError> {
    if !seen.transfer_encoding {
        return Ok(match content_length(headers, seen)? {
            None | Some(0) => BodyLength::Empty,
            Some(length) => BodyLength::Exact(length),
        });
    }
    if version == Version::HTTP_10 {
        return Err(malformed("HTTP/1.0 has no Transfer-Encoding"));
    }
    if seen.content_length {
        return Err(malformed("both Transfer-Encoding and Content-Length"));
    }
    if !is_chunked(headers) {
        return Err(malformed("unknown Transfer-Encoding"));
    }
    Ok(BodyLength::Chunked)
}

/// How a response's body ends, and whether the connection can be trusted after it.
fn response_length(
    headers: &mut HeaderMap,
    seen: Seen,
    status: StatusCode,
    version: Version,
    method: &Method,
) -> Result<(BodyLength, bool), HeadError> {
    let tunnel = method == Method::CONNECT && status.is_success();
    if tunnel || status.is_informational() {
        cold_path();
        // RFC 9110, section 9.3.6 and RFC 9112, section 6.1: neither means anything here.
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::TRANSFER_ENCODING);
        return Ok((BodyLength::Empty, true));
    }
    let announced = content_length(headers, seen)?;
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
    if method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return Ok((BodyLength::Empty, true));
    }
    if !seen.transfer_encoding {
        return Ok((
            match announced {
                None => BodyLength::UntilClose,
                Some(0) => BodyLength::Empty,
                Some(length) => BodyLength::Exact(length),
            },
            true,
        ));
    }
    if !is_chunked(headers) || version == Version::HTTP_10 {
        return Err(malformed("unknown Transfer-Encoding"));
    }
    // RFC 9112, section 6.3: Transfer-Encoding wins; whoever sends both is not trusted with another request.
    headers.remove(header::CONTENT_LENGTH);
    Ok((BodyLength::Chunked, announced.is_none()))
}

/// Several equal values collapse into one, as RFC 9110, section 8.6 allows.
fn content_length(headers: &mut HeaderMap, seen: Seen) -> Result<Option<u64>, HeadError> {
    if !seen.content_length {
        return Ok(None);
    }
    let mut length = None;
    let mut fields = 0;
    let mut items = 0;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        fields += 1;
        for item in value.as_bytes().split(|&byte| byte == b',') {
            items += 1;
            let item = parse_decimal(item.trim_ascii()).ok_or_else(|| malformed("invalid Content-Length"))?;
            if length.is_some_and(|length| length != item) {
                return Err(malformed("differing Content-Length"));
            }
            length = Some(item);
        }
    }
    if items > 1
        && let Some(length) = length
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if fields > 0 && length.is_none() {
        return Err(malformed("invalid Content-Length"));
    }
    Ok(length)
}

/// Digits only: `str::parse` would take a plus sign.
fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')))
}

/// `chunked` alone: other codings would have to be understood to be passed on.
fn is_chunked(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Option<RequestHead>, HeadError> {
        parse_request(&mut BytesMut::from(text), &mut 0, 8192)
    }

    fn accepted(text: &str) -> RequestHead {
        request(text).unwrap().unwrap()
    }

    fn response(text: &str, method: Method) -> Result<Option<ResponseHead>, HeadError> {
        parse_response(&mut BytesMut::from(text), &mut 0, 8192, &method)
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "X: a\r\n folded\r\n",
            "X: a\rb\r\n",
            "X: a\nContent-Length: 3\r\n",
            "X: a\n",
            "X:\n",
            "Host: other\r\n",
            "X\0: a\r\n",
        ] {
            let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert!(matches!(request(&text), Err(HeadError::Malformed(_))), "{fields:?}");
        }
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.0\n\n",
        ] {
            assert!(matches!(request(text), Err(HeadError::Malformed(_))), "{text:?}");
        }
    }

    #[test]
    fn equal_lengths_collapse() {
        let head = accepted("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(head.length, BodyLength::Exact(5));
        assert_eq!(head.request.headers().get_all("content-length").iter().collect::<Vec<_>>(), ["5"]);
    }

    #[test]
    fn an_absolute_target_replaces_host() {
        let head = accepted("GET http://b:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head.request.headers()["host"], "b:81");
        assert_eq!(head.request.uri(), "/x?y");
        let head = accepted("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head.request.uri().path(), "*");
        let head = accepted("GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head.request.uri(), "/?q");
    }

    #[test]
    fn a_head_may_come_byte_by_byte() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let (mut buffer, mut scanned) = (BytesMut::new(), 0);
        for (at, byte) in text.iter().enumerate() {
            buffer.extend_from_slice(&[*byte]);
            let parsed = parse_request(&mut buffer, &mut scanned, 8192).unwrap();
            assert_eq!(parsed.is_some(), at == text.len() - 1, "{at}");
        }
        assert!(buffer.is_empty());
    }

    #[test]
    fn too_much_is_told_apart() {
        let long = "a".repeat(9000);
        assert_eq!(request(&format!("GET /{long}")).unwrap_err(), HeadError::TargetTooLong);
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}");
        assert_eq!(request(&text).unwrap_err(), HeadError::TooLarge);
        let many = "X: a\r\n".repeat(200);
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n");
        assert_eq!(request(&text).unwrap_err(), HeadError::TooLarge);
    }

    proptest::proptest! {
        #[test]
        fn the_first_empty_line_is_found(text in "[a\r\n]{0,24}") {
            let bytes = text.as_bytes();
            let naive = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').find_map(|at| match &bytes[at + 1..] {
                [b'\n', ..] => Some(at + 2),
                [b'\r', b'\n', ..] => Some(at + 3),
                _ => None,
            });
            proptest::prop_assert_eq!(empty_line_end(bytes), naive);
        }
    }

    #[test]
    fn the_end_of_a_response_is_found() {
        let length = |text: &str, method| response(text, method).unwrap().unwrap().length;
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(length(ok, Method::GET), BodyLength::Exact(5));
        assert_eq!(length(ok, Method::HEAD), BodyLength::Empty);
        assert_eq!(length(ok, Method::CONNECT), BodyLength::Empty);
        assert_eq!(length("HTTP/1.1 200 OK\r\n\r\n", Method::GET), BodyLength::UntilClose);
        assert_eq!(length("HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n", Method::GET), BodyLength::Empty);
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let both = response(both, Method::GET).unwrap().unwrap();
        assert_eq!((both.length, both.keep_alive), (BodyLength::Chunked, false));
        for fields in ["Content-Length: 5\r\nContent-Length: 6\r\n", "Transfer-Encoding: x\r\n"] {
            assert!(response(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), Method::GET).is_err(), "{fields}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse_request(&mut BytesMut::from(&bytes[..]), &mut 0, 64);
            let _ = parse_response(&mut BytesMut::from(&bytes[..]), &mut 0, 64, &Method::GET);
        }
    }
}
