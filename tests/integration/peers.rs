//! Peers of another make: curl, Python's grpcio and websockets, from a virtual environment under `target/`.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::files::Directory;
use crate::support::process::Process;
use crate::support::tools::{needed, python_environment};
use crate::support::upstream::OK;
use crate::support::wait::within;
use crate::support::{Proxy, Upstream};

const START: Duration = Duration::from_secs(20);

#[test]
fn grpcio_makes_all_four_kinds_of_calls() {
    let directory = Directory::new();
    let mut server = Process::start("grpc_server", &mut script("grpc_server.py"), &directory);
    let proxy = Proxy::before(format!("127.0.0.1:{}", port_of(&mut server)));
    let mut client = script("grpc_client.py");
    client.arg(proxy.address("inbound").to_string());
    succeeds("grpc_client", &mut client, &directory);
}

// gRFC A6: statuses, pushback and deadlines, over two hops of which only the one next to the server retries.
#[test]
fn grpcio_is_retried_pushed_back_and_kept_to_its_deadline() {
    const HOP: &str = "
listeners:
  inbound: { address: 127.0.0.1:0, upstream: app }
upstreams:
  app:
    static: [\"@app\"]
    retries: { max: 2, when: [{ grpc: [unavailable] }], idempotent: true, backoff: { base: 5ms } }
";
    let directory = Directory::new();
    let mut server = Process::start("grpc_retry_server", &mut script("grpc_retry_server.py"), &directory);
    let near = Proxy::start(HOP, &[("@app", &format!("127.0.0.1:{}", port_of(&mut server)))]);
    let far = Proxy::start(HOP, &[("@app", &near.address("inbound"))]);
    let mut client = script("grpc_retry_client.py");
    client.arg(far.address("inbound").to_string());
    succeeds("grpc_retry_client", &mut client, &directory);
    assert_eq!(near.metric("outrigger_retries_total", &[("outcome", "success")]), 2.0);
    assert_eq!(far.metric("outrigger_retries_total", &[("outcome", "success")]), 0.0);
    assert!(near.metric("outrigger_attempt_duration_seconds_count", &[("outcome", "gateway_error")]) >= 4.0);
}

#[test]
fn websockets_echoes() {
    let directory = Directory::new();
    let mut server = Process::start("websocket_server", &mut script("websocket_server.py"), &directory);
    let proxy = Proxy::before(format!("127.0.0.1:{}", port_of(&mut server)));
    let mut client = script("websocket_client.py");
    client.arg(format!("ws://{}/chat?room=1", proxy.address("inbound")));
    succeeds("websocket_client", &mut client, &directory);
}

#[test]
fn curl_speaks_all_versions() {
    let directory = Directory::new();
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let url = format!("http://{}/curl", proxy.address("inbound"));
    for (version, shown) in [("--http2-prior-knowledge", "2"), ("--http1.1", "1.1"), ("--http1.0", "1")] {
        let mut curl = curl();
        curl.args([version, "-w", " %{http_code} %{http_version}", &url]);
        let output = succeeds("curl", &mut curl, &directory);
        assert!(output.starts_with("ok 200 "), "{version}: {output}");
        // A server may answer HTTP/1.0 in 1.1 (RFC 9112, 2.3).
        assert!(output.ends_with(&format!(" {shown}")) || version == "--http1.0", "{version}: {output}");
        let mut curl = self::curl();
        curl.args([version, "--data-binary", "body", "-w", " %{http_code}", &url]);
        assert_eq!(succeeds("curl", &mut curl, &directory), "ok 200", "{version}");
    }
    assert_eq!(upstream.requests().iter().filter(|request| request.text() == "body").count(), 3);
}

#[test]
fn curl_speaks_to_itself_as_a_proxy() {
    let directory = Directory::new();
    let upstream = Upstream::scripted(|served| {
        while served.request().is_some() {
            served.send(OK);
        }
    });
    let proxy = Proxy::start(
        "listeners:\n  outbound: { address: 127.0.0.1:0, routes: [{ match: { host: payments.test }, upstream: \"@app\" }] }\n",
        &[("@app", &upstream.address())],
    );
    let through = format!("http://{}", proxy.address("outbound"));
    for tunnel in [&[][..], &["--proxytunnel"]] {
        let mut curl = curl();
        curl.args(["-x", &through, "-w", " %{http_code}", "http://payments.test:80/x"]).args(tunnel);
        assert_eq!(succeeds("curl", &mut curl, &directory), "ok 200", "{tunnel:?}");
    }
    assert_eq!(upstream.count("/x"), 2);
}

#[test]
fn curl_uploads_a_gibibyte() {
    const SIZE: u64 = 1 << 30;
    let directory = Directory::new();
    let upstream = Upstream::scripted(|served| {
        while let Some(request) = served.request_head() {
            assert_eq!(request.head.get("content-length"), Some(SIZE.to_string().as_str()), "{}", request.head);
            if request.head.has("expect") {
                served.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            assert_eq!(served.swallow(SIZE), SIZE);
            served.send("HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\ndone");
        }
    });
    let mut proxy = Proxy::before(upstream.address());
    let file = directory.join("sparse");
    File::create(&file).unwrap().set_len(SIZE).unwrap();
    let before = proxy.process().resident_bytes();
    let mut curl = curl();
    curl.arg("-T").arg(&file).args(["-w", " %{http_code}", &format!("http://{}/upload", proxy.address("inbound"))]);
    assert_eq!(succeeds("curl", &mut curl, &directory), "done 201");
    let after = proxy.process().resident_bytes();
    assert!(after < before + (64 << 20), "the body was held: {before} bytes resident before, {after} after");
    assert_eq!(proxy.log_line("/upload")["bytes_in"], SIZE);
}

pub(crate) fn curl() -> Command {
    needed("curl", Command::new("curl").arg("--version"), &["curl"]);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "", "--max-time", "60"]);
    for variable in
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"]
    {
        curl.env_remove(variable);
    }
    curl
}

/// A script of `peers/`, run by an interpreter that has what it imports.
pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new(python_environment("peers", include_str!("peers/requirements.txt")));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/peers").join(name));
    command
        .env_remove("PYTHONPATH")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY");
    command
}

/// Runs it to its end and returns what it wrote to stdout; panics with what it wrote to stderr where it fails.
#[track_caller]
pub(crate) fn succeeds(name: &str, command: &mut Command, directory: &Directory) -> String {
    let mut process = Process::start(name, command, directory);
    let code = process.exit_code_within(Duration::from_secs(90));
    assert_eq!(code, Some(0), "{name}: {}{}", process.stdout(), process.stderr());
    process.stdout()
}

/// The port that a server prints first.
#[track_caller]
pub(crate) fn port_of(server: &mut Process) -> u16 {
    let port = within(START, || {
        let text = server.stdout();
        let line = text.strip_suffix('\n').map(str::to_owned);
        if line.is_none() && server.ended().is_some() { Some(String::new()) } else { line }
    });
    port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port: {}{}", server.stdout(), server.stderr()))
}
