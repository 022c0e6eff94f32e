//! A question to an agent: what is asked, for how long it may be thought about, and how long the answer may be.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// An agent holds a blocking query back for this long where nothing changes. An agent that was restarted counts from a
/// lower index, and an old one would block for all of it.
pub(super) const WAIT: Duration = Duration::from_secs(60);
/// An agent adds up to a sixteenth to [`WAIT`]; the rest is for the answer to arrive.
const ANSWER_WITHIN_AFTER_WAIT: Duration = Duration::from_secs(60 + 60 / 16 + 6);
/// For what does not block.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Everything else is encoded (RFC 3986, section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A question.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) method: Method,
    path: String,
    parameters: String,
    index: Option<NonZeroU64>,
    pub(super) body: Bytes,
    /// Of the answer.
    pub(super) most_bytes: usize,
}

impl Question {
    pub(super) fn get(path: &str, most_bytes: usize) -> Self {
        Question {
            method: Method::GET,
            path: path.to_owned(),
            parameters: String::new(),
            index: None,
            body: Bytes::new(),
            most_bytes,
        }
    }

    pub(super) fn put(path: &str, body: Bytes) -> Self {
        Question { method: Method::PUT, body, ..Question::get(path, 64 << 10) }
    }

    /// One more segment of the path.
    pub(super) fn segment(mut self, segment: &str) -> Self {
        self.path.push('/');
        self.path.extend(utf8_percent_encode(segment, UNRESERVED));
        self
    }

    pub(super) fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.push(if self.parameters.is_empty() { '?' } else { '&' });
        self.parameters.push_str(name);
        self.parameters.push('=');
        self.parameters.extend(utf8_percent_encode(value, UNRESERVED));
        self
    }

    pub(super) fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.parameter(name, value),
            None => self,
        }
    }

    pub(super) fn flag(mut self, name: &str) -> Self {
        self.parameters.push(if self.parameters.is_empty() { '?' } else { '&' });
        self.parameters.push_str(name);
        self
    }

    /// Answered when what is asked for has changed since this index.
    pub(super) fn since(mut self, index: Option<NonZeroU64>) -> Self {
        self.index = index;
        self
    }

    /// The same, answered at once.
    pub(super) fn at_once(self) -> Self {
        self.since(None)
    }

    pub(super) fn target(&self) -> String {
        let mut target = format!("{}{}", self.path, self.parameters);
        if let Some(index) = self.index {
            let separator = if self.parameters.is_empty() { '?' } else { '&' };
            target.push_str(&format!("{separator}index={index}&wait={}s", WAIT.as_secs()));
        }
        target
    }

    /// The whole answer has to be there by then.
    pub(super) fn answer_within(&self) -> Duration {
        if self.index.is_some() { ANSWER_WITHIN_AFTER_WAIT } else { ANSWER_WITHIN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_written_changes_the_question() {
        let question = Question::get("/v1/health/service", 1)
            .segment("a/b?c")
            .flag("stale")
            .parameter("filter", r#"Service.Meta.x == "1&2""#);
        let plain = "/v1/health/service/a%2Fb%3Fc?stale&filter=Service.Meta.x%20%3D%3D%20%221%262%22";
        assert_eq!(question.target(), plain);
        assert_eq!(question.answer_within(), ANSWER_WITHIN);
        let blocking = question.since(NonZeroU64::new(7));
        assert_eq!(blocking.target(), format!("{plain}&index=7&wait=60s"));
        assert!(blocking.answer_within() > WAIT + WAIT / 16);
        assert_eq!(blocking.at_once().target(), plain);
        let bare = Question::get("/v1/kv", 1).segment("k").since(NonZeroU64::new(1));
        assert_eq!(bare.target(), "/v1/kv/k?index=1&wait=60s");
    }
}
