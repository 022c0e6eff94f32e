//! `routes:`, their actions and rewrites.

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::Validator;
use super::matches::{Matched, check_path};
use super::names::route_names;
use crate::config::builtin;
use crate::config::environment::is_hidden;
use crate::config::findings::Finding;
use crate::config::given::{Given, Named, Spanned};
use crate::config::model::{
    Action, PathMatch, PathRewrite, Redirect, Respond, Rewrite, Route, TimeoutOverrides, UpstreamIndex,
};
use crate::config::raw::listener as raw_listener;
use crate::config::raw::route as raw;
use crate::config::raw::upstream::Timeouts;
use crate::config::scalar::OrNone;
use crate::config::template::Template;
use crate::config::tree::NodeId;
use crate::config::units::{Number, Period, Text};
use crate::runtime::pace::breathe;

impl<'a> Validator<'a> {
    pub(super) fn routes(
        &mut self,
        listener_name: &str,
        given: &'a [Given<raw::Route>],
        node: NodeId,
        listener: &'a raw_listener::Listener,
    ) -> Vec<Route> {
        if given.is_empty() {
            self.error(
                "missing-value",
                node,
                "this listener has no routes",
                "write one, as in `- upstream: \"127.0.0.1:8080\"`",
            );
        }
        let names = route_names(given, self.tree);
        self.duplicate_names(given);
        let mut routes = Vec::with_capacity(given.len());
        let mut matches = Vec::with_capacity(given.len());
        for (route, name) in given.iter().zip(names) {
            breathe();
            let Some(spanned) = route.spanned() else { continue };
            let route = &spanned.value;
            let Matched { matcher, sound } = self.matcher(&route.matcher);
            matches.push((spanned.node, sound));
            let action = self.action(route, spanned.node, || format!("{listener_name}/{name}"), listener);
            self.without_effect(route);
            let sent_to = match &action {
                Action::Upstream(upstream) => vec![*upstream],
                Action::Split(parts) => parts.iter().map(|(upstream, _)| *upstream).collect(),
                Action::Redirect(_) | Action::Respond(_) => Vec::new(),
            };
            self.check_timeouts(&route.timeouts);
            self.check_retries(&route.retries, true);
            routes.push(Route {
                rewrite: self.rewrite(&route.rewrite, &matcher.path, sound),
                request_headers: self.header_rules(&route.request_headers, Template::parse_for_request),
                response_headers: self.header_rules(&route.response_headers, Template::parse_for_response),
                timeouts: overrides(route.timeouts.get()),
                allow: self.callers(&route.allow, listener),
                deadline_header: self.deadline_header(&route.timeouts),
                retries: super::retries::overrides(&route.retries),
                rate_limit: self.rate_limit(&route.rate_limit),
                concurrency: self.concurrency(&route.concurrency),
                mirror: self.mirror(&route.mirror, &sent_to),
                fault: self.fault(&route.fault),
                name,
                matcher,
                action,
            });
        }
        self.unreachable(&routes, &matches);
        routes
    }

    fn duplicate_names(&mut self, routes: &[Given<raw::Route>]) {
        let mut first: HashMap<&str, NodeId> = HashMap::new();
        for name in routes.iter().filter_map(|route| route.get()?.name.spanned()) {
            if let Some(other) = first.get(name.value.0.as_str()) {
                let reason = format!("the name {} is there twice in this listener", self.shown(name.node));
                let finding = Finding::error("duplicate-name", name.node, reason).related(*other, "the other route");
                self.push(finding.hint("names of routes tell them apart in metrics and logs"));
            } else {
                first.insert(&name.value.0, name.node);
            }
        }
    }

    fn action(
        &mut self,
        route: &'a raw::Route,
        node: NodeId,
        name: impl FnOnce() -> String,
        listener: &raw_listener::Listener,
    ) -> Action {
        let given = [
            ("upstream", route.upstream.node()),
            ("discover", route.discover.node()),
            ("split", route.split.node()),
            ("redirect", route.redirect.node()),
            ("respond", route.respond.node()),
        ];
        let written: Vec<(&str, NodeId)> = given.into_iter().filter_map(|(name, node)| Some((name, node?))).collect();
        // Something that cannot be read may lead to any upstream.
        let unreadable = matches!(route.upstream, Given::Invalid(_)) || matches!(route.split, Given::Invalid(_));
        self.unresolved |= unreadable || self.findings.is_incomplete(node);
        match written.as_slice() {
            [] => {
                self.missing(
                    node,
                    "this route does nothing",
                    "write `upstream`, `discover`, `split`, `redirect` or `respond`",
                );
            }
            [_] => {}
            [(first, _), (second, at), ..] => {
                let reason = format!("a route does one thing, and this one has `{first}` and `{second}`");
                self.error("conflict", *at, reason, "make two routes of it, or remove one");
            }
        }
        if let Some(upstream) = route.upstream.spanned()
            && let Some(index) = self.resolve(&upstream.value.0, upstream.node)
        {
            return Action::Upstream(index);
        }
        if let Some(discover) = route.discover.spanned() {
            return Action::Upstream(self.discover(discover, name(), listener));
        }
        if let Some(split) = route.split.spanned() {
            return Action::Split(self.split(split));
        }
        if let Some(redirect) = route.redirect.spanned() {
            return Action::Redirect(self.redirect(redirect));
        }
        if let Some(respond) = route.respond.get() {
            return Action::Respond(self.respond(respond));
        }
        // Something that cannot be read, and leads somewhere.
        Action::Split(Vec::new())
    }

    fn split(&mut self, split: &'a Spanned<Named<Number<0, 1_000_000>>>) -> Vec<(UpstreamIndex, u32)> {
        let mut parts: Vec<(UpstreamIndex, u32)> = Vec::with_capacity(split.value.0.len());
        for (name, weight) in &split.value.0 {
            let index = self.resolve(&name.value, name.node);
            if let (Some(index), Some(weight)) = (index, weight.get()) {
                parts.push((index, weight.0));
            }
        }
        let readable = split.value.0.iter().all(|(_, weight)| weight.get().is_some());
        if split.value.0.is_empty() {
            self.error(
                "missing-value",
                split.node,
                "this split has no upstreams",
                "write them with weights, as in `{ payments: 95, payments-next: 5 }`",
            );
        } else if readable && split.value.0.iter().all(|(_, weight)| weight.get().is_some_and(|weight| weight.0 == 0)) {
            self.error(
                "impossible-number",
                split.node,
                "all weights are 0, so no request can be sent",
                "give at least one upstream a weight of 1",
            );
        }
        parts
    }

    fn redirect(&mut self, spanned: &Spanned<raw::Redirect>) -> Redirect {
        let redirect = &spanned.value;
        if redirect.scheme.is_absent() && redirect.host.is_absent() && redirect.path.is_absent() {
            self.missing(
                spanned.node,
                "this redirect leads back to where it comes from",
                "write `path`, `host` or `scheme`",
            );
        }
        if let Some(path) = redirect.path.spanned() {
            self.path(path);
        }
        if let Some(host) = redirect.host.spanned() {
            self.authority(host);
        }
        Redirect {
            scheme: redirect.scheme.get().map(|scheme| match scheme {
                raw::Scheme::Http => "http".to_owned(),
                raw::Scheme::Https => "https".to_owned(),
            }),
            host: redirect.host.get().map(|host| host.0.clone()),
            path: redirect.path.get().map(|path| path.0.clone()),
            status: redirect.status.get().map_or(builtin::REDIRECT_STATUS, |status| status.0),
            written: self.hidden([redirect.host.node(), redirect.path.node()]),
        }
    }

    pub(super) fn respond(&mut self, respond: &raw::Respond) -> Respond {
        let status =
            respond.status.get().and_then(|status| u16::try_from(status.0).ok()).unwrap_or(builtin::RESPOND_STATUS);
        if let Some(body) = respond.body.spanned()
            && matches!(status, 204 | 205 | 304)
            && !body.value.0.is_empty()
        {
            self.error(
                "conflict",
                body.node,
                "an answer with this status has no body",
                "remove it, or use another status",
            );
        }
        let content_type = respond.content_type.spanned().and_then(|text| self.header_value(text));
        Respond {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::OK),
            body: respond.body.get().map(|body| body.0.clone()).unwrap_or_default(),
            content_type: content_type.unwrap_or(HeaderValue::from_static(builtin::RESPOND_CONTENT_TYPE)),
            written: self.hidden([respond.body.node()]),
        }
    }

    /// Keys that change what is sent to an upstream, where nothing is sent.
    fn without_effect(&mut self, route: &raw::Route) {
        let sends = [route.upstream.node(), route.discover.node(), route.split.node()];
        if sends.iter().any(Option::is_some) {
            return;
        }
        for (name, node) in [
            ("rewrite", route.rewrite.node()),
            ("request_headers", route.request_headers.node()),
            ("timeouts", route.timeouts.node()),
            ("retries", route.retries.node()),
            ("mirror", route.mirror.node()),
        ] {
            if let Some(node) = node {
                let reason = format!("`{name}` does nothing here: this route sends no request");
                self.push(Finding::warning("no-effect", node, reason).hint("remove it"));
            }
        }
    }

    fn rewrite(&mut self, given: &Given<raw::Rewrite>, matched: &PathMatch, sound: bool) -> Rewrite {
        let Some(rewrite) = given.get() else { return Rewrite::default() };
        let host = rewrite.host.spanned().and_then(|host| {
            self.authority(host);
            HeaderValue::from_str(&host.value.0).ok()
        });
        if let (Some(_), Some(node)) = (rewrite.path_prefix.node(), rewrite.path_regex.node()) {
            self.error(
                "conflict",
                node,
                "a path is rewritten by `path_prefix` or by `path_regex`, not by both",
                "remove one of them",
            );
        }
        let mut path = PathRewrite::Keep;
        if let Some(prefix) = rewrite.path_prefix.spanned() {
            if sound && matches!(matched, PathMatch::Exact(_) | PathMatch::Regex(_)) {
                let reason = "`path_prefix` replaces the prefix that the route matches, and this route matches none";
                self.error("conflict", prefix.node, reason, "match `path: /…` (a prefix), or use `path_regex`");
            }
            if self.path(prefix) {
                path = PathRewrite::Prefix(prefix.value.0.clone());
            }
        }
        if let Some(regex) = rewrite.path_regex.spanned()
            && let Some(rule) = self.path_regex(regex)
        {
            path = rule;
        }
        let regex = rewrite.path_regex.get().and_then(|regex| regex.replacement.node());
        Rewrite {
            path,
            host,
            written_host: self.hidden([rewrite.host.node()]),
            written_path: self.hidden([rewrite.path_prefix.node(), regex]),
        }
    }

    /// These texts as they may be shown, where what they hold may not.
    pub(super) fn hidden<const N: usize>(&self, texts: [Option<NodeId>; N]) -> Option<String> {
        let written: String = texts.into_iter().flatten().map(|node| self.tree.written(node)).collect();
        is_hidden(&written).then_some(written)
    }

    fn path_regex(&mut self, spanned: &Spanned<raw::PathRegex>) -> Option<PathRewrite> {
        let rule = &spanned.value;
        for (name, missing) in [("pattern", rule.pattern.is_absent()), ("replacement", rule.replacement.is_absent())] {
            if missing {
                self.missing(
                    spanned.node,
                    format!("`path_regex` has no `{name}`"),
                    "write both, as in `{ pattern: \"^/v[0-9]+/\", replacement: / }`",
                );
            }
        }
        let pattern = rule.pattern.spanned().and_then(|pattern| self.anywhere(pattern));
        let (pattern, replacement) = (pattern?, rule.replacement.spanned()?);
        self.replacement(replacement, &pattern);
        if replacement.value.0.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || matches!(byte, b'?' | b'#')) {
            self.error(
                "invalid-value",
                replacement.node,
                format!("{} cannot be in a path", self.shown(replacement.node)),
                "write other characters as in `%20`",
            );
        }
        Some(PathRewrite::Regex { pattern, replacement: replacement.value.0.clone() })
    }

    /// Checks a path; true where it is one.
    pub(super) fn path(&mut self, text: &Spanned<Text>) -> bool {
        let Err((reason, hint)) = check_path(&text.value.0) else { return true };
        let reason = format!("{} {reason}", self.shown(text.node));
        let hint = if is_hidden(self.tree.written(text.node)) { None } else { hint };
        self.push(Finding::error("invalid-value", text.node, reason).maybe_hint(hint));
        false
    }

    /// Checks a host with or without a port.
    fn authority(&mut self, text: &Spanned<Text>) {
        let valid = text.value.0.parse::<http::uri::Authority>().is_ok_and(|authority| {
            !authority.as_str().contains('@')
                && !authority.host().is_empty()
                && (authority.port().is_none() || authority.port_u16().is_some())
        });
        if !valid {
            self.error(
                "invalid-value",
                text.node,
                format!("{} is not a host", self.shown(text.node)),
                "write it as in `example.org` or `example.org:8080`",
            );
        }
    }

    fn header_value(&mut self, text: &Spanned<Text>) -> Option<HeaderValue> {
        match HeaderValue::from_str(&text.value.0) {
            Ok(value) => Some(value),
            Err(_) => {
                self.error(
                    "invalid-value",
                    text.node,
                    format!("{} cannot be the value of a header", self.shown(text.node)),
                    "it holds a control character",
                );
                None
            }
        }
    }
}

/// What a route says itself.
fn overrides(timeouts: Option<&Timeouts>) -> TimeoutOverrides {
    let said = |given: &Given<OrNone<Period>>| -> Option<Option<Duration>> {
        given.get().map(|period| period.0.map(|period| period.0))
    };
    let Some(timeouts) = timeouts else { return TimeoutOverrides::default() };
    TimeoutOverrides {
        connect: said(&timeouts.connect),
        response: said(&timeouts.response),
        per_try: said(&timeouts.per_try),
        idle: said(&timeouts.idle),
        request: said(&timeouts.request),
        tunnel_idle: said(&timeouts.tunnel_idle),
    }
}
