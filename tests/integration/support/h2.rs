//! HTTP/2 peers made of the `h2` crate.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use super::wait::bounded;

/// A connection with prior knowledge to the proxy.
#[derive(Clone)]
pub struct H2Client {
    send: SendRequest<Bytes>,
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `grpc-status`, from the trailers or, of a Trailers-Only response, from the headers.
    pub fn grpc_status(&self) -> Option<&str> {
        self.trailer("grpc-status").or_else(|| self.header("grpc-status"))
    }
}

impl H2Client {
    pub async fn connect(address: SocketAddr) -> Self {
        H2Client::connect_with(address, &h2::client::Builder::new()).await
    }

    pub async fn connect_with(address: SocketAddr, builder: &h2::client::Builder) -> Self {
        let stream = bounded("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (send, connection) = bounded("the h2 handshake", builder.handshake(stream)).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        H2Client { send }
    }

    /// Opens a stream; `end` where no body follows.
    pub async fn start(&mut self, request: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        self.try_start(request, end).await.unwrap_or_else(|error| panic!("cannot open a stream: {error}"))
    }

    pub async fn try_start(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut send = bounded("room for a stream", self.send.clone().ready()).await?;
        send.send_request(request, end)
    }

    /// A whole exchange.
    pub async fn exchange(&mut self, request: Request<()>, body: impl Into<Bytes>) -> Answer {
        self.try_exchange(request, body).await.unwrap_or_else(|error| panic!("the stream failed: {error}"))
    }

    pub async fn try_exchange(&mut self, request: Request<()>, body: impl Into<Bytes>) -> Result<Answer, h2::Error> {
        let body = body.into();
        let (response, mut stream) = self.try_start(request, body.is_empty()).await?;
        if !body.is_empty() {
            send_all(&mut stream, body, true).await;
        }
        answer(response).await
    }

    /// Waits until the proxy lets no further stream begin: it sent GOAWAY or closed the connection.
    pub async fn goes_away(&mut self) -> h2::Error {
        let what = "GOAWAY from the proxy";
        bounded(what, async {
            loop {
                match self.send.clone().ready().await {
                    Err(error) => return error,
                    Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                }
            }
        })
        .await
    }
}

/// A request for `http://app.test` and this path.
pub fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://app.test{path}")).version(http::Version::HTTP_2)
}

pub fn get(path: &str) -> Request<()> {
    request("GET", path).body(()).unwrap()
}

pub fn grpc(path: &str) -> Request<()> {
    let builder = request("POST", path).header("content-type", "application/grpc").header("te", "trailers");
    builder.body(()).unwrap()
}

/// One uncompressed gRPC message.
pub fn grpc_message(data: &[u8]) -> Bytes {
    let mut message = vec![0];
    message.extend_from_slice(&(data.len() as u32).to_be_bytes());
    message.extend_from_slice(data);
    message.into()
}

/// The whole response of a stream.
pub async fn answer(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let response = bounded("the response's headers", response).await?;
    let (parts, mut body) = response.into_parts();
    let mut data = Vec::new();
    while let Some(chunk) = next(&mut body).await? {
        data.extend_from_slice(&chunk);
    }
    let trailers = bounded("the end of the stream", body.trailers()).await?.unwrap_or_default();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: data, trailers })
}

/// The next piece of a body that is not empty, its window given back.
pub async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    loop {
        match bounded("more of a body", body.data()).await {
            None => return Ok(None),
            Some(Err(error)) => return Err(error),
            Some(Ok(chunk)) if chunk.is_empty() => {}
            Some(Ok(chunk)) => {
                body.flow_control().release_capacity(chunk.len())?;
                return Ok(Some(chunk));
            }
        }
    }
}

/// Sends data as the window allows. Stops quietly where the stream is gone.
pub async fn send_all(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) {
    if data.is_empty() {
        let _ = stream.send_data(data, end);
        return;
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = bounded("room in the window", std::future::poll_fn(|context| stream.poll_capacity(context))).await;
        let Some(Ok(room)) = room else { return };
        let piece = data.split_to(room.min(data.len()));
        let last = data.is_empty();
        if stream.send_data(piece, end && last).is_err() {
            return;
        }
    }
}

/// An HTTP/2 upstream on a thread of its own.
pub struct H2Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    heads: Mutex<Vec<http::request::Parts>>,
}

/// One stream that the proxy opened.
pub struct Stream {
    /// The connection's number, from 0.
    pub connection: usize,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
}

type Script = Pin<Box<dyn Future<Output = ()>>>;

impl H2Upstream {
    /// Runs the script once for each stream.
    pub fn streams<F>(script: impl Fn(Stream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        H2Upstream::streams_with(h2::server::Builder::new(), script)
    }

    pub fn streams_with<F>(builder: h2::server::Builder, script: impl Fn(Stream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        H2Upstream::connections(move |shared| {
            let script = Rc::new(script);
            let builder = builder.clone();
            Box::new(move |number, socket| {
                let (script, builder, shared) = (Rc::clone(&script), builder.clone(), Arc::clone(&shared));
                Box::pin(async move {
                    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let stream = shared.stream(number, request, respond);
                        tokio::task::spawn_local(script(stream));
                    }
                })
            })
        })
    }

    /// Runs the script once for each connection, handshake done, with the connection's number and a maker of
    /// [`Stream`]s that records what arrives.
    pub fn scripted<F>(
        script: impl Fn(usize, h2::server::Connection<TcpStream, Bytes>, Recorder) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        H2Upstream::connections(move |shared| {
            let script = Rc::new(script);
            Box::new(move |number, socket| {
                let (script, shared) = (Rc::clone(&script), Arc::clone(&shared));
                Box::pin(async move {
                    let Ok(connection) = h2::server::handshake(socket).await else { return };
                    script(number, connection, Recorder(shared)).await;
                })
            })
        })
    }

    fn connections(make: impl FnOnce(Arc<Shared>) -> Box<dyn Fn(usize, TcpStream) -> Script> + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let serve = make(Arc::clone(&theirs));
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let accept = async {
                    listener.set_nonblocking(true).unwrap();
                    let listener = TcpListener::from_std(listener).unwrap();
                    while let Ok((socket, _)) = listener.accept().await {
                        socket.set_nodelay(true).unwrap();
                        let number = theirs.connections.fetch_add(1, Ordering::SeqCst);
                        tokio::task::spawn_local(serve(number, socket));
                    }
                };
                tokio::select! { () = accept => {}, _ = stopped => {} }
            });
        });
        H2Upstream { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted so far.
    pub fn connection_count(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The heads of all streams so far.
    pub fn heads(&self) -> Vec<http::request::Parts> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// Waits for the head of this position.
    #[track_caller]
    pub fn head(&self, index: usize) -> http::request::Parts {
        super::wait::eventually_some(&format!("stream {index} at the upstream"), || self.heads().get(index).cloned())
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the h2 upstream's script failed");
        }
    }
}

/// Makes [`Stream`]s and records their heads.
pub struct Recorder(Arc<Shared>);

impl Recorder {
    pub fn stream(&self, connection: usize, pair: (Request<RecvStream>, SendResponse<Bytes>)) -> Stream {
        self.0.stream(connection, pair.0, pair.1)
    }
}

impl Shared {
    fn stream(&self, connection: usize, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Stream {
        let (parts, body) = request.into_parts();
        self.heads.lock().unwrap().push(parts);
        Stream { connection, body, respond }
    }
}

impl Stream {
    /// Reads the whole body.
    pub async fn read(&mut self) -> (Vec<u8>, HeaderMap) {
        let mut data = Vec::new();
        while let Ok(Some(chunk)) = next(&mut self.body).await {
            data.extend_from_slice(&chunk);
        }
        let trailers = self.body.trailers().await.ok().flatten().unwrap_or_default();
        (data, trailers)
    }

    /// Answers 200 with this body.
    pub async fn ok(mut self, body: impl Into<Bytes>) {
        let body = body.into();
        if let Ok(mut stream) = self.respond.send_response(Response::new(()), false) {
            send_all(&mut stream, body, true).await;
        }
    }

    /// Answers one gRPC message and a status.
    pub async fn grpc_ok(mut self, message: &[u8]) {
        let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        if let Ok(mut stream) = self.respond.send_response(response, false) {
            send_all(&mut stream, grpc_message(message), false).await;
            let _ = stream.send_trailers(grpc_trailers(0));
        }
    }
}

pub fn grpc_trailers(status: u8) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", u16::from(status).into());
    trailers
}
