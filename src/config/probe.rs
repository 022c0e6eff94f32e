//! What the proxy asks of the app when a probe comes: where, and how.

use http::uri::PathAndQuery;
use schemars::{Schema, json_schema};

use super::later;
use super::model::{EndpointAddress, ProbeQuestion, ProbeTarget};
use super::scalar::{Invalid, Scalar, scalar};
use super::text::quote;

impl Scalar for ProbeTarget {
    const EXPECTED: &'static str = "what to ask, such as `http://127.0.0.1:8080/healthz` or `tcp://127.0.0.1:5432`";
    const SCHEMA_NAME: &'static str = "ProbeTarget";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            Invalid::new(format!("{} is not something to ask", quote(text)))
                .hint("write it as in `http://127.0.0.1:8080/healthz` or `tcp://127.0.0.1:5432`")
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (address, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let question = match scheme {
            "http" => ProbeQuestion::Http(PathAndQuery::try_from(path).map_err(|_| wrong())?),
            "tcp" if path == "/" => ProbeQuestion::Tcp,
            "https" => return Err(Invalid::new(format!("{} {}", quote("https://…"), later::SENTENCE))),
            _ => return Err(wrong()),
        };
        Ok(ProbeTarget { address: EndpointAddress::parse(address)?, question })
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "What to ask: `http://127.0.0.1:8080/healthz`, `tcp://127.0.0.1:5432`.",
            "type": "string"
        })
    }
}
scalar!(ProbeTarget);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for text in ["http://127.0.0.1:8080/healthz?a=b", "http://[::1]:80/", "tcp://127.0.0.1:5432"] {
            assert_eq!(ProbeTarget::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(ProbeTarget::parse("http://localhost:80").unwrap().to_string(), "http://127.0.0.1:80/");
        for wrong in ["", "127.0.0.1:80", "http://", "ftp://127.0.0.1:1/", "tcp://127.0.0.1:1/x", "https://127.0.0.1:1"]
        {
            assert!(ProbeTarget::parse(wrong).is_err(), "{wrong}");
        }
    }
}
