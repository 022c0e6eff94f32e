//! One event of `/events`, as far as this view needs it. What an older proxy does not say is empty.

use std::collections::BTreeMap;

use serde_json::Value;

/// Errors without a reason of ours: an endpoint has answered so.
const ANSWERS: &str = "failing answer";

/// How the proxy stood at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Event {
    /// Since the Unix epoch, in seconds.
    pub(super) time: f64,
    pub(super) version: String,
    pub(super) service: String,
    pub(super) workers: u64,
    pub(super) ready: bool,
    pub(super) phase: String,
    pub(super) warnings: Vec<String>,
    pub(super) generation: u64,
    /// Of the interval that the flows are about; 0 where they are sums since the start.
    pub(super) seconds: f64,
    pub(super) total: Flow,
    pub(super) in_flight: u64,
    pub(super) connections: u64,
    pub(super) routes: Vec<Route>,
    pub(super) upstreams: Vec<Upstream>,
}

/// What ended in the interval.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Flow {
    pub(super) count: u64,
    pub(super) errors: u64,
    /// Why, as far as there is a word for it.
    pub(super) reasons: BTreeMap<String, u64>,
    pub(super) times: Option<Times>,
    /// Since the start.
    pub(super) ever: u64,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Times {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Route {
    pub(super) listener: String,
    pub(super) route: String,
    pub(super) upstream: String,
    pub(super) flow: Flow,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) protocol: String,
    /// Attempts.
    pub(super) flow: Flow,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) breaker: Option<Breaker>,
    /// What went wrong when its endpoints were looked up last.
    pub(super) discovery_error: Option<String>,
    /// Since they were named last; `None` where they stand in the file.
    pub(super) discovery_age: Option<f64>,
    pub(super) connections: u64,
    pub(super) idle: u64,
    pub(super) requests: Usage,
    pub(super) waiting: u64,
    pub(super) retry_budget: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) used: u64,
    pub(super) max: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Breaker {
    pub(super) state: String,
    pub(super) seconds_left: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) weight: u64,
    pub(super) zone: String,
    pub(super) state: String,
    pub(super) in_flight: u64,
    pub(super) latency: Option<f64>,
    /// Attempts since it is known, and those that got no response.
    pub(super) requests: u64,
    pub(super) failures: u64,
    pub(super) health: String,
    pub(super) health_error: Option<String>,
    pub(super) ejections: u64,
    /// Until it is back.
    pub(super) ejected_for: Option<f64>,
    pub(super) ejected_why: Option<String>,
}

impl Event {
    /// `None` where this is no event of ours.
    pub(super) fn read(json: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(json).ok()?;
        let interval = value.get("interval")?;
        let mut flows: BTreeMap<&str, Flow> = items(&interval["upstreams"])
            .map(|flow| (flow["name"].as_str().unwrap_or_default(), attempts(flow)))
            .collect();
        let upstreams = items(&value["upstreams"]).map(|upstream| {
            let flow = upstream["name"].as_str().and_then(|name| flows.remove(name)).unwrap_or_default();
            Upstream::read(upstream, flow)
        });
        let listeners = || items(&interval["listeners"]);
        Some(Event {
            time: number(&value["time"]),
            version: text(&value["version"]),
            service: text(&value["service"]),
            workers: whole(&value["workers"]),
            ready: value["ready"] == true,
            phase: text(&value["phase"]),
            warnings: items(&value["warnings"]).map(text).collect(),
            generation: whole(&value["config"]["generation"]),
            seconds: number(&interval["seconds"]),
            total: requests(&interval["total"]),
            in_flight: listeners().map(|listener| whole(&listener["in_flight"])).sum(),
            connections: listeners().map(|listener| whole(&listener["connections"])).sum(),
            routes: items(&interval["routes"])
                .map(|route| Route {
                    listener: text(&route["listener"]),
                    route: text(&route["route"]),
                    upstream: text(&route["upstream"]),
                    flow: requests(route),
                })
                .collect(),
            upstreams: upstreams.collect(),
        })
    }
}

impl Upstream {
    fn read(value: &Value, flow: Flow) -> Self {
        let (discovery, limits) = (&value["discovery"], &value["limits"]);
        let breaker = value["circuit_breaker"].as_object().map(|breaker| Breaker {
            state: breaker.get("state").map(text).unwrap_or_default(),
            seconds_left: breaker.get("seconds_left").and_then(Value::as_f64),
        });
        Upstream {
            name: text(&value["name"]),
            protocol: text(&value["protocol"]),
            flow,
            endpoints: items(&value["endpoints"]).map(Endpoint::read).collect(),
            breaker,
            discovery_error: discovery["error"].as_str().map(printable),
            discovery_age: discovery["age_seconds"].as_f64(),
            connections: whole(&value["connections"]["open"]),
            idle: whole(&value["connections"]["idle"]),
            requests: Usage { used: whole(&limits["requests"]["used"]), max: whole(&limits["requests"]["max"]) },
            waiting: whole(&limits["waiting"]["used"]),
            retry_budget: number(&value["retries"]["budget_balance"]),
        }
    }
}

impl Endpoint {
    fn read(value: &Value) -> Self {
        Endpoint {
            address: text(&value["address"]),
            weight: whole(&value["weight"]),
            zone: text(&value["zone"]),
            state: text(&value["state"]),
            in_flight: whole(&value["in_flight"]),
            latency: value["latency_ms"].as_f64(),
            requests: whole(&value["requests"]),
            failures: whole(&value["failures"]),
            health: text(&value["health"]["state"]),
            health_error: value["health"]["error"].as_str().map(printable),
            ejections: whole(&value["ejection"]["times"]),
            ejected_for: value["ejection"]["seconds_left"].as_f64(),
            ejected_why: value["ejection"]["cause"].as_str().map(printable),
        }
    }
}

fn requests(value: &Value) -> Flow {
    let (errors, mut reasons) = (whole(&value["errors"]), counts(&value["reasons"]));
    let answers = errors.saturating_sub(reasons.values().sum());
    if answers > 0 {
        reasons.insert(ANSWERS.to_owned(), answers);
    }
    Flow { count: whole(&value["count"]), errors, reasons, times: times(&value["ms"]), ever: whole(&value["ever"]) }
}

fn attempts(value: &Value) -> Flow {
    let mut outcomes = counts(&value["outcomes"]);
    outcomes.remove("success");
    Flow {
        count: whole(&value["attempts"]),
        errors: outcomes.values().sum(),
        reasons: outcomes,
        times: times(&value["ms"]),
        ever: 0,
    }
}

fn counts(value: &Value) -> BTreeMap<String, u64> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(word, count)| (printable(word), whole(count))).collect()
}

fn times(value: &Value) -> Option<Times> {
    let at = |share: &str| value[share].as_f64();
    Some(Times { p50: at("p50")?, p90: at("p90")?, p99: at("p99")? })
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().map(printable).unwrap_or_default()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn whole(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Nothing that comes over the network may steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// An event with two routes and two upstreams, `second` seconds after the first.
    pub(in super::super) fn sample(second: u64) -> Event {
        let route = |route: &str, count: u64, errors: u64| {
            json!({
                "listener": "outbound", "route": route, "upstream": route, "count": count, "per_second": count,
                "errors": errors, "codes": {}, "reasons": if errors > 0 { json!({ "connect_failure": errors }) } else { json!({}) },
                "ms": { "p50": 1.25, "p90": 4.0, "p99": 12.5 }, "ever": count * (second + 1),
            })
        };
        let endpoint = |address: &str, state: &str, failures: u64| {
            json!({
                "address": address, "weight": 1, "state": state, "in_flight": 2, "latency_ms": 3.5,
                "requests": 100 * second, "failures": failures * second,
                "health": { "state": if state == "down" { "down" } else { "unchecked" }, "error": (state == "down").then_some("it answered 503") },
                "ejection": { "times": u64::from(state == "ejected"), "failures_in_a_row": 0, "seconds_left": (state == "ejected").then_some(12.0), "cause": (state == "ejected").then_some("failure_ratio") },
            })
        };
        let upstream = |name: &str, endpoints: Value, breaker: Value| {
            json!({
                "name": name, "protocol": "auto", "discovery": null, "endpoints": endpoints, "circuit_breaker": breaker,
                "connections": { "open": 4, "idle": 3, "http2": 0 },
                "limits": { "requests": { "used": 2, "max": 1024 }, "waiting": { "used": 0, "max": 1024 } },
                "retries": { "budget_balance": 10.0, "amplification": 1.0 },
            })
        };
        let flow = |name: &str, count: u64, outcomes: Value| json!({ "name": name, "attempts": count, "per_second": count, "outcomes": outcomes, "ms": { "p50": 1.0, "p90": 3.0, "p99": 9.0 } });
        let event = json!({
            "time": 1_000.0 + second as f64, "version": "0.1.0", "service": "orders", "workers": 2, "ready": true,
            "phase": "serving", "warnings": [], "config": { "generation": 7 },
            "interval": {
                "seconds": if second == 0 { 0.0 } else { 1.0 },
                "total": route("", 120, 20),
                "listeners": [{ "name": "outbound", "in_flight": 4, "connections": 9 }],
                "routes": [route("payments", 100, 0), route("orders", 20, 20)],
                "upstreams": [flow("payments", 100, json!({ "success": 100 })), flow("orders", 20, json!({ "connect_failure": 20 }))],
            },
            "upstreams": [
                upstream("payments", json!([endpoint("10.0.0.7:8080", "ready", 0), endpoint("10.0.0.8:8080", "down", 0)]), Value::Null),
                upstream("orders", json!([endpoint("10.0.0.9:8080", "ejected", 100)]), json!({ "state": "open", "seconds_left": 4.2 })),
            ],
        });
        Event::read(&event.to_string()).unwrap()
    }

    #[test]
    fn what_is_missing_is_empty_and_nothing_steers_the_terminal() {
        assert_eq!(Event::read("{}"), None);
        let event = Event::read(r#"{"interval":{"routes":[{"route":"a\u001b[2Jb"}]}}"#).unwrap();
        assert_eq!(event.routes[0].route, "a\u{fffd}[2Jb");
        assert_eq!((event.time, event.routes[0].flow.times), (0.0, None));
    }

    #[test]
    fn what_endpoints_answer_is_a_reason_too() {
        let event = r#"{"interval":{"total":{"count":9,"errors":5,"reasons":{"overflow":2}}}}"#;
        let reasons = Event::read(event).unwrap().total.reasons;
        assert_eq!(reasons, BTreeMap::from([("overflow".to_owned(), 2), (ANSWERS.to_owned(), 3)]));
    }

    #[test]
    fn flows_and_states_are_put_together() {
        let event = sample(1);
        let orders = &event.upstreams[1];
        assert_eq!((orders.flow.count, orders.flow.errors), (20, 20));
        assert_eq!(orders.breaker.as_ref().unwrap().seconds_left, Some(4.2));
        assert_eq!(orders.endpoints[0].ejected_for, Some(12.0));
        assert_eq!((event.in_flight, event.connections), (4, 9));
    }
}
