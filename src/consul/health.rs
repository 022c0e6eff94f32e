//! Who offers a service, and how they are.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::Indexed;
use super::client::{Client, Place};
use super::error::Error;
use super::instances::{Instances, Words};
use super::question::Question;
use crate::config::model::{ConsulConsistency, ConsulSource, ConsulTarget, EndpointAddress};

/// An instance with its checks takes 1 to 2 KiB; this is room for 30,000 or more.
const ANSWER_BYTES: usize = 64 << 20;

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) address: EndpointAddress,
    /// The worst of its checks and its node's.
    pub(crate) status: Status,
    /// While its checks pass.
    pub(crate) weight_passing: u16,
    /// While one of its checks warns.
    pub(crate) weight_warning: u16,
    /// Where it is: its locality's zone, else `zone` in its or its node's metadata, else the datacenter.
    pub(crate) zone: Option<Arc<str>>,
    /// `protocol` in its metadata.
    pub(crate) protocol: Option<Arc<str>>,
}

/// What a check says. The order is from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Passing,
    Warning,
    Critical,
}

impl Client {
    /// Brings `known` up to date: all instances of a service in a datacenter, whatever their checks say. With an index, the
    /// answer comes when something may have changed since, or after a minute; a prepared query is always answered at once.
    ///
    /// # Errors
    /// Where no agent tells, or what it tells is not a whole list of instances with addresses and ports, or the token
    /// hides them.
    pub(crate) async fn instances(
        &self,
        source: &ConsulSource,
        datacenter: Option<&str>,
        index: Option<NonZeroU64>,
        known: &mut Instances,
    ) -> Result<Indexed<()>, Error> {
        let question = match &source.target {
            ConsulTarget::Service(name) => Question::get("/v1/health/service", ANSWER_BYTES).segment(name).since(index),
            ConsulTarget::PreparedQuery(name) => {
                Question::get("/v1/query", ANSWER_BYTES).segment(name).segment("execute")
            }
        };
        let place =
            Place { datacenter, namespace: source.namespace.as_deref(), partition: source.partition.as_deref() };
        let question = self.placed(question, place);
        let question = source.tags.iter().fold(question, |question, tag| question.parameter("tag", tag));
        let question = question.maybe("near", source.near.as_deref()).maybe("filter", source.filter.as_deref());
        let question = match source.consistency {
            ConsulConsistency::Default => question,
            ConsulConsistency::Stale => question.flag("stale"),
            ConsulConsistency::Consistent => question.flag("consistent"),
            ConsulConsistency::Cached => question.flag("cached"),
        };
        let (answer, read) = match &source.target {
            ConsulTarget::Service(_) => {
                let mut reading = known.reading();
                let answer = self.ask_into(question, &mut reading).await?.found()?;
                (answer, reading.finish())
            }
            ConsulTarget::PreparedQuery(_) => {
                let answer = self.ask(question).await?.found()?;
                let executed = serde_json::from_slice::<Executed>(&answer.body).map_err(|error| error.to_string());
                let read = executed.and_then(|executed| known.replace(executed.nodes));
                (answer, read)
            }
        };
        read.map_err(|what| answer.unusable(what))?;
        if known.list().is_empty() && answer.filtered {
            return Err(Error::Hidden);
        }
        Ok(Indexed { index: answer.index, value: () })
    }
}

/// Of what Consul says, what is used. Go writes empty lists and maps as null.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    node: Node,
    service: Service,
    checks: Option<Vec<Check>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
    datacenter: Option<String>,
    meta: Option<Meta>,
    locality: Option<Locality>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    address: String,
    port: u32,
    #[serde(default)]
    socket_path: String,
    meta: Option<Meta>,
    weights: Option<Weights>,
    locality: Option<Locality>,
}

#[derive(Debug, Default, Deserialize)]
struct Meta {
    zone: Option<String>,
    protocol: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
    warning: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Locality {
    zone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Executed {
    nodes: Vec<Entry>,
}

impl Entry {
    /// # Errors
    /// What is wrong, for a person.
    pub(super) fn instance(self, words: &mut Words) -> Result<Instance, String> {
        let Entry { node, service, checks } = self;
        let checks = checks.unwrap_or_default();
        let meta = service.meta.unwrap_or_default();
        let zone_of = |locality: Option<Locality>| locality.and_then(|locality| locality.zone);
        let zone = zone_of(service.locality)
            .or_else(|| zone_of(node.locality))
            .or(meta.zone)
            .or_else(|| node.meta.and_then(|meta| meta.zone))
            .or(node.datacenter)
            .filter(|zone| !zone.is_empty());
        let (passing, warning) = service.weights.map_or((1, 1), |weights| (weights.passing, weights.warning));
        let weight = |weight: u32| u16::try_from(weight).unwrap_or(u16::MAX);
        Ok(Instance {
            address: address(&service.id, &service.socket_path, &service.address, &node.address, service.port)?,
            status: checks.iter().map(|check| check.status).max().unwrap_or(Status::Passing),
            weight_passing: weight(passing),
            weight_warning: weight(warning),
            zone: zone.map(|zone| words.share(&zone)),
            protocol: meta.protocol.map(|protocol| words.share(&protocol)),
        })
    }
}

fn address(id: &str, socket: &str, own: &str, node: &str, port: u32) -> Result<EndpointAddress, String> {
    if !socket.is_empty() {
        return Ok(EndpointAddress::Unix(PathBuf::from(socket)));
    }
    let text = if own.is_empty() { node } else { own };
    let ip: IpAddr =
        text.parse().map_err(|_| format!("the instance `{id}` has the address `{text}`, and an IP address is due"))?;
    if ip.is_unspecified() {
        return Err(format!("the instance `{id}` has the address {ip}, where nothing can be reached"));
    }
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(EndpointAddress::Tcp(SocketAddr::new(ip.to_canonical(), port))),
        _ => Err(format!("the instance `{id}` has the port {port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"[{
        "Node": { "Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc1", "Meta": { "zone": "a" } },
        "Service": { "ID": "web-1", "Address": "", "Port": 80, "Tags": null, "Meta": null, "Weights": { "Passing": 70000, "Warning": 0 } },
        "Checks": [{ "Status": "passing" }, { "Status": "warning" }]
    }, {
        "Node": { "Address": "10.0.0.1", "Meta": null },
        "Service": { "ID": "web-2", "Address": "::ffff:10.0.0.2", "Port": 81, "Meta": { "protocol": "http2" } },
        "Checks": null
    }]"#;

    fn instances(text: &str) -> Result<Vec<Instance>, String> {
        let entries: Vec<Entry> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut words = Words::default();
        entries.into_iter().map(|entry| entry.instance(&mut words)).collect()
    }

    #[test]
    fn what_consul_says_is_read() {
        let instances = instances(WHOLE).unwrap();
        let [first, second] = instances.as_slice() else { panic!("{instances:?}") };
        assert_eq!(first.address.to_string(), "10.0.0.1:80");
        assert_eq!((first.status, first.zone.as_deref()), (Status::Warning, Some("a")));
        assert_eq!((first.weight_passing, first.weight_warning), (65_535, 0));
        assert_eq!(second.address.to_string(), "10.0.0.2:81");
        assert_eq!((second.status, second.weight_passing, second.zone.as_deref()), (Status::Passing, 1, None));
        assert_eq!(second.protocol.as_deref(), Some("http2"));
        assert_eq!(super::address("a", "/run/a.sock", "", "10.0.0.1", 0).unwrap().to_string(), "unix:/run/a.sock");
    }

    #[test]
    fn what_is_not_whole_is_a_failure() {
        assert_eq!(instances("[]").unwrap(), []);
        for (from, to) in [
            ("[{", "{"),
            ("]", ""),
            (r#""Port": 80,"#, r#""Port": 0,"#),
            (r#""Port": 80,"#, r#""Port": 65536,"#),
            (r#""Port": 80,"#, ""),
            (r#""Address": "10.0.0.1", "Datacenter""#, r#""Datacenter""#),
            (r#""Address": "10.0.0.1", "Datacenter""#, r#""Address": "db.internal", "Datacenter""#),
            (r#""Address": "10.0.0.1", "Datacenter""#, r#""Address": "0.0.0.0", "Datacenter""#),
            ("\"warning\"", "\"unheard-of\""),
        ] {
            let text = WHOLE.replacen(from, to, 1);
            assert_ne!(text, WHOLE);
            assert!(instances(&text).is_err(), "{text}");
        }
        for text in ["", "null", "{}", "\"ok\"", "[null]", "[{}]", "<html>"] {
            assert!(instances(text).is_err(), "{text}");
        }
    }
}
