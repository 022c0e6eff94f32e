//! Stands before a server that speaks HTTP, passes everything on, and remembers what was asked.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Its threads end with their connections.
pub struct Recorder {
    address: SocketAddr,
    targets: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let recorder = Recorder { address: listener.local_addr().unwrap(), targets: Arc::default() };
        let targets = Arc::clone(&recorder.targets);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (back, front) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let targets = Arc::clone(&targets);
                thread::spawn(move || pass(client, server, |bytes| record(bytes, &targets)));
                thread::spawn(move || pass(back, front, |_| {}));
            }
        });
        recorder
    }

    /// As the configuration has it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Questions whose target begins so.
    pub fn asked(&self, beginning: &str) -> Vec<String> {
        self.targets.lock().unwrap().iter().filter(|target| target.starts_with(beginning)).cloned().collect()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        look(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A client of Consul's sends the head of a question at once, and no second one before its answer.
fn record(bytes: &[u8], targets: &Mutex<Vec<String>>) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(target) = text.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) {
        targets.lock().unwrap().push(target.to_owned());
    }
}
