//! One agent and the connections to it.

use std::cell::RefCell;
use std::error::Error as _;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Collected, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::address;
use crate::config::model::{AgentAddress, UpstreamTls};

/// Idle connections that are kept; each watch takes one out for as long as it waits.
const IDLE: usize = 8;
/// Bytes of an answer that are read at a time: few enough that what takes them in works in the processor's cache.
const READ: usize = 64 << 10;

/// An agent.
pub(super) struct Agent {
    pub(super) address: AgentAddress,
    tls: UpstreamTls,
    host: HeaderValue,
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
}

/// Takes an answer in as it comes.
pub(super) trait Intake {
    /// It begins; what came of an earlier one is void.
    fn begin(&mut self);

    fn take(&mut self, bytes: Bytes);
}

/// As a whole.
impl Intake for BytesMut {
    fn begin(&mut self) {
        self.clear();
    }

    fn take(&mut self, bytes: Bytes) {
        self.extend_from_slice(&bytes);
    }
}

/// What went wrong with a connection.
pub(super) enum Fault {
    /// There was no whole answer.
    Broken(String),
    /// The answer is larger than it can rightly be.
    TooLarge,
}

impl Agent {
    pub(super) fn new(address: AgentAddress, tls: UpstreamTls) -> Self {
        let host = HeaderValue::try_from(address::authority(&address));
        Agent { host: host.unwrap_or(HeaderValue::from_static("localhost")), address, tls, idle: RefCell::default() }
    }

    /// Sends a request and takes the whole answer, of `most` bytes at most. The body of a success goes to `intake`, and is
    /// empty here.
    ///
    /// A kept connection may have died unnoticed, so a request that got nothing back on one is sent again on a fresh
    /// one: all that is asked of Consul here can be asked twice.
    pub(super) async fn exchange(
        &self,
        request: &Request<Full<Bytes>>,
        most: usize,
        intake: &mut dyn Intake,
    ) -> Result<Response<Bytes>, Fault> {
        while let Some(kept) = self.take_idle() {
            match self.send(kept, request, most, intake).await {
                Ok(response) => return Ok(response),
                Err((fault, true)) => return Err(fault),
                Err((_, false)) => {}
            }
        }
        let stream =
            address::connect(&self.address, &self.tls).await.map_err(|error| Fault::Broken(error.to_string()))?;
        let mut http = http1::Builder::new();
        http.max_buf_size(READ);
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::task::spawn_local(async move {
            // Whatever ends it is told to who waits for an answer.
            let _ = connection.await;
        });
        self.send(sender, request, most, intake).await.map_err(|(fault, _)| fault)
    }

    /// With a failure comes whether an answer had begun.
    async fn send(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        request: &Request<Full<Bytes>>,
        most: usize,
        intake: &mut dyn Intake,
    ) -> Result<Response<Bytes>, (Fault, bool)> {
        let mut request = request.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        let response = sender.send_request(request).await.map_err(|error| (broken(error), false))?;
        let (parts, body) = response.into_parts();
        let mut body = Limited::new(body, most);
        let body = if parts.status.is_success() {
            intake.begin();
            loop {
                match body.frame().await {
                    None => break Ok(Bytes::new()),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(frame)) => frame.into_data().into_iter().for_each(|bytes| intake.take(bytes)),
                }
            }
        } else {
            body.collect().await.map(Collected::to_bytes)
        };
        let body = body.map_err(|error| {
            let too_large = error.is::<LengthLimitError>();
            (if too_large { Fault::TooLarge } else { Fault::Broken(error.to_string()) }, true)
        })?;
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE && !sender.is_closed() {
            idle.push(sender);
        }
        Ok(Response::from_parts(parts, body))
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.borrow_mut();
        // One that is not ready has ended, or will: its task has not seen the end of the last answer yet.
        std::iter::from_fn(|| idle.pop()).find(|sender| sender.is_ready())
    }
}

/// The innermost cause says what happened: "Connection refused", "connection reset by peer".
fn broken(error: hyper::Error) -> Fault {
    let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    Fault::Broken(cause)
}
