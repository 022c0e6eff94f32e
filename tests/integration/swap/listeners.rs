//! Listeners come, go, move and change their names while the proxy runs.

use std::time::Duration;

use super::{admin, bound, eventually_bound, put, start, swap, text};
use crate::support::{Client, Upstream, eventually};

/// A free port, as far as one can tell.
fn free() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_listener_comes_and_goes_and_its_connections_are_seen_off() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let without = text(&proxy);
    let with = without.replace("listeners:\n", "listeners:\n  extra: { address: \"127.0.0.1:0\", upstream: app }\n");
    swap(&proxy, &with);
    let address = eventually_bound(&proxy, "extra");
    let mut kept = Client::connect(address);
    assert_eq!(kept.get("/").status, 200);
    let mut other = proxy.client();
    assert_eq!(other.get("/").status, 200);

    swap(&proxy, &without);
    assert_eq!(bound(&proxy, "extra"), None);
    // A request that is on its way is answered, and told that it was the last.
    let last = kept.get("/");
    assert_eq!((last.status, last.head.lists("connection", "close")), (200, true));
    eventually("the address to be free", || Client::try_connect(address).is_err());
    // Nobody else notices.
    let answer = other.get("/");
    assert_eq!((answer.status, answer.head.lists("connection", "close")), (200, false));
    // And it can come back.
    swap(&proxy, &with);
    assert_eq!(Client::connect(eventually_bound(&proxy, "extra")).get("/").status, 200);
}

#[test]
fn a_listener_moves_to_another_address_and_nobody_is_turned_away() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let old = proxy.address("inbound");
    let mut kept = Client::connect(old);
    assert_eq!(kept.get("/").status, 200);
    let new = free();
    swap(&proxy, &text(&proxy).replace("127.0.0.1:0\n    routes", &format!("{new}\n    routes")));
    assert_eq!(Client::connect(new).get("/").status, 200);
    assert_eq!(kept.get("/").status, 200);
    eventually("the old address to be free", || Client::try_connect(old).is_err());
}

#[test]
fn a_listener_can_be_moved_back_at_once() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    // Addresses that no other test's connections begin at.
    let [one, two] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.77:0").unwrap().local_addr().unwrap());
    let at = |address| text(&proxy).replace("127.0.0.1:0\n    routes", &format!("{address}\n    routes"));
    for _ in 0..3 {
        for (from, to) in [(one, two), (two, one)] {
            assert_eq!(put(&proxy, "", &at(from)).status, 200);
            let kept = Client::connect(from);
            let answer = put(&proxy, "", &at(to));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let answer = put(&proxy, "?dry_run=true", &at(from));
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(Client::connect(to).get("/").status, 200);
            drop(kept);
        }
    }
    assert_eq!(admin(&proxy, "DELETE /config/override", "", "").status, 200);
}

#[test]
fn two_listeners_exchange_their_addresses() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let (one, two) = (free(), free());
    let with = |a: std::net::SocketAddr, b: std::net::SocketAddr| {
        format!(
            "{}  a: {{ address: \"{a}\", routes: [{{ respond: {{ body: a }} }}] }}\n  b: {{ address: \"{b}\", routes: [{{ respond: {{ body: b }} }}] }}\n",
            "listeners:\n"
        )
    };
    let base = text(&proxy);
    swap(&proxy, &base.replace("listeners:\n", &with(one, two)));
    assert_eq!(Client::connect(one).get("/").text(), "a");
    swap(&proxy, &base.replace("listeners:\n", &with(two, one)));
    // Whoever comes meanwhile is answered, by the one or the other.
    eventually("the exchange", || {
        Client::connect(one).get("/").text() == "b" && Client::connect(two).get("/").text() == "a"
    });
}

#[test]
fn a_taken_address_refuses_the_whole_and_opens_nothing() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (free, taken) = (free(), squatter.local_addr().unwrap());
    let wanted = text(&proxy).replace(
        "listeners:\n",
        &format!("listeners:\n  a: {{ address: \"{free}\", upstream: app }}\n  b: {{ address: \"{taken}\", upstream: app }}\n"),
    );
    let answer = super::put(&proxy, "", &wanted);
    assert_eq!(answer.status, 409);
    assert!(answer.text().contains("listener b"), "{}", answer.text());
    assert_eq!(super::generation(&proxy), 1);
    assert!(Client::try_connect(free).is_err(), "nothing is left open");
}

#[test]
fn the_limit_of_connections_changes_in_place() {
    let upstream = Upstream::ok();
    let proxy = start(&upstream);
    let mut kept = proxy.client();
    assert_eq!(kept.get("/").status, 200);
    swap(&proxy, &text(&proxy).replace("routes:\n", "limits: { connections: 1 }\n    routes:\n"));
    assert_eq!(proxy.client().get("/").status, 503);
    assert_eq!(kept.get("/").status, 200);
}

#[test]
fn a_stream_of_a_listener_that_is_gone_ends_within_the_drains_time() {
    let upstream = Upstream::scripted(|served| {
        while served.head().is_some() {
            served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while served.try_send("4\r\ntick\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let proxy = start(&upstream);
    let without = text(&proxy).replace("timeout: 5s", "timeout: 1s");
    let with = without.replace("listeners:\n", "listeners:\n  extra: { address: \"127.0.0.1:0\", upstream: app }\n");
    swap(&proxy, &with);
    let mut stream = Client::connect(eventually_bound(&proxy, "extra"));
    stream.send(crate::support::client::get("/"));
    assert!(stream.head().is_some());
    swap(&proxy, &without);
    let body = stream.body(crate::support::message::Framing::Chunked);
    assert!(!body.complete && !body.data.is_empty());
    eventually("the reason in the log", || proxy.log_lines().iter().any(|line| line["reason"] == "draining"));
}
