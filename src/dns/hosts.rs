//! Names that need no nameserver: those of `/etc/hosts`, and `localhost`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that `text` (hosts(5)) has for the name; those of loopback for `localhost` in any case (RFC 6761).
pub(super) fn addresses(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&address) {
            found.push(address);
        }
    }
    let top = name.rsplit('.').next().unwrap_or_default();
    if found.is_empty() && top.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_an_address_and_its_names() {
        let text =
            "# ours\n10.0.0.7 collector.test Collector # not this\nfe80::1%eth0 scoped\n\nfd00::7\tcollector\nx y\n";
        let shown = |name: &str| addresses(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown("collector"), ["10.0.0.7", "fd00::7"]);
        assert_eq!(shown("COLLECTOR.test."), ["10.0.0.7"]);
        assert!(["not", "this", "y", "10.0.0.7", "scoped", "test"].iter().all(|name| shown(name).is_empty()));
    }

    #[test]
    fn localhost_is_this_machine_unless_the_file_says_otherwise() {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(addresses("", "localhost"), loopback);
        assert_eq!(addresses("", "app.LocalHost."), loopback);
        assert_eq!(addresses("127.0.0.2 localhost", "localhost"), [IpAddr::from([127, 0, 0, 2])]);
        assert!(addresses("", "localhost.test").is_empty());
    }
}
