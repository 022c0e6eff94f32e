//! A connection to a host by its name.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;

use super::client::Ask;
use super::hosts;
use super::nameservers::{Resolver, read_resolv_conf};
use super::question::{Answer, Failure, Kind, Question, Records};

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// For an address to take the connection, where there is another to try: half of what a probe waits in all.
const PATIENCE: Duration = Duration::from_secs(1);
/// For the addresses of IPv6, where those of IPv4 are there: RFC 8305, section 3.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Connects to the host: an address (one of IPv6 with brackets or without), or a name, which is looked for in
/// `/etc/hosts` and then in DNS. Both files are read each time: who asks is about to make a connection, which is seldom.
///
/// Takes as long as it takes; dropped, it leaves nothing behind.
///
/// # Errors
/// [`ErrorKind::NotFound`] where there is no such name, else what the nameservers or the host's first address had to say.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    // With a zone, an address of IPv6 is one only together with its port.
    if let Ok(address) = format!("{host}:{port}").parse::<SocketAddr>() {
        return TcpStream::connect(address).await;
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return TcpStream::connect((address, port)).await;
    }
    if bare.is_empty() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "there is no host before the port"));
    }
    let mut first = None;
    let addresses = addresses(bare, Path::new(HOSTS), Path::new(RESOLV_CONF)).await?;
    for (at, address) in addresses.iter().enumerate() {
        let connecting = TcpStream::connect(SocketAddr::new(*address, port));
        let outcome = if at + 1 < addresses.len() {
            let late = |_| Err(io::Error::new(ErrorKind::TimedOut, format!("{address} does not answer")));
            tokio::time::timeout(PATIENCE, connecting).await.unwrap_or_else(late)
        } else {
            connecting.await
        };
        match outcome {
            Ok(stream) => return Ok(stream),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| not_found(host)))
}

/// At least one, those of IPv4 first: most networks of containers have no other.
async fn addresses(name: &str, hosts: &Path, resolv_conf: &Path) -> io::Result<Vec<IpAddr>> {
    let written = std::fs::read(hosts).unwrap_or_default();
    let mut written = hosts::addresses(&String::from_utf8_lossy(&written), name);
    if !written.is_empty() {
        written.sort_by_key(IpAddr::is_ipv6);
        return Ok(written);
    }
    let resolver = read_resolv_conf(resolv_conf).map_err(|failure| io::Error::other(failure.0))?;
    ask(name, &resolver).await
}

/// The addresses of the first name of the search list that has some. A nameserver that fails ends the search: the next
/// name may be somebody else's.
async fn ask<A: Ask>(name: &str, resolver: &Resolver<A>) -> io::Result<Vec<IpAddr>> {
    for name in resolver.search.candidates(name) {
        let asked = |kind| {
            let question = Question { name: name.clone(), kind };
            async move { resolver.client.ask(&question).await }
        };
        let mut addresses = Vec::new();
        let (mut failure, mut exists) = (None, true);
        for answer in both(asked(Kind::A), asked(Kind::Aaaa)).await {
            match answer.map(|answer| answer.records) {
                Ok(Records::Addresses(found)) => addresses.extend(found),
                // That holds for all types.
                Ok(Records::NoName) => exists = false,
                Ok(_) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            _ if !addresses.is_empty() => return Ok(addresses),
            Some(failure) if exists => return Err(io::Error::other(format!("{name} cannot be looked up: {failure}"))),
            _ => {}
        }
    }
    Err(not_found(name))
}

/// Both answers; the second only if it comes soon, where the first has addresses.
async fn both(
    first: impl Future<Output = Result<Answer, Failure>>,
    second: impl Future<Output = Result<Answer, Failure>>,
) -> impl Iterator<Item = Result<Answer, Failure>> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (first, second) = tokio::select! {
        first = &mut first => {
            let is_enough = matches!(&first, Ok(Answer { records: Records::Addresses(_), .. }));
            let second = if is_enough {
                tokio::time::timeout(RESOLUTION_DELAY, second).await.ok()
            } else {
                Some(second.await)
            };
            (first, second)
        }
        second = &mut second => (first.await, Some(second)),
    };
    std::iter::once(first).chain(second)
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("there is no host {name}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::question::FullName;
    use super::super::search::Search;
    use super::*;

    /// What it knows of names and types; `None` is a failure, and what is not there is no name.
    struct Known(HashMap<(&'static str, Kind), Option<Records>>);

    impl Ask for Known {
        async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
            if question.kind == Kind::Aaaa && question.name.as_str().starts_with("quick") {
                return std::future::pending().await;
            }
            let records = match self.0.get(&(question.name.as_str().trim_end_matches('.'), question.kind)) {
                None => Records::NoName,
                Some(Some(records)) => records.clone(),
                Some(None) => return Err(Failure("Server Failure".to_owned())),
            };
            Ok(Answer { records, ttl: None, along: Vec::new() })
        }
    }

    #[tokio::test]
    async fn the_first_name_of_the_list_that_has_addresses_is_meant() {
        let some = |address: &str| Some(Records::Addresses(vec![address.parse().unwrap()]));
        let client = Known(HashMap::from([
            (("web.ns.svc", Kind::Aaaa), some("fd00::1")),
            (("web.ns.svc", Kind::A), some("10.0.0.1")),
            (("web.svc", Kind::A), some("10.0.0.2")),
            (("old.svc", Kind::A), some("10.0.0.3")),
            (("old.ns.svc", Kind::A), Some(Records::NoData)),
            (("half.ns.svc", Kind::A), None),
            (("half.ns.svc", Kind::Aaaa), some("fd00::2")),
            (("ill.ns.svc", Kind::A), None),
            (("ill.ns.svc", Kind::Aaaa), Some(Records::NoData)),
            (("ill.svc", Kind::A), some("10.0.0.4")),
            (("gone.ns.svc", Kind::Aaaa), None),
            (("gone.svc", Kind::A), some("10.0.0.5")),
            (("quick.ns.svc", Kind::A), some("10.0.0.6")),
            (("quick.ns.svc", Kind::Aaaa), Some(Records::NoData)),
        ]));
        let search = Search { domains: vec![FullName::new("ns.svc"), FullName::new("svc")], ndots: 5 };
        let resolver = Resolver { client, search };
        let shown = async |name: &str| match ask(name, &resolver).await {
            Ok(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown("web").await, "10.0.0.1 fd00::1");
        assert_eq!(shown("old").await, "10.0.0.3");
        assert_eq!(shown("half").await, "fd00::2", "one family is enough to connect");
        assert_eq!(shown("ill").await, "ill.ns.svc. cannot be looked up: Server Failure", "and the next is not asked");
        assert_eq!(shown("gone").await, "10.0.0.5", "no such name holds for all types");
        assert_eq!(shown("quick").await, "10.0.0.6", "which does not wait for the other family");
        assert_eq!(shown("nobody").await, "there is no host nobody");
    }

    #[tokio::test]
    async fn a_host_is_an_address_or_a_name() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "::ffff:127.0.0.1", "[::ffff:127.0.0.1%1]"] {
            assert!(connect(host, port).await.is_ok(), "{host}");
        }
        assert_eq!(connect("", port).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
