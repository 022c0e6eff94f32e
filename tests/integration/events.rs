//! `GET /events`: the stream that the dashboard and `outrigger top` live on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Proxy, Upstream, eventually};

/// Server-sent events of the admin.
pub struct Stream(BufReader<TcpStream>);

impl Stream {
    #[track_caller]
    pub fn open(proxy: &Proxy, path: &str) -> Self {
        Self::try_open(proxy, path).unwrap_or_else(|| panic!("{path} was refused"))
    }

    #[track_caller]
    pub fn try_open(proxy: &Proxy, path: &str) -> Option<Self> {
        let mut socket = TcpStream::connect(proxy.admin()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.admin()).unwrap();
        let mut stream = Stream(BufReader::new(socket));
        let status = stream.line().unwrap();
        while stream.line().is_some_and(|line| !line.is_empty()) {}
        status.contains(" 200 ").then_some(stream)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).unwrap_or_else(|error| panic!("no event came: {error}"));
        (length > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event; `None` where the stream has ended.
    pub fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(json) = self.line()?.strip_prefix("data: ") {
                return Some(serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {json}")));
            }
        }
    }
}

#[test]
fn an_event_a_second_says_how_the_proxy_stands() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let mut client = proxy.client();
    assert_eq!(client.get("/before").status, 200);
    let mut events = Stream::open(&proxy, "/events");
    let first = events.next().unwrap();
    assert_eq!((&first["ready"], &first["phase"], &first["workers"]), (&true.into(), &"serving".into(), &2.into()));
    assert_eq!(first["config"]["generation"], 1);
    assert_eq!(first["interval"]["total"]["ever"], 1);
    let endpoint = &first["upstreams"][0]["endpoints"][0];
    assert_eq!((&endpoint["address"], &endpoint["requests"]), (&upstream.address().to_string().into(), &1.into()));

    for _ in 0..20 {
        assert_eq!(client.get("/during").status, 200);
    }
    assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: app.test\r\nContent-Length: x\r\n\r\n").status, 400);
    let (mut count, mut errors) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(10);
    while count < 21 && Instant::now() < deadline {
        let event = events.next().unwrap();
        let interval = &event["interval"];
        assert!(interval["seconds"].as_f64().unwrap() > 0.5, "{interval}");
        let total = &interval["total"];
        count += total["count"].as_u64().unwrap();
        errors += total["errors"].as_u64().unwrap();
        if total["count"].as_u64() > Some(0) {
            let row = interval["routes"].as_array().unwrap().iter().find(|row| row["upstream"] == "app").unwrap();
            assert_eq!((&row["listener"], &row["route"]), (&"inbound".into(), &"app".into()));
            assert!(total["ms"]["p50"].as_f64() <= total["ms"]["p99"].as_f64(), "{total}");
            assert!(interval["upstreams"][0]["outcomes"]["success"].as_u64() > Some(0), "{interval}");
        }
    }
    assert_eq!((count, errors), (21, 1));
    proxy.terminate();
    while events.next().is_some() {}
}

#[test]
fn listeners_are_bounded_and_who_leaves_makes_room() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let held: Vec<Stream> = (0..16).map(|_| Stream::open(&proxy, "/events")).collect();
    assert_eq!(proxy.admin_get("/events").status, 429);
    assert_eq!(proxy.admin_get("/readyz").status, 200, "probes come in beside them");
    drop(held);
    eventually("room for another", || Stream::try_open(&proxy, "/events").is_some());
}
