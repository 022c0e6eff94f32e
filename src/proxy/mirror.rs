//! Copies of requests for another upstream. Nobody waits for them, and nothing that becomes of them is anybody's trouble:
//! what does not fit within the bounds is counted and not sent.

use std::rc::Rc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};
use http_body::Body as _;
use tokio::time::Instant;

use super::attempt::{self, Checkpoints, Plan};
use super::deadline;
use super::destination::Destination;
use super::hop_by_hop::HopByHop;
use super::record::Record;
use super::replay::{Replay, without_body};
use crate::body::Body;
use crate::outcome::Outcome;
use crate::snapshot::Mirror;
use crate::telemetry::metrics::UpstreamCounter;
use crate::upstream::turns::Wish;

/// Bytes of a body that are copied; of a request that is longer, there is no copy.
pub(super) const BODY_BYTES: usize = 64 << 10;
/// Copies in flight on one worker.
const MOST: usize = 64;
/// Where the mirror's `timeouts.request` does not bound it.
const LONGEST: Duration = Duration::from_secs(15);
/// Tells the other upstream what it gets.
const X_OUTRIGGER_MIRROR: HeaderName = HeaderName::from_static("x-outrigger-mirror");

/// A copy in the making: what the request was like before its first attempt.
pub(super) struct Copy {
    head: Request<Body>,
    raw_head: bytes::Bytes,
    hop: HopByHop,
}

impl Copy {
    /// `None` where this request is not among the share.
    pub(super) fn of(mirror: &Mirror, request: &Request<Body>, hop: &HopByHop) -> Option<Box<Self>> {
        let chosen =
            fastrand::f64() < mirror.ratio && request.method() != http::Method::CONNECT && hop.upgrade.is_none();
        chosen.then(|| {
            let mut head = without_body(request);
            head.headers_mut().insert(X_OUTRIGGER_MIRROR, HeaderValue::from_static("1"));
            Box::new(Copy { head, raw_head: request.body().raw_head().clone(), hop: hop.clone() })
        })
    }

    /// Sends it, where the whole body has passed by.
    pub(super) fn send(self: Box<Self>, record: &Record, mirror: &Mirror, body: &Replay) {
        let worker = record.worker().clone();
        let generation = record.generation().clone();
        let upstream = generation.snapshot.upstream(mirror.target.upstream);
        let id = upstream.id;
        let permit = upstream.state.requests.try_acquire();
        let running = worker.mirrors.clone();
        let (Some(mut body), Some(permit), true) = (body.complete(), permit, Rc::strong_count(&running) <= MOST + 1)
        else {
            worker.metrics.count_upstream(id, UpstreamCounter::MirrorSkipped, 1);
            return;
        };
        let target = mirror.target.clone();
        let (trace, grpc) = (record.trace.clone(), record.grpc);
        let Copy { mut head, raw_head, hop } = *self;
        tokio::task::spawn_local(async move {
            let _held = (permit, running);
            let upstream = generation.snapshot.upstream(target.upstream);
            let began = Instant::now();
            let wish = Wish { key: None, failed: &[], now: began.into() };
            let Ok(endpoint) = generation.pick_endpoint(&Destination::Written(target.upstream), wish) else {
                worker.metrics.count_upstream(upstream.id, UpstreamCounter::MirrorSkipped, 1);
                return;
            };
            let deadlines = deadline::of_copy(&target, grpc, began, LONGEST);
            let plan = Plan {
                worker: &worker,
                target: &target,
                upstream,
                endpoint: &endpoint,
                trace: &trace,
                hop: &hop,
                downstream: None,
                deadlines: &deadlines,
                began,
                grpc,
                tcp: false,
                fresh: false,
                careful: false,
                raw_head: &raw_head,
            };
            let mut checkpoints = Checkpoints::begin(&worker, &trace);
            let outcome = attempt::send(&plan, &mut head, &mut body, &mut checkpoints).await;
            let judged = match &outcome {
                Ok(response) => Outcome::answered(response.status().as_u16()),
                Err(failure) => Outcome::Failed(failure.error.reason),
            };
            worker.metrics.attempt(upstream.id, judged, began.elapsed());
            worker.metrics.count_upstream(upstream.id, UpstreamCounter::MirrorSent, 1);
            if let Ok(response) = outcome {
                // Read to its end, so that the connection can be used again.
                let mut body = response.into_body();
                while let Some(Ok(_)) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {}
            }
        });
    }
}
