//! `outrigger webhook`: the sidecar into every new pod of a cluster.
//!
//! The proxy itself stands before it: TLS, limits, metrics and the drain are a listener's like any other, and a layer
//! at its edge answers the reviews.

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tower::{Layer, Service};

use super::exit;
use super::inject::SidecarArgs;
use super::signals::Signals;
use super::successor::Successor;
use crate::Proxy;
use crate::app::Builder;
use crate::body::Body;
use crate::config::model::{BindAddress, Metrics};
use crate::config::render::{Format, render};
use crate::config::{Document, LoadOptions, flags, load};
use crate::control::Ending;
use crate::kubernetes::{Options, Policy, review};
use crate::runtime::descriptors;
use crate::telemetry::log;

/// Where reviews are sent.
const PATH: &str = "/inject";

/// Serve inject as a mutating admission webhook: each new pod gets the sidecar.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger webhook --cert-file /tls/tls.crt --key-file /tls/tls.key --image registry.example/outrigger:0.1.0

Kubernetes sends AdmissionReview v1 to POST /inject. The files are read again when they change, so certificates may
rotate. What a pod that cannot carry a sidecar gets is --on-error; what all get while nobody answers is the
failurePolicy of the MutatingWebhookConfiguration.
Exit codes: 0 done, 1 the files or the machine are at fault, 2 usage, 3 reviews were cut")]
pub struct WebhookArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = ":8443")]
    pub listen: String,

    /// The certificate, with what comes between it and its authority
    #[arg(long, value_name = "FILE")]
    pub cert_file: PathBuf,

    /// The certificate's key
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,

    /// Answer scrapes and probes here
    #[arg(long, value_name = "ADDRESS", default_value = ":9902", value_parser = flags::bind_address)]
    pub metrics: BindAddress,

    /// The admin address, for `outrigger ready` and `outrigger drain`
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    pub admin: String,

    /// What becomes of a pod that cannot carry a sidecar
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = OnError::Allow)]
    pub on_error: OnError,

    /// What is put in.
    #[command(flatten)]
    pub sidecar: SidecarArgs,
}

/// What becomes of a pod that cannot carry a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// It starts without one, with a warning
    Allow,
    /// It does not start
    Deny,
}

/// Serves until it is told to end; the answer is the exit code.
pub fn webhook(args: &WebhookArgs) -> u8 {
    descriptors::raise_limit();
    let text = configuration(args);
    let metrics = Metrics { address: Some(args.metrics.clone()), ..Metrics::default() };
    let options = LoadOptions { metrics: Some(&metrics), ..LoadOptions::default() };
    let loaded = match load(Document { name: "flags", bytes: text.as_bytes() }, &|_: &str| None, &options) {
        Ok(loaded) => loaded,
        Err(diagnostics) => return exit::fault(&render(&diagnostics, Format::Text, false)),
    };
    log::init(&loaded.config.telemetry.log);
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => return exit::fault(&format!("cannot catch signals: {error}")),
    };
    let policy = match args.on_error {
        OnError::Allow => Policy::Allow,
        OnError::Deny => Policy::Deny,
    };
    let reviews = Reviews(Arc::new((args.sidecar.options(), policy)));
    let running = Builder::new(loaded, "flags").metrics(metrics).layer(reviews).start();
    let running = match running {
        Ok(running) => running,
        Err(error) => return exit::fault(&error.to_string()),
    };
    for (listener, address) in running.listeners() {
        tracing::info!(listener, %address, "listening");
    }
    signals.direct(running.handle(), Successor::new(Some("only `outrigger run` can be taken over from")));
    match running.wait() {
        Ending::Drained => exit::DONE,
        Ending::Forced => exit::FORCED,
    }
}

/// A listener that has TLS, and nothing behind it.
fn configuration(args: &WebhookArgs) -> String {
    let quoted = |text: String| serde_json::Value::from(text.replace('$', "$$")).to_string();
    format!(
        "service: outrigger-webhook\nadmin: {{ address: {} }}\nlisteners:\n  webhook:\n    address: {}\n    \
         tls: {{ cert_file: {}, key_file: {} }}\n    edge: true\n    limits: {{ body_bytes: 8MiB }}\n    \
         routes: [{{ respond: {{ status: 404, body: \"reviews go to POST {PATH}\" }} }}]\n",
        quoted(args.admin.clone()),
        quoted(args.listen.clone()),
        quoted(args.cert_file.display().to_string()),
        quoted(args.key_file.display().to_string()),
    )
}

/// Answers reviews before the proxy does.
#[derive(Clone)]
struct Reviews(Arc<(Options, Policy)>);

impl Layer<Proxy> for Reviews {
    type Service = Reviewer;

    fn layer(&self, inner: Proxy) -> Reviewer {
        Reviewer { reviews: self.clone(), inner }
    }
}

#[derive(Clone)]
struct Reviewer {
    reviews: Reviews,
    inner: Proxy,
}

impl Service<Request<Body>> for Reviewer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.method() != Method::POST || request.uri().path() != PATH {
            return Box::pin(self.inner.call(request));
        }
        let reviews = self.reviews.clone();
        Box::pin(async move { Ok(answer(request.into_body(), &reviews).await) })
    }
}

async fn answer(body: Body, reviews: &Reviews) -> Response<Body> {
    let (options, policy) = &*reviews.0;
    let answer = match body.collect().await {
        Ok(body) => review(&body.to_bytes(), options, *policy),
        Err(error) => Err(error.to_string()),
    };
    let (status, kind, text) = match answer {
        Ok(review) => (StatusCode::OK, "application/json", review),
        Err(why) => {
            tracing::warn!(why, "a review was refused");
            (StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", why)
        }
    };
    let mut response = Response::new(Body::full(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
