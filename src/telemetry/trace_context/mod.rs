//! A request's place in its trace: read from its headers, decided here where it begins here, and passed on.
//!
//! W3C Trace Context, level 1 (<https://www.w3.org/TR/trace-context-1/>) and level 2, which adds the *random* flag and
//! lets keys of `tracestate` begin with a digit; B3 where it is asked for. `baggage` passes untouched.
//!
//! A proxy that exports no spans takes no part: it passes on what it received, so that the callers' and the services'
//! spans stay each other's neighbours, and begins nothing, for a trace that begins unsampled silences every sampler
//! behind it.

mod b3;
mod sampling;
mod traceparent;
mod tracestate;

use http::{HeaderMap, HeaderName};

use self::b3::B3;
use self::traceparent::Traceparent;
use self::tracestate::Tracestate;
use super::ids::Ids;
use crate::config::model::Propagation;

pub use self::sampling::{Policy, Ratio};

/// Position in the trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What vendors carry along.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Where a request stands in its trace.
#[derive(Debug, Clone)]
pub struct TraceContext {
    /// Zeroes where the request is in no trace.
    trace_id: [u8; 32],
    parent_id: Option<[u8; 16]>,
    flags: u8,
    state: Tracestate,
    part: Part,
}

/// What we do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Pass on what was received; `drop` where that was a stranger's.
    None { drop: bool },
    /// A span for each attempt, or at least an id. `ours`: nobody before us has decided about the trace.
    Span { propagation: Propagation, ours: bool, restart: bool },
}

const NO_TRACE: [u8; 32] = [b'0'; 32];

impl TraceContext {
    /// The trace that the caller is in, or a new one: where there is none, where it is not valid, and where the caller
    /// is a stranger (`restart`). Without a `policy` none is begun.
    pub fn receive(headers: &HeaderMap, restart: bool, policy: Option<Policy>, ids: &mut Ids) -> Self {
        let Some(Policy { sampling, propagation }) = policy else { return Self::look(headers, restart) };
        let part = |ours| Part::Span { propagation, ours, restart };
        let mut decided = None;
        if !restart {
            if let Some(received) = Traceparent::receive(headers).filter(|_| propagation.w3c) {
                let Traceparent { trace_id, parent_id, flags } = received;
                let state = Tracestate::receive(headers);
                return TraceContext { trace_id, parent_id: Some(parent_id), flags, state, part: part(false) };
            }
            let b3 = propagation.b3.then(|| B3::single(headers)).flatten();
            let b3 = b3.or_else(|| propagation.b3_multi.then(|| B3::multi(headers)).flatten());
            if let Some(B3 { ids: Some((trace_id, parent_id)), sampled }) = b3 {
                let flags = u8::from(sampled.unwrap_or_else(|| sampling.takes(&trace_id)));
                let (state, ours) = (Tracestate::Remove, sampled.is_none());
                return TraceContext { trace_id, parent_id: Some(parent_id), flags, state, part: part(ours) };
            }
            decided = b3.and_then(|b3| b3.sampled);
        }
        let trace_id = ids.trace_id();
        let sampled = decided.unwrap_or_else(|| sampling.takes(&trace_id));
        let flags = traceparent::RANDOM | u8::from(sampled);
        // The tracestate of a trace that is not this one would be wrong.
        TraceContext { trace_id, parent_id: None, flags, state: Tracestate::Remove, part: part(decided.is_none()) }
    }

    /// Only what the log says of it.
    fn look(headers: &HeaderMap, restart: bool) -> Self {
        let (part, state) = (Part::None { drop: restart }, Tracestate::Keep);
        match Traceparent::receive(headers).filter(|_| !restart) {
            Some(Traceparent { trace_id, parent_id, flags }) => {
                TraceContext { trace_id, parent_id: Some(parent_id), flags, state, part }
            }
            None => TraceContext { trace_id: NO_TRACE, parent_id: None, flags: 0, state, part },
        }
    }

    /// Writes the context into the headers that it was received from, on their way to an endpoint. Each attempt is a
    /// span of its own and brings its own id.
    pub fn send(&self, headers: &mut HeaderMap, span_id: &[u8; 16]) {
        let Part::Span { propagation, restart, .. } = self.part else {
            if self.part == (Part::None { drop: true }) {
                headers.remove(TRACEPARENT);
                headers.remove(TRACESTATE);
                b3::remove(headers);
            }
            return;
        };
        if restart {
            b3::remove(headers);
        }
        if propagation.w3c {
            let sent = Traceparent { trace_id: self.trace_id, parent_id: *span_id, flags: self.flags };
            headers.insert(TRACEPARENT, sent.to_value());
            self.state.send(headers);
        } else if restart {
            headers.remove(TRACEPARENT);
            headers.remove(TRACESTATE);
        }
        if propagation.b3 {
            b3::send_single(headers, &self.trace_id, span_id, self.is_sampled());
        }
        if propagation.b3_multi {
            b3::send_multi(headers, &self.trace_id, span_id, self.is_sampled());
        }
    }

    /// 32 lower-case hexadecimal digits; empty where the request is in no trace.
    pub fn trace_id(&self) -> &str {
        if self.trace_id == NO_TRACE { "" } else { std::str::from_utf8(&self.trace_id).unwrap_or_default() }
    }

    /// True where the request is in a trace, whoever began it.
    pub fn is_traced(&self) -> bool {
        self.trace_id != NO_TRACE
    }

    /// The caller's span, 16 lower-case hexadecimal digits; `None` where the trace begins here.
    pub fn parent_id(&self) -> Option<&str> {
        self.parent_id.as_ref().and_then(|id| std::str::from_utf8(id).ok())
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & traceparent::SAMPLED != 0
    }

    /// True where this request's spans go to the collector.
    pub fn is_recorded(&self) -> bool {
        self.is_sampled() && matches!(self.part, Part::Span { .. })
    }

    /// True where they do so at least if the request fails here: whoever is before us has not decided otherwise.
    pub fn records_failures(&self) -> bool {
        matches!(self.part, Part::Span { ours, .. } if ours || self.is_sampled())
    }

    /// Lets a span's id be needed only where somebody reads it.
    pub fn takes_part(&self) -> bool {
        matches!(self.part, Part::Span { .. })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";
    const SPAN: &[u8; 16] = b"00f067aa0ba902b7";
    /// Takes part, and records nothing that begins here.
    const NEVER: Policy = Policy { sampling: Ratio::NONE, propagation: Propagation::W3C };

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
        let context = TraceContext::receive(&headers, restart, Some(NEVER), &mut Ids::seeded(1, 2));
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
        let context = TraceContext::receive(&headers, false, Some(NEVER), &mut ids);
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
        let (most, almost, too_many) = (list(32), list(31), list(33));
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
            (vec![&most, "k0=2"], None),
            (vec![&almost, "k0=2"], Some(&almost)),
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
        let context = TraceContext::receive(&headers, false, Some(NEVER), &mut Ids::seeded(1, 2));
        context.send(&mut headers, SPAN);
        assert!(!headers.contains_key(TRACESTATE));
        assert_eq!(context.trace_id(), TRACE);
    }

    /// What goes out for what came in, where B3 is read too.
    fn pass_all(lines: &[(&'static str, &str)], restart: bool, share: f64) -> (TraceContext, HeaderMap) {
        let mut headers = headers(lines);
        let propagation = Propagation { w3c: true, b3: true, b3_multi: true };
        let policy = Policy { sampling: Ratio::new(share), propagation };
        let context = TraceContext::receive(&headers, restart, Some(policy), &mut Ids::seeded(1, 2));
        context.send(&mut headers, SPAN);
        (context, headers)
    }

    #[test]
    fn who_takes_no_part_changes_nothing() {
        let lines = [("traceparent", "nonsense"), ("tracestate", "a=1"), ("b3", "0"), ("baggage", "k=v")];
        let mut sent = headers(&lines);
        let context = TraceContext::receive(&sent, false, None, &mut Ids::seeded(1, 2));
        context.send(&mut sent, SPAN);
        assert_eq!(sent, headers(&lines));
        assert_eq!((context.trace_id(), context.parent_id()), ("", None));
        assert!(!context.is_recorded() && !context.records_failures());

        let traceparent = format!("00-{TRACE}-{PARENT}-01");
        let mut sent = headers(&[("traceparent", &traceparent)]);
        let context = TraceContext::receive(&sent, false, None, &mut Ids::seeded(1, 2));
        context.send(&mut sent, SPAN);
        assert_eq!(lines_of(&sent), [traceparent.as_str()], "the service's parent is the caller's span");
        assert_eq!(context.trace_id(), TRACE, "the log says which trace it was");
        assert!(!context.is_recorded(), "nobody would take the span");
    }

    #[test]
    fn who_takes_no_part_lets_no_strangers_trace_in() {
        let traceparent = format!("00-{TRACE}-{PARENT}-01");
        let mut sent =
            headers(&[("traceparent", &traceparent), ("tracestate", "a=1"), ("b3", "0"), ("x-b3-sampled", "1")]);
        let context = TraceContext::receive(&sent, true, None, &mut Ids::seeded(1, 2));
        context.send(&mut sent, SPAN);
        assert!(sent.is_empty(), "{sent:?}");
        assert_eq!(context.trace_id(), "");
    }

    #[test]
    fn b3_is_continued_and_said_beside_w3c() {
        for b3 in [
            &[("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1")][..],
            &[("x-b3-traceid", TRACE), ("x-b3-spanid", PARENT), ("x-b3-sampled", "1")],
        ] {
            let (context, sent) = pass_all(b3, false, 0.0);
            assert_eq!((context.trace_id(), context.parent_id()), (TRACE, Some(PARENT)));
            assert!(context.is_recorded());
            assert_eq!(sent["traceparent"], format!("00-{TRACE}-00f067aa0ba902b7-01"));
            assert_eq!(sent["b3"], format!("{TRACE}-00f067aa0ba902b7-1"));
            assert_eq!((&sent["x-b3-traceid"], &sent["x-b3-spanid"]), (&TRACE.parse().unwrap(), &sent["x-b3-spanid"]));
        }
    }

    #[test]
    fn w3c_comes_before_b3() {
        let traceparent = format!("00-{TRACE}-{PARENT}-00");
        let (context, sent) = pass_all(&[("traceparent", &traceparent), ("b3", "1")], false, 1.0);
        assert_eq!(context.trace_id(), TRACE);
        assert_eq!(sent["b3"], format!("{TRACE}-00f067aa0ba902b7-0"));
    }

    /// Who decides, and whether a failure here is recorded all the same.
    #[test]
    fn the_first_who_decides_is_obeyed() {
        let parent = |flags: &str| format!("00-{TRACE}-{PARENT}-{flags}");
        let (yes, no) = (parent("01"), parent("00"));
        let undecided = format!("{TRACE}-{PARENT}");
        for (lines, restart, share, recorded, failures) in [
            (&[][..], false, 0.0, false, true),
            (&[], false, 1.0, true, true),
            (&[("traceparent", yes.as_str())], false, 0.0, true, true),
            (&[("traceparent", no.as_str())], false, 1.0, false, false),
            (&[("traceparent", no.as_str())], true, 1.0, true, true),
            (&[("traceparent", yes.as_str())], true, 0.0, false, true),
            (&[("b3", "0")], false, 1.0, false, false),
            (&[("b3", "1")], false, 0.0, true, true),
            (&[("b3", undecided.as_str())], false, 0.0, false, true),
            (&[("b3", undecided.as_str())], false, 1.0, true, true),
        ] {
            let (context, _) = pass_all(lines, restart, share);
            let case = format!("{lines:?}, restart: {restart}, share: {share}");
            assert_eq!((context.is_recorded(), context.records_failures()), (recorded, failures), "{case}");
        }
    }

    fn lines_of(headers: &HeaderMap) -> Vec<&str> {
        headers.get_all(TRACEPARENT).iter().map(|value| value.to_str().unwrap()).collect()
    }
}
