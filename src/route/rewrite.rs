//! Changes of a request's target: on its way to the upstream, or in the Location of a redirect.

use std::fmt;

use bytes::Bytes;
use http::HeaderValue;
use http::uri::PathAndQuery;
use regex::Regex;

use super::normal::normalise;
use super::path::prefix_segments;
use crate::config::model::{PathMatch, PathRewrite, Redirect};

/// Bytes of a rewritten target; what the `http` crate can hold. A replacement may repeat a group that the client fills.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// A target that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewriteError {
    /// Longer than 65,534 bytes.
    TooLong,
    /// Not a path (it does not begin with a slash, or holds bytes that no target may hold).
    Invalid,
}

impl fmt::Display for RewriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RewriteError::TooLong => "the rewritten path is too long",
            RewriteError::Invalid => "the rewritten path is not valid",
        })
    }
}

impl std::error::Error for RewriteError {}

/// The target as the upstream shall see it; `None` where it stays as received. The query stays in any case.
///
/// A prefix is replaced where the route matches by prefix (one that matches every path has the prefix `/`); where it
/// matches by an exact path or a regex, the whole path is replaced. A regex sees the path without the query. Both work
/// on the path's normal form, which is what was matched.
///
/// # Errors
/// Where the outcome is no target: the client's path and the operator's pattern together decide that.
pub fn rewrite_path(
    rewrite: &PathRewrite,
    matched: &PathMatch,
    target: &PathAndQuery,
) -> Result<Option<PathAndQuery>, RewriteError> {
    let path = match rewrite {
        PathRewrite::Keep => return Ok(None),
        _ if target.path() == "*" => return Ok(None),
        PathRewrite::Prefix(replacement) => replace_prefix(matched, replacement, &normalise(target.path())),
        PathRewrite::Regex { pattern, replacement } => {
            let path = normalise(target.path());
            match replace_all(pattern, replacement, &path)? {
                Some(replaced) => replaced,
                None => return Ok(None),
            }
        }
    };
    let rewritten = join_query(path, target.query());
    match () {
        () if rewritten.len() > MAX_TARGET => return Err(RewriteError::TooLong),
        // `http` would cut the fragment off; what is left is not what the operator wrote.
        () if !rewritten.starts_with('/') || rewritten.contains('#') => return Err(RewriteError::Invalid),
        () => {}
    }
    PathAndQuery::from_maybe_shared(Bytes::from(rewritten)).map(Some).map_err(|_| RewriteError::Invalid)
}

/// The Location of a redirect: absolute where it names scheme or host, else a path (RFC 9110, section 10.2.2), for the
/// scheme that the client sees may be a load balancer's. A path of its own also where the client named no host
/// (HTTP/1.0).
///
/// What the redirect does not name stays as it was asked for. So does the query, behind one that the redirect's path
/// has. A port that is the old scheme's default is dropped where the scheme changes.
///
/// # Errors
/// Where the client's path holds what no header may hold.
pub fn redirect_location(
    redirect: &Redirect,
    scheme: &str,
    host: &str,
    path: &str,
    query: Option<&str>,
) -> Result<HeaderValue, RewriteError> {
    let new_scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let new_host = redirect.host.as_deref().unwrap_or(match scheme {
        _ if new_scheme == scheme => host,
        "https" => host.strip_suffix(":443").unwrap_or(host),
        _ => host.strip_suffix(":80").unwrap_or(host),
    });
    let path = redirect.path.as_deref().unwrap_or(if path == "*" { "/" } else { path });
    // Without a word about scheme and host, the client stays at those that it sees, which may be a load balancer's.
    let same_place = redirect.scheme.is_none() && redirect.host.is_none();
    let location = if same_place || new_host.is_empty() {
        one_leading_slash(path)
    } else {
        [new_scheme, "://", new_host, path].concat()
    };
    HeaderValue::from_maybe_shared(Bytes::from(join_query(location, query))).map_err(|_| RewriteError::Invalid)
}

fn replace_prefix(matched: &PathMatch, replacement: &str, path: &str) -> String {
    let rest = match matched {
        PathMatch::Any => path,
        PathMatch::Prefix(prefix) => path.strip_prefix(&*prefix_segments(prefix)).unwrap_or_default(),
        PathMatch::Exact(_) | PathMatch::Regex(_) => "",
    };
    if rest.is_empty() {
        return one_leading_slash(replacement);
    }
    let joined = [replacement.trim_end_matches('/'), rest].concat();
    // `/v1//a` without its prefix: a target that begins with `//` would be taken for a host by careless readers.
    one_leading_slash(&joined)
}

fn one_leading_slash(path: &str) -> String {
    ["/", path.trim_start_matches('/')].concat()
}

/// As `Regex::replace_all`, but with an end to how long the outcome may be. `None` where nothing matches.
fn replace_all(pattern: &Regex, replacement: &str, path: &str) -> Result<Option<String>, RewriteError> {
    let mut replaced = String::new();
    let mut copied = 0;
    let mut found = false;
    for captures in pattern.captures_iter(path) {
        let Some(whole) = captures.get(0) else { continue };
        found = true;
        replaced.push_str(&path[copied..whole.start()]);
        captures.expand(replacement, &mut replaced);
        copied = whole.end();
        if replaced.len() > MAX_TARGET {
            return Err(RewriteError::TooLong);
        }
    }
    replaced.push_str(&path[copied..]);
    Ok(found.then_some(replaced))
}

/// A replacement may have brought a query of its own; the client's then follows it.
fn join_query(mut path: String, query: Option<&str>) -> String {
    if let Some(query) = query {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(query);
    }
    path
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn rewritten(rewrite: &PathRewrite, matched: &PathMatch, target: &str) -> Result<Option<String>, RewriteError> {
        let target = PathAndQuery::try_from(target).unwrap();
        rewrite_path(rewrite, matched, &target).map(|target| target.map(|target| target.as_str().to_owned()))
    }

    fn by_regex(pattern: &str, replacement: &str) -> PathRewrite {
        PathRewrite::Regex { pattern: Regex::new(pattern).unwrap(), replacement: replacement.into() }
    }

    #[test]
    fn prefixes_are_replaced_without_double_or_missing_slashes() {
        for (prefix, replacement, target, expected) in [
            ("/v1", "/", "/v1/a", "/a"),
            ("/v1", "/", "/v1", "/"),
            ("/v1", "/", "/v1/", "/"),
            ("/v1", "/", "/v1?q=1", "/?q=1"),
            ("/v1", "", "/v1/a", "/a"),
            ("/v1", "/v2", "/v1/a?q", "/v2/a?q"),
            ("/v1", "/v2", "/v1", "/v2"),
            ("/v1", "/v2", "/v1/", "/v2/"),
            ("/v1", "/v2/", "/v1/a", "/v2/a"),
            ("/v1", "/v2/", "/v1", "/v2/"),
            ("/v1", "/", "/v1//evil.example/", "/evil.example/"),
            ("/v1", "/v2", "/v1//a//b", "/v2//a//b"),
            ("/v1", "/", "/%76%31/a%2Fb", "/a%2Fb"),
            ("/v1", "/", "/x/../v1/a", "/a"),
            ("/%76%31/", "/", "/v1/a", "/a"),
        ] {
            let got = rewritten(&PathRewrite::Prefix(replacement.into()), &PathMatch::Prefix(prefix.into()), target);
            assert_eq!(got.as_ref().map(|got| got.as_deref()), Ok(Some(expected)), "{prefix} {replacement} {target}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_replaced_whole() {
        let rewrite = PathRewrite::Prefix("/api".into());
        assert_eq!(rewritten(&rewrite, &PathMatch::Any, "/a?q"), Ok(Some("/api/a?q".into())));
        assert_eq!(rewritten(&rewrite, &PathMatch::Any, "/"), Ok(Some("/api/".into())));
        assert_eq!(rewritten(&rewrite, &PathMatch::Exact("/a/b".into()), "/a/b?q"), Ok(Some("/api?q".into())));
        assert_eq!(rewritten(&rewrite, &PathMatch::Any, "*"), Ok(None));
        assert_eq!(rewritten(&PathRewrite::Keep, &PathMatch::Any, "/x/../%61"), Ok(None));
    }

    #[test]
    fn regexes_see_the_path_only() {
        let users = by_regex("^/u/([^/]+)", "/users/$1");
        assert_eq!(rewritten(&users, &PathMatch::Any, "/u/7/x?u=/u/8"), Ok(Some("/users/7/x?u=/u/8".into())));
        assert_eq!(rewritten(&users, &PathMatch::Any, "/v/7"), Ok(None));
        let query = by_regex("^/u/(?P<id>.+)$", "/users?id=${id}");
        assert_eq!(rewritten(&query, &PathMatch::Any, "/u/7?x=1"), Ok(Some("/users?id=7&x=1".into())));
        assert_eq!(rewritten(&by_regex("/", "//"), &PathMatch::Any, "/a/b"), Ok(Some("//a//b".into())));
    }

    #[test]
    fn outcomes_that_are_no_target_are_errors() {
        for replacement in ["", "x", "/a b", "/a\r\nX: y", "/a#b", "/\u{7f}"] {
            let got = rewritten(&by_regex("^.*$", replacement), &PathMatch::Any, "/a");
            assert_eq!(got, Err(RewriteError::Invalid), "{replacement:?}");
        }
        let path = format!("/{}", "a".repeat(40_000));
        assert_eq!(rewritten(&by_regex("^(.*)$", "$1$1"), &PathMatch::Any, &path), Err(RewriteError::TooLong));
        assert_eq!(rewritten(&by_regex("a", "$0$0"), &PathMatch::Any, &path), Err(RewriteError::TooLong));
    }

    #[test]
    fn redirects_keep_what_they_do_not_name() {
        let location =
            |scheme: Option<&str>, host: Option<&str>, path: Option<&str>, from: (&str, &str, &str, Option<&str>)| {
                let redirect = Redirect {
                    scheme: scheme.map(Into::into),
                    host: host.map(Into::into),
                    path: path.map(Into::into),
                    status: StatusCode::PERMANENT_REDIRECT,
                    written: None,
                };
                redirect_location(&redirect, from.0, from.1, from.2, from.3)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
        let from = ("http", "a.example:8080", "/x/y", Some("q=1"));
        for (scheme, host, path, from, expected) in [
            (None, None, Some("/new"), from, "/new?q=1"),
            (None, Some("b.example"), None, from, "http://b.example/x/y?q=1"),
            (Some("https"), None, None, from, "https://a.example:8080/x/y?q=1"),
            (Some("https"), None, None, ("http", "a:80", "/", None), "https://a/"),
            (Some("http"), None, None, ("https", "a:443", "/", None), "http://a/"),
            (None, None, Some("/n"), ("http", "a:80", "/", None), "/n"),
            (None, None, Some("/n?x=1"), ("http", "a", "/", Some("y=2")), "/n?x=1&y=2"),
            (Some("https"), None, None, ("http", "a", "//evil.example/", None), "https://a//evil.example/"),
            (Some("https"), None, None, ("http", "a", "*", None), "https://a/"),
            (None, None, Some("//evil.example/"), from, "/evil.example/?q=1"),
            (None, None, Some("/n"), ("http", "", "/", None), "/n"),
            (Some("https"), None, None, ("http", "", "//evil.example/", None), "/evil.example/"),
        ] {
            assert_eq!(location(scheme, host, path, from).as_deref(), Ok(expected));
        }
        assert_eq!(location(None, None, None, ("http", "a", "/\r\nx: y", None)), Err(RewriteError::Invalid));
    }
}
