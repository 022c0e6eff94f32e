//! What only those who tap want to know of a request. There is none where nobody listens.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::HeaderMap;

use crate::body::Body;

/// Collected while the request goes its way.
pub(super) struct Peek {
    /// Of each body, so many bytes.
    most: usize,
    pub(super) client: Option<IpAddr>,
    pub(super) request_headers: HeaderMap,
    pub(super) response_headers: HeaderMap,
    request_body: Option<Rc<RefCell<Vec<u8>>>>,
    response_body: Option<Rc<RefCell<Vec<u8>>>>,
}

impl Peek {
    pub(super) fn begin(headers: &HeaderMap, most: usize) -> Box<Self> {
        Box::new(Peek {
            most,
            client: None,
            request_headers: headers.clone(),
            response_headers: HeaderMap::new(),
            request_body: None,
            response_body: None,
        })
    }

    pub(super) fn request_body(&mut self, body: &mut Body) {
        self.request_body = (self.most > 0).then(|| body.peek(self.most));
    }

    pub(super) fn response(&mut self, headers: HeaderMap, body: &mut Body) {
        self.response_headers = headers;
        self.response_body = (self.most > 0).then(|| body.peek(self.most));
    }

    /// What was kept of both bodies.
    pub(super) fn bodies(&self) -> [Bytes; 2] {
        [&self.request_body, &self.response_body]
            .map(|body| body.as_ref().map_or_else(Bytes::new, |kept| Bytes::from(kept.take())))
    }
}
