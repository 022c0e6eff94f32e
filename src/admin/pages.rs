//! What can be asked for, and the answers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};

use super::access::{Exposure, Way, judge};
use super::token::Token;
use super::view::{Draining, InForce, Readiness, Upstreams};
use crate::app::Handle;
use crate::control::Control;
use crate::telemetry::metrics::CONTENT_TYPE as METRICS_TYPE;

/// Nothing here needs a body; clients may send a little one all the same.
const BODY_BYTES: u64 = 64 << 10;
/// For any answer but that of a drain that is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

const GENERATION: HeaderName = HeaderName::from_static("x-outrigger-generation");
const HASH: HeaderName = HeaderName::from_static("x-outrigger-config-hash");
const SOURCE: HeaderName = HeaderName::from_static("x-outrigger-config-source");

/// Something that can be asked for.
struct Page {
    path: &'static str,
    method: Method,
    exposure: Exposure,
    /// Also at `metrics.address`.
    everywhere: bool,
    about: &'static str,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Index,
    Metrics,
    Livez,
    Readyz,
    Config,
    Upstreams,
    Drain,
}

macro_rules! page {
    ($method:ident $path:literal $exposure:ident, everywhere: $everywhere:literal, $what:ident, $about:literal) => {
        Page {
            path: $path,
            method: Method::$method,
            exposure: Exposure::$exposure,
            everywhere: $everywhere,
            about: $about,
            what: What::$what,
        }
    };
}

const PAGES: &[Page] = &[
    page!(GET "/" Public, everywhere: false, Index, "this list"),
    page!(GET "/livez" Public, everywhere: true, Livez, "200 while every worker turns its loop, else 503"),
    page!(GET "/readyz" Public, everywhere: true, Readyz, "200 until a drain begins, then 503; warnings"),
    page!(GET "/metrics" Numbers, everywhere: true, Metrics, "Prometheus' text format"),
    page!(GET "/config" Private, everywhere: false, Config, "the configuration in force, as YAML; ?format=json"),
    page!(GET "/upstreams" Private, everywhere: false, Upstreams, "upstreams, their endpoints, limits and connections"),
    page!(POST "/drain" Private, everywhere: false, Drain, "unready, then no new work inbound; ?wait=true answers at its end"),
];

/// Everything that the pages show.
pub(super) struct Pages {
    pub(super) control: Arc<Control>,
    pub(super) handle: Handle,
    pub(super) token: Option<Token>,
}

type Answer = Response<Full<Bytes>>;

impl Pages {
    /// Answers a request that came this way.
    pub(super) async fn answer(self: Rc<Self>, way: Way, request: Request<Incoming>) -> Answer {
        let mut answer = match self.choose(way, &request) {
            Ok(page) => self.perform(page, &request).await,
            Err(denial) => denial.into_answer(),
        };
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    fn choose<B: http_body::Body>(&self, way: Way, request: &Request<B>) -> Result<What, Denial> {
        let path = request.uri().path();
        let mut pages = PAGES.iter().filter(|page| way != Way::Metrics || page.everywhere);
        let Some(page) = pages.find(|page| page.path == path) else {
            let there = if way == Way::Metrics { "/metrics, /livez and /readyz are" } else { "GET / lists what is" };
            return Err(Denial::new(StatusCode::NOT_FOUND, format!("this is not here; {there}")));
        };
        let fits = request.method() == page.method || (page.method == Method::GET && request.method() == Method::HEAD);
        if !fits {
            let allowed = if page.method == Method::GET { "GET, HEAD" } else { "POST" };
            let denial = Denial::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes {allowed}"));
            return Err(denial.with(ALLOW, allowed));
        }
        judge(way, page.exposure, request, self.token.as_ref()).map_err(|refusal| {
            let denial = Denial::new(refusal.status(), refusal.message().to_owned());
            match refusal.status() {
                StatusCode::UNAUTHORIZED => denial.with(WWW_AUTHENTICATE, "Bearer realm=\"outrigger\""),
                _ => denial,
            }
        })?;
        if request.body().size_hint().lower() > BODY_BYTES {
            return Err(Denial::new(StatusCode::PAYLOAD_TOO_LARGE, "this takes no body".to_owned()));
        }
        Ok(page.what)
    }

    async fn perform(&self, what: What, request: &Request<Incoming>) -> Answer {
        let bound = match what {
            What::Drain => ANSWER_WITHIN + self.control.drain.delay + self.control.drain.timeout,
            _ => ANSWER_WITHIN,
        };
        let answer = async {
            match what {
                What::Index => index(request),
                What::Metrics => self.metrics().await,
                What::Livez => self.livez(),
                What::Readyz => self.readyz(),
                What::Config => self.config(request),
                What::Upstreams => data(StatusCode::OK, &Upstreams::of(&self.control).await),
                What::Drain => self.drain(request).await,
            }
        };
        let late = || failure(StatusCode::SERVICE_UNAVAILABLE, "the workers did not answer in time");
        tokio::time::timeout(bound, answer).await.unwrap_or_else(|_| late())
    }

    async fn metrics(&self) -> Answer {
        match self.control.scrape().await {
            Ok(metrics) => text(METRICS_TYPE, metrics),
            Err(error) => {
                failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics cannot be written: {error}"))
            }
        }
    }

    fn livez(&self) -> Answer {
        let stuck = self.control.stuck_workers();
        let status = if stuck.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        data(status, &json!({ "alive": stuck.is_empty(), "stuck_workers": stuck }))
    }

    fn readyz(&self) -> Answer {
        let mut readiness = Readiness::of(&self.control);
        readiness.warnings.extend(self.control.identities.warnings());
        if self.token.as_ref().is_some_and(Token::is_stale) {
            let warning = "the file of the admin token cannot be read; the token read last holds";
            readiness.warnings.push(warning.to_owned());
        }
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        data(status, &readiness)
    }

    fn config(&self, request: &Request<Incoming>) -> Answer {
        let crate::control::InForce { source, hash, effective } = &self.control.in_force;
        let generation = self.control.snapshot.load().generation;
        if wants_json(request) {
            return data(StatusCode::OK, &InForce { generation, hash, source, effective });
        }
        let mut answer = text("application/yaml", effective.clone());
        let headers = answer.headers_mut();
        headers.insert(GENERATION, HeaderValue::from(generation));
        for (name, value) in [(HASH, hash), (SOURCE, source)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        answer
    }

    async fn drain(&self, request: &Request<Incoming>) -> Answer {
        let wait = match parameter(request, "wait") {
            None | Some("false") => false,
            Some("" | "true") => true,
            Some(_) => return failure(StatusCode::BAD_REQUEST, "wait is true or false"),
        };
        self.handle.drain();
        // The conductor does the same in a moment; whoever gets this answer is to find the proxy unready already.
        self.control.announce();
        if wait {
            self.control.drain_over().await;
        }
        let draining = Draining::of(&self.control).await;
        data(if draining.over { StatusCode::OK } else { StatusCode::ACCEPTED }, &draining)
    }
}

/// Why a request is not answered as it wishes.
struct Denial {
    status: StatusCode,
    message: String,
    field: Option<(HeaderName, &'static str)>,
}

impl Denial {
    fn new(status: StatusCode, message: String) -> Self {
        Denial { status, message, field: None }
    }

    fn with(self, name: HeaderName, value: &'static str) -> Self {
        Denial { field: Some((name, value)), ..self }
    }

    fn into_answer(self) -> Answer {
        let mut answer = failure(self.status, &self.message);
        if let Some((name, value)) = self.field {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

fn index(request: &Request<Incoming>) -> Answer {
    if wants_json(request) {
        let pages: Vec<Value> = PAGES
            .iter()
            .map(|page| json!({ "method": page.method.as_str(), "path": page.path, "about": page.about }))
            .collect();
        return data(StatusCode::OK, &json!({ "version": env!("CARGO_PKG_VERSION"), "pages": pages }));
    }
    let mut list = format!("Outrigger {}\n\n", env!("CARGO_PKG_VERSION"));
    for page in PAGES {
        list.push_str(&format!("{:4} {:<11} {}\n", page.method.as_str(), page.path, page.about));
    }
    text("text/plain; charset=utf-8", list)
}

fn wants_json<B>(request: &Request<B>) -> bool {
    match parameter(request, "format") {
        Some(format) => format == "json",
        None => {
            request.headers().get_all(ACCEPT).iter().any(|accept| accept.as_bytes().starts_with(b"application/json"))
        }
    }
}

/// The value of a query's parameter; empty where it has none.
fn parameter<'r, B>(request: &'r Request<B>, name: &str) -> Option<&'r str> {
    let pairs = request.uri().query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn text(content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn data(status: StatusCode, value: &impl Serialize) -> Answer {
    // Nothing here has a map with keys that are no strings, which is all that could fail.
    let mut body = serde_json::to_string(value).unwrap_or_default();
    body.push('\n');
    let mut answer = text("application/json", body);
    *answer.status_mut() = status;
    answer
}

fn failure(status: StatusCode, message: &str) -> Answer {
    data(status, &json!({ "error": message }))
}
