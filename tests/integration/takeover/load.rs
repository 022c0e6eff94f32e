//! A steady mixture of requests, none of which may fail: connections that are kept, new ones, streams of HTTP/2, slow
//! answers, and tunnels.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::client::get;
use crate::support::h2::{self, H2Client};
use crate::support::upstream::OK;
use crate::support::{Client, Served};

/// Requests a second: 32 connections with 57 each, 4 that connect anew 25 times, 4 of HTTP/2 with 25 each.
pub const KEPT: (usize, u32) = (32, 57);
pub const NEW: (usize, u32) = (4, 25);
const STREAMS: (usize, u32) = (4, 25);
pub const SLOW: usize = 8;

#[derive(Default)]
pub struct Load {
    done: AtomicBool,
    pub served: AtomicUsize,
    pub slow_under_way: AtomicUsize,
    /// That came back through tunnels.
    pub messages: AtomicUsize,
    pub failures: Mutex<Vec<String>>,
}

impl Load {
    fn failed(&self, what: &str, why: impl std::fmt::Display) {
        self.failures.lock().unwrap().push(format!("{what}: {why}"));
    }

    /// Runs `turn` so many times a second until the load is done.
    fn paced(&self, per_second: u32, offset: usize, mut turn: impl FnMut()) {
        let step = Duration::from_secs(1) / per_second;
        let start = Instant::now() + step * (offset as u32 % 16) / 16;
        for nth in 0.. {
            let due = start + step * nth;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.done.load(SeqCst) {
                return;
            }
            turn();
        }
    }

    /// One request; true where the connection may be used again.
    fn request(&self, what: &str, client: &mut Client) -> bool {
        if let Err(error) = client.try_send(get("/quick")) {
            self.failed(what, format!("met a closed connection: {error}"));
            return false;
        }
        let Some(response) = client.response_or_end("GET") else {
            self.failed(what, "the connection ended without an answer");
            return false;
        };
        if response.status != 200 || response.text() != "ok" {
            self.failed(what, response.head);
            return false;
        }
        self.served.fetch_add(1, SeqCst);
        !response.head.lists("connection", "close")
    }

    fn connect(&self, what: &str, address: SocketAddr) -> Option<Client> {
        Client::try_connect(address).inspect_err(|error| self.failed(what, format!("cannot connect: {error}"))).ok()
    }

    pub fn kept(&self, address: SocketAddr, number: usize) {
        let mut client = None;
        self.paced(KEPT.1, number, || {
            if client.is_none() {
                client = self.connect("kept connection", address);
            }
            if client.as_mut().is_some_and(|client| !self.request("kept connection", client)) {
                client = None;
            }
        });
    }

    pub fn anew(&self, address: SocketAddr, number: usize) {
        self.paced(NEW.1, number, || {
            if let Some(mut client) = self.connect("new connection", address) {
                self.request("new connection", &mut client);
            }
        });
    }

    pub fn slow(&self, address: SocketAddr) {
        let Some(mut client) = self.connect("slow stream", address) else { return };
        client.send(get("/slow"));
        if client.head().is_none() {
            return self.failed("slow stream", "no answer");
        }
        self.slow_under_way.fetch_add(1, SeqCst);
        let body = client.body(crate::support::message::Framing::Chunked);
        if !body.complete {
            self.failed("slow stream", format!("cut short after {} bytes", body.data.len()));
        }
        self.served.fetch_add(1, SeqCst);
    }

    /// Tunnels, one after the other, whose messages come back.
    pub fn sockets(&self, address: SocketAddr) {
        while !self.done.load(SeqCst) {
            let Some(mut client) = self.connect("tunnel", address) else { return };
            client.send("GET /socket HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
            match client.response_or_end("GET") {
                Some(response) if response.status == 101 => {}
                other => return self.failed("tunnel", format!("{:?}", other.map(|response| response.status))),
            }
            for _ in 0..60 {
                client.send("ping");
                client.expect("ping");
                self.messages.fetch_add(1, SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    pub fn streams(&self, address: SocketAddr) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut clients: Vec<Option<H2Client>> = (0..STREAMS.0).map(|_| None).collect();
            let mut tick = tokio::time::interval(Duration::from_secs(1) / (STREAMS.1 * STREAMS.0 as u32));
            let mut turn = 0;
            while !self.done.load(SeqCst) {
                tick.tick().await;
                turn += 1;
                let slot = &mut clients[turn % STREAMS.0];
                let client = match slot {
                    Some(client) => client,
                    None => slot.insert(H2Client::connect(address).await),
                };
                // A connection that was told to go takes no new stream: that is no failure, the next one is opened.
                match client.try_start(h2::get("/quick"), true).await {
                    Err(_) => *slot = None,
                    Ok((response, _)) => match h2::answer(response).await {
                        Ok(answer) if answer.status == 200 => {
                            self.served.fetch_add(1, SeqCst);
                        }
                        Ok(answer) => self.failed("stream", answer.status),
                        // Told to go just as it was sent: RFC 9113, section 6.8 says that it was not processed, and
                        // every client sends it again.
                        Err(error) if error.is_go_away() && error.reason() == Some(::h2::Reason::NO_ERROR) => {
                            *slot = None
                        }
                        Err(error) => self.failed("stream", error),
                    },
                }
            }
        });
    }
}

pub fn script(served: &mut Served) {
    while let Some(head) = served.head() {
        if head.start.contains("/socket") {
            served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
            loop {
                let bytes = served.some();
                if bytes.is_empty() || served.try_send(&bytes).is_err() {
                    return;
                }
            }
        }
        if !head.start.contains("/slow") {
            if served.try_send(OK).is_err() {
                return;
            }
            continue;
        }
        if served.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err() {
            return;
        }
        for _ in 0..40 {
            if served.try_send("4\r\ntick\r\n").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if served.try_send("0\r\n\r\n").is_err() {
            return;
        }
    }
}

pub struct Done<'a>(pub &'a Load);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, SeqCst);
    }
}
