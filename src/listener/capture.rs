//! Connections that the kernel has redirected here: where they were going to, and whether they speak HTTP.
//!
//! A client of HTTP speaks first. One that is silent may wait for a greeting (of MySQL, of SMTP), so the wait is bounded
//! where the listener lets through what is no HTTP; elsewhere nothing else is let in, and there is nothing to tell apart.

use std::net::SocketAddr;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout_at};

use crate::proxy::{Connection, tunnel};
use crate::runtime::drain::Ticket;
use crate::runtime::stream::Stream;
use crate::runtime::timer::Timer;
use crate::telemetry::metrics::{ListenerCounter, ListenerGauge};

/// Room for the first bytes; the longest method that is looked at and the beginning of a target need less.
const FIRST_BYTES: usize = 1024;
/// Longest method: `UPDATEREDIRECTREF` (IANA's registry) has 17 letters.
const LONGEST_METHOD: usize = 17;

/// The connection where it speaks HTTP; anything else is served here, to its end.
pub(super) async fn open(mut stream: Stream, connection: &mut Connection, ticket: &mut Ticket) -> Option<Stream> {
    if let Some(address) = destination(&stream) {
        connection.captured(address);
    }
    if !connection.passes_on() {
        return Some(stream);
    }
    let deadline = Instant::now() + connection.limits().detect;
    let mut read = BytesMut::new();
    let http = loop {
        if let Some(http) = speaks_http(&read) {
            break http;
        }
        read.reserve(FIRST_BYTES);
        match timeout_at(deadline, stream.read_buf(&mut read)).await {
            Err(_) => break false,
            Ok(Ok(count)) if count > 0 => {}
            // It has left without a word, or will send no more than this.
            _ if read.is_empty() => return None,
            _ => break false,
        }
    };
    if http {
        return Some(Stream::Replayed(read, Box::new(stream)));
    }
    let worker = connection.worker().clone();
    let (_held, _in_flight) = (
        worker.metrics.hold_listener(connection.entry().listener, ListenerGauge::TcpConnections),
        worker.begin_request(),
    );
    worker.metrics.count_listener(connection.entry().listener, ListenerCounter::TcpConnections);
    match connection.pass_on().await {
        Some(Ok(tunnel)) => {
            let mut timer = Timer::default();
            let (none, early) = (bytes::Bytes::new(), read.freeze());
            let ended = tunnel::join(&mut stream, none, early, tunnel, None, ticket, &mut timer).await;
            if ended.is_err() {
                stream.reset_on_close();
            }
            tracing::debug!(?ended, "a captured connection has ended");
        }
        Some(Err(error)) => {
            // The client finds what it would have found without a proxy: a connection that is refused.
            tracing::debug!(%error, "a captured connection cannot be passed on");
            stream.reset_on_close();
        }
        None => stream.reset_on_close(),
    }
    None
}

/// Where the client was going to; `None` where it called this listener itself.
fn destination(stream: &Stream) -> Option<SocketAddr> {
    let Stream::Tcp(tcp) = stream else { return None };
    let socket = SockRef::from(tcp);
    let own = tcp.local_addr().ok()?;
    // A socket for both families has IPv4 clients in IPv6's clothes.
    let original = match own.ip().to_canonical().is_ipv4() {
        true => socket.original_dst_v4(),
        false => socket.original_dst_v6(),
    };
    let original = original.ok()?.as_socket()?;
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    (canonical(original) != canonical(own)).then_some(original)
}

/// Whether these are the first bytes of a request: a method and the beginning of its target. `None`: too few to say.
/// Other protocols have commands of capital letters, too, but no such word after them.
fn speaks_http(bytes: &[u8]) -> Option<bool> {
    let letters = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    let (method, rest) = bytes.split_at(letters);
    let Some((space, target)) = rest.split_first() else {
        return (letters > LONGEST_METHOD).then_some(false);
    };
    if letters == 0 || letters > LONGEST_METHOD || *space != b' ' {
        return Some(false);
    }
    // `CONNECT host:port`, and the preface of HTTP/2.
    if method == b"CONNECT" {
        return Some(true);
    }
    let known = [b"/".as_slice(), b"* ", b"* HTTP/", b"http://", b"https://"];
    if known.iter().any(|known| target.starts_with(known)) {
        return Some(true);
    }
    if known.iter().any(|known| known.starts_with(target)) { None } else { Some(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_other_protocols() {
        for (bytes, expected) in [
            ("", None),
            ("GE", None),
            ("GET ", None),
            ("GET /", Some(true)),
            ("PRI * HTTP/2.0\r\n", Some(true)),
            ("OPTIONS *", None),
            ("VERSION-CONTROL http://a", Some(true)),
            ("CONNECT a", Some(true)),
            ("EHLO mail.example\r\n", Some(false)),
            ("EHLO httpd\r\n", Some(false)),
            ("GET key\r\n", Some(false)),
            ("*3\r\n$3\r\nSET\r\n", Some(false)),
            ("\u{16}\u{3}\u{1}", Some(false)),
            ("SSH-2.0-OpenSSH", Some(false)),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", Some(false)),
        ] {
            assert_eq!(speaks_http(bytes.as_bytes()), expected, "{bytes}");
        }
    }
}
