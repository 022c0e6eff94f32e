//! What would become of a request: `/explain`.

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode;

use super::answer::{Answer, data, failure, text, wants_json};
use super::pages::BODY_BYTES;
use crate::control::Control;
use crate::explain::{Asked, explain, page};
use crate::reload::Reload;

/// What a form asks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Form {
    method: Option<String>,
    url: Option<String>,
    headers: Vec<String>,
    listener: Option<String>,
}

pub(super) async fn answer(control: &Control, reload: &Reload, request: Request<Incoming>) -> Answer {
    let json = wants_json(&request);
    let form = if request.method() == Method::POST {
        match Limited::new(request.into_body(), BODY_BYTES as usize).collect().await {
            Ok(body) => body.to_bytes().to_vec(),
            Err(_) => return failure(StatusCode::PAYLOAD_TOO_LARGE, "a form is at most 64 KiB large"),
        }
    } else {
        request.uri().query().unwrap_or_default().as_bytes().to_vec()
    };
    // What is in force is read after the last pause, so that both are of one generation.
    let (snapshot, shown) = (control.snapshot.load_full(), reload.shown());
    let explained = Form::parse(&form).and_then(|form| {
        let url = form.url.as_deref().ok_or("url is missing: which request is meant?")?;
        let method = form.method.as_deref().unwrap_or("GET");
        let asked = Asked::parse(method, url, form.headers.iter().map(String::as_str))?;
        explain(&asked, form.listener.as_deref(), &shown.in_force.config, &snapshot, true)
    });
    match explained {
        Ok(explanation) if json => data(StatusCode::OK, &explanation),
        Ok(explanation) => text("text/plain; charset=utf-8", page(&explanation, false)),
        Err(error) => failure(StatusCode::BAD_REQUEST, &error),
    }
}

impl Form {
    /// # Errors
    /// A sentence, where something cannot be understood.
    fn parse(form: &[u8]) -> Result<Self, String> {
        let mut parsed = Form::default();
        for pair in form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let (key, value) = match memchr::memchr(b'=', pair) {
                Some(end) => (&pair[..end], &pair[end + 1..]),
                None => (pair, &b""[..]),
            };
            let spaced: Vec<u8> = value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
            let value = percent_decode(&spaced).decode_utf8_lossy().into_owned();
            match key {
                b"method" => parsed.method = Some(value),
                b"url" => parsed.url = Some(value),
                b"header" => parsed.headers.push(value),
                b"listener" => parsed.listener = Some(value),
                b"format" => {}
                _ => {
                    let key = String::from_utf8_lossy(key);
                    return Err(format!(
                        "`{key}` is not asked for; there are method, url, header, listener and format"
                    ));
                }
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read() {
        let form =
            Form::parse(b"method=POST&url=http%3A%2F%2Fpayments%2Fv1%2Brefunds&header=x-a:+1&header=x-b%3A2").unwrap();
        assert_eq!(form.url.as_deref(), Some("http://payments/v1+refunds"));
        assert_eq!(form.headers, ["x-a: 1", "x-b:2"]);
        assert!(Form::parse(b"urls=x").is_err());
    }
}
