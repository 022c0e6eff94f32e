//! Where endpoints come from, in one word: an address, or a URL that names a service in a registry.

use percent_encoding::percent_decode_str;
use schemars::{Schema, json_schema};

use super::dns_form::{HostPort, ServiceName};
use super::model::{Consul, ConsulConsistency, ConsulSource, DnsTarget, EndpointAddress, Passing};
use super::scalar::{Invalid, Scalar, scalar};
use super::text::{listed, nearest, quote};

/// An upstream in one word.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ShortUpstream {
    /// `127.0.0.1:8080`
    Address(EndpointAddress),
    /// `consul://payments?tag=v1`
    Consul(ShortConsul),
    /// `dns://orders.internal:8080`, `srv://_http._tcp.orders.internal`
    Dns(DnsTarget),
}

/// A service in Consul in one word. The agents to ask are not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ShortConsul(pub(crate) Box<ConsulSource>);

impl Scalar for ShortUpstream {
    const EXPECTED: &'static str = "an address such as `127.0.0.1:8080`, or a URL such as `consul://payments`";
    const SCHEMA_NAME: &'static str = "ShortUpstream";

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.starts_with("consul:") {
            return ShortConsul::parse(text).map(ShortUpstream::Consul);
        }
        if text.starts_with("dns://") {
            return HostPort::parse(text).map(|host| ShortUpstream::Dns(host.0));
        }
        if text.starts_with("srv://") {
            return ServiceName::parse(text).map(|name| ShortUpstream::Dns(DnsTarget::Service { name: name.0 }));
        }
        EndpointAddress::parse(text).map(ShortUpstream::Address)
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "An address (`127.0.0.1:8080`, `unix:/run/app.sock`), a service in Consul (`consul://payments?tag=v1`) or a name in DNS (`dns://orders:8080`, `srv://_http._tcp.orders`).",
            "type": "string"
        })
    }
}
scalar!(ShortUpstream);

const PARAMETERS: [&str; 8] = ["tag", "dc", "near", "filter", "ns", "partition", "passing", "consistency"];

impl Scalar for ShortConsul {
    const EXPECTED: &'static str = "the name of a service, or `consul://NAME?tag=…`";
    const SCHEMA_NAME: &'static str = "ShortConsul";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let Some(rest) = text.strip_prefix("consul:") else {
            return Ok(ShortConsul(Box::new(service(name(text, text)?))));
        };
        let wrong = || Invalid::new(format!("{} is not a service in Consul", quote(text)));
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(wrong().hint("write it as in `consul://payments?tag=v1`"));
        };
        let (name_part, query) = rest.split_once('?').unwrap_or((rest, ""));
        let name_part = name_part.strip_suffix('/').unwrap_or(name_part);
        if name_part.contains([':', '/']) {
            return Err(wrong().hint("it is the service's name alone: Consul knows the ports"));
        }
        let mut source = service(name(&decoded(text, name_part)?, text)?);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(text, value)?;
            if value.is_empty() {
                return Err(Invalid::new(format!("{} has no value in {}", quote(key), quote(text))));
            }
            match key {
                "tag" => source.tags.push(value),
                "dc" => source.datacenters.push(value),
                "near" => source.near = Some(value),
                "filter" => source.filter = Some(value),
                "ns" => source.namespace = Some(value),
                "partition" => source.partition = Some(value),
                "passing" => {
                    source.passing = word(&value, &[("only", Passing::Only), ("warning", Passing::Warning)])?;
                }
                "consistency" => {
                    let known = [
                        ("default", ConsulConsistency::Default),
                        ("stale", ConsulConsistency::Stale),
                        ("consistent", ConsulConsistency::Consistent),
                        ("cached", ConsulConsistency::Cached),
                    ];
                    source.consistency = word(&value, &known)?;
                }
                _ => {
                    let hint = match nearest(key, PARAMETERS) {
                        Some(near) => format!("did you mean {}?", quote(near)),
                        None => format!("it can be {}", listed(PARAMETERS, "or")),
                    };
                    return Err(Invalid::new(format!("unknown parameter {}", quote(key))).hint(hint));
                }
            }
        }
        Ok(ShortConsul(Box::new(source)))
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "A service in Consul: `payments`, `consul://payments?tag=v1&dc=dc1`.",
            "type": ["string", "number"]
        })
    }
}
scalar!(ShortConsul);

fn service(name: String) -> ConsulSource {
    ConsulSource::service(Consul::default(), name)
}

fn name(name: &str, text: &str) -> Result<String, Invalid> {
    if name.is_empty() || name.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(Invalid::new(format!("{} does not name a service", quote(text)))
            .hint("write it as in `consul://payments?tag=v1`"));
    }
    Ok(name.to_owned())
}

fn decoded(text: &str, part: &str) -> Result<String, Invalid> {
    let decoded = percent_decode_str(part).decode_utf8();
    let decoded = decoded.map_err(|_| Invalid::new(format!("{} is not UTF-8 once it is decoded", quote(text))))?;
    Ok(decoded.into_owned())
}

fn word<T: Copy>(word: &str, known: &[(&str, T)]) -> Result<T, Invalid> {
    let found = known.iter().find(|(name, _)| *name == word);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        Invalid::new(format!("unknown word {}", quote(word))).hint(format!("it can be {}", listed(names, "or")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::ConsulTarget;

    #[test]
    fn services_are_read() {
        let parsed = |text| ShortConsul::parse(text).map(|short| *short.0);
        assert_eq!(parsed("payments"), Ok(service("payments".to_owned())));
        assert_eq!(parsed("consul://payments"), Ok(service("payments".to_owned())));
        let all = parsed("consul://a%20b?tag=v1&tag=x%26y&dc=dc1&dc=dc2&near=_agent&passing=warning&consistency=stale");
        assert!(all.is_err(), "a name holds no space");
        let all =
            parsed("consul://Web_1.x?tag=v1&tag=x%26y&dc=dc1&dc=dc2&near=_agent&passing=warning&consistency=stale")
                .unwrap();
        assert_eq!(all.target, ConsulTarget::Service("Web_1.x".to_owned()));
        assert_eq!(
            (all.tags, all.datacenters),
            (vec!["v1".to_owned(), "x&y".to_owned()], vec!["dc1".to_owned(), "dc2".to_owned()])
        );
        assert_eq!((all.passing, all.consistency), (Passing::Warning, ConsulConsistency::Stale));
        assert!(matches!(ShortUpstream::parse("127.0.0.1:80"), Ok(ShortUpstream::Address(_))));
    }

    #[test]
    fn mistakes_have_hints() {
        for (text, hint) in [
            ("consul://", "consul://payments"),
            ("consul:payments", "consul://payments"),
            ("consul://payments:8080", "Consul knows the ports"),
            ("consul://payments?tags=v1", "`tag`"),
            ("consul://payments?passing=any", "`only`"),
        ] {
            let found = ShortUpstream::parse(text).unwrap_err().hint.unwrap_or_default();
            assert!(found.contains(hint), "{text}: {found}");
        }
        assert!(ShortUpstream::parse("consul://payments?tag=").is_err());
    }
}
