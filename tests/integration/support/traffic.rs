//! A steady stream of requests that goes on while a test changes things, and endpoints that say who they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::{Client, get};
use super::upstream::Upstream;
use super::wait::within;

/// An endpoint whose answers are its name.
pub fn named(name: &str) -> Upstream {
    Upstream::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))
}

/// Requests at a steady rate, over several connections.
pub struct Traffic {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone)]
struct Seen {
    at: Instant,
    /// Who answered; where it was a failure, what it was.
    answer: Result<String, String>,
}

impl Traffic {
    pub fn start(address: SocketAddr, per_second: u32) -> Self {
        const CONNECTIONS: u32 = 4;
        let (seen, stop) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicBool>::default());
        let thread = |_| {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let period = Duration::from_secs(1) * CONNECTIONS / per_second;
                let mut due = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let response = client.exchange(get("/"));
                    let answer = match response.status {
                        200 => Ok(response.text()),
                        status => Err(format!("{status} {}", response.text())),
                    };
                    seen.lock().unwrap().push(Seen { at: Instant::now(), answer });
                    due += period;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            })
        };
        Traffic { threads: (0..CONNECTIONS).map(thread).collect(), seen, stop }
    }

    /// Requests so far.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// How often each has answered since then.
    pub fn since(&self, from: Instant) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        let seen = self.seen.lock().unwrap();
        for answer in seen.iter().filter(|seen| seen.at >= from).filter_map(|seen| seen.answer.clone().ok()) {
            *counts.entry(answer).or_default() += 1;
        }
        counts
    }

    /// Waits until the last `window` of answers are as they should be, and returns how long after `from` that came
    /// true: the time from then to the window's beginning.
    #[track_caller]
    pub fn becomes(
        &self,
        what: &str,
        from: Instant,
        window: Duration,
        limit: Duration,
        right: impl Fn(&BTreeMap<String, usize>) -> bool,
    ) -> Duration {
        let begun = within(limit + window, || {
            let begin = Instant::now().checked_sub(window)?;
            (begin >= from && right(&self.since(begin))).then_some(begin)
        });
        let Some(begin) = begun else { panic!("{what}: not within {limit:?}, but {:?}", self.since(from)) };
        begin - from
    }

    /// Ends it; panics where a request failed.
    #[track_caller]
    pub fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap_or_else(|_| panic!("a connection of the traffic broke"));
        }
        let seen = self.seen.lock().unwrap();
        let failed: Vec<&String> = seen.iter().filter_map(|seen| seen.answer.as_ref().err()).collect();
        assert!(
            failed.is_empty(),
            "{} of {} requests failed: {:?}",
            failed.len(),
            seen.len(),
            &failed[..failed.len().min(5)]
        );
        seen.len()
    }
}
