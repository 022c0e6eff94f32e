//! What a listener wants to see: the query of `GET /tap`.

use std::time::Duration;

use http::header::HeaderName;
use percent_encoding::percent_decode_str;

use crate::config::{did_you_mean, quote};
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::Record;
use crate::telemetry::tap::Tapped;

/// Of each body, no more than this.
const MOST_BODY_BYTES: usize = 64 << 10;

/// A listener's wishes. Without any, it sees every request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filter {
    listener: Option<String>,
    route: Option<String>,
    upstream: Option<String>,
    status: Option<Status>,
    errors: bool,
    headers: Vec<(HeaderName, Option<String>)>,
    slower: Option<Duration>,
    /// Of those that match, this share is shown.
    pub(super) sample: f64,
    /// Secrets are shown as they are.
    pub(super) reveal: bool,
    /// Of each body, so many bytes.
    pub(super) body_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Status {
    Is(u16),
    /// `5xx`
    Class(u16),
}

impl Filter {
    /// Reads a query.
    ///
    /// # Errors
    /// A sentence, where something cannot be understood.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut filter = Filter {
            listener: None,
            route: None,
            upstream: None,
            status: None,
            errors: false,
            headers: Vec::new(),
            slower: None,
            sample: 1.0,
            reveal: false,
            body_bytes: 0,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            let wrong = |due: &str| format!("{key} is {due}, not `{value}`");
            let flag = || match value.as_str() {
                "true" | "" => Ok(true),
                "false" => Ok(false),
                _ => Err(wrong("true or false")),
            };
            match key {
                "listener" => filter.listener = Some(value),
                "route" => filter.route = Some(value),
                "upstream" => filter.upstream = Some(value),
                "status" => filter.status = Some(Status::parse(&value).ok_or_else(|| wrong("a status or `5xx`"))?),
                "errors" => filter.errors = flag()?,
                "header" => {
                    let (name, wanted) = match value.split_once(':') {
                        Some((name, wanted)) => (name, Some(wanted.trim().to_owned())),
                        None => (value.as_str(), None),
                    };
                    let name = name.trim().parse().map_err(|_| wrong("`NAME` or `NAME:VALUE`"))?;
                    filter.headers.push((name, wanted));
                }
                "slower" => {
                    let millis: f64 =
                        value.parse().ok().filter(|ms| (0.0..1e9).contains(ms)).ok_or_else(|| wrong("milliseconds"))?;
                    filter.slower = Some(Duration::from_secs_f64(millis / 1e3));
                }
                "sample" => {
                    let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
                    filter.sample = share.ok_or_else(|| wrong("a ratio from 0 to 1"))?;
                }
                "reveal" => filter.reveal = flag()?,
                "bodies" => {
                    let bytes = value.parse().ok().filter(|bytes| *bytes <= MOST_BODY_BYTES);
                    filter.body_bytes = bytes.ok_or_else(|| wrong("a number of bytes, at most 65536"))?;
                }
                _ => {
                    return Err(format!(
                        "`{key}` is no filter; there are listener, route, upstream, status, errors, header, slower, \
                         sample, reveal and bodies"
                    ));
                }
            }
        }
        Ok(filter)
    }

    /// Of each name that nothing in force has, so that nothing will be shown before the next configuration, a sentence.
    pub(super) fn misses(&self, snapshot: &Snapshot) -> Vec<String> {
        let miss = |what: &str, wanted: &Option<String>, known: Vec<&str>| {
            let wanted = wanted.as_deref().filter(|wanted| !known.contains(wanted))?;
            let hint = did_you_mean(wanted, &known).map(|hint| format!("; {hint}")).unwrap_or_default();
            Some(format!("generation {} has no {what} {} here{hint}", snapshot.generation, quote(wanted)))
        };
        let listeners = snapshot.listeners.iter();
        let here = listeners.clone().filter(|here| self.listener.as_deref().is_none_or(|name| *name == *here.name));
        let routes = here.flat_map(|listener| &listener.routes).map(|route| &*route.name).collect();
        let upstreams = snapshot.upstreams.iter().map(|upstream| &*upstream.state.name).collect();
        let listener = miss("listener", &self.listener, listeners.map(|listener| &*listener.name).collect());
        let route = miss("route", &self.route, routes).filter(|_| listener.is_none());
        // A service that is found when first called is an upstream, too.
        let upstream = miss("upstream", &self.upstream, upstreams).filter(|_| snapshot.finders == 0);
        [listener, route, upstream].into_iter().flatten().collect()
    }

    /// Whether this listener wants the request, apart from its sample.
    pub(super) fn wants(&self, request: &Tapped) -> bool {
        let named =
            |wanted: &Option<String>, name: Option<&str>| wanted.as_deref().is_none_or(|wanted| name == Some(wanted));
        named(&self.listener, Some(&request.listener))
            && named(&self.route, request.route.as_deref())
            && named(&self.upstream, request.upstream.as_deref())
            && self.status.is_none_or(|status| status.is(request.code))
            && (!self.errors || Record::is_error(request.code, request.grpc_code, request.reason))
            && self.slower.is_none_or(|slower| request.total >= slower)
            && self.headers.iter().all(|(name, wanted)| {
                let both = [&request.request_headers, &request.response_headers];
                let mut values = both.into_iter().flat_map(|headers| headers.get_all(name));
                match wanted {
                    Some(wanted) => values.any(|value| value.as_bytes() == wanted.as_bytes()),
                    None => values.next().is_some(),
                }
            })
    }
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        if let Some(class) = text.strip_suffix("xx") {
            return class.parse().ok().filter(|class| (1..=5).contains(class)).map(Status::Class);
        }
        text.parse().ok().filter(|status| (100..=599).contains(status)).map(Status::Is)
    }

    fn is(self, code: u16) -> bool {
        match self {
            Status::Is(status) => status == code,
            Status::Class(class) => code / 100 == class,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Method, Version};

    use super::*;
    use crate::error::Reason;
    use crate::telemetry::ids::Ids;
    use crate::telemetry::request_id::RequestId;

    pub(in super::super) fn request() -> Tapped {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            pairs.iter().map(pair).collect()
        };
        Tapped {
            time: Duration::from_millis(1_772_323_199_999),
            listener: "outbound".into(),
            route: Some("pay".into()),
            upstream: Some("payments".into()),
            endpoint: Some("10.0.0.7:8080".into()),
            client: Some([127, 0, 0, 1].into()),
            method: Method::POST,
            scheme: "http",
            uri: "/v1/x?token=secret".parse().unwrap(),
            host: Some(HeaderValue::from_static("payments")),
            version: Version::HTTP_11,
            code: 503,
            grpc_code: None,
            reason: Some(Reason::ConnectFailure),
            attempts: 2,
            bytes_in: 4,
            bytes_out: 6,
            queued: Some(Duration::ZERO),
            connect: Some(Duration::from_micros(300)),
            first_byte: Some(Duration::from_micros(4_100)),
            total: Duration::from_micros(4_400),
            trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
            request_id: RequestId::receive(&headers(&[("x-request-id", "id-7")]), false, &mut Ids::seeded(1, 2)),
            generation: 7,
            request_headers: headers(&[("authorization", "Bearer secret"), ("x-user", "7"), ("host", "payments")]),
            response_headers: headers(&[("set-cookie", "secret"), ("content-type", "text/plain")]),
            request_body: Bytes::from_static(b"body"),
            response_body: Bytes::from_static(b"answer"),
        }
    }

    #[test]
    fn each_filter_takes_what_it_names() {
        for (query, wanted) in [
            ("", true),
            ("listener=outbound&route=pay&upstream=payments", true),
            ("listener=inbound", false),
            ("route=other", false),
            ("status=503", true),
            ("status=5xx", true),
            ("status=404", false),
            ("errors", true),
            ("errors=false", true),
            ("header=x-user", true),
            ("header=x-user:7&header=content-type:%20text/plain", true),
            ("header=X-User:8", false),
            ("header=x-none", false),
            ("slower=4.4", true),
            ("slower=5", false),
        ] {
            assert_eq!(Filter::parse(query).unwrap().wants(&request()), wanted, "{query}");
        }
        let fine = Tapped { code: 200, reason: None, ..request() };
        assert!(!Filter::parse("errors=true").unwrap().wants(&fine));
    }

    #[test]
    fn what_cannot_be_understood_is_said() {
        for query in
            ["statos=5xx", "status=6xx", "slower=soon", "sample=2", "bodies=1000000", "reveal=maybe", "header=a b"]
        {
            let error = Filter::parse(query).unwrap_err();
            assert!(error.contains(query.split('=').next().unwrap()), "{error}");
        }
    }
}
