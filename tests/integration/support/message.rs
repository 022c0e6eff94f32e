//! HTTP/1 messages as they stood on the wire: nothing normalised, so that a test can look at case and order.

use std::fmt;

/// A start line and fields.
#[derive(Clone, Debug)]
pub struct Head {
    /// Everything up to and with the empty line.
    pub raw: Vec<u8>,
    /// Without its line end.
    pub start: String,
    /// Names in their case, values without the blanks around them, in order.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// Splits strictly at CRLF: a bare CR or LF that got through stays inside a value, where tests can see it.
    pub fn parse(raw: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .filter(|line| !line.is_empty())
            .map(|line| match line.split_once(':') {
                Some((name, value)) => (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()),
                None => (line.to_owned(), String::new()),
            })
            .collect();
        Head { raw, start, fields }
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The values of all fields of this name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The members of all fields of this name, in order, as one comma-separated list.
    pub fn list(&self, name: &str) -> Vec<String> {
        let values = self.all(name).join(",");
        values.split(',').map(|member| member.trim().to_owned()).filter(|member| !member.is_empty()).collect()
    }

    /// Whether the comma-separated list of this name has this member, in any case.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.list(name).iter().any(|own| own.eq_ignore_ascii_case(member))
    }

    /// Names in their case, in order.
    pub fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&visible(&self.raw))
    }
}

/// How a body's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Of a response to a request with this method.
pub fn response_framing(head: &Head, method: &str) -> Framing {
    let status = status_of(head);
    if method == "HEAD" || (100..200).contains(&status) || status == 204 || status == 304 {
        return Framing::None;
    }
    if method == "CONNECT" && (200..300).contains(&status) {
        return Framing::None;
    }
    if head.has("transfer-encoding") {
        return Framing::Chunked;
    }
    length(head).map_or(Framing::UntilClose, Framing::Length)
}

/// Of a request.
pub fn request_framing(head: &Head) -> Framing {
    if head.has("transfer-encoding") {
        return Framing::Chunked;
    }
    length(head).map_or(Framing::None, Framing::Length)
}

fn length(head: &Head) -> Option<u64> {
    head.get("content-length").map(|value| value.parse().unwrap_or_else(|_| panic!("bad Content-Length in {head}")))
}

/// The number in a status line.
pub fn status_of(head: &Head) -> u16 {
    let word = head.start.split(' ').nth(1).unwrap_or_default();
    word.parse().unwrap_or_else(|_| panic!("not a status line: {:?}", head.start))
}

/// What came after the head.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// Without framing.
    pub data: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// False where the connection ended before the body did. A body that lasts until the close is complete after FIN.
    pub complete: bool,
}

/// What an upstream received.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: Head,
    pub method: String,
    pub target: String,
    pub body: Body,
}

impl Request {
    pub fn new(head: Head, body: Body) -> Self {
        let mut words = head.start.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        Request { head, method, target, body }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.data).into_owned()
    }
}

/// What a client received.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: Head,
    pub status: u16,
    pub body: Body,
}

impl Response {
    pub fn new(head: Head, body: Body) -> Self {
        let status = status_of(&head);
        Response { head, status, body }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.data).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body.data).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The reason of a reply that the proxy made itself, in the form `REASON; hop=LISTENER`.
    pub fn reason(&self) -> Option<&str> {
        self.head.get("x-outrigger-reason")
    }
}

/// Bytes for a person: CR, LF and what is not ASCII are escaped.
pub fn visible(bytes: &[u8]) -> String {
    const SHOWN: usize = 2_000;
    let text = bytes[..bytes.len().min(SHOWN)].escape_ascii().to_string().replace("\\r\\n", "\\r\\n\n");
    if bytes.len() > SHOWN { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}
