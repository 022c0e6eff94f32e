//! Heads, chunks and trailers as bytes.

use http::header::{self, HeaderMap};
use http::{Method, Response, StatusCode, Version};

use super::head::ReasonPhrase;
use super::{Framing, HeaderCase};

/// Appends a request's head. `Host` comes first, as RFC 9110, section 7.2 asks; framing fields are ours.
pub(crate) fn encode_request(
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    case: Option<&HeaderCase>,
    framing: Framing,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(host) = headers.get(header::HOST) {
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(host.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    write_fields(headers, case, |name| name == header::HOST || is_framing(name), out);
    write_framing(framing, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a response's head, to a client that speaks `version`.
///
/// Where there is no body to send, `Content-Length` says what it would have been and stays (HEAD, 304).
pub(crate) fn encode_response<B>(
    response: &Response<B>,
    framing: Framing,
    connection: Option<&'static str>,
    out: &mut Vec<u8>,
) {
    encode_status_line(response, out);
    let keeps_length = framing == Framing::None && !response.status().is_informational();
    let case = response.extensions().get::<HeaderCase>();
    write_fields(
        response.headers(),
        case,
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
    write_fields(trailers, None, is_framing, out);
    out.extend_from_slice(b"\r\n");
}

fn is_framing(name: &header::HeaderName) -> bool {
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

fn write_fields(
    headers: &HeaderMap,
    case: Option<&HeaderCase>,
    skip: impl Fn(&header::HeaderName) -> bool,
    out: &mut Vec<u8>,
) {
    for (name, value) in headers {
        if skip(name) {
            continue;
        }
        match case {
            Some(case) => case.write(name, out),
            None => super::case::write_usual(name, out),
        }
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}


#[cfg(test)]
mod tests {
    use super::*;

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
        encode_request(&Method::POST, "/", &headers, None, Framing::Chunked, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "POST / HTTP/1.1\r\nHost: a\r\nAccept: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
    }
}
