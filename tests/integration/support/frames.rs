//! An HTTP/2 client that writes frames by hand, for what a well-behaved library refuses to send.

use std::net::SocketAddr;

use super::wire::Wire;

/// Frame types of RFC 9113, section 6.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

/// Error codes of RFC 9113, section 7.
pub const PROTOCOL_ERROR: u32 = 1;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM and GOAWAY.
    pub fn error_code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The value of this setting, where the frame holds it.
    pub fn setting(&self, identifier: u16) -> Option<u32> {
        self.payload
            .chunks_exact(6)
            .find(|entry| entry[..2] == identifier.to_be_bytes())
            .map(|entry| u32::from_be_bytes(entry[2..].try_into().unwrap()))
    }

    /// `:status` of a response, where it is written in one of the two ways that encoders use for it.
    pub fn status(&self) -> Option<u16> {
        match self.payload.as_slice() {
            // Indexed entries 8 to 14 of the static table (RFC 7541, appendix A).
            [first, ..] if (0x88..=0x8e).contains(first) => {
                Some([200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)])
            }
            // A literal with the name of entry 8: plain, or Huffman coded, whose digits are 5 or 6 bits long.
            [first, length, rest @ ..] if matches!(first & 0x0f, 8) => {
                let value = rest.get(..usize::from(length & 0x7f))?;
                let text = if length & 0x80 == 0 { value.to_vec() } else { huffman_digits(value) };
                String::from_utf8_lossy(&text).parse().ok()
            }
            _ => None,
        }
    }
}

/// Digits only: 0 to 2 are five bits long, 3 to 9 six (RFC 7541, appendix B).
fn huffman_digits(bytes: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0u8, |number, bit| number << 1 | bit);
    let (mut at, mut digits) = (0, Vec::new());
    while at + 5 <= bits.len() && digits.len() < 3 {
        let five = number(&bits[at..at + 5]);
        if five <= 2 {
            digits.push(b'0' + five);
            at += 5;
        } else if at + 6 <= bits.len() {
            digits.push(b'3' + (number(&bits[at..at + 6]).wrapping_sub(0x19)));
            at += 6;
        } else {
            break;
        }
    }
    digits
}

/// A connection whose preface and settings were exchanged.
pub struct FrameClient {
    pub wire: Wire,
    pub settings: Frame,
}

impl FrameClient {
    pub fn connect(address: SocketAddr) -> Self {
        let mut wire = Wire::connect(address).unwrap();
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        wire.send(frame(SETTINGS, 0, 0, &[]));
        let settings = read(&mut wire).expect("no frame from the proxy");
        assert_eq!(settings.kind, SETTINGS, "RFC 9113, 3.4: the first frame is SETTINGS");
        wire.send(frame(SETTINGS, ACK, 0, &[]));
        FrameClient { wire, settings }
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.wire.try_send(frame(kind, flags, stream, payload));
    }

    /// A HEADERS frame with these fields, each a literal without indexing.
    pub fn headers(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) {
        self.send(HEADERS, flags | END_HEADERS, stream, &block(fields));
    }

    /// The next frame, its PING answered; `None` where the connection ended.
    pub fn frame(&mut self) -> Option<Frame> {
        let frame = read(&mut self.wire)?;
        if frame.kind == PING && frame.flags & ACK == 0 {
            self.send(PING, ACK, 0, &frame.payload);
        }
        Some(frame)
    }

    /// Reads until a frame of this kind; panics where the connection ends before.
    #[track_caller]
    pub fn until(&mut self, kind: u8) -> Frame {
        loop {
            match self.frame() {
                Some(frame) if frame.kind == kind => return frame,
                Some(_) => {}
                None => panic!("the connection ended before a frame of type {kind}"),
            }
        }
    }

    /// What became of this stream: its response, its reset, or the end of the connection.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            match self.frame() {
                None => return Outcome::Closed,
                Some(frame) if frame.kind == GOAWAY && frame.error_code() != 0 => {
                    return Outcome::GoneAway(frame.error_code());
                }
                Some(frame) if frame.kind == RST_STREAM && frame.stream == stream => {
                    return Outcome::Reset(frame.error_code());
                }
                Some(frame) if frame.kind == HEADERS && frame.stream == stream => {
                    return Outcome::Status(frame.status().unwrap_or(0));
                }
                Some(_) => {}
            }
        }
    }
}

/// See [`FrameClient::outcome`].
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Outcome {
    Status(u16),
    Reset(u32),
    GoneAway(u32),
    Closed,
}

fn read(wire: &mut Wire) -> Option<Frame> {
    let head = wire.exactly_or_end(9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let stream = u32::from_be_bytes(head[5..9].try_into().unwrap()) & 0x7fff_ffff;
    let payload = wire.exactly_or_end(length)?;
    Some(Frame { kind: head[3], flags: head[4], stream, payload })
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literals without indexing and without Huffman coding (RFC 7541, 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name.as_bytes());
        string(&mut block, value.as_bytes());
    }
    block
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128 + 128) as u8);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend_from_slice(text);
}
