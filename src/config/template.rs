//! Header values with `%{…}` in them. Parsed here, filled in by the proxy.

use super::scalar::Invalid;
use super::text::{listed, nearest, quote};

/// A value that may hold variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// In order. A template without variables is one literal (or none, where it is empty).
    pub segments: Vec<Segment>,
    /// The text with its `${…}`, where it had any: the only form that may be shown.
    pub written: Option<String>,
}

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// As written; valid in a header value.
    Literal(String),
    /// Filled in for each request.
    Variable(Variable),
}

/// What `%{…}` can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// `%{client.address}`: the client's IP address, as far as `trust` reaches.
    ClientAddress,
    /// `%{client.port}`: the port of the connection's peer.
    ClientPort,
    /// `%{client.identity}`: whom the client's certificate names, or nothing.
    ClientIdentity,
    /// `%{client.tls}`: the version of TLS that the client speaks, or nothing.
    ClientTls,
    /// `%{request.id}`
    RequestId,
    /// `%{request.method}`
    RequestMethod,
    /// `%{request.host}`: as the client sent it.
    RequestHost,
    /// `%{request.path}`: as the client sent it, without the query.
    RequestPath,
    /// `%{request.scheme}`
    RequestScheme,
    /// `%{request.header.NAME}`: the first value, or nothing.
    RequestHeader(http::HeaderName),
    /// `%{trace.id}`: 32 hexadecimal digits.
    TraceId,
    /// `%{listener}`: its name.
    Listener,
    /// `%{route}`: its name.
    Route,
    /// `%{upstream}`: its name, or nothing.
    Upstream,
    /// `%{endpoint}`: its address; in response headers only, for it is not known before.
    Endpoint,
    /// `%{service}`: the configuration's `service`, or nothing.
    Service,
}

/// Variables without a parameter, by their names.
const VARIABLES: [(&str, Variable); 15] = [
    ("client.address", Variable::ClientAddress),
    ("client.port", Variable::ClientPort),
    ("client.identity", Variable::ClientIdentity),
    ("client.tls", Variable::ClientTls),
    ("request.id", Variable::RequestId),
    ("request.method", Variable::RequestMethod),
    ("request.host", Variable::RequestHost),
    ("request.path", Variable::RequestPath),
    ("request.scheme", Variable::RequestScheme),
    ("trace.id", Variable::TraceId),
    ("listener", Variable::Listener),
    ("route", Variable::Route),
    ("upstream", Variable::Upstream),
    ("endpoint", Variable::Endpoint),
    ("service", Variable::Service),
];

/// Longest template: a header this long is refused by most servers.
const LONGEST: usize = 8 << 10;

impl Template {
    /// Reads the value of a request header.
    pub(crate) fn parse_for_request(text: &str) -> Result<Self, Invalid> {
        let template = Self::parse_for_response(text)?;
        if template.segments.contains(&Segment::Variable(Variable::Endpoint)) {
            return Err(Invalid::new("`%{endpoint}` is not known yet when a request's headers are made")
                .hint("use it in `response_headers`, or `%{upstream}` here"));
        }
        Ok(template)
    }

    /// Reads the value of a response header.
    pub(crate) fn parse_for_response(text: &str) -> Result<Self, Invalid> {
        if text.len() > LONGEST {
            return Err(Invalid::new(format!("the value of a header is at most {LONGEST} bytes long")));
        }
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(percent) = rest.find('%') {
            literal.push_str(&rest[..percent]);
            rest = &rest[percent + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                literal.push('%');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let (name, after) = after
                    .split_once('}')
                    .ok_or_else(|| Invalid::new("`%{` without a `}`").hint("for a literal `%{` write `%%{`"))?;
                if !literal.is_empty() {
                    segments.push(Segment::Literal(std::mem::take(&mut literal)));
                }
                segments.push(Segment::Variable(variable(name)?));
                rest = after;
            } else {
                literal.push('%');
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal));
        }
        for segment in &segments {
            if let Segment::Literal(literal) = segment
                && http::HeaderValue::from_str(literal).is_err()
            {
                return Err(Invalid::new(format!("{} cannot be the value of a header", quote(text)))
                    .hint("it holds a control character"));
            }
        }
        Ok(Template { segments, written: None })
    }
}

fn variable(name: &str) -> Result<Variable, Invalid> {
    if let Some(header) = name.strip_prefix("request.header.") {
        return match http::HeaderName::from_bytes(header.to_ascii_lowercase().as_bytes()) {
            Ok(header) => Ok(Variable::RequestHeader(header)),
            Err(_) => Err(Invalid::new(format!("{} is not the name of a header", quote(header)))),
        };
    }
    if let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) {
        return Ok(variable.clone());
    }
    let known = VARIABLES.iter().map(|(known, _)| *known).chain(["request.header.NAME"]);
    let hint = match nearest(name, known.clone()) {
        Some(near) => format!("did you mean {}?", quote(&format!("%{{{near}}}"))),
        None => format!("there are {}", listed(known, "and")),
    };
    Err(Invalid::new(format!("unknown variable {}", quote(&format!("%{{{name}}}")))).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.to_owned())
    }

    #[test]
    fn templates_are_read() {
        for (text, segments) in [
            ("", vec![]),
            ("plain", vec![literal("plain")]),
            ("100%", vec![literal("100%")]),
            ("50%% off, %%{route}", vec![literal("50% off, %{route}")]),
            ("%{client.address}", vec![Segment::Variable(Variable::ClientAddress)]),
            ("a-%{route}-b", vec![literal("a-"), Segment::Variable(Variable::Route), literal("-b")]),
            (
                "%{request.header.X-User}",
                vec![Segment::Variable(Variable::RequestHeader(http::HeaderName::from_static("x-user")))],
            ),
        ] {
            assert_eq!(Template::parse_for_response(text), Ok(Template { segments, written: None }), "{text}");
        }
    }

    #[test]
    fn mistakes_have_hints() {
        let hint = |text| Template::parse_for_request(text).unwrap_err().hint.unwrap_or_default();
        assert!(hint("%{client.adress}").contains("`%{client.address}`"));
        assert!(hint("%{zebra}").contains("`route`"));
        assert!(hint("%{route").contains("%%{"));
        assert!(hint("%{endpoint}").contains("response_headers"));
        assert!(Template::parse_for_response("%{endpoint}").is_ok());
        assert!(Template::parse_for_response("a\nb").is_err());
    }
}
