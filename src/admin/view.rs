//! The proxy's state as JSON.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::model::UpstreamProtocol;
use crate::control::Control;
use crate::snapshot::Upstream;
use crate::transport::PoolCounts;
use crate::upstream::limit::Limit;

/// What is not as it should be, and does not make the proxy unready.
pub(super) fn warnings(control: &Control) -> Vec<String> {
    let mut warnings = Vec::new();
    let stuck = control.stuck_workers();
    if !stuck.is_empty() {
        warnings.push(format!("workers that are stuck: {stuck:?}"));
    }
    let dropped = control.access_log_lines_dropped();
    if dropped > 0 {
        warnings.push(format!("access log lines dropped since the start: {dropped}; their target is too slow"));
    }
    warnings
}

/// Every upstream with its endpoints.
pub(super) async fn upstreams(control: &Control) -> Value {
    let pools = control.pools().await;
    let snapshot = control.snapshot.load_full();
    let upstreams: Vec<Value> = snapshot.upstreams.iter().map(|one| upstream(one, &pools)).collect();
    json!({ "generation": snapshot.generation, "upstreams": upstreams })
}

fn upstream(upstream: &Upstream, pools: &HashMap<Arc<str>, PoolCounts>) -> Value {
    let endpoints: Vec<Value> = upstream
        .endpoints
        .iter()
        .zip(&upstream.weights)
        .map(|(endpoint, weight)| {
            json!({
                "address": &*endpoint.label,
                "weight": weight,
                "state": "ready",
                "in_flight": endpoint.in_flight(),
                "requests": endpoint.requests(),
                "failures": endpoint.failures(),
            })
        })
        .collect();
    let pool = pools.get(&upstream.state.name).copied().unwrap_or_default();
    json!({
        "name": &*upstream.state.name,
        "protocol": match upstream.protocol {
            UpstreamProtocol::Auto => "auto",
            UpstreamProtocol::Http1 => "http1",
            UpstreamProtocol::Http2 => "http2",
        },
        "limits": {
            "connections": limit(&upstream.state.connections),
            "requests": limit(&upstream.state.requests),
            "waiting": limit(&upstream.state.waiting),
        },
        "connections": { "open": upstream.state.connections.used(), "idle": pool.idle, "http2": pool.http2 },
        "endpoints": endpoints,
    })
}

fn limit(limit: &Limit) -> Value {
    json!({ "used": limit.used(), "max": limit.max() })
}
