//! Heads, chunks and trailers as bytes.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use super::Framing;
use super::head::ReasonPhrase;

const LINE_END: &[u8] = b"\r\n";
/// Room for a head, so that the buffer need not grow line by line.
const HEAD: usize = 2 * 1024;

/// Appends a request's head. `Host` comes first, as RFC 9110, section 7.2 asks; framing fields are ours.
///
/// `raw` is the head that the headers were read from. Names that came from there are written as they were there: some
/// old peers read them with regard to case. All others are lower case, as in HTTP/2.
pub(crate) fn encode_request(
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    raw: &[u8],
    framing: Framing,
    out: &mut Vec<u8>,
) {
    out.reserve(HEAD);
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(host) = headers.get(header::HOST) {
        write_field("Host", host, raw, out);
    }
    write_fields(headers, raw, |name| name == header::HOST || is_framing(name), out);
    write_framing(framing, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a response's head, to a client that speaks `version`.
///
/// Where there is no body to send, `Content-Length` says what it would have been and stays (HEAD, 304). `raw` as in
/// [`encode_request`].
pub(crate) fn encode_response<B>(
    response: &Response<B>,
    raw: &[u8],
    framing: Framing,
    connection: Option<&'static str>,
    out: &mut Vec<u8>,
) {
    out.reserve(HEAD);
    encode_status_line(response, out);
    // RFC 9110, section 8.6: a 1xx or 204 has no Content-Length.
    let status = response.status();
    let keeps_length = framing == Framing::None && !status.is_informational() && status != StatusCode::NO_CONTENT;
    write_fields(
        response.headers(),
        raw,
        |name| {
            name == header::TRANSFER_ENCODING
                || (name == header::CONTENT_LENGTH && !keeps_length)
                || (name == header::CONNECTION && connection.is_some())
        },
        out,
    );
    write_framing(framing, out);
    if let Some(connection) = connection {
        out.extend_from_slice(b"Connection: ");
        out.extend_from_slice(connection.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn encode_status_line<B>(response: &Response<B>, out: &mut Vec<u8>) {
    let status = response.status();
    if status == StatusCode::OK && response.extensions().is_empty() {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    match response.extensions().get::<ReasonPhrase>() {
        Some(phrase) => out.extend_from_slice(&phrase.0),
        None => out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the size line of a chunk.
pub(crate) fn chunk_start(length: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for nibble in (0..nibbles).rev() {
        out.push(DIGITS[(length >> (nibble * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a chunked body without trailers.
pub(crate) fn chunk_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// Appends the end of a chunked body with trailers.
pub(crate) fn encode_trailers(trailers: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    write_fields(trailers, &[], is_framing, out);
    out.extend_from_slice(b"\r\n");
}

fn is_framing(name: &HeaderName) -> bool {
    name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING
}

fn write_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

fn write_fields(headers: &HeaderMap, raw: &[u8], skip: impl Fn(&HeaderName) -> bool, out: &mut Vec<u8>) {
    for (name, value) in headers {
        if !skip(name) {
            write_field(name.as_str(), value, raw, out);
        }
    }
}

fn write_field(name: &str, value: &HeaderValue, raw: &[u8], out: &mut Vec<u8>) {
    if let Some((field, ends)) = as_written(name, value.as_bytes(), raw) {
        out.extend_from_slice(field);
        if !ends {
            out.extend_from_slice(LINE_END);
        }
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The field as it stands in `raw`, from its name to its value or, where that follows at once (`true`), to the end of the
/// line; `None` where it does not stand there in the usual form.
///
/// A value that was read from `raw` is a part of it, so its name stands before it.
fn as_written<'raw>(name: &str, value: &[u8], raw: &'raw [u8]) -> Option<(&'raw [u8], bool)> {
    const SEPARATOR: &[u8] = b": ";
    let at = (value.as_ptr() as usize).checked_sub(raw.as_ptr() as usize)?;
    let end = at.checked_add(value.len())?;
    let start = at.checked_sub(SEPARATOR.len() + name.len())?;
    let (written, rest) = raw.get(start..end)?.split_at(name.len());
    if !rest.starts_with(SEPARATOR) || !is_name(written, name.as_bytes()) {
        return None;
    }
    let ends = raw[end..].starts_with(LINE_END);
    Some((&raw[start..if ends { end + LINE_END.len() } else { end }], ends))
}

/// As `eq_ignore_ascii_case`, eight bytes at a time: names are short, and there are a dozen of them in each message.
fn is_name(written: &[u8], name: &[u8]) -> bool {
    let ((eights, rest), (wanted, wanted_rest)) = (written.as_chunks::<8>(), name.as_chunks::<8>());
    eights.iter().zip(wanted).all(|(a, b)| {
        let (a, b) = (u64::from_ne_bytes(*a), u64::from_ne_bytes(*b));
        a == b || lower_case(a) == lower_case(b)
    }) && rest.eq_ignore_ascii_case(wanted_rest)
}

/// Of eight bytes in one word, the capital letters made small. The highest bit of each byte tells of it alone: no sum
/// below carries from one byte to the next.
const fn lower_case(bytes: u64) -> u64 {
    const ALL: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = 0x80 * ALL;
    let low = bytes & !HIGH;
    let from_a = low + (0x80 - b'A' as u64) * ALL;
    let beyond_z = low + (0x80 - b'Z' as u64 - 1) * ALL;
    let capitals = from_a & !beyond_z & !bytes & HIGH;
    bytes | capitals >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn names_are_compared_as_the_standard_library_does(
            a in proptest::collection::vec(0_u8.., 0..20),
            flips in proptest::collection::vec(0_u8..3, 20),
        ) {
            // Bit 5 is what capitals differ by; bit 7 is beyond ASCII.
            let b: Vec<u8> = a.iter().zip(flips).map(|(byte, flip)| byte ^ [0, 0x20, 0x80][usize::from(flip)]).collect();
            proptest::prop_assert_eq!(is_name(&a, &b), a.eq_ignore_ascii_case(&b));
            let upper = a.to_ascii_uppercase();
            proptest::prop_assert!(is_name(&a, &upper) && is_name(&upper, &a));
        }
    }

    #[test]
    fn chunk_sizes() {
        for (length, expected) in [(1usize, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (4096, "1000\r\n")] {
            let mut out = Vec::new();
            chunk_start(length, &mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn framing_is_ours_and_host_is_first() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, "x".parse().unwrap());
        headers.insert(header::CONTENT_LENGTH, "9".parse().unwrap());
        headers.insert(header::HOST, "a".parse().unwrap());
        let mut out = Vec::new();
        encode_request(&Method::POST, "/", &headers, b"", Framing::Chunked, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "POST / HTTP/1.1\r\nHost: a\r\naccept: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
    }

    #[test]
    fn names_go_out_as_they_came_in() {
        let text =
            "GET / HTTP/1.1\r\nHOST: a\r\nX-request-ID: 1\r\netag: 2\r\nTight:3\r\nX-Gone: 4\r\nX-Space: 6 \r\n\r\n";
        let head = crate::http1::parse_request(&mut bytes::BytesMut::from(text), &mut 0, 8192).unwrap().unwrap();
        let mut headers = head.request.headers().clone();
        headers.insert("x-gone", "5".parse().unwrap());
        let mut out = Vec::new();
        encode_request(&Method::GET, "/", &headers, head.request.body().raw_head(), Framing::None, &mut out);
        let out = String::from_utf8(out).unwrap();
        let mut lines: Vec<_> = out.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            ["", "GET / HTTP/1.1", "HOST: a", "X-Space: 6", "X-request-ID: 1", "etag: 2", "tight: 3", "x-gone: 5"]
        );
    }

    #[test]
    fn lines_that_end_without_cr_get_one() {
        let text = "HTTP/1.1 200 OK\nX-No-CR: 7\n\n";
        let head = crate::http1::parse_response(&mut bytes::BytesMut::from(text), &mut 0, 8192, &Method::GET);
        let response = head.unwrap().unwrap().response;
        let mut out = Vec::new();
        encode_response(&response, response.body().raw_head(), Framing::None, None, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "HTTP/1.1 200 OK\r\nX-No-CR: 7\r\n\r\n");
    }
}
