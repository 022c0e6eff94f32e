//! An agent that says what it is told to say, be it true or not.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::upstream::Upstream;

/// Speaks HTTP like Consul: it answers a blocking query when it is told to say something else.
pub struct Liar {
    upstream: Upstream,
    saying: Arc<(Mutex<Saying>, Condvar)>,
}

#[derive(Clone, Default)]
struct Saying {
    version: u64,
    response: Vec<u8>,
}

impl Liar {
    pub fn new(status: &str, headers: &str, body: &str) -> Self {
        let saying = Arc::<(Mutex<Saying>, Condvar)>::default();
        saying.0.lock().unwrap().response = response(status, headers, body);
        let upstream = Upstream::scripted({
            let saying = Arc::clone(&saying);
            move |served| {
                let mut said = u64::MAX;
                while let Some(request) = served.request() {
                    let (lock, changed) = &*saying;
                    let mut now = lock.lock().unwrap();
                    if request.target.contains("index=") {
                        let wait = Duration::from_secs(60);
                        now = changed.wait_timeout_while(now, wait, |now| now.version == said).unwrap().0;
                    }
                    said = now.version;
                    let response = now.response.clone();
                    drop(now);
                    if served.try_send(&response).is_err() {
                        return;
                    }
                }
            }
        });
        Liar { upstream, saying }
    }

    /// From now on, this; whoever waits for something new hears it at once.
    pub fn says(&self, status: &str, headers: &str, body: &str) {
        let mut saying = self.saying.0.lock().unwrap();
        *saying = Saying { version: saying.version + 1, response: response(status, headers, body) };
        drop(saying);
        self.saying.1.notify_all();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.upstream.address())
    }

    /// What it was asked, in order.
    pub fn questions(&self) -> Vec<String> {
        self.upstream.requests().into_iter().map(|request| request.target).collect()
    }
}

fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// What `/v1/health/service` says of these instances.
pub fn instances(addresses: &[SocketAddr]) -> String {
    let instance = |address: &SocketAddr| {
        json!({
            "Node": { "Node": "n", "Address": address.ip(), "Datacenter": "dc1", "Meta": null },
            "Service": { "ID": address, "Service": "web", "Address": "", "Port": address.port(), "Tags": null, "Meta": null },
            "Checks": [{ "Node": "n", "CheckID": "c", "Status": "passing", "Output": "" }],
        })
    };
    addresses.iter().map(instance).collect::<Value>().to_string()
}
