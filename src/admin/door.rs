//! Connections to one of the admin's addresses: few, and none forever.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::content::Content;

/// Open connections at one door. A newcomer beyond them takes the place of whoever has been silent for longest, so that
/// nobody can lock the probes out by holding connections.
const CONNECTIONS: usize = 64;
/// From a connection's start to the end of its first request's head.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// Between two requests, and for the client to take an answer. More than the 60 s between two scrapes.
const IDLE: Duration = Duration::from_secs(75);
/// Of a request's head.
const HEAD_BYTES: usize = 64 << 10;
/// Without a free file descriptor, the door opens again after this long.
const BREATH: Duration = Duration::from_millis(50);

/// Accepts until `closing` is true, then ends when the requests under way are answered.
pub(super) async fn serve<F, A>(socket: Socket, answer: F, mut closing: watch::Receiver<bool>)
where
    F: Fn(Request<Incoming>) -> A + Clone + 'static,
    A: Future<Output = Response<Content>> + 'static,
{
    let listener = match Listener::new(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "an admin address has failed");
            return;
        }
    };
    let mut door = Door { connections: JoinSet::new(), open: Vec::new(), answer, closing: closing.clone() };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(Accepted::Tcp(stream)) => door.admit(stream),
                Ok(Accepted::Unix(stream)) => door.admit(stream),
                Err(error) => {
                    tracing::debug!(%error, "accept failed at an admin address");
                    tokio::time::sleep(BREATH).await;
                }
            },
            Some(_) = door.connections.join_next() => {}
            _ = closing.wait_for(|closing| *closing) => break,
        }
    }
    drop(listener);
    while door.connections.join_next().await.is_some() {}
}

struct Door<F> {
    connections: JoinSet<()>,
    open: Vec<(AbortHandle, Rc<Activity>)>,
    answer: F,
    closing: watch::Receiver<bool>,
}

impl<F, A> Door<F>
where
    F: Fn(Request<Incoming>) -> A + Clone + 'static,
    A: Future<Output = Response<Content>> + 'static,
{
    fn admit(&mut self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() >= CONNECTIONS {
            let silent = self.open.iter().enumerate().filter(|(_, (_, activity))| !activity.busy.get());
            let Some((position, _)) = silent.min_by_key(|(_, (_, activity))| activity.since.get()) else { return };
            self.open.swap_remove(position).0.abort();
        }
        let activity = Rc::new(Activity::new());
        let connection = converse(stream, self.answer.clone(), activity.clone(), self.closing.clone());
        self.open.push((self.connections.spawn_local(connection), activity));
    }
}

/// What a connection is at.
struct Activity {
    /// A request is being answered.
    busy: Cell<bool>,
    /// The last change of that.
    since: Cell<Instant>,
    /// How long it may last.
    patience: Cell<Duration>,
}

impl Activity {
    fn new() -> Self {
        Activity { busy: Cell::new(false), since: Cell::new(Instant::now()), patience: Cell::new(FIRST_REQUEST) }
    }

    fn enter(&self, busy: bool) {
        self.busy.set(busy);
        self.since.set(Instant::now());
        self.patience.set(IDLE);
    }

    /// Returns when the silence has lasted too long. Answers have bounds of their own.
    async fn silent_for_too_long(&self) {
        loop {
            let deadline = self.since.get() + self.patience.get();
            tokio::time::sleep_until(deadline).await;
            if !self.busy.get() && self.since.get() + self.patience.get() <= Instant::now() {
                return;
            }
            if self.busy.get() {
                tokio::time::sleep(FIRST_REQUEST).await;
            }
        }
    }
}

/// A stream under way.
struct Busy(Rc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(false);
    }
}

async fn converse<S, F, A>(stream: S, answer: F, activity: Rc<Activity>, mut closing: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Fn(Request<Incoming>) -> A + 'static,
    A: Future<Output = Response<Content>> + 'static,
{
    let ending = closing.clone();
    let service = service_fn(|request| {
        activity.enter(true);
        let answer = answer(request);
        let activity = &activity;
        let mut ending = ending.clone();
        async move {
            let mut response = answer.await;
            activity.enter(false);
            // A stream is busy until it ends, and ends with the door.
            let end = async move {
                let _ = ending.wait_for(|closing| *closing).await;
            };
            response.body_mut().until(end, || {
                activity.enter(true);
                Box::new(Busy(activity.clone()))
            });
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new().max_buf_size(HEAD_BYTES).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = activity.silent_for_too_long() => return,
        _ = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Accepted {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Listener {
    fn new(socket: Socket) -> io::Result<Self> {
        if socket.local_addr()?.is_unix() {
            return UnixListener::from_std(socket.into()).map(Listener::Unix);
        }
        TcpListener::from_std(socket.into()).map(Listener::Tcp)
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listener::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
            Listener::Unix(unix) => unix.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::config::model::BindAddress;
    use crate::listener::socket;
    use crate::runtime::address::BoundAddress;

    async fn hello(_: Request<Incoming>) -> Response<Content> {
        Response::new(Content::from("hello".to_owned()))
    }

    #[test]
    fn who_holds_all_connections_cannot_lock_a_probe_out() {
        let bound = socket::bind(&BindAddress::Tcp("127.0.0.1:0".parse().unwrap()), 1, false).unwrap();
        let BoundAddress::Tcp(address) = bound.address else { panic!() };
        let mut sockets = bound.sockets;
        let probing = std::thread::spawn(move || {
            let held: Vec<_> = (0..2 * CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
            let mut probe = TcpStream::connect(address).unwrap();
            probe.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            probe.read_to_string(&mut answer).unwrap();
            drop(held);
            answer
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(async {
            let closing = watch::Sender::new(false);
            let door = tokio::task::spawn_local(serve(sockets.remove(0), hello, closing.subscribe()));
            let answer = tokio::task::spawn_blocking(move || probing.join().unwrap()).await.unwrap();
            assert!(answer.ends_with("hello"), "{answer}");
            closing.send_replace(true);
            door.await.unwrap();
        });
    }

    /// How long a connection lives on which the client sends this and no more.
    async fn lifetime(sent: &[u8]) -> Duration {
        let (mut client, server) = tokio::io::duplex(4 << 10);
        tokio::io::AsyncWriteExt::write_all(&mut client, sent).await.unwrap();
        let closing = watch::Sender::new(false);
        let began = Instant::now();
        let reading = async {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            began.elapsed()
        };
        let ((), took) = tokio::join!(converse(server, hello, Rc::new(Activity::new()), closing.subscribe()), reading);
        took
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection() {
        assert_eq!(lifetime(b"").await.as_secs(), FIRST_REQUEST.as_secs());
        assert_eq!(lifetime(b"GET / HTTP/1.1\r\nhos").await.as_secs(), FIRST_REQUEST.as_secs());
        assert_eq!(lifetime(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.as_secs(), IDLE.as_secs());
    }
}
