//! W3C Trace Context, levels 1 and 2: continue the caller's trace or begin one, and pass it on.
//!
//! Level 1 is <https://www.w3.org/TR/trace-context-1/>; level 2 adds the *random* flag and lets keys of `tracestate`
//! begin with a digit. Nothing is exported yet, so a trace that begins here is not sampled: sampled would promise a
//! span that nobody has. `baggage` passes untouched.

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::ids::Ids;

/// Position in the trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What vendors carry along.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The request is recorded by the caller.
const SAMPLED: u8 = 0b01;

/// The trace id's last seven bytes are random (level 2).
const RANDOM: u8 = 0b10;

/// `00-` trace id `-` parent id `-` flags.
const LENGTH: usize = 55;

/// More list members make a `tracestate` invalid (level 1, section 3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// Where a request stands in its trace.
#[derive(Debug, Clone)]
pub struct TraceContext {
    trace_id: [u8; 32],
    parent_id: Option<[u8; 16]>,
    flags: u8,
    state: State,
}

/// What becomes of the `tracestate` that came in.
#[derive(Debug, Clone)]
enum State {
    Keep,
    Remove,
    Replace(HeaderValue),
}

impl TraceContext {
    /// The trace that the caller is in, or a new one: where there is none, where it is not valid, and where the caller
    /// is a stranger (`restart`).
    pub fn receive(headers: &HeaderMap, restart: bool, ids: &mut Ids) -> Self {
        let received = if restart { None } else { parse_only(headers, &TRACEPARENT) };
        let Some((trace_id, parent_id, flags)) = received else {
            return TraceContext { trace_id: ids.trace_id(), parent_id: None, flags: RANDOM, state: State::Remove };
        };
        TraceContext { trace_id, parent_id: Some(parent_id), flags, state: State::receive(headers) }
    }

    /// Writes the context into the headers that it was received from, on their way to an endpoint. Each attempt is a
    /// span of its own and brings its own id.
    pub fn send(&self, headers: &mut HeaderMap, span_id: &[u8; 16]) {
        headers.insert(TRACEPARENT, self.traceparent(span_id));
        match &self.state {
            State::Keep => {}
            State::Remove => {
                headers.remove(TRACESTATE);
            }
            State::Replace(value) => {
                headers.insert(TRACESTATE, value.clone());
            }
        }
    }

    /// 32 lower-case hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        std::str::from_utf8(&self.trace_id).unwrap_or_default()
    }

    /// The caller's span, 16 lower-case hexadecimal digits; `None` where the trace begins here.
    pub fn parent_id(&self) -> Option<&str> {
        self.parent_id.as_ref().and_then(|id| std::str::from_utf8(id).ok())
    }

    /// Whether the caller records the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    fn traceparent(&self, span_id: &[u8; 16]) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&self.trace_id);
        text[36..52].copy_from_slice(span_id);
        text[54] = b'0' + self.flags;
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

type Parent = ([u8; 32], [u8; 16], u8);

/// Two of them contradict each other, so they count as none.
fn parse_only(headers: &HeaderMap, name: &HeaderName) -> Option<Parent> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    parse(value.as_bytes())
}

/// Reads a `traceparent` (level 1, section 3.2). Flags that no version knows are zeroed.
fn parse(value: &[u8]) -> Option<Parent> {
    let value = value.trim_ascii();
    let (known, rest) = value.split_at_checked(LENGTH)?;
    let version = hex_byte(known[0], known[1]).filter(|version| *version != 0xff)?;
    // A later version may go on, but only after another dash.
    if !rest.is_empty() && (version == 0 || rest[0] != b'-') {
        return None;
    }
    if known[2] != b'-' || known[35] != b'-' || known[52] != b'-' {
        return None;
    }
    let flags = hex_byte(known[53], known[54])?;
    let (trace_id, parent_id) = (id(&known[3..35])?, id(&known[36..52])?);
    Some((trace_id, parent_id, flags & (SAMPLED | RANDOM)))
}

/// Lower-case hexadecimal digits, not all zero.
fn id<const LENGTH: usize>(text: &[u8]) -> Option<[u8; LENGTH]> {
    let is_valid = text.iter().all(|digit| hex_digit(*digit).is_some()) && text.iter().any(|digit| *digit != b'0');
    is_valid.then(|| text.try_into().ok()).flatten()
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    Some(hex_digit(high)? << 4 | hex_digit(low)?)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl State {
    /// We add no member and change none, so a valid list passes as it is. Several lines become one, of a key that is
    /// there twice the first (the latest) stays, and a list that is not valid goes, without harm to the trace.
    fn receive(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(TRACESTATE).iter();
        let Some(first) = lines.next() else { return State::Keep };
        let mut members: SmallVec<[&[u8]; MAX_MEMBERS]> = SmallVec::new();
        let mut is_changed = false;
        for (index, line) in std::iter::once(first).chain(lines).enumerate() {
            is_changed |= index > 0;
            for member in line.as_bytes().split(|byte| *byte == b',') {
                let member = trim(member);
                if member.is_empty() {
                    continue;
                }
                let Some(key) = key_of(member) else { return State::Remove };
                if members.iter().any(|other| key_of(other) == Some(key)) {
                    is_changed = true;
                } else if members.len() == MAX_MEMBERS {
                    return State::Remove;
                } else {
                    members.push(member);
                }
            }
        }
        match (members.is_empty(), is_changed) {
            (true, _) => State::Remove,
            (false, false) => State::Keep,
            (false, true) => HeaderValue::from_bytes(&members.join(&b","[..])).map_or(State::Remove, State::Replace),
        }
    }
}

/// Spaces and tabs around list members belong to the list (RFC 9110, section 5.6.1).
fn trim(mut member: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = member {
        member = rest;
    }
    member
}

/// The key of a valid list member (level 2, sections 3.3.1.3.1 and 3.3.1.3.2).
fn key_of(member: &[u8]) -> Option<&[u8]> {
    let (key, value) = member.split_at_checked(member.iter().position(|byte| *byte == b'=')?)?;
    let value = &value[1..];
    let (first, others) = key.split_first()?;
    let is_key = (first.is_ascii_lowercase() || first.is_ascii_digit())
        && key.len() <= 256
        && others.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'));
    let is_value =
        (1..=256).contains(&value.len()) && value.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'=');
    (is_key && is_value).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";
    const SPAN: &[u8; 16] = b"00f067aa0ba902b7";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// What goes out for what came in.
    fn pass(lines: &[(&'static str, &str)], restart: bool) -> (TraceContext, HeaderMap) {
        let mut headers = headers(lines);
        let context = TraceContext::receive(&headers, restart, &mut Ids::seeded(1, 2));
        context.send(&mut headers, SPAN);
        (context, headers)
    }

    fn lines(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    fn assert_new(context: &TraceContext, headers: &HeaderMap, case: &str) {
        assert_ne!(context.trace_id(), TRACE, "{case}");
        assert_eq!(context.parent_id(), None, "{case}");
        let expected = format!("00-{}-00f067aa0ba902b7-02", context.trace_id());
        assert_eq!(lines(headers, &TRACEPARENT), [expected], "{case}");
        assert!(!headers.contains_key(TRACESTATE), "{case}: the tracestate of another trace");
    }

    /// Version, ids and flags that continue the trace; the flags that go on.
    #[test]
    fn a_valid_traceparent_is_continued() {
        let rest = format!("{TRACE}-{PARENT}");
        let cases = [
            (format!("00-{rest}-00"), "00"),
            (format!("00-{rest}-01"), "01"),
            (format!("00-{rest}-02"), "02"),
            (format!("00-{rest}-03"), "03"),
            // Flags that are not known are zeroed.
            (format!("00-{rest}-09"), "01"),
            (format!("00-{rest}-f8"), "00"),
            (format!("00-{rest}-ff"), "03"),
            // Later versions: read as far as known, sent on as 00.
            (format!("01-{rest}-01"), "01"),
            (format!("cc-{rest}-01"), "01"),
            (format!("cc-{rest}-01-what-the-future-will-be-like"), "01"),
            (format!("fe-{rest}-01-"), "01"),
            // Optional white space belongs to the field, not to its value.
            (format!(" \t00-{rest}-01\t "), "01"),
        ];
        for (value, flags) in cases {
            let (context, sent) = pass(&[("traceparent", &value), ("tracestate", "congo=t61rcWkgMzE")], false);
            let expected = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
            assert_eq!(lines(&sent, &TRACEPARENT), [expected], "{value}");
            assert_eq!(lines(&sent, &TRACESTATE), ["congo=t61rcWkgMzE"], "{value}");
            assert_eq!((context.trace_id(), context.parent_id()), (TRACE, Some(PARENT)), "{value}");
            assert_eq!(context.is_sampled(), flags == "01" || flags == "03", "{value}");
        }
    }

    #[test]
    fn an_invalid_traceparent_begins_a_new_trace() {
        let cases = [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-"),
            format!("00-{TRACE}-{PARENT}-0"),
            // Longer than version 00 is.
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}-{PARENT}-01-what-the-future-will-not-be-like"),
            format!("00-{TRACE}-{PARENT}-01."),
            // A later version that goes on without a dash, or is cut.
            format!("cc-{TRACE}-{PARENT}-01.what-the-future-will-not-be-like"),
            format!("cc-{TRACE}-{PARENT}-0"),
            // Versions.
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("0-{TRACE}-{PARENT}-01"),
            format!("000-{TRACE}-{PARENT}-01"),
            format!(".0-{TRACE}-{PARENT}-01"),
            format!("0.-{TRACE}-{PARENT}-01"),
            format!("CC-{TRACE}-{PARENT}-01"),
            // Trace ids.
            format!("00-00000000000000000000000000000000-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-.{}-{PARENT}-01", &TRACE[1..]),
            format!("00-{}-{PARENT}-01", &TRACE[1..]),
            format!("00-0{TRACE}-{PARENT}-01"),
            // Parent ids.
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-{}-01", PARENT.to_uppercase()),
            format!("00-{TRACE}-.{}-01", &PARENT[1..]),
            format!("00-{TRACE}-{}-01", &PARENT[1..]),
            format!("00-{TRACE}-0{PARENT}-01"),
            // Flags.
            format!("00-{TRACE}-{PARENT}-.0"),
            format!("00-{TRACE}-{PARENT}-0."),
            format!("00-{TRACE}-{PARENT}-0A"),
            // Dashes.
            format!("00_{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}_{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}_01"),
            format!("00 -{TRACE}-{PARENT}-0"),
        ];
        for value in cases {
            let (context, sent) = pass(&[("traceparent", &value), ("tracestate", "congo=t61rcWkgMzE")], false);
            assert_new(&context, &sent, &value);
        }
    }

    #[test]
    fn none_or_two_begin_a_new_trace() {
        let valid = format!("00-{TRACE}-{PARENT}-01");
        for lines in [
            &[][..],
            &[("tracestate", "congo=t61rcWkgMzE")],
            &[("traceparent", &valid), ("traceparent", &valid), ("tracestate", "congo=1")],
        ] {
            let (context, sent) = pass(lines, false);
            assert_new(&context, &sent, &format!("{lines:?}"));
        }
    }

    #[test]
    fn a_strangers_trace_is_not_continued() {
        let (context, sent) =
            pass(&[("traceparent", &format!("00-{TRACE}-{PARENT}-01")), ("tracestate", "congo=1")], true);
        assert_new(&context, &sent, "restart");
    }

    #[test]
    fn each_attempt_is_a_span_of_its_own() {
        let mut headers = headers(&[("traceparent", &format!("00-{TRACE}-{PARENT}-01"))]);
        let mut ids = Ids::new();
        let context = TraceContext::receive(&headers, false, &mut ids);
        let mut sent = Vec::new();
        for _ in 0..2 {
            context.send(&mut headers, &ids.span_id());
            sent.extend(lines(&headers, &TRACEPARENT));
        }
        assert_eq!(sent.len(), 2);
        assert_ne!(sent[0], sent[1]);
        assert!(sent.iter().all(|value| value.starts_with(&format!("00-{TRACE}-")) && value.ends_with("-01")));
        assert!(sent.iter().all(|value| !value.contains(PARENT)));
    }

    #[test]
    fn baggage_passes_untouched() {
        let (_, sent) = pass(&[("baggage", "a=1;p, b = 2"), ("traceparent", "bad")], false);
        assert_eq!(sent["baggage"], "a=1;p, b = 2");
    }

    /// The tracestate that goes on for the lines that came in; `None` where it goes. The trace is always continued.
    #[test]
    fn tracestate_passes_if_it_is_valid() {
        let long_key = format!("{}=1", "z".repeat(256));
        let too_long_key = format!("{}=1", "z".repeat(257));
        let long_value = format!("a={}", "v".repeat(256));
        let too_long_value = format!("a={}", "v".repeat(257));
        let tenant = format!("{}@{}=1", "t".repeat(241), "v".repeat(14));
        let list = |count| (0..count).map(|key| format!("k{key}=1")).collect::<Vec<_>>().join(",");
        let (most, too_many) = (list(32), list(33));
        let all_keys = "abcdefghijklmnopqrstuvwxyz0123456789_-*/=1";
        let all_values: String = (' '..='~').filter(|char| !",=".contains(*char)).chain(['~']).collect();
        let all_values = format!("a=!{all_values}");
        let cases: Vec<(Vec<&str>, Option<&str>)> = vec![
            (vec!["foo=1"], Some("foo=1")),
            (vec!["foo=1,bar=2"], Some("foo=1,bar=2")),
            (vec!["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")),
            // Several lines are one list.
            (vec!["foo=1", "bar=2"], Some("foo=1,bar=2")),
            (vec!["foo=1,bar=2", "rojo=1, congo=2", "baz=3"], Some("foo=1,bar=2,rojo=1,congo=2,baz=3")),
            // Empty members and white space are allowed, and stay where nothing else changes.
            (vec!["foo=1,"], Some("foo=1,")),
            (vec![",foo=1,,bar=2"], Some(",foo=1,,bar=2")),
            (vec!["foo=1 \t , \t bar=2"], Some("foo=1 \t , \t bar=2")),
            (vec!["foo=1", "", "bar=2 , "], Some("foo=1,bar=2")),
            (vec![""], None),
            (vec![" , ,"], None),
            // Spaces inside a value, and before it, belong to it.
            (vec!["foo= 1 2"], Some("foo= 1 2")),
            // Of a key that is there twice, the first.
            (vec!["foo=1,foo=1"], Some("foo=1")),
            (vec!["foo=1,bar=2,foo=3"], Some("foo=1,bar=2")),
            (vec!["foo=1", "foo=2"], Some("foo=1")),
            // Keys.
            (vec![all_keys], Some(all_keys)),
            (vec!["0=1"], Some("0=1")),
            (vec!["fw529a3039@dt=1"], Some("fw529a3039@dt=1")),
            (vec![&tenant], Some(&tenant)),
            (vec![&long_key], Some(&long_key)),
            (vec![&too_long_key], None),
            (vec!["=1"], None),
            (vec!["foo"], None),
            (vec!["foo =1"], None),
            (vec!["FOO=1"], None),
            (vec!["foo.bar=1"], None),
            (vec!["@foo=1"], None),
            (vec!["_foo=1"], None),
            (vec!["foo=1,bar"], None),
            // Values.
            (vec![&all_values], Some(&all_values)),
            (vec![&long_value], Some(&long_value)),
            (vec![&too_long_value], None),
            (vec!["foo="], None),
            (vec!["foo= "], None),
            (vec!["foo=bar=baz"], None),
            (vec!["foo=1\t2"], None),
            (vec!["foo=1,bar=2=3", "baz=4"], None),
            // Length of the list.
            (vec![&most], Some(&most)),
            (vec![&too_many], None),
            (vec![&most, "k0=2"], Some(&most)),
            (vec![&most, "one-more=1"], None),
        ];
        let traceparent = format!("00-{TRACE}-{PARENT}-01");
        for (values, expected) in cases {
            let mut input = vec![("traceparent", traceparent.as_str())];
            input.extend(values.iter().map(|value| ("tracestate", *value)));
            let (context, sent) = pass(&input, false);
            assert_eq!(lines(&sent, &TRACESTATE), expected.into_iter().collect::<Vec<_>>(), "{values:?}");
            assert_eq!(context.trace_id(), TRACE, "{values:?}");
        }
    }

    #[test]
    fn a_tracestate_with_other_bytes_goes() {
        let mut headers = headers(&[("traceparent", &format!("00-{TRACE}-{PARENT}-01"))]);
        headers.insert(TRACESTATE, HeaderValue::from_bytes(b"foo=\xff").unwrap());
        let context = TraceContext::receive(&headers, false, &mut Ids::seeded(1, 2));
        context.send(&mut headers, SPAN);
        assert!(!headers.contains_key(TRACESTATE));
        assert_eq!(context.trace_id(), TRACE);
    }
}
