//! A line for people and grep: `key=value` pairs. What is not there is left out.

use super::headers::Logged;
use super::json;
use super::layout::{LabelledField, Layout};
use super::record::Record;
use super::timestamp::Timestamp;
use crate::config::model::AccessLogField as Field;
use crate::error::Reason;

pub(super) fn write(record: &Record<'_>, layout: &Layout, out: &mut Vec<u8>, timestamp: &mut Timestamp) {
    let begin = out.len();
    for LabelledField { field, label } in &layout.fields {
        let length = out.len();
        if length > begin {
            out.push(b' ');
        }
        if *field == Field::Ms {
            write_times(record, out);
            continue;
        }
        out.extend_from_slice(label.as_bytes());
        if !write_value(record, *field, layout, out, timestamp) {
            out.truncate(length);
        }
    }
    for (name, value) in record.headers.into_iter().flat_map(Logged::pairs) {
        if out.len() > begin {
            out.push(b' ');
        }
        out.extend_from_slice(b"header.");
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        word(out, &value);
    }
}

/// `ms=4.4 ms.connect=0.3`: the total is the one that is looked for.
fn write_times(record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"ms=");
    json::milliseconds(out, record.total);
    for (name, duration) in record.times() {
        if let Some(duration) = duration.filter(|_| name != "total") {
            out.extend_from_slice(b" ms.");
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            json::milliseconds(out, duration);
        }
    }
}

/// False where there is none.
fn write_value(
    record: &Record<'_>,
    field: Field,
    layout: &Layout,
    out: &mut Vec<u8>,
    timestamp: &mut Timestamp,
) -> bool {
    let some = |text: Option<&[u8]>, out: &mut Vec<u8>| {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return false };
        word(out, text);
        true
    };
    let number = |number: u64, out: &mut Vec<u8>| {
        json::integer(out, number);
        true
    };
    match field {
        Field::Time => {
            out.extend_from_slice(timestamp.format(record.time));
            true
        }
        Field::Listener => some(Some(record.listener.as_bytes()), out),
        Field::Client => record.client.is_some_and(|address| {
            json::bare_address(out, address);
            true
        }),
        Field::Route => some(record.route.map(str::as_bytes), out),
        Field::Upstream => some(record.upstream.map(str::as_bytes), out),
        Field::Endpoint => some(record.endpoint.map(str::as_bytes), out),
        Field::Method => some(Some(record.method.as_bytes()), out),
        Field::Host => some(record.host, out),
        Field::Path => some(Some(record.path(layout).as_bytes()), out),
        Field::Protocol => some(Some(record.protocol().as_bytes()), out),
        Field::Code => number(record.code.into(), out),
        Field::GrpcCode => record.grpc_code.is_some_and(|code| number(code.into(), out)),
        Field::Reason => some(record.reason.map(Reason::as_str).map(str::as_bytes), out),
        Field::Attempts => {
            json::integer(out, record.attempts.into());
            if let Some(refused) = record.retry_refused {
                out.extend_from_slice(b" retry_refused=");
                word(out, refused.as_bytes());
            }
            true
        }
        Field::BytesIn => number(record.bytes_in, out),
        Field::BytesOut => number(record.bytes_out, out),
        Field::Ms => false,
        Field::Tls => some(record.tls.map(str::as_bytes), out),
        Field::Identity => some(record.identity.map(str::as_bytes), out),
        Field::TraceId => some(Some(record.trace_id.as_bytes()), out),
        Field::RequestId => some(Some(record.request_id.as_bytes()), out),
        Field::Generation => number(record.generation, out),
    }
}

/// As it is, or in quotes and escaped as in JSON where a space or a quote would make two of it.
fn word(out: &mut Vec<u8>, text: &[u8]) {
    if text.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=')) && text.len() <= 4096 {
        out.extend_from_slice(text);
    } else {
        json::string(out, text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::example;
    use super::*;
    use crate::config::model::AccessLogFormat;

    fn line(record: &Record<'_>, layout: &Layout) -> String {
        let mut out = Vec::new();
        record.write(layout, &mut out, &mut Timestamp::new());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn headers_follow_the_fields() {
        let mut headers = http::HeaderMap::new();
        headers.insert("user-agent", http::HeaderValue::from_static("curl/8.5.0 (x)"));
        let logged = Logged::of(&[http::header::USER_AGENT, http::header::REFERER], &headers);
        let layout = Layout::new(AccessLogFormat::Text, &[Field::Path], false);
        let record = Record { headers: logged.as_deref(), ..example() };
        assert_eq!(line(&record, &layout), "path=/v1/x header.user-agent=\"curl/8.5.0 (x)\"\n");
    }

    #[test]
    fn a_line_is_pairs_of_what_there_is() {
        let layout = Layout::new(AccessLogFormat::Text, &Field::ALL, false);
        let expected = "time=2026-02-28T23:59:59.999Z listener=outbound client=10.0.0.9 route=payments upstream=payments \
            endpoint=10.0.0.7:8080 method=GET host=payments path=/v1/x protocol=h2 code=200 attempts=1 bytes_in=0 \
            bytes_out=512 ms=4.4 ms.queued=0 ms.connect=0.3 ms.first_byte=4.1 \
            tls=1.3 identity=spiffe://mesh/ns/a/sa/web trace_id=0af7651916cd43dd8448eb211c80319c request_id=c0ffee generation=7\n";
        assert_eq!(line(&example(), &layout), expected);
    }

    #[test]
    fn what_a_client_writes_stays_one_word() {
        let fields = [Field::Host, Field::Path, Field::RequestId, Field::Route];
        let layout = Layout::new(AccessLogFormat::Text, &fields, true);
        let record = Record { host: Some(b"a b\n"), request_id: "x\"=y", route: None, ..example() };
        assert_eq!(line(&record, &layout), "host=\"a b\\n\" path=\"/v1/x?token=secret\" request_id=\"x\\\"=y\"\n");
    }
}
