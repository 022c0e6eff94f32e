//! Why Consul did not tell what it was asked, in words for whoever runs it.

use std::time::Duration;

use http::StatusCode;

/// More of an agent's own words helps nobody.
const QUOTED: usize = 200;

/// Why a question to Consul has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody is there, or the connection broke.
    #[error("no Consul agent answers at {agent}: {cause}")]
    Unreachable { agent: String, cause: String },
    /// It is there, and says nothing.
    #[error("the Consul agent at {agent} did not answer within {} s", .after.as_secs())]
    Silent { agent: String, after: Duration },
    /// It answers that it cannot or will not.
    #[error("the Consul agent at {agent} answered {status}{}{}", words(.text), hint(*.status))]
    Refused { agent: String, status: StatusCode, text: String, retry_after: Option<Duration> },
    /// What it says is not what Consul says.
    #[error("the Consul agent at {agent} sent what cannot be used: {what}")]
    Unusable { agent: String, what: String },
    /// The token does not show what was asked for.
    #[error(
        "the token shows no instance of this service, though there may be some: it needs service:read and node:read"
    )]
    Hidden,
}

impl Error {
    pub(super) fn refused(agent: String, status: StatusCode, text: &[u8], retry_after: Option<Duration>) -> Self {
        let text = String::from_utf8_lossy(text);
        let text: String = text.chars().filter(|character| !character.is_control()).take(QUOTED).collect();
        Error::Refused { agent, status, text: text.trim().to_owned(), retry_after }
    }

    /// The thing asked for is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Error::Refused { status: StatusCode::NOT_FOUND, .. })
    }

    /// The check that is spoken of is not there. Consul's versions say so in different ways.
    pub(crate) fn is_unknown_check(&self) -> bool {
        match self {
            Error::Refused { status: StatusCode::NOT_FOUND, .. } => true,
            Error::Refused { status: StatusCode::INTERNAL_SERVER_ERROR, text, .. } => {
                let text = text.to_ascii_lowercase();
                text.contains("unknown check") || text.contains("does not have associated ttl")
            }
            _ => false,
        }
    }

    /// Another agent may know better.
    pub(super) fn is_the_agents_own(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Silent { .. } | Error::Unusable { .. } => true,
            Error::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Error::Hidden => false,
        }
    }

    /// Asking again costs only the machine that the agent would be on.
    pub(super) fn reached_nobody(&self) -> bool {
        matches!(self, Error::Unreachable { .. })
    }

    /// How long the agent asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn words(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            " (look at the token: consul.token_file or CONSUL_HTTP_TOKEN, and the rules of its policy)"
        }
        StatusCode::TOO_MANY_REQUESTS => " (the agent limits how often it is asked)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_words_are_quoted_in_bounds() {
        let refused = |status, text: &str| Error::refused("http://a".to_owned(), status, text.as_bytes(), None);
        assert_eq!(
            refused(StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader\r\n").to_string(),
            "the Consul agent at http://a answered 500 Internal Server Error: No cluster leader"
        );
        let unknown = [
            (StatusCode::NOT_FOUND, "Unknown check ID \"service:a\". Ensure that the check ID is passed"),
            (StatusCode::INTERNAL_SERVER_ERROR, "Unknown check \"service:a\""),
            (StatusCode::INTERNAL_SERVER_ERROR, "CheckID \"service:a\" does not have associated TTL"),
        ];
        assert!(unknown.into_iter().all(|(status, text)| refused(status, text).is_unknown_check()));
        assert!(!refused(StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader").is_unknown_check());
        assert!(!refused(StatusCode::FORBIDDEN, "Permission denied").is_unknown_check());
        assert!(refused(StatusCode::FORBIDDEN, "").to_string().contains("consul.token_file"));
        assert!(refused(StatusCode::BAD_GATEWAY, &"x".repeat(10_000)).to_string().len() < 300);
    }
}
