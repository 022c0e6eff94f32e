//! Listeners that pass bytes on: keys that speak of HTTP have no meaning there.

use super::Validator;
use crate::config::given::Given;
use crate::config::raw::listener::Listener;
use crate::config::raw::overload::RateLimit;
use crate::config::raw::route::Route;
use crate::config::tree::NodeId;

impl Validator<'_> {
    /// Says of each such key that it can do nothing.
    pub(super) fn only_bytes(&mut self, listener: &Listener) {
        let of_listener =
            [("edge", listener.edge.node()), ("trust", listener.trust.node()), ("no_route", listener.no_route.node())];
        self.without_http(&of_listener);
        if let Some(flag) = listener.tls.get().and_then(|tls| tls.forward_client_cert.node()) {
            self.without_http(&[("forward_client_cert", Some(flag))]);
        }
        self.without_http(&of_rate_limit(&listener.rate_limit));
        for route in listener.routes.get().into_iter().flatten().filter_map(|route| route.get()) {
            self.without_http(&of_route(route));
            self.without_http(&of_rate_limit(&route.rate_limit));
            let hosts = route.matcher.get().and_then(|matcher| matcher.host.get());
            for host in hosts.into_iter().flat_map(|hosts| hosts.iter()) {
                if host.value.0.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
                    let reason = "no client's TLS asks for a host with a port, so this can never match";
                    self.error("conflict", host.node, reason, "write the name alone");
                }
            }
        }
    }

    fn without_http(&mut self, keys: &[(&str, Option<NodeId>)]) {
        for (name, node) in keys {
            if let Some(node) = node {
                let reason = format!("`{name}` speaks of HTTP, and this listener passes bytes on as they are");
                self.error("conflict", *node, reason, "remove it, or the listener's `mode: tcp`");
            }
        }
    }
}

/// A connection has an address, and no headers.
fn of_rate_limit(given: &Given<RateLimit>) -> [(&'static str, Option<NodeId>); 1] {
    let key = given.get().and_then(|limit| limit.key.spanned());
    [("header:", key.filter(|key| key.value.0.starts_with("header:")).map(|key| key.node))]
}

fn of_route(route: &Route) -> Vec<(&'static str, Option<NodeId>)> {
    let mut keys = vec![
        ("discover", route.discover.node()),
        ("redirect", route.redirect.node()),
        ("respond", route.respond.node()),
        ("rewrite", route.rewrite.node()),
        ("request_headers", route.request_headers.node()),
        ("response_headers", route.response_headers.node()),
    ];
    if let Some(matcher) = route.matcher.get() {
        keys.extend([
            ("path", matcher.path.node()),
            ("method", matcher.method.node()),
            ("headers", matcher.headers.node()),
            ("query", matcher.query.node()),
        ]);
    }
    keys
}
