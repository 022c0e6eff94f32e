//! What is told of a request that has ended: to the access log, to those who tap, to the collector of traces.

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request};

use super::*;
use crate::proxy::retry::Refused;
use crate::telemetry::access_log;
use crate::telemetry::tap::Tapped;
use crate::telemetry::traces::RequestSpan;

impl Record {
    /// Nobody waits any longer for the attempt that is under way. That says nothing of its endpoint; but it was asked, and
    /// that is seen.
    pub(super) fn give_up_attempt(&mut self, reason: Reason, now: Instant) {
        let (Some(UnderWay { began, span_id }), Some(endpoint)) = (self.under_way.take(), self.endpoint.clone()) else {
            return;
        };
        let outcome = Outcome::Failed(reason);
        self.count_attempt(outcome, now - began);
        // The head that went out is gone with the attempt: what the client asked for stands for it.
        let mut head = Request::new(Body::empty());
        *head.uri_mut() = self.uri.clone();
        head.headers_mut().extend(self.host.clone().map(|host| (HOST, host)));
        self.span(&AttemptEnd {
            id: span_id,
            number: self.attempts.saturating_sub(1),
            endpoint: &endpoint,
            scheme: self.upstream().map_or("http", Upstream::scheme),
            head: &head,
            began,
            ended: now,
            outcome,
            version: None,
        });
    }

    pub(super) fn show(&self, peek: Peek, total: Duration, bytes_in: u64, grpc_code: Option<u8>) {
        let listener = self.listener();
        let [request_body, response_body] = peek.bodies();
        self.worker.tap.show(Box::new(Tapped {
            time: self.worker.clock.unix(self.received.into_std()),
            listener: listener.name.clone(),
            route: self.route.map(|route| listener.routes[route].name.clone()),
            upstream: self.upstream_name.clone(),
            endpoint: self.endpoint.as_ref().map(|endpoint| endpoint.label.clone()),
            client: peek.client,
            method: self.method.clone(),
            scheme: self.scheme(),
            uri: self.uri.clone(),
            host: self.host.clone(),
            version: self.version,
            code: self.code.as_u16(),
            grpc_code,
            reason: self.reason,
            attempts: self.attempts,
            bytes_in,
            bytes_out: self.bytes_out,
            queued: self.queued,
            connect: self.connect,
            first_byte: self.first_byte.map(|first| first - self.received),
            total,
            trace_id: self.trace.trace_id().to_owned(),
            request_id: self.request_id.clone(),
            generation: self.generation.snapshot.generation,
            request_headers: peek.request_headers,
            response_headers: peek.response_headers,
            request_body,
            response_body,
        }));
    }

    pub(super) fn record_spans(&mut self, total: Duration, grpc_code: Option<u8>) {
        let worker = self.worker.clone();
        let spans = self.spans.take().unwrap_or_else(|| Spans::late(&mut worker.ids.borrow_mut()));
        let Spans { id, tracestate, user_agent, client, peer, mut attempts } = *spans;
        let ended = worker.clock.unix((self.received + total).into_std());
        // The last attempt's answer lasts as long as the request, and what ends that ends it.
        if let Some(last) = attempts.last_mut()
            && let Outcome::Answered { .. } = last.outcome
        {
            (last.ended, last.broke) = (ended, self.reason);
        }
        let listener = self.listener();
        let route = self.route.map(|route| &listener.routes[route]);
        worker.tracer.record(RequestSpan {
            context: self.trace.clone(),
            tracestate,
            id,
            began: worker.clock.unix(self.received.into_std()),
            ended,
            listener: listener.name.clone(),
            route: route.map(|route| route.name.clone()),
            path_pattern: route.and_then(|route| route.path_pattern.clone()),
            upstream: self.upstream_name.clone(),
            method: self.method.clone(),
            scheme: self.scheme(),
            uri: self.uri.clone(),
            host: self.host.clone(),
            user_agent,
            version: self.version,
            client: client.and_then(|client| client.address),
            peer,
            grpc: self.grpc,
            code: self.code.as_u16(),
            grpc_code,
            reason: self.reason,
            request_id: self.request_id.clone(),
            generation: self.generation.snapshot.generation,
            attempts,
        });
    }

    pub(super) fn write_log(&self, total: Duration, bytes_in: u64, grpc_code: Option<u8>) {
        let listener = self.listener();
        self.worker.access_log.borrow().write(&access_log::Record {
            time: self.worker.clock.unix(self.received.into_std()),
            listener: &listener.name,
            client: self.client_address,
            route: self.route.map(|route| &*listener.routes[route].name),
            upstream: self.upstream_name.as_deref(),
            endpoint: self.endpoint.as_ref().map(|endpoint| &*endpoint.label),
            method: self.method.as_str(),
            host: self.host.as_ref().map(HeaderValue::as_bytes),
            path: self.uri.path(),
            target: self.uri.path_and_query().map_or(self.uri.path(), PathAndQuery::as_str),
            version: self.version,
            code: self.code.as_u16(),
            grpc_code,
            reason: self.reason,
            attempts: self.attempts,
            retry_refused: self.retry_refused.map(Refused::as_str),
            bytes_in,
            bytes_out: self.bytes_out,
            queued: self.queued,
            connect: self.connect,
            first_byte: self.first_byte.map(|first| first - self.received),
            total,
            tls: self.client_tls(),
            identity: self.client_identity(),
            trace_id: self.trace.trace_id(),
            request_id: self.request_id.as_str(),
            generation: self.generation.snapshot.generation,
            headers: self.logged.as_deref(),
        });
    }
}
