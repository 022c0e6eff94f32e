//! Sockets that a service manager has bound and keeps, and what it is told: systemd's protocols, sd_listen_fds(3) and
//! sd_notify(3).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;

use crate::support::client::get;
use crate::support::files::Directory;
use crate::support::process::Process;
use crate::support::proxy::{Setup, binary};
use crate::support::tools::{needed, run};
use crate::support::wait::{PATIENCE, eventually_some};
use crate::support::{Client, Proxy, Upstream, eventually};

const CONFIG: &str = "
listeners:
  inbound: { address: \"@address\", upstream: app }
upstreams:
  app: { static: [\"@app\"] }
";

/// Binds sockets, keeps them, and gives them to each process that it starts.
struct Manager {
    directory: Directory,
    names: Vec<String>,
    sockets: Vec<OwnedFd>,
}

impl Manager {
    fn new() -> Self {
        Manager { directory: Directory::new(), names: Vec::new(), sockets: Vec::new() }
    }

    fn keeps(&mut self, name: &str, socket: impl Into<OwnedFd>) {
        self.names.push(name.to_owned());
        self.sockets.push(socket.into());
    }

    fn listens(&mut self, name: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.keeps(name, listener);
        address
    }

    fn path(&self) -> PathBuf {
        self.directory.join("manager.sock")
    }

    /// What has to stand before a command.
    fn prefix(&self) -> Vec<String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/peers/activate.py");
        let words = [script.display().to_string(), self.path().display().to_string(), self.names.join(":")];
        std::iter::once("python3".to_owned()).chain(words).collect()
    }

    /// Gives the sockets to whoever `start` starts.
    fn gives<T>(&self, start: impl FnOnce() -> T) -> T {
        let _ = std::fs::remove_file(self.path());
        let door = UnixListener::bind(self.path()).unwrap();
        door.set_nonblocking(true).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // A program that never comes must not hold the test for ever.
                let stream = eventually_some("the program to ask for its sockets", || door.accept().ok()).0;
                let sockets: Vec<BorrowedFd<'_>> = self.sockets.iter().map(OwnedFd::as_fd).collect();
                let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                assert!(control.push(SendAncillaryMessage::ScmRights(&sockets)));
                sendmsg(&stream, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
            });
            start()
        })
    }

    #[track_caller]
    fn starts(&self, setup: Setup) -> Proxy {
        self.gives(|| setup.within(self.prefix()).start())
    }
}

fn setup(upstream: &Upstream, address: &str) -> Setup {
    Setup::new(CONFIG, &[("@app", &upstream.address()), ("@address", &address)])
}

#[test]
fn who_connects_between_two_processes_waits_and_is_answered() {
    let upstream = Upstream::ok();
    let mut manager = Manager::new();
    let address = manager.listens("unit.socket");
    let first = manager.starts(setup(&upstream, &address.to_string()));
    assert_eq!(first.address("inbound"), address);
    assert_eq!(first.client().get("/").status, 200);
    first.stop();
    // Nobody is there, and nobody is turned away.
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    let second = manager.starts(setup(&upstream, &address.to_string()));
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    // New ones come as ever: the first process has left nothing behind in the socket.
    assert_eq!(Client::connect(address).get("/").status, 200);
    second.stop();
}

#[test]
fn a_socket_may_be_named_after_its_listener() {
    let upstream = Upstream::ok();
    let mut manager = Manager::new();
    let (admin, inbound) = (manager.listens("admin.address"), manager.listens("inbound"));
    let proxy = manager.starts(setup(&upstream, "127.0.0.1:1"));
    assert_eq!((proxy.admin(), proxy.address("inbound")), (admin, inbound));
    assert_eq!(proxy.client().get("/").status, 200);
    proxy.stop();
}

#[test]
fn a_swap_finds_sockets_that_nobody_had_wanted_before() {
    let upstream = Upstream::ok();
    let mut manager = Manager::new();
    let (first, second) = (manager.listens("unit.socket"), manager.listens("unit.socket"));
    let proxy = manager.starts(setup(&upstream, &first.to_string()));
    let unclaimed = "whoever connects there waits in vain";
    assert!(proxy_log(&proxy).lines().any(|line| line.contains(unclaimed) && line.contains(&second.to_string())));
    let path = proxy.directory().join("outrigger.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let more = format!("listeners:\n  more: {{ address: \"{second}\", upstream: app }}\n");
    std::fs::write(&path, text.replace("listeners:\n", &more)).unwrap();
    assert_eq!(Client::connect(second).get("/").status, 200);
    // Away and back again.
    for _ in 0..2 {
        std::fs::write(&path, &text).unwrap();
        eventually("the listener to go", || !proxy.admin_get("/listeners").text().contains("\"more\""));
        std::fs::write(&path, text.replace("listeners:\n", &more)).unwrap();
        assert_eq!(Client::connect(second).get("/").status, 200);
    }
    proxy.stop();
}

#[test]
fn what_cannot_be_served_ends_the_start() {
    let upstream = Upstream::ok();
    let mut manager = Manager::new();
    manager.keeps("datagrams", UdpSocket::bind("127.0.0.1:0").unwrap());
    let directory = Directory::new();
    let config = directory.write("outrigger.yaml", setup(&upstream, "127.0.0.1:0").text());
    let prefix = manager.prefix();
    let mut command = Command::new(&prefix[0]);
    command.args(&prefix[1..]).arg(binary()).arg("run").arg(config);
    let mut process = manager.gives(|| Process::start("outrigger", &mut command, &directory));
    assert_eq!(process.exit_code(), Some(1));
    assert!(process.stderr().contains("cannot use the socket `datagrams`"), "{}", process.stderr());
}

// The program that systemd has for trying this out: it starts the proxy when somebody connects.
#[test]
fn systemds_own_tool_starts_it() {
    needed("systemd-socket-activate", Command::new("systemd-socket-activate").arg("--version"), &["systemd"]);
    let upstream = Upstream::ok();
    let directory = Directory::new();
    let socket = directory.join("admin.sock");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!("admin: {{ address: none, socket: \"{}\" }}\n{CONFIG}", socket.display());
    let setup = Setup::new(&config, &[("@app", &upstream.address()), ("@address", &address)]);
    let prefix = ["systemd-socket-activate", "-l", &address.to_string(), "-l", &socket.display().to_string()];
    let setup = setup.within(prefix.map(str::to_owned).to_vec());
    std::thread::scope(|scope| {
        let calling = scope.spawn(move || {
            let mut client = None;
            eventually("the socket", || {
                client = Client::try_connect(address).ok();
                client.is_some()
            });
            client.unwrap().get("/").status
        });
        let proxy = setup.start();
        assert_eq!(calling.join().unwrap(), 200);
        let listeners =
            Command::new("curl").args(["-s", "--unix-socket"]).arg(&socket).arg("http://x/listeners").output();
        assert!(String::from_utf8(listeners.unwrap().stdout).unwrap().contains("inbound"));
        proxy.stop();
        assert!(socket.exists(), "the file is the service manager's");
    });
}

#[test]
fn a_service_manager_hears_how_it_goes() {
    let upstream = Upstream::ok();
    let directory = Directory::new();
    let path = directory.join("notify.sock");
    let notified = UnixDatagram::bind(&path).unwrap();
    notified.set_read_timeout(Some(PATIENCE)).unwrap();
    let hears = |expected: &str| {
        let mut buffer = [0; 200];
        let length = notified.recv(&mut buffer).unwrap_or_else(|error| panic!("{expected}: {error}"));
        let state = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(state.starts_with(expected), "{state:?} instead of {expected:?}");
    };
    let setup = setup(&upstream, "127.0.0.1:0").environment("NOTIFY_SOCKET", &path.display().to_string());
    let mut proxy = setup.start();
    hears("READY=1");
    proxy.process().signal(Signal::HUP);
    hears("RELOADING=1\nMONOTONIC_USEC=");
    hears("READY=1");
    proxy.terminate();
    hears("STOPPING=1");
    assert_eq!(proxy.process().exit_code_within(Duration::from_secs(10)), Some(0));
}

#[test]
fn the_sample_units_are_right() {
    needed("systemd-analyze", Command::new("systemd-analyze").arg("--version"), &["systemd"]);
    let directory = Directory::new();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/systemd");
    let units = ["outrigger.service", "outrigger.socket"].map(|name| {
        let unit = std::fs::read_to_string(units.join(name)).unwrap();
        directory.write(name, &unit.replace("/usr/local/bin/outrigger", &binary().display().to_string()))
    });
    run(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units));
}

fn proxy_log(proxy: &Proxy) -> String {
    std::fs::read_to_string(proxy.directory().join("outrigger.stderr")).unwrap()
}
