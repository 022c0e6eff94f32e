//! The configuration in force: seen, laid over, and gone back from.

use std::rc::Rc;
use std::time::SystemTime;

use http::header::{ETAG, HeaderName, IF_MATCH};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::{Answer, data, failure, parameter, text, wants_json};
use crate::config::render::{Format, render};
use crate::config::{MAX_BYTES, as_json as long_form, read_duration};
use crate::reload::{Adopted, Refusal, Reload, Wish};
use crate::telemetry::access_log::rfc3339;

const GENERATION: HeaderName = HeaderName::from_static("x-outrigger-generation");
const HASH: HeaderName = HeaderName::from_static("x-outrigger-config-hash");
const SOURCE: HeaderName = HeaderName::from_static("x-outrigger-config-source");
const OVERRIDE: HeaderName = HeaderName::from_static("x-outrigger-config-override");

/// `GET /config`
#[derive(Debug, Serialize)]
struct InForce<'r, E> {
    generation: u64,
    hash: String,
    source: &'r str,
    /// What lies over the source; `null` where nothing does.
    r#override: Option<Override>,
    /// The hash of what the source holds, where it waits for the override's end.
    pending: Option<String>,
    /// Why what the source holds is not in force, or what somebody wanted last.
    refused: Option<Refused>,
    /// Keys that are read only when the proxy starts, and are written otherwise than they were then.
    held: Vec<String>,
    generations_alive: usize,
    /// Until it is no longer on probation; `null` where it is not.
    probation_seconds_left: Option<f64>,
    /// Why the proxy went back to it by itself.
    gone_back: Option<String>,
    effective: E,
}

#[derive(Debug, Serialize)]
struct Override {
    by: String,
    /// Until it ends by itself.
    seconds_left: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Refused {
    source: String,
    time: String,
    error: String,
}

pub(super) fn show(reload: &Reload, request: &Request<Incoming>) -> Answer {
    let (shown, source) = (reload.shown(), reload.source());
    let hash = shown.in_force.hash().to_string();
    let by = shown.override_.as_ref().map(|over| over.by.clone()).unwrap_or_default();
    let mut answer = if wants_json(request) {
        let over =
            shown.override_.map(|over| Override { by: over.by, seconds_left: over.left.map(|left| left.as_secs()) });
        let refused = shown.failure.or(shown.refusal).map(|failure| Refused {
            source: failure.source,
            time: time(failure.at),
            error: failure.error,
        });
        let in_force = InForce {
            generation: shown.generation,
            hash: hash.clone(),
            source: &source,
            r#override: over,
            pending: shown.pending,
            refused,
            held: shown.held,
            generations_alive: shown.generations_alive,
            probation_seconds_left: shown.probation_left.map(|left| left.as_secs_f64()),
            gone_back: shown.gone_back,
            effective: long_form(&shown.in_force.effective),
        };
        data(StatusCode::OK, &in_force)
    } else {
        text("application/yaml", shown.in_force.effective.clone())
    };
    let headers = answer.headers_mut();
    headers.insert(GENERATION, HeaderValue::from(shown.generation));
    let tag = format!("\"{}\"", shown.generation);
    for (name, value) in [(ETAG, tag.as_str()), (HASH, &hash), (SOURCE, &source), (OVERRIDE, &by)] {
        if let Ok(value) = HeaderValue::from_str(value)
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    }
    answer
}

pub(super) async fn put(reload: &Rc<Reload>, request: Request<Incoming>) -> Answer {
    let wish = match wish(&request) {
        Ok(wish) => wish,
        Err(message) => return failure(StatusCode::BAD_REQUEST, &message),
    };
    let json = wants_json(&request);
    let body = match Limited::new(request.into_body(), MAX_BYTES + 1).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return failure(StatusCode::PAYLOAD_TOO_LARGE, "a configuration is at most 1 MiB large"),
    };
    outcome(reload.put(body.to_vec(), wish).await, wish.dry_run, json)
}

pub(super) async fn end_override(reload: &Rc<Reload>, request: &Request<Incoming>) -> Answer {
    outcome(reload.end_override().await, false, wants_json(request))
}

pub(super) async fn roll_back(reload: &Rc<Reload>, request: &Request<Incoming>) -> Answer {
    let to = match parameter(request, "to").map(str::parse::<u64>).transpose() {
        Ok(to) => to,
        Err(_) => {
            return failure(StatusCode::BAD_REQUEST, "to is the number of a generation; GET /config/history has them");
        }
    };
    outcome(reload.roll_back(to).await, false, wants_json(request))
}

pub(super) fn history(reload: &Reload) -> Answer {
    let in_force = reload.shown().generation;
    let generations: Vec<Value> = reload
        .history()
        .into_iter()
        .map(|generation| {
            json!({
                "generation": generation.number,
                "in_force": generation.number == in_force,
                "time": time(generation.at),
                "source": generation.source,
                "hash": generation.wording.hash.to_string(),
                "changes": generation.summary,
                "diff": generation.changes,
                "rejected": generation.rejected,
                "probation": generation.probation,
            })
        })
        .collect();
    data(StatusCode::OK, &json!({ "generations": generations }))
}

fn wish(request: &Request<Incoming>) -> Result<Wish, String> {
    let dry_run = match parameter(request, "dry_run") {
        None | Some("false") => false,
        Some("" | "true") => true,
        Some(_) => return Err("dry_run is true or false".to_owned()),
    };
    let lasts = match parameter(request, "for") {
        None => None,
        Some(text) => Some(read_duration(text).ok_or("for is a duration, such as 10m")?),
    };
    let instead_of = match request.headers().get(IF_MATCH).map(|tag| tag.to_str().unwrap_or_default().trim()) {
        None | Some("*") => None,
        Some(tag) => {
            let number = tag.trim_matches('"').parse();
            Some(number.map_err(|_| "If-Match is the number of a generation, as GET /config has it in ETag")?)
        }
    };
    Ok(Wish { dry_run, lasts, instead_of })
}

fn outcome(outcome: Result<Adopted, Refusal>, dry_run: bool, json: bool) -> Answer {
    match outcome {
        Ok(Adopted { generation, content_of, diff, warnings }) if json => data(
            StatusCode::OK,
            &json!({
                "generation": generation,
                "content_of": content_of,
                "dry_run": dry_run,
                "changes": diff.changes,
                "unchanged": diff.unchanged,
                "needs_restart": diff.needs_restart(),
                "warnings": as_json(&render(&warnings, Format::Json, false)),
            }),
        ),
        Ok(Adopted { generation, content_of, diff, warnings }) => {
            let content = content_of.map(|earlier| format!(", with what generation {earlier} held"));
            let content = content.unwrap_or_default();
            let head = match (dry_run, diff.is_empty()) {
                (true, _) => format!("generation {generation} stays in force; this would change:\n"),
                (false, true) => format!("generation {generation} stays in force\n"),
                (false, false) => format!("generation {generation} is in force{content}\n"),
            };
            text("text/plain; charset=utf-8", format!("{warnings}{head}{diff}"))
        }
        Err(refusal) => {
            let status = match refusal {
                Refusal::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
                Refusal::Outdated { .. } => StatusCode::PRECONDITION_FAILED,
                Refusal::Draining
                | Refusal::TakingOver
                | Refusal::NoOverride
                | Refusal::NothingBefore
                | Refusal::NothingLeft
                | Refusal::Bind(_)
                | Refusal::Identity(_)
                | Refusal::Consul(_)
                | Refusal::AccessLog(_) => StatusCode::CONFLICT,
                Refusal::NotRemembered { .. } => StatusCode::NOT_FOUND,
                Refusal::Unreadable(_) | Refusal::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            };
            refused(status, &refusal, json)
        }
    }
}

fn refused(status: StatusCode, refusal: &Refusal, json: bool) -> Answer {
    let mut answer = match refusal {
        Refusal::Invalid(diagnostics) if json => data(
            status,
            &json!({ "error": "the configuration has mistakes", "diagnostics": as_json(&render(diagnostics, Format::Json, false)) }),
        ),
        Refusal::Invalid(diagnostics) => text("text/plain; charset=utf-8", diagnostics.to_string()),
        other => failure(status, &other.to_string()),
    };
    *answer.status_mut() = status;
    answer
}

/// What is written as JSON already.
fn as_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

fn time(at: SystemTime) -> String {
    rfc3339(at)
}
