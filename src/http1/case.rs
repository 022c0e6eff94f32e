//! How header names were written.
//!
//! `http::HeaderName` is lower case. Some old peers read names with regard to case, so between HTTP/1 and HTTP/1 names
//! go out as they came in. Nearly all messages write every name in `Title-Case` (with a few well-known exceptions),
//! so that is the default and only deviations are remembered.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderName;
use smallvec::SmallVec;

/// Names of one message that are not written the usual way. Travels in the message's extensions where not empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderCase {
    unusual: SmallVec<[(HeaderName, Bytes); 4]>,
}

impl HeaderCase {
    /// Remembers what stands at `written` in `head`, where it is not how [`write_usual`] would write it.
    pub(crate) fn record(&mut self, name: &HeaderName, head: &Bytes, written: Range<usize>) {
        if !is_usual(name, &head[written.clone()]) && self.find(name).is_none() {
            self.unusual.push((name.clone(), head.slice(written)));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unusual.is_empty()
    }

    /// Appends the name as it was written.
    pub(crate) fn write(&self, name: &HeaderName, out: &mut Vec<u8>) {
        match self.find(name) {
            Some(written) => out.extend_from_slice(written),
            None => write_usual(name, out),
        }
    }

    fn find(&self, name: &HeaderName) -> Option<&Bytes> {
        self.unusual.iter().find(|(unusual, _)| unusual == name).map(|(_, written)| written)
    }
}

/// The few names whose usual form is not `Title-Case`.
fn irregular(name: &HeaderName) -> Option<&'static [u8]> {
    Some(match name.as_str() {
        "etag" => b"ETag",
        "te" => b"TE",
        "dnt" => b"DNT",
        "www-authenticate" => b"WWW-Authenticate",
        "sec-websocket-accept" => b"Sec-WebSocket-Accept",
        "sec-websocket-key" => b"Sec-WebSocket-Key",
        "sec-websocket-version" => b"Sec-WebSocket-Version",
        "sec-websocket-extensions" => b"Sec-WebSocket-Extensions",
        "sec-websocket-protocol" => b"Sec-WebSocket-Protocol",
        "x-xss-protection" => b"X-XSS-Protection",
        _ => return None,
    })
}

/// Appends the name in `Title-Case`, or its well-known form.
pub(crate) fn write_usual(name: &HeaderName, out: &mut Vec<u8>) {
    if let Some(form) = irregular(name) {
        out.extend_from_slice(form);
        return;
    }
    let start = out.len();
    out.extend_from_slice(name.as_str().as_bytes());
    let mut at_start = true;
    for byte in &mut out[start..] {
        if at_start {
            byte.make_ascii_uppercase();
        }
        at_start = *byte == b'-';
    }
}

fn is_usual(name: &HeaderName, written: &[u8]) -> bool {
    if let Some(form) = irregular(name) {
        return form == written;
    }
    let mut at_start = true;
    written.iter().all(|&byte| {
        let usual = if at_start { !byte.is_ascii_lowercase() } else { !byte.is_ascii_uppercase() };
        at_start = byte == b'-';
        usual
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_survives() {
        for written in ["Content-Type", "content-type", "CONTENT-TYPE", "X-request-ID", "ETag", "etag", "Etag", "x-1-A"] {
            let name: HeaderName = written.parse().unwrap();
            let mut case = HeaderCase::default();
            case.record(&name, &Bytes::from_static(written.as_bytes()), 0..written.len());
            let mut out = Vec::new();
            case.write(&name, &mut out);
            assert_eq!(out, written.as_bytes());
        }
    }

    #[test]
    fn usual_forms_take_no_memory() {
        for written in ["Host", "User-Agent", "ETag", "WWW-Authenticate", "Sec-WebSocket-Key", "X-Forwarded-For"] {
            let mut case = HeaderCase::default();
            case.record(&written.parse().unwrap(), &Bytes::from_static(written.as_bytes()), 0..written.len());
            assert!(case.is_empty(), "{written}");
        }
    }
}
