//! Connections to one of the admin's addresses: few, and none forever.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::content::Content;

/// Open connections at one door. A newcomer beyond them takes the place of whoever has been silent for longest, or has
/// taken nothing of its stream, so that nobody can lock the probes out by holding connections.
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
            let silent = self.open.iter().enumerate();
            let silent = silent.filter_map(|(at, (_, activity))| Some((activity.silent_since()?, at)));
            let Some((_, longest)) = silent.min() else { return };
            self.open.swap_remove(longest).0.abort();
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
    /// Since when the client takes nothing of what it is sent.
    stuck_since: Cell<Option<Instant>>,
    /// How long it may be silent.
    patience: Cell<Duration>,
}

impl Activity {
    fn new() -> Self {
        Activity {
            busy: Cell::new(false),
            since: Cell::new(Instant::now()),
            stuck_since: Cell::new(None),
            patience: Cell::new(FIRST_REQUEST),
        }
    }

    fn enter(&self, busy: bool) {
        self.busy.set(busy);
        self.since.set(Instant::now());
        self.patience.set(IDLE);
    }

    /// Since when nothing has come from the client: no request, or no sign that it takes its stream.
    fn silent_since(&self) -> Option<Instant> {
        if self.busy.get() { self.stuck_since.get() } else { Some(self.since.get()) }
    }

    /// Returns when the silence has lasted too long. Answers have bounds of their own.
    async fn silent_for_too_long(&self) {
        loop {
            let ends = self.silent_since().map(|since| since + self.patience.get());
            match ends {
                Some(ends) if ends <= Instant::now() => return,
                Some(ends) => tokio::time::sleep_until(ends).await,
                None => tokio::time::sleep(FIRST_REQUEST).await,
            }
        }
    }
}

/// A connection whose client is watched while it takes what it is sent.
struct Watched<S> {
    stream: S,
    activity: Rc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let stuck = written.is_pending().then(|| self.activity.stuck_since.get().unwrap_or_else(Instant::now));
        self.activity.stuck_since.set(stuck);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
    let stream = TokioIo::new(Watched { stream, activity: activity.clone() });
    let connection = http1::Builder::new().max_buf_size(HEAD_BYTES).serve_connection(stream, service);
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

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::mpsc;

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

    /// `/stream` never ends.
    async fn stream_or_hello(request: Request<Incoming>) -> Response<Content> {
        if request.uri().path() != "/stream" {
            return hello(request).await;
        }
        let (events, receiver) = mpsc::channel(1);
        tokio::spawn(async move { while events.send(Bytes::from(vec![b'x'; 1 << 10])).await.is_ok() {} });
        Response::new(Content::stream(receiver))
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn who_takes_nothing_of_a_stream_gives_way_and_is_let_go_in_the_end() {
        let closing = watch::Sender::new(false);
        let mut door = Door {
            connections: JoinSet::new(),
            open: Vec::new(),
            answer: stream_or_hello,
            closing: closing.subscribe(),
        };
        let mut ask = async |path: &str| {
            let (mut client, server) = tokio::io::duplex(4 << 10);
            client.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
            door.admit(server);
            tokio::time::sleep(Duration::from_millis(1)).await;
            client
        };
        let mut stuck = Vec::new();
        for _ in 0..CONNECTIONS {
            stuck.push(ask("/stream").await);
        }
        let mut answer = [0; 12];
        ask("/").await.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        tokio::time::sleep(IDLE + FIRST_REQUEST).await;
        while door.connections.try_join_next().is_some() {}
        assert!(door.connections.is_empty(), "{} are still there", door.connections.len());
    }

    /// How long a connection lives on which the client sends this and no more.
    async fn lifetime(sent: &[u8]) -> Duration {
        let (mut client, server) = tokio::io::duplex(4 << 10);
        client.write_all(sent).await.unwrap();
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
