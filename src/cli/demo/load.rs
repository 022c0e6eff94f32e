//! A gentle load: a few connections that are kept, each asking at its own steady pace.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::tally::Tally;

const CONNECTIONS: u32 = 5;
/// For any answer. The slowest route gives up after a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What is asked for: how often of a hundred times, and what.
const MIX: [(u8, Method, &str); 7] = [
    (45, Method::GET, "/hello"),
    (15, Method::GET, "/slow"),
    (15, Method::GET, "/flaky"),
    (8, Method::POST, "/flaky"),
    (12, Method::GET, "/split"),
    (3, Method::GET, "/about"),
    (2, Method::GET, "/old"),
];

type Sender = SendRequest<Full<Bytes>>;

/// Asks `rate` times a second until `stop` is true.
pub(super) fn start(
    target: SocketAddr,
    rate: f64,
    tally: &Rc<RefCell<Tally>>,
    stop: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    let every = Duration::from_secs_f64(f64::from(CONNECTIONS) / rate);
    let client = |number: u32| {
        let first = Instant::now() + every * number / CONNECTIONS;
        tokio::task::spawn_local(ask_on(target, first, every, tally.clone(), stop.clone()))
    };
    (0..CONNECTIONS).map(client).collect()
}

async fn ask_on(
    target: SocketAddr,
    first: Instant,
    every: Duration,
    tally: Rc<RefCell<Tally>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut paces = interval_at(first, every);
    paces.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut connection: Option<Sender> = None;
    loop {
        tokio::select! {
            _ = paces.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let (method, path) = choose(fastrand::u8(0..100));
        let began = Instant::now();
        let outcome = tokio::time::timeout(ANSWER_WITHIN, ask(&mut connection, target, method, path)).await;
        let took = began.elapsed();
        let (upstream, failure) = match outcome {
            Ok(Ok(answer)) => (answer.upstream, answer.failure),
            Ok(Err(error)) => {
                connection = None;
                (None, Some(format!("no answer: {error}")))
            }
            Err(_) => {
                connection = None;
                (None, Some("no answer in time".to_owned()))
            }
        };
        // Answers that the proxy gave in an upstream's place carry no header of the route.
        let by_path = matches!(path, "/slow" | "/flaky").then(|| path[1..].to_owned());
        let upstream = upstream.or(by_path).unwrap_or_default();
        tally.borrow_mut().count(&upstream, took, failure);
    }
}

fn choose(mut number: u8) -> (Method, &'static str) {
    for (share, method, path) in MIX {
        if number < share {
            return (method, path);
        }
        number -= share;
    }
    (Method::GET, "/hello")
}

struct Answer {
    upstream: Option<String>,
    /// The proxy's reason, or the upstream's status.
    failure: Option<String>,
}

async fn ask(
    connection: &mut Option<Sender>,
    target: SocketAddr,
    method: Method,
    path: &str,
) -> Result<Answer, Box<dyn std::error::Error>> {
    let sender = match connection {
        Some(sender) if !sender.is_closed() => sender,
        _ => {
            let (sender, made) = handshake(TokioIo::new(TcpStream::connect(target).await?)).await?;
            tokio::task::spawn_local(made);
            connection.insert(sender)
        }
    };
    sender.ready().await?;
    let body = if method == Method::POST { Full::from("a little something\n") } else { Full::default() };
    let request = Request::builder().method(method).uri(path).header(HOST, target.to_string()).body(body)?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    body.collect().await?;
    let field = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let failure = head.status.is_server_error().then(|| match field("x-outrigger-reason") {
        Some(reason) => reason.split(';').next().unwrap_or(reason).to_owned(),
        None => format!("{} by the service", head.status.as_u16()),
    });
    Ok(Answer { upstream: field("x-demo-upstream").map(str::to_owned), failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_a_hundred() {
        assert_eq!(MIX.iter().map(|(share, ..)| u32::from(*share)).sum::<u32>(), 100);
        assert_eq!(choose(0), (Method::GET, "/hello"));
        assert_eq!(choose(99), (Method::GET, "/old"));
    }
}
