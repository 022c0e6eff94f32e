//! One end of a connection, with everything that came over it recorded.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::message::{Body, Framing, Head, visible};
use super::wait::PATIENCE;

/// How the other side ended its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

/// A socket, what was read ahead, and a record of all that was received.
pub struct Wire {
    socket: Socket,
    ahead: Vec<u8>,
    received: Arc<Mutex<Vec<u8>>>,
    ended: Option<End>,
    /// Who reads here, for messages.
    who: String,
}

impl Wire {
    pub fn new(socket: Socket, who: impl Into<String>) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.set_tcp_nodelay(true);
        Wire { socket, ahead: Vec::new(), received: Arc::default(), ended: None, who: who.into() }
    }

    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        Ok(Wire::new(socket, "client"))
    }

    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(Wire::new(socket, "client"))
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Everything received so far, shared: it grows while the wire reads.
    pub fn record(&self) -> Arc<Mutex<Vec<u8>>> {
        Arc::clone(&self.received)
    }

    pub fn set_patience(&self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        self.socket.set_write_timeout(Some(patience)).unwrap();
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        if let Err(error) = self.try_send(bytes) {
            panic!("{}: cannot send {}: {error}; received so far: {}", self.who, visible(bytes), self.so_far());
        }
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        (&self.socket).write_all(bytes.as_ref())
    }

    /// Ends our direction.
    pub fn fin(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends both directions with RST.
    pub fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads more. `None` where the other side has ended; panics after [`PATIENCE`] of silence.
    #[track_caller]
    fn more(&mut self) -> Option<()> {
        match self.more_or_silence() {
            Ok(more) => more,
            Err(Silence) => panic!("{}: nothing came for the patience set; so far: {}", self.who, self.so_far()),
        }
    }

    fn more_or_silence(&mut self) -> Result<Option<()>, Silence> {
        if self.ended.is_some() {
            return Ok(None);
        }
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => self.ended = Some(End::Fin),
                Ok(count) => {
                    self.ahead.extend_from_slice(&buffer[..count]);
                    self.received.lock().unwrap().extend_from_slice(&buffer[..count]);
                    return Ok(Some(()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(Silence);
                }
                Err(_) => self.ended = Some(End::Reset),
            }
            return Ok(None);
        }
    }

    fn so_far(&self) -> String {
        visible(&self.received.lock().unwrap())
    }

    /// The next message's head; `None` where the connection ended without another byte.
    #[track_caller]
    pub fn head(&mut self) -> Option<Head> {
        let end = self.find(b"\r\n\r\n")?;
        Some(Head::parse(self.take(end + 4)))
    }

    /// Where `needle` begins in what lies ahead; reads until it is there. `None` where the connection ended before.
    #[track_caller]
    fn find(&mut self, needle: &[u8]) -> Option<usize> {
        let mut from = 0;
        loop {
            if let Some(at) = self.ahead[from..].windows(needle.len()).position(|window| window == needle) {
                return Some(from + at);
            }
            from = self.ahead.len().saturating_sub(needle.len() - 1);
            self.more()?;
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Exactly this many bytes; panics where the connection ends before.
    #[track_caller]
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            if self.more().is_none() {
                panic!("{}: the connection ended before {count} bytes; so far: {}", self.who, self.so_far());
            }
        }
        self.take(count)
    }

    /// Exactly this many bytes; `None` where the connection ends before.
    #[track_caller]
    pub fn exactly_or_end(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            self.more()?;
        }
        Some(self.take(count))
    }

    /// Expects these very bytes next.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        let seen = self.exactly(expected.len());
        assert_eq!(visible(&seen), visible(expected));
    }

    /// Reads until these bytes were received, and returns everything up to and with them.
    #[track_caller]
    pub fn until(&mut self, needle: impl AsRef<[u8]>) -> Vec<u8> {
        let needle = needle.as_ref();
        match self.find(needle) {
            Some(at) => self.take(at + needle.len()),
            None => panic!("{}: ended without {}; so far: {}", self.who, visible(needle), self.so_far()),
        }
    }

    /// Whatever is there next: at least one byte, or nothing where the connection ended.
    #[track_caller]
    pub fn some(&mut self) -> Vec<u8> {
        if self.ahead.is_empty() {
            let _ = self.more();
        }
        std::mem::take(&mut self.ahead)
    }

    /// Reads and forgets this many bytes, and returns how many came before the end.
    #[track_caller]
    pub fn swallow(&mut self, count: u64) -> u64 {
        let ahead = count.min(self.ahead.len() as u64);
        self.ahead.drain(..ahead as usize);
        let mut left = count - ahead;
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            let room = left.min(buffer.len() as u64) as usize;
            match (&self.socket).read(&mut buffer[..room]) {
                Ok(0) => break,
                Ok(read) => left -= read as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{}: {error} after {} bytes of {count}", self.who, count - left),
            }
        }
        count - left
    }

    /// Reads to the end of the other side's direction.
    #[track_caller]
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        while self.more().is_some() {}
        (std::mem::take(&mut self.ahead), self.ended.unwrap_or(End::Fin))
    }

    /// Expects that the other side ends its direction, by FIN or RST, without another byte.
    #[track_caller]
    pub fn expect_end(&mut self) -> End {
        let (rest, end) = self.rest();
        assert!(rest.is_empty(), "{}: expected the end of the connection, but came {}", self.who, visible(&rest));
        end
    }

    /// Waits this long for bytes or the end; true where nothing at all came.
    pub fn silent_for(&mut self, time: Duration) -> bool {
        if !self.ahead.is_empty() || self.ended.is_some() {
            return false;
        }
        self.socket.set_read_timeout(Some(time)).unwrap();
        let silent = self.more_or_silence().is_err();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    /// A body of this framing. One that the connection's end cut short is marked so.
    #[track_caller]
    pub fn body(&mut self, framing: Framing) -> Body {
        match framing {
            Framing::None => Body { complete: true, ..Body::default() },
            Framing::Length(length) => {
                while (self.ahead.len() as u64) < length {
                    if self.more().is_none() {
                        return Body { data: std::mem::take(&mut self.ahead), ..Body::default() };
                    }
                }
                Body { data: self.take(length as usize), complete: true, ..Body::default() }
            }
            Framing::UntilClose => {
                let (data, end) = self.rest();
                Body { data, complete: end == End::Fin, ..Body::default() }
            }
            Framing::Chunked => self.chunks(),
        }
    }

    #[track_caller]
    fn chunks(&mut self) -> Body {
        let mut body = Body::default();
        loop {
            let Some(line) = self.line() else { return body };
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .unwrap_or_else(|_| panic!("{}: bad chunk size {line:?}; so far: {}", self.who, self.so_far()));
            if size == 0 {
                break;
            }
            while self.ahead.len() < size + 2 {
                if self.more().is_none() {
                    let there = self.ahead.len().min(size);
                    body.data.extend_from_slice(&self.take(there));
                    return body;
                }
            }
            body.data.extend_from_slice(&self.take(size));
            let end = self.take(2);
            assert_eq!(end, b"\r\n", "{}: a chunk is longer than its size said", self.who);
        }
        loop {
            let Some(line) = self.line() else { return body };
            if line.is_empty() {
                body.complete = true;
                return body;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            body.trailers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// One chunk's data, as soon as it is there; empty for the last one.
    #[track_caller]
    pub fn chunk(&mut self) -> Vec<u8> {
        let line = self.line().unwrap_or_else(|| panic!("{}: ended before a chunk", self.who));
        let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("{}: bad chunk size {line:?}", self.who));
        let mut data = self.exactly(size + 2);
        data.truncate(size);
        data
    }

    #[track_caller]
    fn line(&mut self) -> Option<String> {
        let end = self.find(b"\r\n")?;
        let line = self.take(end + 2);
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }
}

struct Silence;
