//! Which service a host names, and whether a route may look for it.
//!
//! Consul's names are those of its DNS: `orders.service.consul`, with a tag before (`v1.orders.service.consul`), with a
//! datacenter after (`orders.service.dc2.consul`), and in short `orders.consul` and `orders`.

use super::target::split_port;
use crate::config::model::{Consul, ConsulSource, DiscoverFrom, DnsSource, DnsTarget, EndpointSource, OnDemand};

/// Of a name, its dots included (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;
/// Where HTTP is spoken, unless a host says otherwise.
const HTTP_PORT: u16 = 80;

/// A service that somebody calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Called {
    /// What it is known under: one text for all spellings.
    pub(crate) name: String,
    pub(crate) source: EndpointSource,
}

/// Why nothing is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The host is the name of no service.
    NoName,
    /// The route's lists keep it out, or its port.
    Denied,
}

/// The service that `host`, which may have a port, names by these rules.
pub(crate) fn called(host: &str, rules: &OnDemand) -> Result<Called, Refused> {
    let (host, port) = split_port(host);
    let bare = host.strip_suffix('.').unwrap_or(host);
    if bare.len() > LONGEST_NAME || !bare.split('.').all(is_label) {
        return Err(Refused::NoName);
    }
    let (host, bare) = (host.to_ascii_lowercase(), bare.to_ascii_lowercase());
    match &rules.from {
        DiscoverFrom::Consul(agents) => {
            let (service, source) = in_consul(&bare, agents).ok_or(Refused::NoName)?;
            if !rules.lets(&service) {
                return Err(Refused::Denied);
            }
            let among = |key: &str, values: &[String]| -> String {
                values.iter().map(|value| format!("&{key}={value}")).collect()
            };
            let place = |key: &str, value: &Option<String>| among(key, value.as_slice());
            let more = among("tag", &source.tags)
                + &among("dc", &source.datacenters)
                + &place("ns", &source.namespace)
                + &place("partition", &source.partition);
            let name = service + &more.replacen('&', "?", 1);
            Ok(Called { name, source: EndpointSource::Consul(Box::new(source)) })
        }
        DiscoverFrom::Dns { resolver, port: only } => {
            let wanted = port.or(*only).unwrap_or(HTTP_PORT);
            let target = DnsTarget::address(&host, wanted).ok_or(Refused::NoName)?;
            // What is denied by name must not be had by a shorter one, which a search list makes whole.
            let whole = || DnsTarget::address(&format!("{bare}."), wanted).ok_or(Refused::NoName);
            let target = if rules.deny.is_empty() { target } else { whole()? };
            if !rules.lets(&bare) || only.is_some_and(|only| only != wanted) {
                return Err(Refused::Denied);
            }
            let source = EndpointSource::Dns(Box::new(DnsSource { resolver: resolver.clone(), target }));
            Ok(Called { name: format!("{host}:{wanted}"), source })
        }
    }
}

fn is_label(label: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !label.is_empty() && label.len() <= LONGEST_LABEL && label.bytes().all(fits)
}

/// The service's name, and all that the host says of it.
fn in_consul(host: &str, agents: &Consul) -> Option<(String, ConsulSource)> {
    let mut labels: Vec<&str> = host.split('.').collect();
    let source = |name: &str| ConsulSource::service(agents.clone(), name.to_owned());
    if labels.len() > 1 && labels.pop() != Some("consul") {
        return None;
    }
    if let [name] = labels.as_slice() {
        return Some(((*name).to_owned(), source(name)));
    }
    // As Consul does it: the last one divides, for a service may be called so.
    let divide = labels.iter().rposition(|label| *label == "service")?;
    let (before, after) = (&labels[..divide], &labels[divide + 1..]);
    let (tag, name) = match before {
        [name] => (None, *name),
        [tag, name] => (Some(*tag), *name),
        _ => return None,
    };
    let mut source = source(name);
    source.tags.extend(tag.map(str::to_owned));
    match after {
        [datacenter] => source.datacenters.push((*datacenter).to_owned()),
        places => {
            for place in places.chunks(2) {
                let [value, kind] = place else { return None };
                match *kind {
                    "dc" => source.datacenters = vec![(*value).to_owned()],
                    "ns" => source.namespace = Some((*value).to_owned()),
                    "ap" => source.partition = Some((*value).to_owned()),
                    _ => return None,
                }
            }
        }
    }
    Some((name.to_owned(), source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Document, LoadOptions, load};

    fn rules(discover: &str) -> OnDemand {
        let text = format!("listeners: {{ a: {{ address: 127.0.0.1:1, routes: [{{ discover: {discover} }}] }} }}");
        let document = Document { name: "test", bytes: text.as_bytes() };
        let config = load(document, &|_: &str| None, &LoadOptions::default()).unwrap().config;
        match &config.upstreams[0].source {
            EndpointSource::OnDemand(rules) => (**rules).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn name(host: &str, rules: &OnDemand) -> Result<String, Refused> {
        called(host, rules).map(|called| called.name)
    }

    #[test]
    fn consuls_names_are_those_of_its_dns() {
        let rules = rules("{ from: consul, deny: consul }");
        for (host, expected) in [
            ("orders", "orders"),
            ("Orders.", "orders"),
            ("orders:8080", "orders"),
            ("orders.consul", "orders"),
            ("orders.service.consul", "orders"),
            ("ORDERS.service.consul.:80", "orders"),
            ("v1.orders.service.consul", "orders?tag=v1"),
            ("orders.service.dc2.consul", "orders?dc=dc2"),
            ("orders.service.dc2.dc.consul", "orders?dc=dc2"),
            ("v1.orders.service.dc2.consul", "orders?tag=v1&dc=dc2"),
            ("orders.service.a.ns.b.ap.dc2.dc.consul", "orders?dc=dc2&ns=a&partition=b"),
            ("service.service.consul", "service"),
        ] {
            assert_eq!(name(host, &rules).as_deref(), Ok(expected), "{host}");
        }
        for host in [
            "",
            "orders.dc2",
            "orders.service",
            "a.b.c.service.consul",
            "orders.node.consul",
            "orders.service.a.b.c.consul",
            "orders.service.a.xx.consul",
            "10.0.0.1",
            "[::1]:80",
            "a..consul",
            "orders%2f",
        ] {
            assert_eq!(name(host, &rules), Err(Refused::NoName), "{host}");
        }
        for host in ["consul", "consul.service.consul", "v1.consul.service.dc2.consul"] {
            assert_eq!(name(host, &rules), Err(Refused::Denied), "{host}");
        }
    }

    #[test]
    fn dns_has_the_hosts_name_and_one_port_where_one_is_written() {
        let any = rules("{ from: dns, allow: [\"*\", \"*.svc\"], deny: secret.*.svc }");
        for (host, expected) in [
            ("orders", Ok("orders:80")),
            ("Orders.default.svc.:8080", Ok("orders.default.svc.:8080")),
            ("orders.example.org", Err(Refused::Denied)),
            ("secret.default.svc:80", Err(Refused::Denied)),
            ("orders:0", Err(Refused::NoName)),
            ("localhost:8500", Err(Refused::NoName)),
        ] {
            assert_eq!(name(host, &any).as_deref(), expected.as_ref().map(|name| *name), "{host}");
        }
        let target = |rules: &OnDemand| match called("orders", rules).unwrap().source {
            EndpointSource::Dns(source) => source.target,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            target(&any),
            DnsTarget::address("orders.", 80).unwrap(),
            "no search list goes round what is denied"
        );
        let one = rules("{ from: dns, port: 8080 }");
        assert_eq!(target(&one), DnsTarget::address("orders", 8080).unwrap());
        assert_eq!(name("orders", &one).as_deref(), Ok("orders:8080"));
        assert_eq!(name("orders:8080", &one).as_deref(), Ok("orders:8080"));
        assert_eq!(name("orders:22", &one), Err(Refused::Denied));
        assert_eq!(name("127.0.0.1:8080", &one), Err(Refused::NoName));
    }
}
