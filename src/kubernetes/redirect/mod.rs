//! Rules that lead a pod's connections through the proxy: one description, three ways to write it.
//!
//! Both chains see the first packet of a TCP connection only. Outbound skips what the proxy itself sends, and what
//! stays in the pod; what is left goes to the outbound listener. Inbound takes what comes from outside. The listener
//! asks the kernel where a connection was going to.

mod iptables;
mod netlink;
mod nftables;

use std::net::IpAddr;

pub use netlink::{Refusal, answers, apply, remove};

/// The table that holds everything.
const TABLE: &str = "outrigger";

/// What is captured, and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// The port of the listener that what comes into the pod goes to.
    pub inbound: Option<u16>,
    /// The port of the listener that what leaves the pod goes to.
    pub outbound: Option<u16>,
    /// Users whose connections go straight out: the proxy's, above all.
    pub exclude_users: Vec<u32>,
    /// Ports of the pod that stay as they are.
    pub exclude_inbound_ports: Vec<u16>,
    /// Ports of others that stay as they are.
    pub exclude_outbound_ports: Vec<u16>,
    /// Networks that stay as they are.
    pub exclude_networks: Vec<Network>,
}

/// Addresses with a common beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// One of them; what comes after the prefix is zero.
    pub address: IpAddr,
    /// How many bits are common.
    pub prefix: u8,
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// How rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// For `nft -f`: IPv4 and IPv6.
    Nftables,
    /// For `iptables-restore --noflush`: IPv4.
    Iptables,
    /// For `ip6tables-restore --noflush`: IPv6.
    Ip6tables,
}

impl Capture {
    /// The rules, for another program to apply.
    pub fn print(&self, dialect: Dialect) -> String {
        match dialect {
            Dialect::Nftables => nftables::print(self),
            Dialect::Iptables => iptables::print(self, false),
            Dialect::Ip6tables => iptables::print(self, true),
        }
    }

    fn chains(&self) -> Vec<Chain> {
        let leave = |condition| Rule { condition: Some(condition), verdict: Verdict::Leave };
        let mut chains = Vec::new();
        if let Some(port) = self.outbound {
            let mut rules: Vec<Rule> = self.exclude_users.iter().map(|user| leave(Condition::User(*user))).collect();
            rules.push(leave(Condition::NotTcp));
            rules.push(leave(Condition::ToThisMachine));
            rules.extend(self.exclude_networks.iter().map(|network| leave(Condition::To(*network))));
            rules.extend(self.exclude_outbound_ports.iter().map(|port| leave(Condition::Port(*port))));
            rules.push(Rule { condition: None, verdict: Verdict::Redirect(port) });
            chains.push(Chain { name: "outbound", hook: Hook::Output, rules });
        }
        if let Some(port) = self.inbound {
            let mut rules = vec![leave(Condition::NotTcp), leave(Condition::Port(port))];
            rules.extend(self.exclude_inbound_ports.iter().map(|port| leave(Condition::Port(*port))));
            rules.push(Rule { condition: None, verdict: Verdict::Redirect(port) });
            chains.push(Chain { name: "inbound", hook: Hook::Prerouting, rules });
        }
        chains
    }
}

struct Chain {
    name: &'static str,
    hook: Hook,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy)]
enum Hook {
    Prerouting,
    Output,
}

struct Rule {
    condition: Option<Condition>,
    verdict: Verdict,
}

#[derive(Clone, Copy)]
enum Condition {
    /// Sent by a program of this user.
    User(u32),
    NotTcp,
    /// To an address of this machine, loopback included.
    ToThisMachine,
    To(Network),
    Port(u16),
}

#[derive(Clone, Copy)]
enum Verdict {
    /// As it is.
    Leave,
    /// To this port of this machine.
    Redirect(u16),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture() -> Capture {
        Capture {
            inbound: Some(15006),
            outbound: Some(15001),
            exclude_users: vec![15001],
            exclude_inbound_ports: vec![9902],
            exclude_outbound_ports: vec![5432],
            exclude_networks: vec![
                Network { address: "10.96.0.0".parse().unwrap(), prefix: 12 },
                Network { address: "fd00::".parse().unwrap(), prefix: 8 },
            ],
        }
    }

    #[test]
    fn for_nft() {
        assert_eq!(
            capture().print(Dialect::Nftables),
            "table inet outrigger
delete table inet outrigger
table inet outrigger {
\tchain outbound {
\t\ttype nat hook output priority -100; policy accept;
\t\tmeta skuid 15001 return
\t\tmeta l4proto != tcp return
\t\tfib daddr type local return
\t\tip daddr 10.96.0.0/12 return
\t\tip6 daddr fd00::/8 return
\t\ttcp dport 5432 return
\t\tmeta l4proto tcp redirect to :15001
\t}
\tchain inbound {
\t\ttype nat hook prerouting priority -100; policy accept;
\t\tmeta l4proto != tcp return
\t\ttcp dport 15006 return
\t\ttcp dport 9902 return
\t\tmeta l4proto tcp redirect to :15006
\t}
}
"
        );
    }

    #[test]
    fn for_iptables() {
        assert_eq!(
            capture().print(Dialect::Iptables),
            "*nat
:OUTRIGGER_OUTBOUND - [0:0]
-A OUTRIGGER_OUTBOUND -m owner --uid-owner 15001 -j RETURN
-A OUTRIGGER_OUTBOUND -m addrtype --dst-type LOCAL -j RETURN
-A OUTRIGGER_OUTBOUND -d 10.96.0.0/12 -j RETURN
-A OUTRIGGER_OUTBOUND -p tcp --dport 5432 -j RETURN
-A OUTRIGGER_OUTBOUND -p tcp -j REDIRECT --to-ports 15001
-A OUTPUT -p tcp -j OUTRIGGER_OUTBOUND
:OUTRIGGER_INBOUND - [0:0]
-A OUTRIGGER_INBOUND -p tcp --dport 15006 -j RETURN
-A OUTRIGGER_INBOUND -p tcp --dport 9902 -j RETURN
-A OUTRIGGER_INBOUND -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -p tcp -j OUTRIGGER_INBOUND
COMMIT
"
        );
        let six = capture().print(Dialect::Ip6tables);
        assert!(six.contains("-d fd00::/8 -j RETURN") && !six.contains("10.96"), "{six}");
    }

    #[test]
    fn only_one_direction() {
        let inbound = Capture { inbound: Some(1), ..Capture::default() };
        assert_eq!(inbound.chains().len(), 1);
        assert!(!inbound.print(Dialect::Nftables).contains("output"));
    }
}
