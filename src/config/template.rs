//! Header values with `%{…}` in them. Parsed here, filled in by the proxy.

/// A value that may hold variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// In order. A template without variables is one literal (or none, where it is empty).
    pub segments: Vec<Segment>,
}

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// As written; valid in a header value.
    Literal(String),
    /// Filled in for each request.
    Variable(Variable),
}

/// What `%{…}` can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// `%{client.address}`: the client's IP address, as far as `trust` reaches.
    ClientAddress,
    /// `%{client.port}`: the port of the connection's peer.
    ClientPort,
    /// `%{request.id}`
    RequestId,
    /// `%{request.method}`
    RequestMethod,
    /// `%{request.host}`: as the client sent it.
    RequestHost,
    /// `%{request.path}`: as the client sent it, without the query.
    RequestPath,
    /// `%{request.scheme}`
    RequestScheme,
    /// `%{request.header.NAME}`: the first value, or nothing.
    RequestHeader(http::HeaderName),
    /// `%{trace.id}`: 32 hexadecimal digits.
    TraceId,
    /// `%{listener}`: its name.
    Listener,
    /// `%{route}`: its name.
    Route,
    /// `%{upstream}`: its name, or nothing.
    Upstream,
    /// `%{endpoint}`: its address; in response headers only, for it is not known before.
    Endpoint,
    /// `%{service}`: the configuration's `service`, or nothing.
    Service,
}
