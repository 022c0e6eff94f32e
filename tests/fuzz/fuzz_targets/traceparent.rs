//! Whatever comes in as `traceparent` and `tracestate`, what goes on is valid, and reads back as the same trace.
//!
//! The input is a block of header lines; a line that begins with `s` is a `tracestate`, any other a `traceparent`.

#![no_main]

use std::collections::HashSet;

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use outrigger::config::model::Propagation;
use outrigger::telemetry::ids::Ids;
use outrigger::telemetry::trace_context::{Policy, Ratio, TRACEPARENT, TRACESTATE, TraceContext};

const POLICY: Policy = Policy { sampling: Ratio::NONE, propagation: Propagation::W3C };
const SPAN: &[u8; 16] = b"00f067aa0ba902b7";

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').take(100) {
        let (name, value) = match line {
            [b's', value @ ..] => (TRACESTATE, value),
            value => (TRACEPARENT, value),
        };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let received = headers.get(TRACEPARENT).cloned();
    let mut ids = Ids::seeded(1, 2);
    let context = TraceContext::receive(&headers, false, Some(POLICY), &mut ids);
    context.send(&mut headers, SPAN);
    assert_traceparent(&headers, &context);
    assert_tracestate(&headers);
    match context.parent_id() {
        // Continued: both ids stand in what was received.
        Some(parent) => {
            let received = received.expect("a trace needs a header to be continued");
            let holds = |id: &str| received.as_bytes().windows(id.len()).any(|part| part == id.as_bytes());
            assert!(holds(context.trace_id()) && holds(parent));
        }
        None => assert!(!headers.contains_key(TRACESTATE) && !context.is_sampled()),
    }

    let again = TraceContext::receive(&headers, false, Some(POLICY), &mut ids);
    let sent = headers.clone();
    again.send(&mut headers, SPAN);
    assert_eq!(again.trace_id(), context.trace_id());
    assert_eq!(again.parent_id().map(str::as_bytes), Some(&SPAN[..]));
    assert_eq!(headers, sent, "what we send is passed on unchanged");
});

fn assert_traceparent(headers: &HeaderMap, context: &TraceContext) {
    assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
    let text = headers[TRACEPARENT].to_str().expect("ASCII");
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace_id, span_id, flags] = parts[..] else { panic!("{text}") };
    assert_eq!((version, span_id.as_bytes()), ("00", &SPAN[..]));
    assert_eq!(trace_id, context.trace_id());
    assert!(trace_id.len() == 32 && trace_id.bytes().any(|digit| digit != b'0'), "{text}");
    assert!(trace_id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{text}");
    assert!(matches!(flags, "00" | "01" | "02" | "03"), "{text}");
    assert_eq!(flags.ends_with(['1', '3']), context.is_sampled());
}

fn assert_tracestate(headers: &HeaderMap) {
    let mut lines = headers.get_all(TRACESTATE).iter();
    let Some(line) = lines.next() else { return };
    assert!(lines.next().is_none(), "one line");
    let text = line.to_str().expect("ASCII");
    let members: Vec<&str> = text.split(',').map(str::trim).filter(|member| !member.is_empty()).collect();
    assert!((1..=32).contains(&members.len()), "{text}");
    let keys: HashSet<&str> =
        members.iter().map(|member| member.split_once('=').expect("a key and a value").0).collect();
    assert_eq!(keys.len(), members.len(), "a key is there once: {text}");
}
