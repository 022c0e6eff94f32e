//! The rules for `iptables-restore --noflush` and its sibling for IPv6, where the kernel knows nothing newer.

use std::fmt::Write as _;

use super::{Capture, Condition, Hook, Verdict};

pub(super) fn print(capture: &Capture, six: bool) -> String {
    let mut text = "*nat\n".to_owned();
    for chain in capture.chains() {
        let name = format!("OUTRIGGER_{}", chain.name.to_ascii_uppercase());
        let hook = match chain.hook {
            Hook::Prerouting => "PREROUTING",
            Hook::Output => "OUTPUT",
        };
        let _ = writeln!(text, ":{name} - [0:0]");
        for rule in &chain.rules {
            let condition = match &rule.condition {
                // Only TCP comes here.
                Some(Condition::NotTcp) => continue,
                Some(Condition::To(network)) if network.address.is_ipv6() != six => continue,
                None => "-p tcp".to_owned(),
                Some(Condition::User(user)) => format!("-m owner --uid-owner {user}"),
                Some(Condition::ToThisMachine) => "-m addrtype --dst-type LOCAL".to_owned(),
                Some(Condition::To(network)) => format!("-d {network}"),
                Some(Condition::Port(port)) => format!("-p tcp --dport {port}"),
            };
            let verdict = match rule.verdict {
                Verdict::Leave => "RETURN".to_owned(),
                Verdict::Redirect(port) => format!("REDIRECT --to-ports {port}"),
            };
            let _ = writeln!(text, "-A {name} {condition} -j {verdict}");
        }
        let _ = writeln!(text, "-A {hook} -p tcp -j {name}");
    }
    text.push_str("COMMIT\n");
    text
}
