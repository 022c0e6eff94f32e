//! A real nameserver: dnsmasq, on a loopback address of its own.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::files::Directory;
use super::process::Process;
use super::tools::needed;
use super::wait::within;

const PORT: u16 = 5353;
const START: Duration = Duration::from_secs(20);

/// A running dnsmasq that knows the zone `test`, with TTLs of 1 s.
pub struct Dnsmasq {
    process: Option<Process>,
    ip: Ipv4Addr,
    directory: Directory,
}

impl Dnsmasq {
    /// `hosts` as in `/etc/hosts`; `records` are lines of its configuration (`srv-host=…`, `cname=…`).
    #[track_caller]
    pub fn start(hosts: &str, records: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        needed("a nameserver", Command::new("dnsmasq").arg("--version"), &["dnsmasq-base"]);
        // All of 127.0.0.0/8 is this machine, so each server has the same port at an address of its own.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let ip = Ipv4Addr::new(127, 1 + (process / 250 % 250) as u8, (process % 250) as u8, 250 - number as u8);
        let mut dnsmasq = Dnsmasq { process: None, ip, directory: Directory::new() };
        dnsmasq.directory.write("hosts", hosts);
        dnsmasq.start_again(records);
        dnsmasq
    }

    /// Ends it and starts it with other records; waits until it answers.
    #[track_caller]
    pub fn start_again(&mut self, records: &str) {
        self.stop();
        let config = self.directory.write("dnsmasq.conf", records);
        let mut command = Command::new("dnsmasq");
        command
            .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file="])
            .args(["--local=/test/", "--local-ttl=1", "--user=root", "--log-facility=-"])
            .arg(format!("--listen-address={}", self.ip))
            .arg(format!("--port={PORT}"))
            .arg(format!("--conf-file={}", config.display()))
            .arg(format!("--addn-hosts={}", self.directory.join("hosts").display()));
        self.process = Some(Process::start("dnsmasq", &mut command, &self.directory));
        // A question for the root's nameservers, which it refuses.
        let question = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let answers = within(START, || {
            socket.send_to(&question, self.address()).ok()?;
            socket.recv(&mut [0; 512]).ok()
        });
        assert!(answers.is_some(), "dnsmasq does not answer at {}", self.address());
    }

    pub fn stop(&mut self) {
        self.process = None;
    }

    /// It knows other hosts from now on.
    #[track_caller]
    pub fn knows(&self, hosts: &str) {
        self.directory.write("hosts", hosts);
        self.process.as_ref().expect("it was stopped").signal(Signal::HUP);
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((self.ip, PORT))
    }
}
