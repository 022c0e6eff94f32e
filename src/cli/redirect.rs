//! `outrigger redirect`: the rules that lead a pod's connections through the proxy.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::exit;
use crate::config::flags;
use crate::kubernetes::PROXY_USER;
use crate::kubernetes::redirect::{Capture, Dialect, Network, answers, apply, remove};

/// AF_NETLINK and NETLINK_NETFILTER, `linux/socket.h` and `linux/netlink.h`.
const NETLINK: i32 = 16;
const NETFILTER: i32 = 12;
/// The kernel answers at once; more is a kernel that does not.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Lead the connections of this network namespace through the proxy: print, apply or remove the rules.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger redirect print
  outrigger redirect print --format iptables --inbound none | iptables-restore --noflush
  outrigger redirect apply --exclude-outbound-port 5432 --exclude-network 10.96.0.0/12
  outrigger redirect remove

apply and remove change the network namespace that they run in, and need its NET_ADMIN (in a pod: an init container
with that capability, as root). They talk to the kernel's nf_tables (Linux 5.2 and newer) and need no other program.
Applying again puts the new rules in the place of the old ones.
Exit codes: 0 done, 1 the kernel refused it, 2 usage")]
pub struct RedirectArgs {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Print the rules
    Print {
        /// For which program
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = FormatArg::Nftables)]
        format: FormatArg,

        /// What is captured.
        #[command(flatten)]
        capture: CaptureArgs,
    },
    /// Apply the rules here, in the place of those that are there
    Apply(CaptureArgs),
    /// Remove the rules that apply has made
    Remove,
}

/// How rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// For nft -f: IPv4 and IPv6
    Nftables,
    /// For iptables-restore --noflush: IPv4
    Iptables,
    /// For ip6tables-restore --noflush: IPv6
    Ip6tables,
}

/// What is captured, and what is not.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// The inbound listener's port, or none
    #[arg(long, value_name = "PORT", default_value = "15006", value_parser = port)]
    pub inbound: Port,

    /// The outbound listener's port, or none
    #[arg(long, value_name = "PORT", default_value = "15001", value_parser = port)]
    pub outbound: Port,

    /// A user whose connections go straight out, as the proxy's have to (may be given more than once)
    #[arg(long, value_name = "UID", default_values_t = [PROXY_USER])]
    pub exclude_uid: Vec<u32>,

    /// A port of this namespace that is not captured, such as that of probes (may be given more than once)
    #[arg(long, value_name = "PORT")]
    pub exclude_inbound_port: Vec<u16>,

    /// A port of others that is not captured (may be given more than once)
    #[arg(long, value_name = "PORT")]
    pub exclude_outbound_port: Vec<u16>,

    /// A network that is not captured, such as 10.96.0.0/12 (may be given more than once)
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub exclude_network: Vec<Network>,
}

/// A port, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(Option<u16>);

fn port(text: &str) -> Result<Port, String> {
    if text == "none" {
        return Ok(Port(None));
    }
    match text.parse() {
        Ok(port) if port > 0 => Ok(Port(Some(port))),
        _ => Err("it can be 1 to 65535, or none".to_owned()),
    }
}

fn network(text: &str) -> Result<Network, String> {
    flags::network(text).map(|network| Network { address: network.address, prefix: network.prefix })
}

impl CaptureArgs {
    fn capture(&self) -> Capture {
        Capture {
            inbound: self.inbound.0,
            outbound: self.outbound.0,
            exclude_users: self.exclude_uid.clone(),
            exclude_inbound_ports: self.exclude_inbound_port.clone(),
            exclude_outbound_ports: self.exclude_outbound_port.clone(),
            exclude_networks: self.exclude_network.clone(),
        }
    }
}

/// Prints, applies or removes.
///
/// # Errors
///
/// Where the rules cannot be printed.
pub fn redirect(args: &RedirectArgs, output: &mut dyn Write) -> io::Result<u8> {
    let (requests, count) = match &args.action {
        Action::Print { format, capture } => {
            let dialect = match format {
                FormatArg::Nftables => Dialect::Nftables,
                FormatArg::Iptables => Dialect::Iptables,
                FormatArg::Ip6tables => Dialect::Ip6tables,
            };
            output.write_all(capture.capture().print(dialect).as_bytes())?;
            return Ok(exit::DONE);
        }
        Action::Apply(capture) => apply(&capture.capture()),
        Action::Remove => remove(),
    };
    match tell(&requests, count) {
        Ok(()) => Ok(exit::DONE),
        // Nothing to remove is nothing left to do.
        Err(error)
            if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) && matches!(args.action, Action::Remove) =>
        {
            Ok(exit::DONE)
        }
        Err(error) => Ok(exit::fault(&explain(&error))),
    }
}

/// Gives the kernel the requests, and waits until it has taken each.
fn tell(requests: &[u8], count: usize) -> io::Result<()> {
    let socket = Socket::new(Domain::from(NETLINK), Type::RAW, Some(Protocol::from(NETFILTER)))?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    socket.send(requests)?;
    let mut taken = 0;
    let mut answer = [0; 16 << 10];
    while taken < count {
        let length = io::Read::read(&mut &socket, &mut answer)?;
        taken += answers(&answer[..length]).map_err(|refusal| io::Error::from_raw_os_error(refusal.0))?;
    }
    Ok(())
}

fn explain(error: &io::Error) -> String {
    let what = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if what(Errno::PERM) || what(Errno::ACCESS) {
        return format!(
            "the kernel does not let this process change the network ({error}); in a pod it needs the capability \
             NET_ADMIN and user 0, elsewhere root"
        );
    }
    if what(Errno::PROTONOSUPPORT) || what(Errno::AFNOSUPPORT) || what(Errno::OPNOTSUPP) || what(Errno::NOENT) {
        return format!(
            "this kernel has no nf_tables with NAT ({error}); `outrigger redirect print --format iptables` gives the \
             rules for another program"
        );
    }
    format!("the kernel refused the rules: {error}")
}
