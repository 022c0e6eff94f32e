//! Trouble on purpose, for those who want to know how their services take it.

use http::HeaderMap;

use crate::config::model::Fault;
use crate::error::{Error, Reason};
use crate::route::condition::header_matches;

/// Delays the request, aborts it, or leaves it alone.
///
/// # Errors
/// `fault_injected`, with the status that was asked for.
pub(super) async fn inject(fault: &Fault, headers: &HeaderMap) -> Result<(), Error> {
    let meant = fault.headers.iter().all(|(name, wanted)| header_matches(headers, name, wanted));
    if !meant || fastrand::f64() >= fault.ratio {
        return Ok(());
    }
    if let Some(delay) = fault.delay {
        tokio::time::sleep(delay).await;
    }
    match fault.abort {
        Some(status) => Err(Error::local(Reason::FaultInjected).status(status)),
        None => Ok(()),
    }
}
