//! The circuit breaker before an upstream, and what stands in for the upstream while it is open.

use std::pin::pin;

use http::{Request, Response};
use tokio::time::Instant;

use super::destination::Destination;
use super::forward::{Order, forward};
use super::record::Record;
use super::reply;
use crate::body::Body;
use crate::error::{Error, Reason};
use crate::snapshot::Fallback;

/// Sends the request to the order's upstream, or where its breaker sends it.
pub(super) async fn pass(
    record: &mut Record,
    order: &Order<'_>,
    request: &mut Request<Body>,
) -> Result<Box<Response<Body>>, Error> {
    let generation = record.generation().clone();
    let upstream = generation.upstream(order.destination);
    let Some(breaker) = &upstream.breaker else {
        return pin!(forward(record, order, request)).await;
    };
    let aside;
    let (target, destination) = match upstream.judge().admit(|| Instant::now().into()) {
        Ok(pass) => {
            record.pass = pass;
            (order.target, order.destination)
        }
        Err(wait) => {
            let open = |wait| Error::local(Reason::BreakerOpen).retry_after(wait);
            let fallback = match &breaker.fallback {
                Fallback::Refuse => return Err(open(wait)),
                // What was written is no message of gRPC's; its clients read a status.
                Fallback::Respond(_) if record.grpc => return Err(open(wait)),
                Fallback::Respond(answer) => {
                    return Ok(Box::new(reply::fixed(answer.status, &answer.body, &answer.content_type)));
                }
                Fallback::Upstream(fallback) => fallback,
            };
            // Its own breaker holds, but not its fallback: a request goes one step aside, and not in circles.
            aside = Destination::Written(fallback.upstream);
            record.send_to(&aside);
            let judge = generation.upstream(&aside).judge();
            record.pass = judge.admit(|| Instant::now().into()).map_err(open)?;
            (&**fallback, &aside)
        }
    };
    let outcome = pin!(forward(record, &Order { target, destination, ..*order }, request)).await;
    let now = record.first_byte.unwrap_or_else(Instant::now);
    record.request_ended(outcome.as_deref().map_err(Error::cause), now);
    outcome
}
