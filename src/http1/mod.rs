//! HTTP/1 on the wire (RFC 9112), for both sides of the proxy: the listener reads requests and writes responses,
//! the transport writes requests and reads responses.
//!
//! Why not hyper's: a proxy must see what a server library hides (both framing fields at once, 1xx responses, where
//! exactly a connection died), gives an idle connection's memory back, and drives both sides from one task without a
//! channel between them. `httparse` still splits the bytes, `http` still holds the result.

mod body;
mod encode;
mod head;
mod send;

pub(crate) use body::{BodyDecoder, Decoded, Framing, without_forbidden};
pub(crate) use encode::{chunk_end, chunk_start, encode_request, encode_response, encode_trailers};
pub(crate) use head::{HeadError, RequestHead, ResponseHead, parse_request, parse_response};
pub(crate) use send::{BodySender, SendError};

/// How a message's body is delimited: RFC 9112, section 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// There is none.
    Empty,
    /// By `Content-Length`; not 0.
    Exact(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection; responses only.
    UntilClose,
}

/// What is wrong with a message, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);
