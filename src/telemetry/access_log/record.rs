//! One request as one line.

use std::net::IpAddr;
use std::time::Duration;

use http::Version;

use super::headers::Logged;
use super::layout::{LabelledField, Layout};
use super::timestamp::Timestamp;
use super::{json, text};
use crate::config::model::{AccessLogField as Field, AccessLogFormat};
use crate::error::Reason;

/// What the log says of a request that has ended. Everything is borrowed: a line costs no allocation.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// When its first byte came, since the Unix epoch.
    pub time: Duration,
    /// The listener's name.
    pub listener: &'a str,
    /// Who asked, as far as trust reaches; `None` over a Unix socket.
    pub client: Option<IpAddr>,
    /// The route's name, where one matched.
    pub route: Option<&'a str>,
    /// The upstream's name, where it was sent to one.
    pub upstream: Option<&'a str>,
    /// The last attempt's endpoint.
    pub endpoint: Option<&'a str>,
    /// As sent.
    pub method: &'a str,
    /// As sent; any bytes.
    pub host: Option<&'a [u8]>,
    /// As sent, without the query.
    pub path: &'a str,
    /// With it, which may hold personal data: only written where the configuration asks for it.
    pub target: &'a str,
    /// What the client spoke.
    pub version: Version,
    /// The status that it got, 499 where it had left.
    pub code: u16,
    /// The gRPC status, where the request was gRPC.
    pub grpc_code: Option<u8>,
    /// Why it failed, where it did.
    pub reason: Option<Reason>,
    /// How often it was sent.
    pub attempts: u32,
    /// What stopped further retries, where something did.
    pub retry_refused: Option<&'static str>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Waited for a connection.
    pub queued: Option<Duration>,
    /// Made a connection; zero on one that was there.
    pub connect: Option<Duration>,
    /// From the request's first byte to the response's.
    pub first_byte: Option<Duration>,
    /// From the request's first byte to the response's last.
    pub total: Duration,
    /// The version of TLS that the client speaks; `None` in the clear.
    pub tls: Option<&'a str>,
    /// Whom the client's certificate names.
    pub identity: Option<&'a str>,
    /// 32 hexadecimal digits; empty where the request is in no trace.
    pub trace_id: &'a str,
    /// As sent on.
    pub request_id: &'a str,
    /// The configuration that it ran under.
    pub generation: u64,
    /// What it shows of the request's headers, where some were asked for.
    pub headers: Option<&'a Logged>,
}

impl Record<'_> {
    /// True where something went wrong: a reason, a status of 500 or more, or a failing gRPC status.
    pub fn is_error(code: u16, grpc_code: Option<u8>, reason: Option<Reason>) -> bool {
        reason.is_some() || code >= 500 || grpc_code.is_some_and(|code| code != 0)
    }

    /// Writes a line.
    pub(super) fn write(&self, layout: &Layout, out: &mut Vec<u8>, timestamp: &mut Timestamp) {
        match layout.format {
            AccessLogFormat::Json => self.write_json(layout, out, timestamp),
            AccessLogFormat::Text => text::write(self, layout, out, timestamp),
        }
        out.push(b'\n');
    }

    fn write_json(&self, layout: &Layout, out: &mut Vec<u8>, timestamp: &mut Timestamp) {
        for LabelledField { field, label } in &layout.fields {
            out.extend_from_slice(label.as_bytes());
            self.write_value(*field, layout, out, timestamp);
        }
        if layout.fields.is_empty() {
            out.push(b'{');
        }
        if let Some(headers) = self.headers {
            let label: &[u8] = if layout.fields.is_empty() { b"\"headers\":" } else { b",\"headers\":" };
            out.extend_from_slice(label);
            headers.write_json(out);
        }
        out.push(b'}');
    }

    fn write_value(&self, field: Field, layout: &Layout, out: &mut Vec<u8>, timestamp: &mut Timestamp) {
        match field {
            Field::Time => {
                out.push(b'"');
                out.extend_from_slice(timestamp.format(self.time));
                out.push(b'"');
            }
            Field::Listener => json::string(out, self.listener.as_bytes()),
            Field::Client => match self.client {
                Some(address) => json::address(out, address),
                None => out.extend_from_slice(b"null"),
            },
            Field::Route => json::string_or_null(out, self.route.map(str::as_bytes)),
            Field::Upstream => json::string_or_null(out, self.upstream.map(str::as_bytes)),
            Field::Endpoint => json::string_or_null(out, self.endpoint.map(str::as_bytes)),
            Field::Method => json::plain(out, self.method.as_bytes()),
            Field::Host => json::string_or_null(out, self.host),
            Field::Path => json::string(out, self.path(layout).as_bytes()),
            Field::Protocol => json::plain(out, self.protocol().as_bytes()),
            Field::Code => json::integer(out, self.code.into()),
            Field::GrpcCode => match self.grpc_code {
                Some(code) => json::integer(out, code.into()),
                None => out.extend_from_slice(b"null"),
            },
            Field::Reason => json::string_or_null(out, self.reason.map(|reason| reason.as_str().as_bytes())),
            Field::Attempts => {
                json::integer(out, self.attempts.into());
                if let Some(refused) = self.retry_refused {
                    out.extend_from_slice(b",\"retry_refused\":");
                    json::string(out, refused.as_bytes());
                }
            }
            Field::BytesIn => json::integer(out, self.bytes_in),
            Field::BytesOut => json::integer(out, self.bytes_out),
            Field::Ms => self.write_times(out),
            Field::Tls => json::string_or_null(out, self.tls.map(str::as_bytes)),
            Field::Identity => {
                json::string_or_null(out, self.identity.filter(|_| self.tls.is_some()).map(str::as_bytes))
            }
            Field::TraceId => match self.trace_id {
                "" => out.extend_from_slice(b"null"),
                id => json::plain(out, id.as_bytes()),
            },
            Field::RequestId => json::string(out, self.request_id.as_bytes()),
            Field::Generation => json::integer(out, self.generation),
        }
    }

    /// As this layout shows it.
    pub(super) fn path(&self, layout: &Layout) -> &str {
        if layout.queries { self.target } else { self.path }
    }

    /// Waiting, connecting, to the first byte of the response, to the last.
    pub(super) fn times(&self) -> [(&'static str, Option<Duration>); 4] {
        [
            ("queued", self.queued),
            ("connect", self.connect),
            ("first_byte", self.first_byte),
            ("total", Some(self.total)),
        ]
    }

    fn write_times(&self, out: &mut Vec<u8>) {
        const LABELS: [&str; 4] = ["{\"queued\":", ",\"connect\":", ",\"first_byte\":", ",\"total\":"];
        for (label, (_, duration)) in LABELS.iter().zip(self.times()) {
            out.extend_from_slice(label.as_bytes());
            match duration {
                Some(duration) => json::milliseconds(out, duration),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
    }

    /// What the client spoke.
    pub(super) fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_2 => "h2",
            Version::HTTP_10 => "h1.0",
            Version::HTTP_09 => "h0.9",
            Version::HTTP_3 => "h3",
            _ => "h1.1",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn example() -> Record<'static> {
        Record {
            time: Duration::from_millis(1_772_323_199_999),
            listener: "outbound",
            client: Some(IpAddr::from([10, 0, 0, 9])),
            route: Some("payments"),
            upstream: Some("payments"),
            endpoint: Some("10.0.0.7:8080"),
            method: "GET",
            host: Some(b"payments"),
            path: "/v1/x",
            target: "/v1/x?token=secret",
            version: Version::HTTP_2,
            code: 200,
            grpc_code: None,
            reason: None,
            attempts: 1,
            retry_refused: None,
            bytes_in: 0,
            bytes_out: 512,
            queued: Some(Duration::ZERO),
            connect: Some(Duration::from_micros(300)),
            first_byte: Some(Duration::from_micros(4_100)),
            total: Duration::from_micros(4_400),
            tls: Some("1.3"),
            identity: Some("spiffe://mesh/ns/a/sa/web"),
            trace_id: "0af7651916cd43dd8448eb211c80319c",
            request_id: "c0ffee",
            generation: 7,
            headers: None,
        }
    }

    /// What a line is where nothing is said about it.
    pub(crate) fn everything() -> Layout {
        Layout::new(AccessLogFormat::Json, &Field::ALL, false)
    }

    fn line(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        record.write(&everything(), &mut out, &mut Timestamp::new());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_line_of_the_contract() {
        let expected = concat!(
            r#"{"time":"2026-02-28T23:59:59.999Z","listener":"outbound","client":"10.0.0.9","route":"payments","upstream":"payments","#,
            r#""endpoint":"10.0.0.7:8080","method":"GET","host":"payments","path":"/v1/x","protocol":"h2","code":200,"#,
            r#""grpc_code":null,"reason":null,"attempts":1,"bytes_in":0,"bytes_out":512,"#,
            r#""ms":{"queued":0,"connect":0.3,"first_byte":4.1,"total":4.4},"tls":"1.3","identity":"spiffe://mesh/ns/a/sa/web","#,
            r#""trace_id":"0af7651916cd43dd8448eb211c80319c","request_id":"c0ffee","generation":7}"#,
            "\n"
        );
        assert_eq!(line(&example()), expected);
    }

    #[test]
    fn only_the_fields_that_were_asked_for_in_their_order() {
        let layout = Layout::new(AccessLogFormat::Json, &[Field::Path, Field::Code, Field::Ms], true);
        let mut out = Vec::new();
        example().write(&layout, &mut out, &mut Timestamp::new());
        let expected = concat!(
            r#"{"path":"/v1/x?token=secret","code":200,"#,
            r#""ms":{"queued":0,"connect":0.3,"first_byte":4.1,"total":4.4}}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn what_did_not_happen_is_null() {
        let record = Record {
            route: None,
            upstream: None,
            endpoint: None,
            host: None,
            queued: None,
            connect: None,
            first_byte: None,
            tls: None,
            ..example()
        };
        let value: serde_json::Value = serde_json::from_str(&line(&record)).unwrap();
        for key in ["route", "upstream", "endpoint", "host", "tls", "identity"] {
            assert_eq!(value[key], serde_json::Value::Null, "{key}");
        }
        assert_eq!(value["ms"], serde_json::json!({"queued": null, "connect": null, "first_byte": null, "total": 4.4}));
    }

    #[test]
    fn a_failure_says_why_and_hostile_bytes_stay_in_their_string() {
        let record = Record {
            code: 200,
            grpc_code: Some(14),
            reason: Some(Reason::ConnectFailure),
            retry_refused: Some("budget"),
            host: Some(b"a\",\"code\":1,\"\xff\n"),
            path: "/\u{1b}[31m",
            request_id: "\"}",
            version: Version::HTTP_10,
            ..example()
        };
        let text = line(&record);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["grpc_code"], 14);
        assert_eq!(value["reason"], "connect_failure");
        assert_eq!(value["retry_refused"], "budget");
        assert_eq!(value["host"], "a\",\"code\":1,\"\u{fffd}\n");
        assert_eq!(value["request_id"], "\"}");
        assert_eq!(value["protocol"], "h1.0");
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn errors_are_reasons_server_errors_and_failing_grpc() {
        assert!(!Record::is_error(404, None, None));
        assert!(!Record::is_error(200, Some(0), None));
        assert!(Record::is_error(200, Some(5), None));
        assert!(Record::is_error(500, None, None));
        assert!(Record::is_error(404, None, Some(Reason::NoRoute)));
    }
}
