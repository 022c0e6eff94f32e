//! Addresses of Consul's agents, as Consul's own tools write them.

use schemars::{Schema, json_schema};

use super::model::AgentAddress;
use super::scalar::{Invalid, Scalar, scalar};
use super::text::quote;

impl Scalar for AgentAddress {
    const EXPECTED: &'static str = "the address of a Consul agent such as `http://127.0.0.1:8500`";
    const SCHEMA_NAME: &'static str = "AgentAddress";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new(format!("{} is not the address of a Consul agent", quote(text)));
        let usual = "write it as in `http://127.0.0.1:8500` or `unix:///run/consul/http.sock`";
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return if path.starts_with('/') && !path.contains('\0') {
                Ok(AgentAddress::Unix(path.into()))
            } else {
                Err(wrong().hint(usual))
            };
        }
        let (secure, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(wrong().hint(usual)),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong().hint(usual))?;
        let user = authority.contains('@');
        if user || parsed.host().is_empty() || parsed.port_u16() == Some(0) {
            return Err(wrong().hint(usual));
        }
        match parsed.port_u16() {
            Some(port) if secure => Ok(AgentAddress::Https { host: parsed.host().to_owned(), port }),
            Some(port) => Ok(AgentAddress::Http { host: parsed.host().to_owned(), port }),
            None if parsed.port().is_some() || authority.ends_with(':') => Err(wrong().hint("a port is at most 65535")),
            None => Err(Invalid::new(format!("{} has no port", quote(text))).hint(format!(
                "did you mean {}?",
                quote(&if secure { format!("https://{authority}:8501") } else { format!("http://{authority}:8500") })
            ))),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "Where a Consul agent is: `http://127.0.0.1:8500`, `unix:///run/consul/http.sock`.",
            "type": "string"
        })
    }
}
scalar!(AgentAddress);

/// The address in a text that stands in no file, such as a variable of the environment.
///
/// # Errors
/// A sentence, where it is none.
pub(crate) fn parse_agent_address(text: &str) -> Result<AgentAddress, String> {
    AgentAddress::parse(text).map_err(|invalid| match invalid.hint {
        Some(hint) => format!("{}; {hint}", invalid.detail),
        None => invalid.detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_consuls_tools_read_them() {
        for (text, shown) in [
            ("http://127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("http://consul.example.org:80/", "http://consul.example.org:80"),
            ("http://[::1]:8500", "http://[::1]:8500"),
            ("unix:///run/consul.sock", "unix:///run/consul.sock"),
        ] {
            assert_eq!(AgentAddress::parse(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "http://",
            "http://a",
            "http://a:0",
            "http://a:70000",
            "http://a:80/x",
            "http://u@a:80",
            "ftp://a:1",
            "unix://x",
            ":8500",
            "http://a:",
        ] {
            assert!(AgentAddress::parse(text).is_err(), "{text}");
        }
        let hint = |text| AgentAddress::parse(text).unwrap_err().hint.unwrap_or_default();
        assert!(hint("http://consul").contains("`http://consul:8500`"), "{}", hint("http://consul"));
        assert!(hint("https://consul").contains("`https://consul:8501`"), "{}", hint("https://consul"));
        assert_eq!(AgentAddress::parse("https://a:8501").unwrap().to_string(), "https://a:8501");
    }
}
