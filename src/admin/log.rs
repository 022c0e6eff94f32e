//! The level of the proxy's own log: seen, and changed until somebody, or time, changes it back.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, data, failure, parameter};
use crate::config::model::LogLevel;
use crate::config::read_duration;
use crate::telemetry::log::LogHandle;

/// A word, or an object with one.
const MOST_BYTES: usize = 1_024;

const NOT_OURS: &str = "the log belongs to the program that embeds this proxy";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    level: String,
}

/// `GET /log`
pub(super) fn show(log: Option<&LogHandle>) -> Answer {
    let Some(shown) = log.and_then(LogHandle::shown) else { return failure(StatusCode::CONFLICT, NOT_OURS) };
    let level = json!({
        "level": shown.level.as_str(),
        "configured": shown.configured.as_str(),
        "override": shown.overridden.then(|| json!({ "seconds_left": shown.left.map(|left| left.as_secs()) })),
    });
    data(StatusCode::OK, &level)
}

/// `PUT /log`
pub(super) async fn put(log: Option<&LogHandle>, request: Request<Incoming>) -> Answer {
    let lasts = match parameter(&request, "for").map(read_duration) {
        None => None,
        Some(Some(lasts)) => Some(lasts),
        Some(None) => return failure(StatusCode::BAD_REQUEST, "for is a duration, such as 10m"),
    };
    let Ok(body) = Limited::new(request.into_body(), MOST_BYTES).collect().await else {
        return failure(StatusCode::PAYLOAD_TOO_LARGE, "a level is one word");
    };
    match read(&body.to_bytes()) {
        Ok(level) if lay_over(log, level, lasts) => show(log),
        Ok(_) => failure(StatusCode::CONFLICT, NOT_OURS),
        Err(message) => failure(StatusCode::BAD_REQUEST, &message),
    }
}

/// `DELETE /log`
pub(super) fn lift(log: Option<&LogHandle>) -> Answer {
    if log.is_some_and(LogHandle::lift_any) {
        tracing::info!("the log's level is again that of the configuration");
    }
    show(log)
}

fn lay_over(log: Option<&LogHandle>, level: LogLevel, lasts: Option<Duration>) -> bool {
    // Before, so that whoever makes the log silent is still seen in it.
    tracing::info!(
        level = level.as_str(),
        for_seconds = lasts.map(|lasts| lasts.as_secs()),
        "PUT /log sets the log's level"
    );
    let Some(log) = log else { return false };
    let Some(number) = log.lay_over(level, lasts) else { return false };
    if let Some(lasts) = lasts {
        let log = log.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(lasts).await;
            if log.lift(number) {
                tracing::info!("the log's level is again that of the configuration");
            }
        });
    }
    true
}

/// `debug`, or `{"level":"debug"}`.
fn read(body: &[u8]) -> Result<LogLevel, String> {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    let word = match serde_json::from_str::<Wish>(text) {
        Ok(wish) => wish.level,
        Err(_) => text.to_owned(),
    };
    LogLevel::ALL
        .into_iter()
        .find(|level| level.as_str() == word)
        .ok_or_else(|| "write error, warn, info, debug or trace, or {\"level\":\"debug\"}".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_an_object_with_one() {
        for (body, level) in [
            ("debug", Some(LogLevel::Debug)),
            (" warn\n", Some(LogLevel::Warn)),
            (r#"{"level":"trace"}"#, Some(LogLevel::Trace)),
            (r#"{"level":"trace","for":"1m"}"#, None),
            (r#"{"level":5}"#, None),
            ("verbose", None),
            ("", None),
        ] {
            assert_eq!(read(body.as_bytes()).ok(), level, "{body}");
        }
    }
}
