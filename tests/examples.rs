//! Runs the programs in `examples/` with real requests.

#![allow(clippy::unwrap_used)] // A test says what is wrong by failing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use outrigger::BoundAddress;
use outrigger::app::{Ending, Running};

#[path = "../examples/edge_layer.rs"]
#[allow(dead_code)] // `main`
pub mod edge_layer;
#[path = "../examples/embedded.rs"]
#[allow(dead_code)]
pub mod embedded;

#[test]
fn a_program_carries_the_proxy_and_ends_it() {
    let upstream = Upstream::start(1);
    let running = embedded::start(&upstream.address.to_string()).unwrap();
    let answer = get(address(&running), "");
    assert!(answer.starts_with("http/1.1 200 ok\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    let [request] = upstream.requests().try_into().unwrap();
    assert!(request.contains("\r\nvia: 1.1 outrigger\r\n"), "{request}");
    assert_eq!(embedded::stop(running), Ending::Drained);
}

#[test]
fn a_mistake_comes_back_with_its_place() {
    let mistake = embedded::start("nowhere:0").unwrap_err().to_string();
    assert!(mistake.contains("embedded.rs:7:"), "{mistake}");
}

#[test]
fn layers_see_requests_first_and_responses_last() {
    let upstream = Upstream::start(1);
    let running = edge_layer::start("127.0.0.1:0", &upstream.address.to_string(), "secret").unwrap();
    let refused = get(address(&running), "X-API-Key: Secret\r\n");
    assert!(refused.starts_with("http/1.1 401 "), "{refused}");
    assert!(refused.contains("\r\nserver-timing: edge;dur="), "the outer layer has seen it: {refused}");
    let allowed = get(address(&running), "X-API-Key: secret\r\n");
    assert!(allowed.starts_with("http/1.1 200 ok\r\n"), "{allowed}");
    assert!(allowed.contains("\r\nserver-timing: edge;dur="), "{allowed}");
    let [request] = upstream.requests().try_into().unwrap();
    assert!(!request.contains("x-api-key"), "{request}");
    running.handle().end_now();
    running.wait();
}

fn address(running: &Running) -> SocketAddr {
    match &running.listeners()[0].1 {
        BoundAddress::Tcp(address) => *address,
        BoundAddress::Unix(path) => panic!("{} is no port", path.display()),
    }
}

/// The whole answer to a GET, in lower case.
fn get(address: SocketAddr, headers: &str) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    write!(client, "GET / HTTP/1.1\r\nHost: example\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer.to_lowercase()
}

/// Answers a number of requests, a connection each, and keeps their heads, in lower case.
struct Upstream {
    address: SocketAddr,
    answering: thread::JoinHandle<Vec<String>>,
}

impl Upstream {
    fn start(requests: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answering = thread::spawn(move || (0..requests).map(|_| answer(listener.accept().unwrap().0)).collect());
        Upstream { address, answering }
    }

    /// In the order in which they came, once all have.
    fn requests(self) -> Vec<String> {
        self.answering.join().unwrap()
    }
}

fn answer(mut connection: TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    connection.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    String::from_utf8(head).unwrap().to_lowercase()
}
