//! New connections: taken in, and given to the worker that has the fewest.
//!
//! Each worker listens with a socket of its own (SO_REUSEPORT), so that most connections never change threads. The
//! kernel spreads them by hash, blindly: of four connections, four may fall to one worker. So whoever accepts one looks
//! at how many each worker has, and hands it over where the difference matters.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::entrance::Entrance;
use super::{LayerFn, serve, socket};
use crate::config::model::Mode;
use crate::error::{Error, Reason};
use crate::http1::{self, Framing};
use crate::proxy::Connection;
use crate::proxy::entry::Entry;
use crate::proxy::worker::Worker;
use crate::runtime::descriptors;
use crate::runtime::stream::Stream;
use crate::telemetry::metrics::ListenerCounter;
use crate::upstream::limit::Permit;

/// A worker with this share more connections than the emptiest gives new ones away. Below, a hand-over costs more than
/// the difference.
const UNEVEN: usize = 8;
/// After the last connection of a door that takes no new ones: handshakes that were under way are over by then.
const LAST_CALL: Duration = Duration::from_millis(100);
/// Without a free file descriptor, the door opens again after this long.
const BREATH: Duration = Duration::from_millis(20);

/// Open connections of each worker.
pub(crate) type Loads = Arc<[AtomicUsize]>;

/// A connection counted for one worker.
#[derive(Debug)]
pub(crate) struct Load {
    loads: Loads,
    worker: usize,
}

impl Load {
    fn new(loads: &Loads, worker: usize) -> Self {
        loads[worker].fetch_add(1, Ordering::Relaxed);
        Load { loads: loads.clone(), worker }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.loads[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection on its way from one worker to another.
#[derive(Debug)]
pub(crate) struct StreamIn {
    stream: Accepted,
    entrance: Arc<Entrance>,
    load: Load,
    permit: Permit,
}

#[derive(Debug)]
enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// What one worker needs to know of a listener.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) worker: Rc<Worker>,
    pub(crate) index: usize,
    pub(crate) loads: Loads,
    pub(crate) entrance: Arc<Entrance>,
    /// What the worker knows of the entrance.
    pub(crate) entry: Rc<Entry>,
    pub(crate) layers: Option<LayerFn>,
    /// Gives a connection to another worker.
    pub(crate) hand_over: Rc<dyn Fn(usize, StreamIn)>,
}

/// Takes connections in until the door is closed.
pub(crate) async fn listen(socket: Socket, door: Door) -> io::Result<()> {
    let unix = socket.local_addr()?.is_unix();
    let listener = if unix {
        Listener::Unix(UnixListener::from_std(socket.into())?)
    } else {
        if let Err(error) = socket::welcome_new(&socket) {
            tracing::debug!(%error, "what an earlier process may have done to the socket cannot be undone");
        }
        Listener::Tcp(TcpListener::from_std(socket.into())?)
    };
    let mut spare = Spare::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => door.take(accepted, &listener, &mut spare).await,
            () = door.entrance.closed() => break,
        }
    }
    if door.entrance.is_shared() {
        return Ok(());
    }
    if let Listener::Tcp(tcp) = &listener {
        // Without the filter (an old kernel, a sandbox), at worst a connection that comes this moment is reset.
        if let Err(error) = socket::refuse_new(&SockRef::from(tcp)) {
            tracing::debug!(%error, "new connections cannot be held off while the listener closes");
        }
    }
    let until = tokio::time::Instant::now() + LAST_CALL * 10;
    while tokio::time::Instant::now() < until
        && let Ok(accepted) = tokio::time::timeout(LAST_CALL, listener.accept()).await
    {
        door.take(accepted, &listener, &mut spare).await;
    }
    Ok(())
}

impl Door {
    async fn take(&self, accepted: io::Result<Stream>, listener: &Listener, spare: &mut Spare) {
        match accepted {
            Ok(stream) => self.admit(stream),
            Err(error) if descriptors::are_exhausted(&error) => {
                self.worker.metrics.count_listener(self.entry.listener, ListenerCounter::RejectedNoDescriptor);
                self.worker.pools.give_up_all_idle();
                spare.shed(listener, self).await;
                tokio::time::sleep(BREATH).await;
            }
            // The client left before it was let in.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(BREATH).await;
            }
        }
    }

    fn admit(&self, mut stream: Stream) {
        let Some(permit) = self.entrance.connections.try_acquire() else {
            self.worker.metrics.count_listener(self.entry.listener, ListenerCounter::RejectedConnectionLimit);
            self.refuse(&mut stream);
            return;
        };
        let own = self.loads[self.index].load(Ordering::Relaxed);
        let loads = self.loads.iter().map(|load| load.load(Ordering::Relaxed)).enumerate();
        let (emptiest, least) = loads.min_by_key(|(_, load)| *load).unwrap_or((self.index, own));
        if own <= least + least / UNEVEN {
            self.serve(stream, Load::new(&self.loads, self.index), permit);
            return;
        }
        let load = Load::new(&self.loads, emptiest);
        let accepted = match stream {
            Stream::Tcp(tcp) => tcp.into_std().map(Accepted::Tcp),
            Stream::Unix(unix) => unix.into_std().map(Accepted::Unix),
            Stream::Tls(_) | Stream::Replayed(..) => return,
        };
        if let Ok(stream) = accepted {
            (self.hand_over)(emptiest, StreamIn { stream, entrance: self.entrance.clone(), load, permit });
        }
    }

    /// Tells a client that there is no room, as far as that goes without waiting.
    fn refuse(&self, stream: &mut Stream) {
        let connection = Connection::new(self.worker.clone(), self.entry.clone(), stream.peer());
        if connection.mode() == Mode::Tcp {
            stream.reset_on_close(); // An end could be the server's own.
        }
        if connection.tls().is_some() || connection.mode() == Mode::Tcp {
            return; // What can be said is not HTTP, and a handshake would be room, too.
        }
        let response = connection.refuse_unread(None, Error::local(Reason::Overflow));
        let mut bytes = Vec::new();
        let body = response.body().as_full().cloned().unwrap_or_default();
        http1::encode_response(&response, &[], Framing::Length(body.len() as u64), Some("close"), &mut bytes);
        bytes.extend_from_slice(&body);
        // A fresh socket takes so little at once, or its client gets none of it.
        let _ = match stream {
            Stream::Tcp(tcp) => tcp.try_write(&bytes),
            Stream::Unix(unix) => unix.try_write(&bytes),
            Stream::Tls(_) | Stream::Replayed(..) => Ok(0),
        };
        if let Some(observer) = response.into_body().take_observer() {
            observer.end(Ok(()), tokio::time::Instant::now());
        }
    }

    fn serve(&self, stream: Stream, load: Load, permit: Permit) {
        start(stream, &self.worker, self.entry.clone(), self.layers.as_ref(), load, permit);
    }
}

/// Serves a connection that another worker has accepted.
pub(crate) fn take_over(given: StreamIn, worker: &Rc<Worker>, layers: Option<&LayerFn>) {
    let stream = match given.stream {
        Accepted::Tcp(tcp) => TcpStream::from_std(tcp).map(Stream::Tcp),
        Accepted::Unix(unix) => UnixStream::from_std(unix).map(Stream::Unix),
    };
    // Without an entry, the listener was removed before this worker heard of it.
    let Some(entry) = given.entrance.on(worker, None) else { return };
    match stream {
        Ok(stream) => start(stream, worker, entry, layers, given.load, given.permit),
        Err(error) => tracing::debug!(%error, "a connection was lost between workers"),
    }
}

fn start(stream: Stream, worker: &Rc<Worker>, entry: Rc<Entry>, layers: Option<&LayerFn>, load: Load, permit: Permit) {
    if let Stream::Tcp(tcp) = &stream {
        let _ = tcp.set_nodelay(true);
    }
    let peer = stream.peer();
    let connection = Connection::new(worker.clone(), entry, peer);
    let layers = layers.cloned();
    let serving = async move {
        let _counted = (load, permit);
        serve(stream, connection, layers).await;
    };
    // Thousands of these wait at a time: whoever makes it large should notice.
    debug_assert!(size_of_val(&serving) <= 1600, "a waiting connection takes {} bytes", size_of_val(&serving));
    tokio::task::spawn_local(serving);
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(unix) => unix.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

/// A descriptor kept for the day when there is none: with it, a client at the door can at least be turned away
/// instead of being left to wait.
struct Spare(Option<std::fs::File>);

impl Spare {
    fn new() -> Self {
        Spare(std::fs::File::open("/dev/null").ok())
    }

    async fn shed(&mut self, listener: &Listener, door: &Door) {
        if self.0.take().is_some()
            && let Ok(Ok(mut stream)) = tokio::time::timeout(Duration::ZERO, listener.accept()).await
        {
            door.refuse(&mut stream);
        }
        *self = Spare::new();
    }
}
