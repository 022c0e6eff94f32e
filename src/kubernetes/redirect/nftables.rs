//! The rules for `nft -f`.

use std::fmt::Write as _;

use super::{Capture, Condition, Hook, TABLE, Verdict};

/// In one transaction: what was there before goes.
pub(super) fn print(capture: &Capture) -> String {
    let mut text = format!("table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    for chain in capture.chains() {
        let hook = match chain.hook {
            Hook::Prerouting => "prerouting",
            Hook::Output => "output",
        };
        let _ = write!(text, "\tchain {} {{\n\t\ttype nat hook {hook} priority -100; policy accept;\n", chain.name);
        for rule in &chain.rules {
            let condition = match &rule.condition {
                None => "meta l4proto tcp".to_owned(),
                Some(Condition::User(user)) => format!("meta skuid {user}"),
                Some(Condition::NotTcp) => "meta l4proto != tcp".to_owned(),
                Some(Condition::ToThisMachine) => "fib daddr type local".to_owned(),
                Some(Condition::To(network)) if network.address.is_ipv4() => format!("ip daddr {network}"),
                Some(Condition::To(network)) => format!("ip6 daddr {network}"),
                Some(Condition::Port(port)) => format!("tcp dport {port}"),
            };
            let verdict = match rule.verdict {
                Verdict::Leave => "return".to_owned(),
                Verdict::Redirect(port) => format!("redirect to :{port}"),
            };
            let _ = writeln!(text, "\t\t{condition} {verdict}");
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}
