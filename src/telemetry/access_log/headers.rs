//! Request headers that a line shows besides its fields.

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::json;

/// What the client sent of the headers that were asked for, in their order.
#[derive(Debug, Clone)]
pub struct Logged(Vec<(HeaderName, SmallVec<[HeaderValue; 1]>)>);

impl Logged {
    /// `None` where none were asked for.
    pub(super) fn of(names: &[HeaderName], headers: &HeaderMap) -> Option<Box<Self>> {
        if names.is_empty() {
            return None;
        }
        let sent = names.iter().filter_map(|name| {
            let values: SmallVec<_> = headers.get_all(name).iter().cloned().collect();
            (!values.is_empty()).then(|| (name.clone(), values))
        });
        Some(Box::new(Logged(sent.collect())))
    }

    /// `{"user-agent":"curl/8.5.0"}`
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (position, (name, values)) in self.0.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            json::plain(out, name.as_str().as_bytes());
            out.push(b':');
            json::string(out, &joined(values));
        }
        out.push(b'}');
    }

    /// Names and values.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, SmallVec<[u8; 64]>)> {
        self.0.iter().map(|(name, values)| (name.as_str(), joined(values)))
    }
}

/// Lines of one name are one list (RFC 9110, section 5.2).
fn joined(values: &[HeaderValue]) -> SmallVec<[u8; 64]> {
    let mut text = SmallVec::new();
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(value.as_bytes());
    }
    text
}
