//! An HTTP/1 upstream that does what its script says, at any byte.

use std::net::{Shutdown, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use socket2::{Domain, SockAddr, Socket, Type};

use super::message::{Head, Request, request_framing, visible};
use super::wait::{eventually, eventually_some};
use super::wire::Wire;

/// A listening socket and its connections, each served by a thread that runs the script.
pub struct Upstream {
    address: Option<SocketAddr>,
    listener: Socket,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    records: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    sockets: Mutex<Vec<(usize, Socket)>>,
    requests: Mutex<Vec<Request>>,
    open: AtomicUsize,
    stopping: AtomicBool,
    failures: Mutex<Vec<String>>,
}

/// A connection that the proxy opened.
pub struct Served {
    /// Counted from 0 in the order of acceptance.
    pub index: usize,
    wire: Wire,
    shared: Arc<Shared>,
}

/// `200` with the body `ok`.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Upstream {
    /// Runs `script` once for each connection; when it returns, the connection closes with FIN.
    pub fn scripted(script: impl Fn(&mut Served) + Send + Sync + 'static) -> Self {
        Upstream::at("127.0.0.1:0".parse().unwrap(), script)
    }

    /// Answers each request with these bytes, and keeps connections open.
    pub fn answering(response: impl AsRef<[u8]>) -> Self {
        let response = response.as_ref().to_vec();
        Upstream::scripted(move |served| while served.request().is_some() && served.try_send(&response).is_ok() {})
    }

    /// Answers each request with 200.
    pub fn ok() -> Self {
        Upstream::answering(OK)
    }

    /// On this address, which another upstream may listen on as well.
    pub fn at(address: SocketAddr, script: impl Fn(&mut Served) + Send + Sync + 'static) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
        Upstream::on(socket, script)
    }

    /// On a Unix socket.
    pub fn unix(path: &Path, script: impl Fn(&mut Served) + Send + Sync + 'static) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(path).unwrap()).unwrap();
        Upstream::on(socket, script)
    }

    fn on(listener: Socket, script: impl Fn(&mut Served) + Send + Sync + 'static) -> Self {
        listener.listen(4096).unwrap();
        let address = listener.local_addr().unwrap().as_socket();
        let shared = Arc::new(Shared::default());
        let upstream = Upstream { address, listener: listener.try_clone().unwrap(), shared: Arc::clone(&shared) };
        thread::spawn(move || accept(&listener, &shared, &Arc::new(script)));
        upstream
    }

    pub fn address(&self) -> SocketAddr {
        self.address.expect("a Unix socket has no IP address")
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.records.lock().unwrap().len()
    }

    /// How many of them are still served.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Exactly what came over this connection so far.
    pub fn received(&self, connection: usize) -> Vec<u8> {
        let records = self.shared.records.lock().unwrap();
        records.get(connection).map(|record| record.lock().unwrap().clone()).unwrap_or_default()
    }

    /// Everything that came over all connections, for people.
    pub fn received_text(&self) -> String {
        (0..self.connections()).map(|index| format!("[{index}] {}\n", visible(&self.received(index)))).collect()
    }

    /// The requests that came in whole or were cut short, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many requests had this word in their target.
    pub fn count(&self, word: &str) -> usize {
        self.shared.requests.lock().unwrap().iter().filter(|request| request.target.contains(word)).count()
    }

    /// Waits for the request of this position.
    #[track_caller]
    pub fn request(&self, index: usize) -> Request {
        eventually_some(&format!("request {index} at the upstream"), || {
            self.shared.requests.lock().unwrap().get(index).cloned()
        })
    }

    /// Waits until every connection was closed.
    #[track_caller]
    pub fn all_closed(&self) {
        eventually("all connections to the upstream to be closed", || self.open_connections() == 0);
    }

    /// Stops accepting, so that connecting is refused; what was accepted lives on.
    pub fn stop_accepting(&self) {
        let _ = self.listener.shutdown(Shutdown::Both);
    }

    /// Ends our direction of all connections in which no request is under way: the script sees its end.
    pub fn close_idle(&self) {
        for (_, socket) in self.shared.sockets.lock().unwrap().iter() {
            // A script that waits for a request reads the end and returns; one that answers still can.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// Ends all connections, with RST where asked for.
    pub fn drop_connections(&self, reset: bool) {
        for (_, socket) in self.shared.sockets.lock().unwrap().drain(..) {
            if reset {
                // Both ends of the pair of handles must go before the RST is sent: shutdown wakes the script's one.
                let _ = socket.set_linger(Some(std::time::Duration::ZERO));
            }
            let _ = socket.shutdown(if reset { Shutdown::Read } else { Shutdown::Both });
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.stop_accepting();
        self.drop_connections(false);
        let failures = self.shared.failures.lock().unwrap();
        if !failures.is_empty() && !thread::panicking() {
            panic!("the upstream's script failed: {}", failures.join("; "));
        } else if !failures.is_empty() {
            eprintln!("the upstream's script failed, too: {}", failures.join("; "));
        }
    }
}

fn accept(listener: &Socket, shared: &Arc<Shared>, script: &Arc<impl Fn(&mut Served) + Send + Sync + 'static>) {
    while let Ok((socket, _)) = listener.accept() {
        let mut wire_name = String::from("upstream, connection ");
        let mut records = shared.records.lock().unwrap();
        let index = records.len();
        wire_name.push_str(&index.to_string());
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        shared.sockets.lock().unwrap().push((index, socket.try_clone().unwrap()));
        let wire = Wire::new(socket, wire_name);
        records.push(wire.record());
        drop(records);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let served = Served { index, wire, shared: Arc::clone(shared) };
        let script = Arc::clone(script);
        thread::spawn(move || serve(served, &*script));
    }
}

fn serve(mut served: Served, script: &(impl Fn(&mut Served) + Send + Sync + 'static)) {
    let shared = Arc::clone(&served.shared);
    let index = served.index;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| script(&mut served)));
    shared.sockets.lock().unwrap().retain(|(own, _)| *own != index);
    drop(served);
    shared.open.fetch_sub(1, Ordering::SeqCst);
    if let Err(panic) = outcome
        && !shared.stopping.load(Ordering::SeqCst)
    {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        shared.failures.lock().unwrap().push(message.unwrap_or_default());
    }
}

impl Served {
    /// The next request with its body; `None` where the proxy closed the connection before another head.
    pub fn request(&mut self) -> Option<Request> {
        let head = self.head()?;
        let body = self.wire.body(request_framing(&head));
        let request = Request::new(head, body);
        self.shared.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    /// The next request's head, unrecorded. A connection may be idle for long before it comes.
    pub fn head(&mut self) -> Option<Head> {
        let patience = self.wire.socket().read_timeout().unwrap().unwrap_or_default();
        self.wire.set_patience(patience.max(std::time::Duration::from_secs(60)));
        let head = self.wire.head();
        self.wire.set_patience(patience);
        head
    }

    /// The next request's head, recorded as a request without a body.
    pub fn request_head(&mut self) -> Option<Request> {
        let head = self.head()?;
        let request = Request::new(head, super::message::Body::default());
        self.shared.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    /// Ends both directions with RST, now.
    pub fn reset(&mut self) {
        // Another handle to the socket lives in the upstream's list; both must go for the RST to leave.
        let index = self.index;
        self.shared.sockets.lock().unwrap().retain(|(own, _)| *own != index);
        let _ = self.wire.socket().set_linger(Some(std::time::Duration::ZERO));
        self.replace_wire();
    }

    /// Ends our direction now, and both where the script returns.
    pub fn close(&mut self) {
        let index = self.index;
        self.shared.sockets.lock().unwrap().retain(|(own, _)| *own != index);
        self.replace_wire();
    }

    fn replace_wire(&mut self) {
        let (ours, _theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        self.wire = Wire::new(ours, "upstream, after its end");
    }
}

impl Deref for Served {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Served {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}
