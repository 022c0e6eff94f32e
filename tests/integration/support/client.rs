//! A client that sends exactly the bytes it is told to.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use super::message::{Response, response_framing};
use super::wire::Wire;

/// A connection to the proxy.
pub struct Client(Wire);

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        match Wire::connect(address) {
            Ok(wire) => Client(wire),
            Err(error) => panic!("client: cannot connect to {address}: {error}"),
        }
    }

    #[track_caller]
    pub fn connect_unix(path: &Path) -> Self {
        match Wire::connect_unix(path) {
            Ok(wire) => Client(wire),
            Err(error) => panic!("client: cannot connect to {}: {error}", path.display()),
        }
    }

    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        Wire::connect(address).map(Client)
    }

    /// The next response, informational ones included, with its body.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// The next response to a request with this method.
    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        match self.response_or_end(method) {
            Some(response) => response,
            None => panic!("client: the connection ended where a response was due"),
        }
    }

    /// `None` where the connection ended before a whole head.
    #[track_caller]
    pub fn response_or_end(&mut self, method: &str) -> Option<Response> {
        let head = self.0.head()?;
        let body = self.0.body(response_framing(&head, method));
        Some(Response::new(head, body))
    }

    /// Sends a request and returns its response.
    #[track_caller]
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request.as_ref());
        let method = request.as_ref().split(|byte| *byte == b' ').next().unwrap_or_default();
        self.response_to(&String::from_utf8_lossy(method))
    }

    /// Sends `GET path` for the host `app.test` and returns the response.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.exchange(get(path))
    }

    pub fn reset(self) {
        self.0.reset();
    }
}

/// A plain request.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n")
}

/// One request on a connection of its own.
#[track_caller]
pub fn once(address: SocketAddr, request: impl AsRef<[u8]>) -> Response {
    Client::connect(address).exchange(request)
}

impl Deref for Client {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.0
    }
}
