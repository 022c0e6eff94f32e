//! What was seen as an HTTP Archive, version 1.2 (<http://www.softwareishard.com/blog/har-12-spec/>).

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::telemetry::access_log::rfc3339;

/// The archive of these requests, each as the proxy shows it.
pub(super) fn archive(requests: &[Value]) -> Value {
    let entries: Vec<Value> = requests.iter().map(entry).collect();
    json!({ "log": {
        "version": "1.2",
        "creator": { "name": "outrigger", "version": env!("CARGO_PKG_VERSION") },
        "entries": entries,
    } })
}

fn entry(request: &Value) -> Value {
    let text = |key: &str| request[key].as_str().unwrap_or_default();
    let ms = |key: &str| request["ms"][key].as_f64();
    let version = match text("protocol") {
        "h2" => "HTTP/2",
        "h1.0" => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    let target = text("target");
    let query: Vec<Value> = target.split_once('?').map_or(Vec::new(), |(_, query)| {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            json!({ "name": name, "value": value })
        };
        query.split('&').map(pair).collect()
    });
    let (queued, connect) = (ms("queued").unwrap_or(0.0), ms("connect").unwrap_or(0.0));
    // Who left before anything came has waited all the time.
    let total = ms("total").unwrap_or(0.0);
    let first = ms("first_byte").unwrap_or(total);
    let wait = (first - queued - connect).max(0.0);
    let header = |of: &str, name: &str| {
        let pair = request[of].as_array()?.iter().find(|pair| pair[0] == name)?;
        pair[1].as_str()
    };
    let media = |of: &str| header(of, "content-type").unwrap_or("x-unknown");
    let mut entry = json!({
        "startedDateTime": date(request["time"].as_f64().unwrap_or_default()),
        "time": total,
        "request": {
            "method": text("method"),
            "url": format!("{}://{}{target}", text("scheme"), text("host")),
            "httpVersion": version,
            "cookies": [],
            "headers": headers(&request["request_headers"]),
            "queryString": query,
            "headersSize": -1,
            "bodySize": request["bytes_in"],
        },
        "response": {
            "status": request["code"],
            "statusText": "",
            "httpVersion": version,
            "cookies": [],
            "headers": headers(&request["response_headers"]),
            "content": { "size": request["bytes_out"], "mimeType": media("response_headers") },
            "redirectURL": header("response_headers", "location").unwrap_or_default(),
            "headersSize": -1,
            "bodySize": request["bytes_out"],
        },
        "cache": {},
        "timings": { "blocked": queued, "connect": connect, "send": 0, "wait": wait, "receive": (total - first).max(0.0) },
        "comment": comment(request),
    });
    if let Some(body) = request["request_body"].as_str().filter(|body| !body.is_empty()) {
        entry["request"]["postData"] = json!({ "mimeType": media("request_headers"), "text": body });
    }
    if let Some(body) = request["response_body"].as_str() {
        entry["response"]["content"]["text"] = json!(body);
    }
    entry
}

/// What the format has no place for: `listener inbound, route users, reason no_endpoint`.
fn comment(request: &Value) -> String {
    let keys = [
        ("listener", "listener"),
        ("route", "route"),
        ("endpoint", "endpoint"),
        ("reason", "reason"),
        ("trace_id", "trace"),
    ];
    let said = keys.into_iter().filter_map(|(key, name)| {
        let value = request[key].as_str().filter(|value| !value.is_empty())?;
        Some(format!("{name} {value}"))
    });
    said.collect::<Vec<_>>().join(", ")
}

fn headers(pairs: &Value) -> Vec<Value> {
    let pairs = pairs.as_array().map_or(&[][..], Vec::as_slice);
    pairs.iter().map(|pair| json!({ "name": pair[0], "value": pair[1] })).collect()
}

/// In UTC, with milliseconds.
fn date(unix: f64) -> String {
    rfc3339(UNIX_EPOCH + Duration::try_from_secs_f64(unix).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_what_the_format_asks_for() {
        let request = json!({
            "time": 1_772_323_199.999, "scheme": "http", "host": "payments", "target": "/v1?a=b", "method": "POST",
            "protocol": "h1.1", "code": 200, "bytes_in": 4, "bytes_out": 6, "listener": "out", "route": "pay",
            "ms": { "queued": 0.5, "connect": 0.5, "first_byte": 4.0, "total": 5.0 },
            "request_headers": [["x-user", "7"], ["content-type", "text/csv"]],
            "response_headers": [["content-type", "text/plain"], ["location", "/new"]],
            "request_body": "body", "response_body": "answer",
        });
        let mut left = request.clone();
        left["ms"] = json!({ "queued": 0.5, "connect": 0.5, "first_byte": null, "total": 5.0 });
        let archive = archive(&[request, left]);
        let entry = &archive["log"]["entries"][0];
        assert_eq!(entry["startedDateTime"], "2026-02-28T23:59:59.999Z");
        assert_eq!(entry["request"]["url"], "http://payments/v1?a=b");
        assert_eq!(entry["request"]["queryString"][0], json!({ "name": "a", "value": "b" }));
        assert_eq!(entry["request"]["postData"], json!({ "mimeType": "text/csv", "text": "body" }));
        assert_eq!(entry["response"]["redirectURL"], "/new");
        assert_eq!(entry["comment"], "listener out, route pay");
        assert_eq!(entry["response"]["content"], json!({ "size": 6, "mimeType": "text/plain", "text": "answer" }));
        assert_eq!((&entry["timings"]["wait"], &entry["timings"]["receive"]), (&json!(3.0), &json!(1.0)));
        let left = &archive["log"]["entries"][1]["timings"];
        assert_eq!((&left["wait"], &left["receive"]), (&json!(4.0), &json!(0.0)), "nothing had come");
    }
}
