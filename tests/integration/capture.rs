//! A pod's connections are led through the proxy by the kernel, in network namespaces that each test makes.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::files::Directory;
use crate::support::namespace::{Pod, entered};
use crate::support::process::Process;
use crate::support::proxy::{Setup, binary};
use crate::support::tools::{needed, run};
use crate::support::wait::within;
use crate::support::{Client, Proxy, Upstream, eventually};

/// The proxy's user, which `redirect` leaves alone unless told otherwise.
const PROXY_USER: u32 = 15001;

fn redirect(pod: &Pod, arguments: &[&str]) {
    run(pod.command(binary().to_str().unwrap()).arg("redirect").args(arguments));
}

/// An app in the pod that answers `app` to everything.
fn app(pod: &Pod, port: u16, directory: &Directory) -> Process {
    let script = format!(
        "import http.server as h\n\
         class H(h.BaseHTTPRequestHandler):\n  def do_GET(self):\n   self.send_response(200)\n   \
         self.send_header('Content-Length', '3')\n   self.end_headers()\n   self.wfile.write(b'app')\n\
         s = h.ThreadingHTTPServer(('0.0.0.0', {port}), H)\nprint('ready', flush=True)\ns.serve_forever()\n"
    );
    let mut app = Process::start("app", pod.command("python3").args(["-c", &script]), directory);
    let ready =
        within(Duration::from_secs(20), || app.stdout().contains("ready").then_some(()).or(app.ended().map(|_| ())));
    assert!(ready.is_some() && app.ended().is_none(), "{}", app.stderr());
    app
}

fn in_pod(pod: &Pod, config: &str, orders: &Upstream) -> Proxy {
    Setup::new(config, &[("@orders", &orders.address())]).within(pod.prefix(PROXY_USER)).start()
}

fn answering(address: &str, word: &'static str) -> Upstream {
    Upstream::at(address.parse().unwrap(), move |served| {
        while served.request().is_some() {
            served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{word}", word.len()));
        }
    })
}

#[test]
fn connections_of_a_pod_go_through_its_proxy() {
    if !entered("capture::connections_of_a_pod_go_through_its_proxy") {
        return;
    }
    let (pod, directory) = (Pod::new(), Directory::new());
    let orders = answering("10.77.0.1:0", "orders");
    let excluded = answering("10.77.0.1:9999", "direct");
    let six = answering("[fd77::1]:80", "direct");
    let _app = app(&pod, 8080, &directory);
    let proxy = in_pod(
        &pod,
        "listeners:\n  inbound: { address: \":15006\", upstream: \"127.0.0.1:8080\" }\n  outbound:\n    address: \":15001\"\n    \
         routes: [{ match: { host: orders }, upstream: \"@orders\" }]\n",
        &orders,
    );
    assert_eq!(pod.curl(&["http://[fd77::1]/"]), "direct 200", "nothing is captured yet");
    redirect(&pod, &["apply", "--exclude-outbound-port", "9999", "--exclude-network", "10.77.0.3/32"]);
    // Out: whatever the address, the Host decides, over IPv4 and IPv6.
    for url in ["http://192.0.2.1/", "http://10.77.0.1:1234/", "http://[2001:db8::1]/", "http://[fd77::1]/"] {
        assert_eq!(pod.curl(&["-H", "Host: orders", url]), "orders 200", "{url}");
    }
    assert!(pod.curl(&["http://192.0.2.1/"]).ends_with(" 404"), "captured, and no route");
    assert_eq!(pod.curl(&["http://10.77.0.1:9999/"]), "direct 200", "an excluded port");
    let third = answering("10.77.0.3:80", "third");
    assert_eq!(pod.curl(&["http://10.77.0.3/"]), "third 200", "an excluded network");
    // Within the pod: as it is.
    assert_eq!(pod.curl(&["http://127.0.0.1:8080/"]), "app 200");
    assert_eq!(pod.curl(&["http://10.77.0.2:8080/"]), "app 200");
    // In: any port of the pod.
    for address in ["10.77.0.2:8080", "10.77.0.2:80", "[fd77::2]:80"] {
        let mut client = Client::connect(address.parse().unwrap());

        assert_eq!(client.get("/").text(), "app", "{address}");
    }
    eventually("a line of every captured request, and no other", || proxy.log_lines().len() == 8);

    redirect(&pod, &["remove"]);
    assert_eq!(pod.curl(&["-H", "Host: orders", "http://[fd77::1]/"]), "direct 200");
    redirect(&pod, &["remove"]);
    drop((excluded, six, third));
}

const TRANSPARENT: &str = "listeners:
  inbound: { address: \":15006\", mode: transparent, upstream: original }
  outbound:
    address: \":15001\"
    mode: transparent
    no_route: passthrough
    limits: { detect: 300ms }
    routes:
      - { match: { host: orders }, upstream: \"@orders\" }
      - { match: { port: 8081 }, upstream: original }
";

#[test]
fn what_no_route_takes_goes_where_it_was_going() {
    if !entered("capture::what_no_route_takes_goes_where_it_was_going") {
        return;
    }
    let (pod, directory) = (Pod::new(), Directory::new());
    let orders = answering("10.77.0.1:0", "orders");
    let (four, six) = (answering("10.77.0.3:80", "four"), answering("[fd77::1]:80", "six"));
    let named = answering("10.77.0.3:8081", "named");
    let _app = app(&pod, 8080, &directory);
    let proxy = in_pod(&pod, TRANSPARENT, &orders);
    redirect(&pod, &["apply"]);
    // One connection, three requests, each routed by itself.
    let urls =
        ["-H", "Host: orders", "http://10.77.0.3/a", "--next", "http://10.77.0.3/b", "--next", "http://10.77.0.3/c"];
    let said = pod.curl(&urls);
    assert_eq!(said, "orders 200fourfour");
    assert_eq!((four.count("/b"), four.count("/c"), four.connections()), (1, 1, 1), "the connection out is kept");
    assert_eq!(pod.curl(&["http://[fd77::1]/"]), "six 200");
    assert_eq!(pod.curl(&["http://10.77.0.3:8081/"]), "named 200");
    let line = proxy.log_line("/c");
    assert_eq!(
        (&line["route"], &line["upstream"], &line["endpoint"]),
        (&"passthrough".into(), &"original".into(), &"10.77.0.3:80".into())
    );
    // In, at whatever port.
    for address in ["10.77.0.2:8080", "10.77.0.2:8080"] {
        assert_eq!(Client::connect(address.parse().unwrap()).get("/").text(), "app", "{address}");
    }
    // Nobody is there: as without a proxy, but as HTTP.
    assert!(pod.curl(&["http://10.77.0.3:81/"]).ends_with(" 503"));
    // The proxy's own port is nowhere to go to; a route that knows the host still serves it.
    for url in ["http://10.77.0.2:15001/", "http://127.0.0.1:15001/"] {
        assert!(pod.curl(&[url]).ends_with(" 404"), "{url}");
        assert_eq!(pod.curl(&["-H", "Host: orders", url]), "orders 200");
    }
    let own = Client::connect("10.77.0.2:15006".parse().unwrap()).get("/");
    assert_eq!(own.status, 404);
    drop((six, named));
}

#[test]
fn other_protocols_pass_as_they_are() {
    if !entered("capture::other_protocols_pass_as_they_are") {
        return;
    }
    let pod = Pod::new();
    let orders = answering("10.77.0.1:0", "orders");
    // Speaks first, and answers whatever comes.
    let greeter = Upstream::at("10.77.0.3:25".parse().unwrap(), |served| {
        served.send("220 hello\r\n");
        served.swallow(16);
        served.send("bye");
    });
    // Never speaks first.
    let listener = Upstream::at("10.77.0.3:6379".parse().unwrap(), |served| {
        served.swallow(16);
        served.send("+OK\r\n");
    });
    // Has more to say than it says.
    let broken = Upstream::at("10.77.0.3:26".parse().unwrap(), |served| {
        served.send("part");
        served.swallow(2);
        served.reset();
    });
    let mut proxy = in_pod(&pod, TRANSPARENT, &orders);
    redirect(&pod, &["apply"]);
    let talk = |port: u16, first: &str, greeting: &str| {
        let script = format!(
            "import socket\ns = socket.create_connection(('10.77.0.3', {port}), 10)\n\
             g = s.recv(64) if {greeting:?} else b''\nassert g == {greeting:?}.encode(), g\n\
             s.sendall({first:?}.encode())\nprint(s.makefile('rb').read(3).decode(), end='')\n"
        );
        let output = pod.command("python3").args(["-c", &script]).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert_eq!(talk(25, "EHLO a.example\r\n", "220 hello\r\n"), "bye");
    assert_eq!(talk(6379, "*2\r\n$3\r\nGET\r\nabc", ""), "+OK");
    assert_eq!((greeter.connections(), listener.connections()), (1, 1));
    assert!(talk(26, "go", "part").contains("ConnectionReset"), "a part looks like the whole");
    drop(broken);
    assert!(talk(6380, "", "x").contains("ConnectionReset"), "what cannot be reached is refused");
    proxy.terminate();
    assert_eq!(proxy.process().exit_code(), Some(0));
}

// A client that was told of a proxy of its own speaks to that: what no route takes has to reach it as it was meant.
#[test]
fn a_forward_proxy_is_spoken_to_as_one() {
    if !entered("capture::a_forward_proxy_is_spoken_to_as_one") {
        return;
    }
    let pod = Pod::new();
    let orders = answering("10.77.0.1:0", "orders");
    let forward = Upstream::at("10.77.0.3:3128".parse().unwrap(), |served| {
        while let Some(request) = served.request() {
            if request.target.starts_with("refused") {
                served.send("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
            } else if request.method == "CONNECT" {
                assert_eq!(request.head.get("proxy-authorization"), Some("Basic YTpi"));
                served.send("HTTP/1.1 200 Connection established\r\n\r\n");
            } else {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy");
            }
        }
    });
    let proxy = in_pod(&pod, TRANSPARENT, &orders);
    redirect(&pod, &["apply"]);
    let curl = |arguments: &[&str]| {
        let mut curl = pod.command("curl");
        curl.args([
            "-sS",
            "--max-time",
            "10",
            "-x",
            "http://a:b@10.77.0.3:3128",
            "-w",
            " %{http_code} %{http_connect}",
        ]);
        let output = curl.args(arguments).stdin(Stdio::null()).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert_eq!(curl(&["http://site.example:81/page?a"]), "proxy 200 000");
    assert_eq!(curl(&["http://orders/page"]), "orders 200 000", "a route knows the host");
    assert_eq!(curl(&["--proxytunnel", "http://site.example:81/inside"]), "proxy 200 200");
    assert!(curl(&["--proxytunnel", "http://refused.example/"]).contains(" 000 407"));
    let starts: Vec<_> = forward.requests().iter().map(|request| request.head.start.clone()).collect();
    assert_eq!(
        starts,
        [
            "GET http://site.example:81/page?a HTTP/1.1",
            "CONNECT site.example:81 HTTP/1.1",
            "GET /inside HTTP/1.1",
            "CONNECT refused.example:80 HTTP/1.1"
        ]
    );
    assert_eq!(forward.request(0).head.get("host"), Some("site.example:81"));
    eventually("a line of the tunnel", || proxy.log_lines().iter().any(|line| line["method"] == "CONNECT"));
}

#[test]
fn the_printed_rules_are_those_that_are_applied() {
    if !entered("capture::the_printed_rules_are_those_that_are_applied") {
        return;
    }
    needed("nft", Command::new("nft").arg("--version"), &["nftables"]);
    needed("iptables", Command::new("iptables").arg("--version"), &["iptables"]);
    let flags =
        ["--exclude-network", "10.96.0.0/12", "--exclude-network", "fd00::/8", "--exclude-inbound-port", "9902"];
    let print = |format: &str| {
        let output =
            Command::new(binary()).args(["redirect", "print", "--format", format]).args(flags).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let feed = |program: &mut Command, text: &str| {
        use std::io::Write as _;
        let mut child = program.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{text}");
    };
    // nft says what both have made; what needs no saying (`tcp` before a port, after all else has left) may differ.
    let ruleset = || {
        let output =
            Command::new("nft").args(["--numeric-priority", "list", "table", "inet", "outrigger"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.replace("meta l4proto tcp redirect", "redirect")
            .replace("\t\tth dport", "\t\ttcp dport")
            .replace("0x00000006", "tcp")
    };
    feed(Command::new("nft").args(["-f", "-"]), &print("nftables"));
    let printed = ruleset();
    assert!(printed.contains("tcp dport 9902 return"), "{printed}");
    for _ in 0..2 {
        run(Command::new(binary()).args(["redirect", "apply"]).args(flags));
        assert_eq!(ruleset(), printed);
    }
    feed(Command::new("iptables-restore").arg("--noflush"), &print("iptables"));
    feed(Command::new("ip6tables-restore").arg("--noflush"), &print("ip6tables"));
}

#[test]
fn who_may_not_is_told_what_to_do() {
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups", "--"])
        .arg(binary())
        .args(["redirect", "apply"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("NET_ADMIN"), "{said}");
}
