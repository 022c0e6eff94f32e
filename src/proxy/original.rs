//! Where a captured connection was going to, as an endpoint.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Request, Uri};
use tokio::time::Instant;

use super::worker::Worker;
use crate::body::{Body, Tunnel};
use crate::config::model::EndpointAddress;
use crate::error::{Error, Reason};
use crate::runtime::timer::after;
use crate::snapshot::{Target, Upstream};
use crate::telemetry::metrics::UpstreamCounter;
use crate::upstream::state::EndpointState;

/// The destination of one client's connection. The endpoint's memory, and with it the connections to it that are kept,
/// lasts as long as somebody is connected who was going there.
#[derive(Debug)]
pub(crate) struct Original {
    address: SocketAddr,
    endpoint: OnceCell<Arc<EndpointState>>,
}

impl Original {
    pub(super) fn new(address: SocketAddr) -> Self {
        Original { address, endpoint: OnceCell::new() }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The destination as an endpoint of this upstream.
    pub(super) fn endpoint(&self, upstream: &Upstream) -> Result<Arc<EndpointState>, Error> {
        if let Some(endpoint) = self.endpoint.get() {
            return Ok(endpoint.clone());
        }
        let address = EndpointAddress::Tcp(self.address);
        let endpoint = upstream.state.endpoint(&address, Instant::now().into());
        let endpoint = endpoint.ok_or_else(|| Error::local(Reason::Internal))?;
        Ok(self.endpoint.get_or_init(|| endpoint).clone())
    }
}

/// Where the client was going to is what it calls: one that says the whole address calls a proxy, which has to be told as
/// much (RFC 9112, section 3.2.2).
///
/// `raw_head` is the request's, as it came.
pub(super) fn keep_form(request: &mut Request<Body>, raw_head: &[u8]) {
    let target = raw_head.splitn(2, |&byte| byte == b' ').nth(1).unwrap_or_default();
    let scheme = target.split(|&byte| byte == b':').next().and_then(|scheme| Scheme::try_from(scheme).ok());
    let host = request.headers().get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let path = request.uri().path_and_query().filter(|path| path.as_str() != "*");
    if target.first() != Some(&b'/')
        && let (Some(scheme), Some(host), Some(path)) = (scheme, host, path)
    {
        let whole = Uri::builder().scheme(scheme).authority(host).path_and_query(path.clone()).build();
        if let Ok(whole) = whole {
            *request.uri_mut() = whole;
        }
    }
}

/// A connection to where the client was going to, for bytes as they are.
pub(super) async fn connect(
    worker: &Worker,
    upstream: &Upstream,
    target: &Target,
    original: &Original,
) -> Result<Tunnel, Error> {
    let permit = upstream.state.connections.try_acquire().ok_or_else(|| Error::local(Reason::Overflow))?;
    let endpoint = original.endpoint(upstream)?;
    let guard = endpoint.begin();
    let until = after(target.timeouts.timeouts.connect);
    let connected = worker.pools.connect(&endpoint.address, until).await;
    let counter = match connected.as_ref().map_err(|error| error.reason) {
        Ok(_) => UpstreamCounter::Connected,
        Err(Reason::ConnectTimeout) => UpstreamCounter::ConnectTimeout,
        Err(_) => UpstreamCounter::ConnectFailure,
    };
    worker.metrics.count_upstream(upstream.id, counter, 1);
    Ok(Tunnel {
        endpoint: connected.inspect_err(|_| endpoint.count_failure())?,
        early: Bytes::new(),
        idle: target.timeouts.timeouts.tunnel_idle,
        _guard: Some(Box::new((permit, guard))),
    })
}
