//! Fields whose value is a comma-separated list, over one line or several (RFC 9110 §5.6.1).

use bytes::Bytes;
use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Members of a list field's line, as long as none of them is a quoted string.
pub(super) fn members(line: &HeaderValue) -> impl DoubleEndedIterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Adds a member at the end. Several lines become one, which is the same to HTTP, and not to the many programs that
/// read the first line only.
pub(super) fn append(headers: &mut HeaderMap, name: &HeaderName, member: &HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(vacant) => {
            vacant.insert(member.clone());
        }
        Entry::Occupied(mut there) => {
            let lines = there.iter().chain([member]);
            let joined = join(lines.map(HeaderValue::as_bytes).filter(|line| !line.is_empty()));
            there.insert(joined.unwrap_or_else(|| member.clone()));
        }
    }
}

/// One line of these members.
pub(super) fn join<'a>(members: impl Iterator<Item = &'a [u8]>) -> Option<HeaderValue> {
    let mut line = Vec::with_capacity(64);
    for member in members {
        if !line.is_empty() {
            line.extend_from_slice(b", ");
        }
        line.extend_from_slice(member);
    }
    HeaderValue::from_maybe_shared(Bytes::from(line)).ok()
}
