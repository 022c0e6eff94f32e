//! B3, where the configuration asks for it: one `b3` header, or several `x-b3-…` ones.
//!
//! <https://github.com/openzipkin/b3-propagation>. A trace id of 64 bits is continued with zeroes before it, as
//! OpenTelemetry does.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::traceparent::id;

const SINGLE: HeaderName = HeaderName::from_static("b3");
const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

const ALL: [HeaderName; 6] = [SINGLE, TRACE_ID, SPAN_ID, PARENT_SPAN_ID, SAMPLED, FLAGS];

/// What B3 headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct B3 {
    /// Trace and span of the caller; `None` where only the decision is said.
    pub(super) ids: Option<([u8; 32], [u8; 16])>,
    /// Whether the caller records; `None` where it leaves that to us.
    pub(super) sampled: Option<bool>,
}

impl B3 {
    /// `b3: TRACE-SPAN[-SAMPLED[-PARENT]]`, or only the decision.
    pub(super) fn single(headers: &HeaderMap) -> Option<Self> {
        let text = only(headers, &SINGLE)?;
        if let Some(sampled) = decision(text) {
            return Some(B3 { ids: None, sampled: Some(sampled) });
        }
        let mut parts = text.split(|byte| *byte == b'-');
        let ids = (trace_id(parts.next()?)?, id(parts.next()?)?);
        let sampled = match parts.next() {
            Some(text) => Some(decision(text)?),
            None => None,
        };
        if parts.next().is_some_and(|parent| id::<16>(parent).is_none()) || parts.next().is_some() {
            return None;
        }
        Some(B3 { ids: Some(ids), sampled })
    }

    /// The same in headers of their own.
    pub(super) fn multi(headers: &HeaderMap) -> Option<Self> {
        let debug = only(headers, &FLAGS) == Some(b"1");
        let sampled = match only(headers, &SAMPLED) {
            _ if debug => Some(true),
            Some(b"true") => Some(true),
            Some(b"false") => Some(false),
            Some(text) => decision(text),
            None => None,
        };
        let ids = match (only(headers, &TRACE_ID), only(headers, &SPAN_ID)) {
            (Some(trace), Some(span)) => Some((trace_id(trace)?, id(span)?)),
            _ => None,
        };
        (ids.is_some() || sampled.is_some()).then_some(B3 { ids, sampled })
    }
}

/// Writes the `b3` header.
pub(super) fn send_single(headers: &mut HeaderMap, trace_id: &[u8; 32], span_id: &[u8; 16], sampled: bool) {
    let mut text = [b'-'; 32 + 1 + 16 + 1 + 1];
    text[..32].copy_from_slice(trace_id);
    text[33..49].copy_from_slice(span_id);
    text[50] = if sampled { b'1' } else { b'0' };
    insert(headers, SINGLE, &text);
}

/// Writes the `x-b3-…` headers.
pub(super) fn send_multi(headers: &mut HeaderMap, trace_id: &[u8; 32], span_id: &[u8; 16], sampled: bool) {
    insert(headers, TRACE_ID, trace_id);
    insert(headers, SPAN_ID, span_id);
    insert(headers, SAMPLED, if sampled { b"1" } else { b"0" });
    // The parent of the span that is named now is ours to tell, to the collector.
    headers.remove(PARENT_SPAN_ID);
    headers.remove(FLAGS);
}

/// Takes all of it out: a stranger's trace is not ours.
pub(super) fn remove(headers: &mut HeaderMap) {
    for name in ALL {
        headers.remove(name);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(text) {
        headers.insert(name, value);
    }
}

/// `d` asks for more than to be recorded; we have no more.
fn decision(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"d" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

fn trace_id(text: &[u8]) -> Option<[u8; 32]> {
    if text.len() == 16 {
        let mut long = [b'0'; 32];
        long[16..].copy_from_slice(&id::<16>(text)?);
        return Some(long);
    }
    id(text)
}

/// Two that contradict each other count as none.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    Some(value.as_bytes().trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &[u8; 32] = b"80f198ee56343ba864fe8b2a57d3eff7";
    const SHORT: &[u8; 32] = b"000000000000000064fe8b2a57d3eff7";
    const SPAN: &[u8; 16] = b"e457b5a2e4d86bd1";

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_single_header_is_read() {
        let context = |trace: &[u8; 32], sampled| Some(B3 { ids: Some((*trace, *SPAN)), sampled });
        let decided = |sampled| Some(B3 { ids: None, sampled: Some(sampled) });
        let cases = [
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90", context(TRACE, Some(true))),
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1", context(TRACE, Some(true))),
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d", context(TRACE, Some(true))),
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0", context(TRACE, Some(false))),
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1", context(TRACE, None)),
            ("64fe8b2a57d3eff7-e457b5a2e4d86bd1-1", context(SHORT, Some(true))),
            ("0", decided(false)),
            ("1", decided(true)),
            ("d", decided(true)),
            ("", None),
            ("2", None),
            ("80f198ee56343ba864fe8b2a57d3eff7", None),
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-2", None),
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-x", None),
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90-1", None),
            ("00000000000000000000000000000000-e457b5a2e4d86bd1-1", None),
            ("80f198ee56343ba864fe8b2a57d3eff7-0000000000000000-1", None),
            ("80F198EE56343BA864FE8B2A57D3EFF7-E457B5A2E4D86BD1-1", None),
        ];
        for (value, expected) in cases {
            assert_eq!(B3::single(&headers(&[("b3", value)])), expected, "{value}");
        }
    }

    #[test]
    fn several_headers_are_read() {
        let ids = [("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"), ("x-b3-spanid", "e457b5a2e4d86bd1")];
        let context = |sampled| Some(B3 { ids: Some((*TRACE, *SPAN)), sampled });
        let decided = |sampled| Some(B3 { ids: None, sampled: Some(sampled) });
        for (more, with_ids, without) in [
            (&[][..], context(None), None),
            (&[("x-b3-sampled", "1")], context(Some(true)), decided(true)),
            (&[("x-b3-sampled", "true")], context(Some(true)), decided(true)),
            (&[("x-b3-sampled", "0")], context(Some(false)), decided(false)),
            (&[("x-b3-sampled", "false")], context(Some(false)), decided(false)),
            (&[("x-b3-flags", "1")], context(Some(true)), decided(true)),
            (&[("x-b3-parentspanid", "05e3ac9a4f6e3b90")], context(None), None),
        ] {
            assert_eq!(B3::multi(&headers(&[&ids, more].concat())), with_ids, "{more:?}");
            assert_eq!(B3::multi(&headers(more)), without, "{more:?}");
        }
        assert_eq!(B3::multi(&headers(&[("x-b3-traceid", "nonsense"), ids[1]])), None);
    }

    #[test]
    fn what_is_sent_reads_back() {
        let mut sent = headers(&[("x-b3-parentspanid", "05e3ac9a4f6e3b90"), ("x-b3-flags", "1")]);
        send_single(&mut sent, TRACE, SPAN, true);
        send_multi(&mut sent, TRACE, SPAN, false);
        assert_eq!(B3::single(&sent), Some(B3 { ids: Some((*TRACE, *SPAN)), sampled: Some(true) }));
        assert_eq!(B3::multi(&sent), Some(B3 { ids: Some((*TRACE, *SPAN)), sampled: Some(false) }));
        assert!(!sent.contains_key(PARENT_SPAN_ID) && !sent.contains_key(FLAGS));
        remove(&mut sent);
        assert!(sent.is_empty());
    }
}
