//! Bodies: where they end, and what of the bytes is theirs.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{BodyLength, Malformed};

/// Bytes of one chunk-size line with its extensions, which are read and dropped (RFC 9112, section 7.1.1).
const MAX_CHUNK_LINE: usize = 1024;
/// Bytes of extensions in one body: without a bound, they are a way to send for ever without sending anything.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;
/// Bytes of a trailer section.
const MAX_TRAILER_BYTES: usize = 16 * 1024;
/// Fields of a trailer section.
const MAX_TRAILERS: usize = 64;

/// Takes a body off the bytes that arrive.
#[derive(Debug)]
pub(crate) struct BodyDecoder {
    state: State,
    extension_bytes: usize,
}

#[derive(Debug)]
enum State {
    Exact(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
    /// Nobody knows where it ends.
    Broken,
}

/// What [`BodyDecoder::decode`] found.
#[derive(Debug)]
pub(crate) enum Decoded {
    Data(Bytes),
    /// The body ends with these; next comes `Done`.
    Trailers(HeaderMap),
    /// More bytes have to be read.
    NeedMore,
    /// The body is over; what is left in the buffer belongs to the next message.
    Done,
}

impl BodyDecoder {
    pub(crate) fn new(length: BodyLength) -> Self {
        let state = match length {
            BodyLength::Empty => State::Done,
            BodyLength::Exact(length) => State::Exact(length),
            BodyLength::Chunked => State::ChunkSize,
            BodyLength::UntilClose => State::UntilClose,
        };
        BodyDecoder { state, extension_bytes: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Bytes that are still to come, where that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Exact(remaining) => Some(remaining),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// What the end of the connection means now: true where it is the proper end of the body.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// Takes the next part off `buffer`. What is malformed once stays so: there is no end of it, and no next message.
    pub(crate) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        self.decode_next(buffer).inspect_err(|_| self.state = State::Broken)
    }

    fn decode_next(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            match &mut self.state {
                State::Done => return Ok(Decoded::Done),
                State::Broken => return Err(Malformed("the body has been malformed before")),
                _ if buffer.is_empty() => return Ok(Decoded::NeedMore),
                State::Exact(remaining) => {
                    let data = take(buffer, remaining);
                    if *remaining == 0 {
                        self.state = State::Done;
                    }
                    return Ok(Decoded::Data(data));
                }
                State::UntilClose => return Ok(Decoded::Data(buffer.split().freeze())),
                State::ChunkSize => {
                    let Some(line) = take_line(buffer, MAX_CHUNK_LINE)? else { return Ok(Decoded::NeedMore) };
                    let (size, extension) = chunk_size(&line)?;
                    self.extension_bytes += extension;
                    if self.extension_bytes > MAX_EXTENSION_BYTES {
                        return Err(Malformed("too many chunk extensions"));
                    }
                    self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
                }
                State::ChunkData(remaining) => {
                    let data = take(buffer, remaining);
                    if *remaining == 0 {
                        self.state = State::ChunkEnd;
                    }
                    return Ok(Decoded::Data(data));
                }
                State::ChunkEnd => {
                    if buffer.len() < 2 {
                        return if buffer[0] == b'\r' { Ok(Decoded::NeedMore) } else { Err(CHUNK_END) };
                    }
                    if &buffer[..2] != b"\r\n" {
                        return Err(CHUNK_END);
                    }
                    buffer.advance(2);
                    self.state = State::ChunkSize;
                }
                State::Trailers => return self.decode_trailers(buffer),
            }
        }
    }

    fn decode_trailers(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        if buffer.starts_with(b"\r\n") {
            buffer.advance(2);
            self.state = State::Done;
            return Ok(Decoded::Done);
        }
        let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILERS];
        match httparse::parse_headers(buffer, &mut slots) {
            Ok(httparse::Status::Partial) if buffer.len() < MAX_TRAILER_BYTES => Ok(Decoded::NeedMore),
            Ok(httparse::Status::Complete((length, fields))) if length <= MAX_TRAILER_BYTES => {
                if has_bare_line_end(&buffer[..length]) {
                    return Err(Malformed("a trailer line does not end with CRLF"));
                }
                let trailers = collect_trailers(fields)?;
                buffer.advance(length);
                self.state = State::Done;
                Ok(Decoded::Trailers(trailers))
            }
            Ok(_) => Err(Malformed("the trailer section is too long")),
            Err(_) => Err(Malformed("invalid trailer section")),
        }
    }
}

const CHUNK_END: Malformed = Malformed("a chunk does not end where its size says");

/// At most `remaining` bytes off `buffer`.
fn take(buffer: &mut BytesMut, remaining: &mut u64) -> Bytes {
    let length = usize::try_from(*remaining).unwrap_or(usize::MAX).min(buffer.len());
    *remaining -= length as u64;
    buffer.split_to(length).freeze()
}

/// A line without its end. A bare LF is no line end here: peers differ in that, and a request hides in between.
fn take_line(buffer: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, Malformed> {
    match memchr::memchr(b'\n', buffer) {
        Some(end) if end <= max => {
            let mut line = buffer.split_to(end + 1);
            line.truncate(end);
            if line.last() != Some(&b'\r') || line[..end - 1].contains(&b'\r') {
                return Err(Malformed("a chunk-size line does not end with CRLF"));
            }
            line.truncate(end - 1);
            Ok(Some(line))
        }
        None if buffer.len() <= max => Ok(None),
        _ => Err(Malformed("a chunk-size line is too long")),
    }
}

fn has_bare_line_end(lines: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', lines).any(|end| end == 0 || lines[end - 1] != b'\r')
}

/// The size, and how many bytes of extensions follow it.
fn chunk_size(line: &[u8]) -> Result<(u64, usize), Malformed> {
    const INVALID: Malformed = Malformed("invalid chunk size");
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 15 {
        return Err(INVALID);
    }
    let rest = &line[digits..];
    match rest.trim_ascii_start().first() {
        None | Some(b';') => {}
        Some(_) => return Err(INVALID),
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| INVALID)?;
    Ok((u64::from_str_radix(text, 16).map_err(|_| INVALID)?, rest.len()))
}

fn collect_trailers(fields: &[httparse::Header<'_>]) -> Result<HeaderMap, Malformed> {
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed("invalid trailer name"))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed("invalid trailer value"))?;
        trailers.append(name, value);
    }
    Ok(without_forbidden(trailers))
}

/// Trailers as they may go on. RFC 9110, section 6.5.1: what frames, routes or authenticates a message cannot come after
/// it.
pub(crate) fn without_forbidden(mut trailers: HeaderMap) -> HeaderMap {
    let forbidden: Vec<_> = trailers.keys().filter(|name| forbidden_in_trailers(name.as_str())).cloned().collect();
    for name in forbidden {
        trailers.remove(name);
    }
    trailers
}

fn forbidden_in_trailers(name: &str) -> bool {
    matches!(
        name,
        "content-length"
            | "transfer-encoding"
            | "host"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "upgrade"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "content-encoding"
            | "content-type"
            | "content-range"
            | "expect"
            | "forwarded"
    ) || ["x-forwarded-", "x-outrigger-"].iter().any(|prefix| name.starts_with(prefix))
}

/// How a body that the proxy sends is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body, and nothing said of it (a GET, a 204).
    None,
    /// As many bytes as `Content-Length` says; what it was before stays, so that HEAD and 304 keep theirs.
    Length(u64),
    Chunked,
    /// The connection closes after it.
    UntilClose,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data, trailers, and what is left of the bytes.
    type Whole = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// Decodes bytes that arrive in parts.
    fn decode(length: BodyLength, parts: &[&[u8]]) -> Result<Whole, Malformed> {
        let (mut decoder, mut buffer) = (BodyDecoder::new(length), BytesMut::new());
        let (mut data, mut trailers) = (Vec::new(), None);
        for part in parts {
            buffer.extend_from_slice(part);
            loop {
                match decoder.decode(&mut buffer)? {
                    Decoded::Data(bytes) => data.extend_from_slice(&bytes),
                    Decoded::Trailers(fields) => trailers = Some(fields),
                    Decoded::NeedMore | Decoded::Done => break,
                }
            }
        }
        assert!(decoder.is_done() || decoder.ends_with_connection(), "not at the end");
        Ok((data, trailers, buffer.to_vec()))
    }

    #[test]
    fn chunks_are_joined_and_the_next_message_is_left_alone() {
        let bytes = b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nx-sum: 7\r\n\r\nGET /";
        for cut in 0..bytes.len() {
            let (data, trailers, rest) = decode(BodyLength::Chunked, &[&bytes[..cut], &bytes[cut..]]).unwrap();
            assert_eq!((data.as_slice(), rest.as_slice()), (&b"hello!"[..], &b"GET /"[..]), "cut at {cut}");
            assert_eq!(trailers.unwrap()["x-sum"], "7");
        }
    }

    #[test]
    fn a_length_takes_that_much() {
        let (data, _, rest) = decode(BodyLength::Exact(3), &[b"ab", b"cd"]).unwrap();
        assert_eq!((data.as_slice(), rest.as_slice()), (&b"abc"[..], &b"d"[..]));
    }

    #[test]
    fn ambiguous_chunks_are_refused() {
        let endless = [b"1;".as_slice(), &[b'a'; 2000], b"\r\n"].concat();
        for bytes in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"5\r\nhelloX\r\n",
            b"5 5\r\nhello",
            b"-5\r\n",
            b"0x5\r\n",
            b"\r\n",
            b"5;a\rb\r\nhello",
            b"ffffffffffffffff\r\n",
            b"0\r\n bad: x\r\n\r\n",
            b"0\r\n\n",
            b"0\r\nx: y\n\r\n",
            &endless,
        ] {
            assert!(decode(BodyLength::Chunked, &[bytes]).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn trailers_cannot_change_the_message() {
        let (_, trailers, _) =
            decode(BodyLength::Chunked, &[b"0\r\nContent-Length: 5\r\nHost: x\r\nx-a: b\r\n\r\n"]).unwrap();
        assert_eq!(trailers.unwrap().len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_chunking_of_any_data_survives(chunks: Vec<Vec<u8>>, cut: proptest::sample::Index) {
            let mut wire = Vec::new();
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                super::super::chunk_start(chunk.len(), &mut wire);
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let cut = cut.index(wire.len());
            let (data, _, rest) = decode(BodyLength::Chunked, &[&wire[..cut], &wire[cut..]]).unwrap();
            proptest::prop_assert_eq!(data, chunks.concat());
            proptest::prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut decoder = BodyDecoder::new(BodyLength::Chunked);
            while let Ok(Decoded::Data(_)) = decoder.decode(&mut buffer) {}
        }
    }
}
