//! The `tracestate` header (level 2, section 3.3).

use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use super::TRACESTATE;

/// More list members make the list invalid (section 3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// What becomes of the `tracestate` that came in.
///
/// We add no member and change none, so a valid list passes as it is. Several lines become one; of a key that is there
/// twice the first, which is the latest, stays; and a list that is not valid goes, without harm to the trace.
#[derive(Debug, Clone)]
pub(super) enum Tracestate {
    Keep,
    Remove,
    Replace(HeaderValue),
}

impl Tracestate {
    pub(super) fn receive(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(TRACESTATE).iter();
        let Some(first) = lines.next() else { return Tracestate::Keep };
        let mut is_changed = false;
        let mut count = 0;
        let mut members: SmallVec<[Member<'_>; MAX_MEMBERS]> = SmallVec::new();
        for (index, line) in std::iter::once(first).chain(lines).enumerate() {
            is_changed |= index > 0;
            for text in line.as_bytes().split(|byte| *byte == b',').map(trim).filter(|text| !text.is_empty()) {
                count += 1;
                let Some(member) = Member::parse(text).filter(|_| count <= MAX_MEMBERS) else {
                    return Tracestate::Remove;
                };
                if members.iter().any(|other| other.key == member.key) {
                    is_changed = true;
                } else {
                    members.push(member);
                }
            }
        }
        match (members.is_empty(), is_changed) {
            (true, _) => Tracestate::Remove,
            (false, false) => Tracestate::Keep,
            (false, true) => {
                let texts: SmallVec<[&[u8]; MAX_MEMBERS]> = members.iter().map(|member| member.text).collect();
                HeaderValue::from_bytes(&texts.join(&b","[..])).map_or(Tracestate::Remove, Tracestate::Replace)
            }
        }
    }

    pub(super) fn send(&self, headers: &mut HeaderMap) {
        match self {
            Tracestate::Keep => {}
            Tracestate::Remove => {
                headers.remove(TRACESTATE);
            }
            Tracestate::Replace(value) => {
                headers.insert(TRACESTATE, value.clone());
            }
        }
    }
}

struct Member<'a> {
    key: &'a [u8],
    text: &'a [u8],
}

impl<'a> Member<'a> {
    /// Sections 3.3.1.3.1 and 3.3.1.3.2.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (key, value) = text.split_at_checked(memchr::memchr(b'=', text)?)?;
        let value = &value[1..];
        let (first, others) = key.split_first()?;
        let is_key = (first.is_ascii_lowercase() || first.is_ascii_digit())
            && key.len() <= 256
            && others.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'));
        let is_value =
            (1..=256).contains(&value.len()) && value.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'=');
        (is_key && is_value).then_some(Member { key, text })
    }
}

/// Spaces and tabs around list members belong to the list (RFC 9110, section 5.6.1).
fn trim(mut member: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = member {
        member = rest;
    }
    member
}
