//! Our words to OpenTelemetry's: the stable semantic conventions for HTTP, and those for gRPC.
//!
//! Queries are left out everywhere: they hold personal data.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Uri, Version};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::span::{AttemptSpan, RequestSpan};
use crate::error::Reason;
use crate::outcome::Outcome;
use crate::telemetry::metrics::MethodLabel;

/// The request's span, then one for each attempt.
pub(super) fn spans(request: &RequestSpan, scope: &InstrumentationScope, into: &mut Vec<SpanData>) {
    let shared = Shared::of(request, scope);
    into.push(server(request, &shared));
    into.extend(request.attempts.iter().map(|attempt| client(request, attempt, &shared)));
}

/// What all spans of a request have in common.
struct Shared<'r> {
    trace_id: TraceId,
    state: TraceState,
    scope: &'r InstrumentationScope,
    /// `package.Service` and `Method`.
    rpc: Option<(&'r str, &'r str)>,
}

impl<'r> Shared<'r> {
    fn of(request: &'r RequestSpan, scope: &'r InstrumentationScope) -> Self {
        let state = request.tracestate.as_ref().and_then(|state| state.to_str().ok()?.parse().ok());
        Shared {
            trace_id: TraceId::from_hex(request.context.trace_id()).unwrap_or(TraceId::INVALID),
            state: state.unwrap_or_default(),
            scope,
            rpc: request.grpc.then(|| rpc(request.uri.path())).flatten(),
        }
    }

    fn span(&self, kind: SpanKind, name: Cow<'static, str>, id: &[u8; 16], times: (Duration, Duration)) -> SpanData {
        SpanData {
            span_context: SpanContext::new(self.trace_id, span_id(id), TraceFlags::SAMPLED, false, self.state.clone()),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: kind,
            name,
            start_time: SystemTime::UNIX_EPOCH + times.0,
            end_time: SystemTime::UNIX_EPOCH + times.1,
            attributes: Vec::with_capacity(20),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    fn rpc_attributes(&self, grpc_code: Option<u8>, attributes: &mut Vec<KeyValue>) {
        let Some((service, method)) = self.rpc else { return };
        attributes.push(KeyValue::new("rpc.system", "grpc"));
        attributes.push(KeyValue::new("rpc.service", service.to_owned()));
        attributes.push(KeyValue::new("rpc.method", method.to_owned()));
        if let Some(code) = grpc_code {
            attributes.push(KeyValue::new("rpc.grpc.status_code", i64::from(code)));
        }
    }
}

fn server(request: &RequestSpan, shared: &Shared<'_>) -> SpanData {
    let method = MethodLabel::from(&request.method).as_str();
    let target = request.path_pattern.as_ref().or(request.route.as_ref());
    let name = match (shared.rpc, target) {
        (Some((service, method)), _) => format!("{service}/{method}").into(),
        // The conventions' word for a method that they do not know.
        (None, Some(target)) => format!("{} {target}", if method == "_OTHER" { "HTTP" } else { method }).into(),
        (None, None) => Cow::Borrowed(if method == "_OTHER" { "HTTP" } else { method }),
    };
    let mut span = shared.span(SpanKind::Server, name, &request.id, (request.began, request.ended));
    if let Some(parent) = request.context.parent_id() {
        span.parent_span_id = SpanId::from_hex(parent).unwrap_or(SpanId::INVALID);
        span.parent_span_is_remote = true;
    }
    let attributes = &mut span.attributes;
    push_method(&request.method, attributes);
    attributes.push(KeyValue::new("url.scheme", request.scheme));
    attributes.push(KeyValue::new("url.path", request.uri.path().to_owned()));
    attributes.push(KeyValue::new("http.response.status_code", i64::from(request.code)));
    attributes.push(KeyValue::new("network.protocol.version", version(request.version)));
    if let Some(pattern) = &request.path_pattern {
        attributes.push(KeyValue::new("http.route", pattern.clone()));
    }
    push_server(request.host.as_ref(), &request.uri, request.scheme, attributes);
    if let Some(peer) = request.peer {
        push_peer(peer, attributes);
    }
    if let Some(client) = request.client {
        attributes.push(KeyValue::new("client.address", client.to_string()));
    }
    if let Some(agent) = text(request.user_agent.as_ref()) {
        attributes.push(KeyValue::new("user_agent.original", agent));
    }
    shared.rpc_attributes(request.grpc_code, attributes);
    attributes.push(KeyValue::new("outrigger.listener", request.listener.clone()));
    for (key, name) in [("outrigger.route", &request.route), ("outrigger.upstream", &request.upstream)] {
        if let Some(name) = name {
            attributes.push(KeyValue::new(key, name.clone()));
        }
    }
    attributes.push(KeyValue::new("outrigger.request_id", request.request_id.as_str().to_owned()));
    attributes.push(KeyValue::new("outrigger.generation", i64::try_from(request.generation).unwrap_or(i64::MAX)));
    // A gRPC call that failed on its server's side says so in its trailers (unknown, deadline exceeded, unimplemented,
    // internal, unavailable, data loss); what the client did wrong is no error of a server.
    let grpc_failed = request.grpc_code.is_some_and(|code| matches!(code, 2 | 4 | 12 | 13 | 14 | 15));
    let failed = request.code >= 500 || grpc_failed;
    span.status = finish(failed, request.reason, request.code, request.grpc_code, attributes);
    span
}

fn client(request: &RequestSpan, attempt: &AttemptSpan, shared: &Shared<'_>) -> SpanData {
    let method = MethodLabel::from(&request.method).as_str();
    let name = match shared.rpc {
        Some((service, method)) => format!("{service}/{method}").into(),
        None => Cow::Borrowed(if method == "_OTHER" { "HTTP" } else { method }),
    };
    let mut span = shared.span(SpanKind::Client, name, &attempt.id, (attempt.began, attempt.ended));
    span.parent_span_id = span_id(&request.id);
    let attributes = &mut span.attributes;
    push_method(&request.method, attributes);
    let host = attempt.host.as_ref().or(request.host.as_ref());
    let full = format!("{}://{}{}", attempt.scheme, text(host).unwrap_or_default(), attempt.uri.path());
    attributes.push(KeyValue::new("url.full", full));
    push_server(host, &attempt.uri, attempt.scheme, attributes);
    if let Some(address) = attempt.address {
        push_peer(address, attributes);
    }
    if attempt.number > 0 {
        attributes.push(KeyValue::new("http.request.resend_count", i64::from(attempt.number)));
    }
    if let Some(spoken) = attempt.version {
        attributes.push(KeyValue::new("network.protocol.version", version(spoken)));
    }
    if let Some(upstream) = &request.upstream {
        attributes.push(KeyValue::new("outrigger.upstream", upstream.clone()));
    }
    attributes.push(KeyValue::new("outrigger.endpoint", attempt.endpoint.clone()));
    let (code, reason) = match attempt.outcome {
        Outcome::Answered { status, .. } => (status, attempt.broke),
        Outcome::Failed(reason) => (0, Some(reason)),
    };
    // Of the last attempt only: those before it gave no answer that was passed on.
    let last = request.attempts.last().is_some_and(|last| last.id == attempt.id);
    let grpc_code = request.grpc_code.filter(|_| last && code > 0);
    shared.rpc_attributes(grpc_code, attributes);
    if code > 0 {
        attributes.push(KeyValue::new("http.response.status_code", i64::from(code)));
    }
    let failed = code >= 400 || grpc_code.is_some_and(|code| code != 0);
    span.status = finish(failed, reason, code, grpc_code, attributes);
    span
}

/// `error.type`, and the status that goes with it. A caller that left on purpose is no error.
fn finish(
    failed: bool,
    reason: Option<Reason>,
    code: u16,
    grpc_code: Option<u8>,
    attributes: &mut Vec<KeyValue>,
) -> Status {
    match reason {
        Some(reason) => {
            attributes.push(KeyValue::new("error.type", reason.as_str()));
            attributes.push(KeyValue::new("outrigger.reason", reason.as_str()));
            // What the client did wrong is its error, and not this service's (400 to 499).
            let theirs = reason == Reason::ClientCancelled || (code != 0 && reason.status().is_client_error());
            if theirs { Status::Unset } else { Status::error(reason.describe()) }
        }
        None if failed => {
            let kind = match grpc_code.filter(|grpc_code| *grpc_code != 0 && code < 400) {
                Some(grpc_code) => grpc_code.to_string(),
                None => code.to_string(),
            };
            attributes.push(KeyValue::new("error.type", kind));
            Status::error("")
        }
        None => Status::Unset,
    }
}

fn push_method(method: &Method, attributes: &mut Vec<KeyValue>) {
    let known = MethodLabel::from(method).as_str();
    attributes.push(KeyValue::new("http.request.method", known));
    if known != method.as_str() {
        attributes.push(KeyValue::new("http.request.method_original", method.as_str().to_owned()));
    }
}

/// Whom the request means: its Host, or its target's authority.
fn push_server(host: Option<&HeaderValue>, uri: &Uri, scheme: &str, attributes: &mut Vec<KeyValue>) {
    let authority = text(host).and_then(|host| host.parse().ok()).or_else(|| uri.authority().cloned());
    let Some(authority) = authority else { return };
    attributes.push(KeyValue::new("server.address", authority.host().trim_matches(['[', ']']).to_owned()));
    let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    attributes.push(KeyValue::new("server.port", i64::from(port)));
}

fn push_peer(peer: SocketAddr, attributes: &mut Vec<KeyValue>) {
    attributes.push(KeyValue::new("network.peer.address", peer.ip().to_canonical().to_string()));
    attributes.push(KeyValue::new("network.peer.port", i64::from(peer.port())));
}

/// What a gRPC call's path names, where it names something in the usual form.
fn rpc(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let sane = |text: &str| {
        !text.is_empty()
            && text.len() <= 128
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    (sane(service) && sane(method)).then_some((service, method))
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

fn span_id(hex: &[u8; 16]) -> SpanId {
    std::str::from_utf8(hex).ok().and_then(|hex| SpanId::from_hex(hex).ok()).unwrap_or(SpanId::INVALID)
}

fn text(value: Option<&HeaderValue>) -> Option<String> {
    value.and_then(|value| value.to_str().ok()).map(str::to_owned)
}
