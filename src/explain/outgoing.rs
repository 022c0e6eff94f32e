//! What the upstream would see.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::Asked;
use super::report::{Change, Kind, Sends};
use crate::config::model;
use crate::config::template::Variable;
use crate::proxy::header_rules::Variables;

/// What is known of a request that was not sent. The rest is shown as the file names it.
pub(super) struct Known<'a> {
    pub(super) asked: &'a Asked,
    pub(super) service: Option<&'a str>,
    pub(super) listener: &'a str,
    pub(super) route: &'a str,
    /// `None` where the route's split decides.
    pub(super) upstream: Option<&'a str>,
}

impl Variables for Known<'_> {
    fn write(&self, variable: &Variable, value: &mut Vec<u8>) {
        let asked = self.asked;
        let known = match variable {
            Variable::RequestMethod => asked.method().as_str(),
            Variable::RequestHost => asked.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
            Variable::RequestPath => asked.path(),
            Variable::RequestScheme if asked.https => "https",
            Variable::RequestScheme => "http",
            Variable::Listener => self.listener,
            Variable::Route => self.route,
            Variable::Upstream => self.upstream.unwrap_or("%{upstream}"),
            Variable::Service => self.service.unwrap_or_default(),
            Variable::ClientAddress => "%{client.address}",
            Variable::ClientPort => "%{client.port}",
            Variable::ClientIdentity => "%{client.identity}",
            Variable::ClientTls => "%{client.tls}",
            Variable::RequestId => "%{request.id}",
            Variable::TraceId => "%{trace.id}",
            Variable::Endpoint => "%{endpoint}",
            Variable::RequestHeader(_) => "", // The rules look these up themselves.
        };
        value.extend_from_slice(known.as_bytes());
    }
}

/// The request as it goes out, beside the headers that the client has sent.
pub(super) fn sends(request: &Request<()>, before: &HeaderMap, error: Option<String>) -> Sends {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Sends {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        host: request.headers().get(HOST).map(text).unwrap_or_default(),
        headers: changes(before, request.headers()),
        error,
    }
}

/// What came from the environment is shown as it is written.
pub(super) fn hide(sends: &mut Sends, route: &model::Route) {
    for (name, template) in route.request_headers.set.iter().chain(&route.request_headers.add) {
        let Some(written) = &template.written else { continue };
        for change in sends.headers.iter_mut().filter(|change| change.name == name.as_str() && change.value.is_some()) {
            change.value = Some(written.clone());
        }
    }
    if let Some(host) = &route.rewrite.written_host {
        sends.host.clone_from(host);
    }
    if let Some(path) = &route.rewrite.written_path {
        sends.target.clone_from(path);
    }
}

/// Names in the order of the outcome, then what is gone.
fn changes(before: &HeaderMap, after: &HeaderMap) -> Vec<Change> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let values = |headers: &HeaderMap, name: &HeaderName| headers.get_all(name).iter().map(text).collect::<Vec<_>>();
    let mut changes = Vec::new();
    for name in after.keys().filter(|name| **name != HOST) {
        let (old, new) = (values(before, name), values(after, name));
        let (change, changed) = match new.strip_prefix(&*old) {
            Some(more) => (Kind::Added, more),
            None => (Kind::Set, &*new),
        };
        let change = if old.is_empty() { Kind::Set } else { change };
        let of = |value: &String| Change { change, name: name.to_string(), value: Some(value.clone()) };
        changes.extend(changed.iter().map(of));
    }
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    changes.extend(gone.map(|name| Change { change: Kind::Removed, name: name.to_string(), value: None }));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_told() {
        let map = |fields: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.append(*name, HeaderValue::from_static(value));
            }
            map
        };
        let before = map(&[("host", "a"), ("x-same", "1"), ("x-more", "1"), ("x-other", "1"), ("x-gone", "1")]);
        let after =
            map(&[("host", "b"), ("x-same", "1"), ("x-more", "1"), ("x-more", "2"), ("x-other", "2"), ("x-new", "1")]);
        let told: Vec<_> =
            changes(&before, &after).into_iter().map(|change| (change.change, change.name, change.value)).collect();
        let some = |value: &str| Some(value.to_owned());
        assert_eq!(
            told,
            [
                (Kind::Added, "x-more".to_owned(), some("2")),
                (Kind::Set, "x-other".to_owned(), some("2")),
                (Kind::Set, "x-new".to_owned(), some("1")),
                (Kind::Removed, "x-gone".to_owned(), None),
            ]
        );
    }
}
