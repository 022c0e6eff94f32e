//! W3C trace context and request ids: continued where valid, begun where not, and left alone by a proxy that exports no
//! spans. Trace Context, level 1, sections 3 and 4.

use crate::support::client::once;
use crate::support::{Head, Proxy, Upstream, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A proxy that takes part in traces. Nobody listens at the collector's port.
#[track_caller]
fn tracing(upstream: &Upstream, keys: &str) -> Proxy {
    let config = "
telemetry: { traces: { otlp: \"http://127.0.0.1:1\", sample: 0 }, access_log: { path: \"@directory/access.log\", only: all } }
listeners: { inbound: { address: \"127.0.0.1:0\", upstream: \"@app\"@keys } }
";
    Proxy::start(config, &[("@app", &upstream.address()), ("@keys", &keys)])
}

/// What the upstream received of a request with these lines.
#[track_caller]
fn forwarded(proxy: &Proxy, upstream: &Upstream, lines: &str) -> Head {
    let index = upstream.requests().len();
    assert_eq!(once(proxy.address("inbound"), format!("GET / HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n")).status, 200);
    upstream.request(index).head
}

/// Trace id, parent id, flags.
#[track_caller]
fn parse(head: &Head) -> (String, String, u8) {
    let values = head.all("traceparent");
    assert_eq!(values.len(), 1, "{head}");
    let parts: Vec<&str> = values[0].split('-').collect();
    let fine =
        parts.len() == 4 && parts[0] == "00" && parts[1].len() == 32 && parts[2].len() == 16 && parts[3].len() == 2;
    assert!(fine, "traceparent: {}", values[0]);
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    assert!(parts[1..].iter().all(|part| hex(part)), "traceparent: {}", values[0]);
    assert!(parts[1].bytes().any(|byte| byte != b'0') && parts[2].bytes().any(|byte| byte != b'0'), "{}", values[0]);
    (parts[1].to_owned(), parts[2].to_owned(), u8::from_str_radix(parts[3], 16).unwrap())
}

#[test]
fn a_trace_begins_here_where_there_is_none() {
    let upstream = Upstream::ok();
    let proxy = tracing(&upstream, "");
    let (first, _, _) = parse(&forwarded(&proxy, &upstream, ""));
    let (second, _, _) = parse(&forwarded(&proxy, &upstream, ""));
    assert_ne!(first, second);
}

#[test]
fn a_trace_is_continued_under_a_new_parent() {
    let upstream = Upstream::ok();
    let proxy = tracing(&upstream, "");
    let lines =
        format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1,b=2\r\nTraceState: c=3\r\nbaggage: k=v\r\n");
    let head = forwarded(&proxy, &upstream, &lines);
    let (trace, parent, flags) = parse(&head);
    assert_eq!(trace, TRACE);
    assert_ne!(parent, PARENT, "the upstream's parent is this hop's span");
    assert_eq!(flags & 1, 1, "sampled stays sampled");
    assert_eq!(head.list("tracestate"), ["a=1", "b=2", "c=3"]);
    assert_eq!(head.get("baggage"), Some("k=v"));
    let (_, _, flags) = parse(&forwarded(&proxy, &upstream, &format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n")));
    assert_eq!(flags & 1, 0, "not sampled stays not sampled");
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known() {
    let upstream = Upstream::ok();
    let proxy = tracing(&upstream, "");
    let (trace, _, flags) =
        parse(&forwarded(&proxy, &upstream, &format!("traceparent: 01-{TRACE}-{PARENT}-09-and-more\r\n")));
    assert_eq!((trace.as_str(), flags & !0b11), (TRACE, 0), "unknown flags are zero in version 00");
}

#[test]
fn what_is_invalid_begins_a_new_trace_without_state() {
    let upstream = Upstream::ok();
    let proxy = tracing(&upstream, "");
    let cases = [
        format!("traceparent: ff-{TRACE}-{PARENT}-01\r\n"),
        format!("traceparent: 00-{}-{PARENT}-01\r\n", "0".repeat(32)),
        format!("traceparent: 00-{TRACE}-{}-01\r\n", "0".repeat(16)),
        format!("traceparent: 00-{}-{PARENT}-01\r\n", TRACE.to_uppercase()),
        format!("traceparent: 00-{TRACE}-{PARENT}-01-more\r\n"),
        format!("traceparent: 00-{TRACE}-{PARENT}\r\n"),
        format!("traceparent: 00-{TRACE}-{PARENT}-0g\r\n"),
        format!("traceparent: 01-{TRACE}-{PARENT}-01.more\r\n"),
        format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\n"),
        "traceparent: nonsense\r\n".to_owned(),
        "traceparent: \r\n".to_owned(),
        String::new(),
    ];
    for lines in cases {
        let head = forwarded(&proxy, &upstream, &format!("{lines}tracestate: a=1\r\n"));
        let (trace, _, _) = parse(&head);
        assert_ne!(trace, TRACE, "{lines:?}");
        assert!(!head.has("tracestate"), "{lines:?}: {head}");
    }
}

#[test]
fn a_bad_state_does_not_touch_the_trace() {
    let upstream = Upstream::ok();
    let proxy = tracing(&upstream, "");
    let (trace, _, _) = parse(&forwarded(
        &proxy,
        &upstream,
        &format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: ,,=,nonsense\r\n"),
    ));
    assert_eq!(trace, TRACE);
}

#[test]
fn an_edge_begins_a_trace_of_its_own() {
    let upstream = Upstream::ok();
    let proxy = tracing(&upstream, ", edge: true");
    let head = forwarded(&proxy, &upstream, &format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1\r\n"));
    let (trace, _, _) = parse(&head);
    assert_ne!(trace, TRACE);
    assert!(!head.has("tracestate"), "{head}");
}

#[test]
fn who_exports_nothing_leaves_traces_alone() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let sent = format!("00-{TRACE}-{PARENT}-01");
    let head = forwarded(&proxy, &upstream, &format!("traceparent: {sent}\r\ntracestate: a=1\r\nb3: 0\r\n"));
    assert_eq!(
        (head.get("traceparent"), head.get("tracestate"), head.get("b3")),
        (Some(&*sent), Some("a=1"), Some("0"))
    );
    let head = forwarded(&proxy, &upstream, "");
    assert!(!head.has("traceparent"), "an unsampled trace would silence the service's own sampler: {head}");
    eventually("both lines", || {
        let lines = proxy.log_lines();
        lines.len() == 2
            && lines.iter().any(|line| line["trace_id"] == TRACE)
            && lines.iter().any(|line| line["trace_id"].is_null())
    });
}

#[test]
fn an_edge_that_exports_nothing_lets_no_strangers_trace_in() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before_with(upstream.address(), ", edge: true");
    let lines = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1\r\nx-b3-sampled: 1\r\n");
    let head = forwarded(&proxy, &upstream, &lines);
    assert!(!head.has("traceparent") && !head.has("tracestate") && !head.has("x-b3-sampled"), "{head}");
}

#[test]
fn a_request_id_is_kept_or_made() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    assert_eq!(forwarded(&proxy, &upstream, "X-Request-Id: abc-1\r\n").all("x-request-id"), ["abc-1"]);
    let (first, second) = (forwarded(&proxy, &upstream, ""), forwarded(&proxy, &upstream, ""));
    let (first, second) = (first.get("x-request-id").unwrap(), second.get("x-request-id").unwrap());
    assert!(first.len() >= 16 && first != second, "{first} {second}");
    eventually("the id in the log", || proxy.log_lines().iter().any(|line| line["request_id"] == second));
}
