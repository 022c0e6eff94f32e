//! tower layers of your own at the edge of the proxy: one that asks for an API key, and one that says how long each
//! response took.
//!
//! ```console
//! $ API_KEY=secret cargo run --example edge_layer -- 127.0.0.1:8080
//! $ curl -i -H 'x-api-key: secret' http://ADDRESS/
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use outrigger::app::{Builder, Running};
use outrigger::body::Body;
use outrigger::config::{Document, LoadOptions, flags, load};
use tower::{Layer, Service, ServiceBuilder};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

fn main() -> Result<(), Box<dyn Error>> {
    let upstream = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let key = std::env::var("API_KEY").map_err(|_| "set API_KEY to the key that clients have to send")?;
    let running = start("127.0.0.1:0", &upstream, &key)?;
    for (_, address) in running.listeners() {
        writeln!(io::stdout(), "http://{address} -> {upstream}; Ctrl-C ends it")?;
    }
    running.wait();
    Ok(())
}

/// Starts the proxy with both layers around it, the first one outermost.
pub fn start(listen: &str, upstream: &str, key: &str) -> Result<Running, Box<dyn Error>> {
    let text = flags::text(&[listen.to_owned()], upstream, Some("none"));
    let nothing = |_: &str| None;
    let loaded = load(Document { name: "flags", bytes: text.as_bytes() }, &nothing, &LoadOptions::default())?;
    let layers = ServiceBuilder::new().layer(Timing).layer(RequireKey(HeaderValue::try_from(key)?)).into_inner();
    Ok(Builder::new(loaded, "flags").layer(layers).start()?)
}

/// A response on its way. It stays on the worker that serves the connection, so it need not be `Send`.
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

/// Lets nobody in without the key.
#[derive(Clone)]
pub struct RequireKey(HeaderValue);

/// What [`RequireKey`] makes of a service.
#[derive(Clone)]
pub struct KeyRequired<S> {
    inner: S,
    key: HeaderValue,
}

impl<S> Layer<S> for RequireKey {
    type Service = KeyRequired<S>;

    fn layer(&self, inner: S) -> KeyRequired<S> {
        KeyRequired { inner, key: self.0.clone() }
    }
}

impl<S> Service<Request<Body>> for KeyRequired<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        // The upstream has no business with the key.
        let sent = request.headers_mut().remove(X_API_KEY);
        if sent.is_some_and(|sent| same(sent.as_bytes(), self.key.as_bytes())) {
            return Box::pin(self.inner.call(request));
        }
        Box::pin(async {
            let mut refusal = Response::new(Body::full("an API key is needed in x-api-key\n"));
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey"));
            Ok(refusal)
        })
    }
}

/// Compares in a time that does not tell how much of the key was right.
fn same(sent: &[u8], key: &[u8]) -> bool {
    sent.len() == key.len() && sent.iter().zip(key).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

/// Says in `Server-Timing` how long it took until the response's headers were there.
#[derive(Clone)]
pub struct Timing;

/// What [`Timing`] makes of a service.
#[derive(Clone)]
pub struct Timed<S>(S);

impl<S> Layer<S> for Timing {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed(inner)
    }
}

impl<S> Service<Request<Body>> for Timed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let began = Instant::now();
        let answering = self.0.call(request);
        Box::pin(async move {
            let mut response = answering.await?;
            let timing = format!("edge;dur={:.3}", began.elapsed().as_secs_f64() * 1000.0);
            if let Ok(timing) = HeaderValue::try_from(timing) {
                response.headers_mut().append(SERVER_TIMING, timing);
            }
            Ok(response)
        })
    }
}
