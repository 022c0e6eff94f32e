//! What can be asked for, and the answers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::access::{Exposure, Way, judge};
use super::answer::{Answer, data, failure, parameter, stream, text, wants_json};
use super::configuration;
use super::dashboard::{self, Asset};
use super::events::Events;
use super::explain;
use super::log;
use super::probe;
use super::tap::Taps;
use super::token::Token;
use super::view::{Draining, Listeners, Readiness, Upstreams};
use crate::app::Handle;
use crate::control::Control;
use crate::reload::Reload;
use crate::telemetry::log::LogHandle;
use crate::telemetry::metrics::{CONTENT_TYPE as METRICS_TYPE, open_metrics};

/// Where nothing needs a body, clients may send a little one all the same.
pub(super) const BODY_BYTES: u64 = 64 << 10;
/// For any answer but that of a drain that is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

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

impl Page {
    fn is_at(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(folder) => path.starts_with(folder),
            None => path == self.path,
        }
    }
}

#[derive(Clone, Copy)]
enum What {
    Index,
    Metrics,
    Livez,
    Readyz,
    Config,
    PutConfig,
    DeleteOverride,
    History,
    Rollback,
    Listeners,
    Upstreams,
    Explain,
    Events,
    Tap,
    Log,
    PutLog,
    DeleteLog,
    Drain,
    Probe,
    /// A file of the dashboard.
    Asset(&'static Asset),
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
    page!(GET "/" Public, everywhere: false, Index, "the dashboard, to browsers; else this list"),
    page!(GET "/livez" Public, everywhere: true, Livez, "200 while every worker turns its loop, else 503"),
    page!(GET "/readyz" Public, everywhere: true, Readyz, "200 from the end of the start until a drain begins, else 503; warnings"),
    page!(GET "/metrics" Numbers, everywhere: true, Metrics, "Prometheus' text format, or OpenMetrics with exemplars for who accepts it"),
    page!(GET "/config" Private, everywhere: false, Config, "the configuration in force, as YAML; ?format=json"),
    page!(PUT "/config" Private, everywhere: false, PutConfig, "lays a configuration over the source; ?dry_run=true, ?for=10m, If-Match"),
    page!(DELETE "/config/override" Private, everywhere: false, DeleteOverride, "what the source says holds again"),
    page!(GET "/config/history" Private, everywhere: false, History, "the last generations"),
    page!(POST "/config/rollback" Private, everywhere: false, Rollback, "goes back to the generation before; ?to=NUMBER"),
    page!(GET "/listeners" Private, everywhere: false, Listeners, "listeners, where they are bound, and their connections"),
    page!(GET "/upstreams" Private, everywhere: false, Upstreams, "upstreams, their endpoints, limits and connections"),
    page!(GET "/explain" Private, everywhere: false, Explain, "what would become of a request; ?method=GET&url=…&header=…&listener=…"),
    page!(POST "/explain" Private, everywhere: false, Explain, "the same, asked by a form in the body"),
    page!(GET "/events" Private, everywhere: false, Events, "how the proxy stands, once a second, as server-sent events"),
    page!(GET "/tap" Private, everywhere: false, Tap, "requests as they pass, as server-sent events; ?errors, ?route=…, and more"),
    page!(GET "/log" Private, everywhere: false, Log, "the level of the proxy's own log"),
    page!(PUT "/log" Private, everywhere: false, PutLog, "sets it, be it debug or {\"level\":\"debug\"}; ?for=10m"),
    page!(DELETE "/log" Private, everywhere: false, DeleteLog, "the configuration's level holds again"),
    page!(GET "/probe/*" Numbers, everywhere: true, Probe, "asks the app, as metrics.probes says under this name"),
    page!(POST "/drain" Private, everywhere: false, Drain, "unready, then no new work inbound; ?wait=true answers at its end"),
];

/// Everything that the pages show.
pub(super) struct Pages {
    pub(super) control: Arc<Control>,
    pub(super) reload: Rc<Reload>,
    pub(super) handle: Handle,
    pub(super) token: Option<Token>,
    pub(super) events: Rc<Events>,
    pub(super) taps: Rc<Taps>,
    pub(super) log: Option<LogHandle>,
}

impl Pages {
    /// Answers a request that came this way.
    pub(super) async fn answer(self: Rc<Self>, way: Way, request: Request<Incoming>) -> Answer {
        let mut answer = match self.choose(way, &request).await {
            Ok(page) => self.perform(page, way, request).await,
            Err(denial) => denial.into_answer(),
        };
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    async fn choose<B: http_body::Body>(&self, way: Way, request: &Request<B>) -> Result<What, Denial> {
        let path = request.uri().path();
        if way != Way::Metrics
            && let Some(asset) = dashboard::asset(path)
        {
            return Ok(What::Asset(asset));
        }
        let here: Vec<&Page> =
            PAGES.iter().filter(|page| page.is_at(path) && (way != Way::Metrics || page.everywhere)).collect();
        if here.is_empty() {
            let there = if way == Way::Metrics {
                "/metrics, /livez, /readyz and the probes are"
            } else {
                "GET / lists what is"
            };
            return Err(Denial::new(StatusCode::NOT_FOUND, format!("this is not here; {there}")));
        }
        let fits = |page: &&&Page| {
            request.method() == page.method || (page.method == Method::GET && request.method() == Method::HEAD)
        };
        let Some(page) = here.iter().find(fits) else {
            let allowed: Vec<&str> = here
                .iter()
                .map(|page| if page.method == Method::GET { "GET, HEAD" } else { page.method.as_str() })
                .collect();
            let allowed = allowed.join(", ");
            let denial = Denial::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes {allowed}"));
            return Err(denial.with(ALLOW, allowed));
        };
        if let Some(token) = &self.token
            && page.exposure != Exposure::Public
            && request.headers().contains_key(AUTHORIZATION)
        {
            token.refresh().await;
        }
        judge(way, page.exposure, request, self.token.as_ref()).map_err(|refusal| {
            let denial = Denial::new(refusal.status(), refusal.message().to_owned());
            match refusal.status() {
                StatusCode::UNAUTHORIZED => denial.with(WWW_AUTHENTICATE, "Bearer realm=\"outrigger\"".to_owned()),
                _ => denial,
            }
        })?;
        check_parameters(page, request.uri().query())?;
        if request.body().size_hint().lower() > BODY_BYTES && !matches!(page.what, What::PutConfig) {
            return Err(Denial::new(StatusCode::PAYLOAD_TOO_LARGE, "this takes no body".to_owned()));
        }
        Ok(page.what)
    }

    async fn perform(&self, what: What, way: Way, request: Request<Incoming>) -> Answer {
        let bound = match what {
            What::Drain => {
                let drain = self.control.drain();
                ANSWER_WITHIN + drain.delay + drain.timeout
            }
            _ => ANSWER_WITHIN,
        };
        let answer = async {
            match what {
                What::Index => index(&request),
                What::Metrics => self.metrics(&request).await,
                What::Livez => self.livez(),
                What::Readyz => self.readyz(way, &request),
                What::Config => configuration::show(&self.reload, &request),
                What::PutConfig => configuration::put(&self.reload, request).await,
                What::DeleteOverride => configuration::end_override(&self.reload, &request).await,
                What::History => configuration::history(&self.reload),
                What::Rollback => configuration::roll_back(&self.reload, &request).await,
                What::Listeners => data(StatusCode::OK, &Listeners::of(&self.control)),
                What::Upstreams => data(StatusCode::OK, &Upstreams::of(&self.control).await),
                What::Explain => explain::answer(&self.control, &self.reload, request).await,
                What::Events => self.events(),
                What::Tap => self.tap(&request),
                What::Log => log::show(self.log.as_ref()),
                What::PutLog => log::put(self.log.as_ref(), request).await,
                What::DeleteLog => log::lift(self.log.as_ref()),
                What::Drain => self.drain(&request).await,
                What::Probe => self.probe(&request).await,
                What::Asset(asset) => file(asset),
            }
        };
        let late = || {
            let why = match what {
                What::PutConfig | What::DeleteOverride | What::Rollback => {
                    "this takes longer than 10 s, and was given up; GET /config shows what is in force"
                }
                _ => "the workers did not answer in time",
            };
            failure(StatusCode::SERVICE_UNAVAILABLE, why)
        };
        tokio::time::timeout(bound, answer).await.unwrap_or_else(|_| late())
    }

    async fn metrics(&self, request: &Request<Incoming>) -> Answer {
        let open_metrics = open_metrics::is_wanted(request.headers());
        match self.control.scrape(self.reload.facts(), open_metrics).await {
            Ok(metrics) if open_metrics => text(open_metrics::CONTENT_TYPE, metrics),
            Ok(metrics) => text(METRICS_TYPE, metrics),
            Err(error) => {
                failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics cannot be written: {error}"))
            }
        }
    }

    async fn probe(&self, request: &Request<Incoming>) -> Answer {
        let name = request.uri().path().strip_prefix("/probe/").unwrap_or_default();
        let snapshot = self.control.snapshot.load_full();
        let Some((_, target)) = snapshot.probes.iter().find(|(known, _)| known == name) else {
            return failure(StatusCode::NOT_FOUND, "metrics.probes has no probe of this name");
        };
        let outcome = probe::ask(target, request.headers()).await;
        let status = outcome.as_ref().map_or(StatusCode::SERVICE_UNAVAILABLE, |status| *status);
        let said = outcome.map_or_else(|error| error, |status| format!("the app says {status}"));
        data(status, &json!({ "probe": name, "said": said }))
    }

    fn livez(&self) -> Answer {
        let stuck = self.control.stuck_workers();
        let status = if stuck.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        data(status, &json!({ "alive": stuck.is_empty(), "stuck_workers": stuck }))
    }

    fn readyz(&self, way: Way, request: &Request<Incoming>) -> Answer {
        let in_full = judge(way, Exposure::Private, request, self.token.as_ref()).is_ok();
        let mut readiness = Readiness::of(&self.control, &self.reload, in_full);
        if self.token.as_ref().is_some_and(Token::is_stale) {
            let warning = "the file of the admin token cannot be read; the token read last holds";
            readiness.warnings.push(warning.to_owned());
        }
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        data(status, &readiness)
    }

    fn events(&self) -> Answer {
        match self.events.listen(&self.control, &self.reload) {
            Some(events) => stream(events),
            None => failure(StatusCode::TOO_MANY_REQUESTS, "enough are listening already"),
        }
    }

    fn tap(&self, request: &Request<Incoming>) -> Answer {
        match self.taps.listen(request.uri().query().unwrap_or_default(), &self.control.snapshot.load()) {
            Ok(Some(events)) => stream(events),
            Ok(None) => failure(StatusCode::TOO_MANY_REQUESTS, "enough are listening already"),
            Err(error) => failure(StatusCode::BAD_REQUEST, &error),
        }
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

impl What {
    /// The query's parameters; `None` where it is read as a whole, or where probes and scrapers may say what they like.
    fn parameters(self) -> Option<&'static [&'static str]> {
        match self {
            What::Config | What::History | What::DeleteOverride => Some(&["format"]),
            What::PutConfig => Some(&["dry_run", "for", "format"]),
            What::Rollback => Some(&["to", "format"]),
            What::PutLog => Some(&["for"]),
            What::Drain => Some(&["wait"]),
            What::Listeners | What::Upstreams | What::Events | What::Log | What::DeleteLog => Some(&[]),
            What::Index | What::Explain | What::Tap => None,
            What::Metrics | What::Livez | What::Readyz | What::Probe | What::Asset(_) => None,
        }
    }
}

/// A misspelt `dry_run` must not become the real thing.
fn check_parameters(page: &Page, query: Option<&str>) -> Result<(), Denial> {
    let (Some(known), Some(query)) = (page.what.parameters(), query) else { return Ok(()) };
    let names = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let wrong = names.into_iter().find(|(name, value)| {
        let unknown = !name.is_empty() && !known.contains(name);
        unknown || (*name == "format" && !matches!(*value, "json" | "text" | "yaml"))
    });
    let Some((name, value)) = wrong else { return Ok(()) };
    let (method, path) = (&page.method, page.path);
    let message = match known {
        [] => format!("{method} {path} takes no parameters, and there is `{name}`"),
        _ if known.contains(&name) => format!("`format` is json, yaml or text, not `{value}`"),
        _ => format!("`{name}` is no parameter of {method} {path}; there are {}", known.join(", ")),
    };
    Err(Denial::new(StatusCode::BAD_REQUEST, message))
}

/// Why a request is not answered as it wishes.
struct Denial {
    status: StatusCode,
    message: String,
    field: Option<(HeaderName, String)>,
}

impl Denial {
    fn new(status: StatusCode, message: String) -> Self {
        Denial { status, message, field: None }
    }

    fn with(self, name: HeaderName, value: String) -> Self {
        Denial { field: Some((name, value)), ..self }
    }

    fn into_answer(self) -> Answer {
        let mut answer = failure(self.status, &self.message);
        if let Some((name, value)) = self.field
            && let Ok(value) = HeaderValue::try_from(value)
        {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

fn index(request: &Request<Incoming>) -> Answer {
    if wants_page(request) {
        return file(&dashboard::PAGE);
    }
    if wants_json(request) {
        let pages: Vec<Value> = PAGES
            .iter()
            .map(|page| json!({ "method": page.method.as_str(), "path": page.path, "about": page.about }))
            .collect();
        return data(StatusCode::OK, &json!({ "version": env!("CARGO_PKG_VERSION"), "pages": pages }));
    }
    let mut list = format!("Outrigger {}\n\n", env!("CARGO_PKG_VERSION"));
    for page in PAGES {
        list.push_str(&format!("{:6} {:<17} {}\n", page.method.as_str(), page.path, page.about));
    }
    text("text/plain; charset=utf-8", list)
}

/// What browsers ask for, where the address does not say otherwise.
fn wants_page<B>(request: &Request<B>) -> bool {
    let mut accepted = request.headers().get_all(ACCEPT).iter();
    parameter(request, "format").is_none()
        && accepted.any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")))
}

fn file(asset: &Asset) -> Answer {
    let mut answer = text(asset.content_type, asset.content.to_owned());
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, dashboard::POLICY);
    answer
}
