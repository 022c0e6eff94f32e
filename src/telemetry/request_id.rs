//! `x-request-id`: taken from the caller where it is sane, else made here.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::ids::Ids;

/// The header, by the name that Envoy, HAProxy and nginx's users know.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A longer one is not an id but a load on every log line.
const MAX_LENGTH: usize = 128;

/// The id of one request.
#[derive(Debug, Clone)]
pub struct RequestId(Text);

#[derive(Debug, Clone)]
enum Text {
    Received(HeaderValue),
    Made([u8; 36]),
}

impl RequestId {
    /// The caller's, if there is exactly one of at most 128 visible ASCII characters and the caller is no stranger
    /// (`edge`); else a new UUID of version 4.
    pub fn receive(headers: &HeaderMap, edge: bool, ids: &mut Ids) -> Self {
        if !edge {
            let mut values = headers.get_all(X_REQUEST_ID).iter();
            if let (Some(value), None) = (values.next(), values.next())
                && is_sane(value.as_bytes())
            {
                return RequestId(Text::Received(value.clone()));
            }
        }
        RequestId(Text::Made(ids.uuid()))
    }

    /// Visible ASCII.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Received(value) => value.to_str().unwrap_or_default(),
            Text::Made(text) => std::str::from_utf8(text).unwrap_or_default(),
        }
    }

    /// As a header's value.
    pub fn to_value(&self) -> HeaderValue {
        match &self.0 {
            Text::Received(value) => value.clone(),
            Text::Made(text) => HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static("")),
        }
    }

    /// Writes it into the headers that it was received from, on their way to the upstream. One that was taken over is
    /// already there.
    pub fn send(&self, headers: &mut HeaderMap) {
        if let Text::Made(_) = self.0 {
            headers.insert(X_REQUEST_ID, self.to_value());
        }
    }
}

fn is_sane(value: &[u8]) -> bool {
    !value.is_empty() && value.len() <= MAX_LENGTH && value.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(values: &[&[u8]], edge: bool) -> (RequestId, HeaderMap) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        }
        let id = RequestId::receive(&headers, edge, &mut Ids::seeded(1, 2));
        id.send(&mut headers);
        (id, headers)
    }

    #[test]
    fn a_sane_id_is_kept() {
        let longest = [b'x'; MAX_LENGTH];
        for sane in [b"abc-123".as_slice(), b"{\"}", &longest] {
            let (id, headers) = received(&[sane], false);
            assert_eq!(id.as_str().as_bytes(), sane);
            assert_eq!(headers[X_REQUEST_ID], sane);
        }
    }

    #[test]
    fn anything_else_is_replaced() {
        let too_long = [b'x'; MAX_LENGTH + 1];
        let cases: [&[&[u8]]; 6] =
            [&[], &[b""], &[b"a b"], &["\u{e4}".as_bytes()], &[b"one", b"two"], &[too_long.as_slice()]];
        for values in cases {
            let (id, headers) = received(values, false);
            assert_eq!(id.as_str().len(), 36, "{values:?}");
            assert_eq!(headers.get_all(X_REQUEST_ID).iter().collect::<Vec<_>>(), [id.as_str()]);
        }
    }

    #[test]
    fn a_strangers_id_is_replaced() {
        let (id, headers) = received(&[b"abc"], true);
        assert_ne!(id.as_str(), "abc");
        assert_eq!(headers[X_REQUEST_ID], id.as_str());
    }
}
