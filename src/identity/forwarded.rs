//! `X-Forwarded-Client-Cert`: what is told to the app about the certificate that its caller showed, in the form that
//! Envoy gave it.

use http::HeaderValue;
use rustls::pki_types::CertificateDer;

use super::certificate::Certificate;

/// The field's value. `by` is whom our own certificate names.
pub(super) fn client_cert(
    der: &CertificateDer<'_>,
    certificate: &Certificate,
    by: Option<&str>,
) -> Option<HeaderValue> {
    let mut value = Vec::with_capacity(192);
    let mut pair = |key: &str, text: &str| {
        if !value.is_empty() {
            value.push(b';');
        }
        value.extend_from_slice(key.as_bytes());
        value.push(b'=');
        quoted(text, &mut value);
    };
    if let Some(by) = by {
        pair("By", by);
    }
    pair("Hash", &sha256(der));
    for uri in &certificate.uris {
        pair("URI", uri);
    }
    for name in &certificate.dns_names {
        pair("DNS", name);
    }
    HeaderValue::try_from(value).ok()
}

/// Where the text holds what has a meaning of its own, it stands in quotes.
fn quoted(text: &str, value: &mut Vec<u8>) {
    if !text.contains([',', ';', '=', '"', '\\']) {
        return value.extend_from_slice(text.as_bytes());
    }
    value.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            value.push(b'\\');
        }
        value.push(byte);
    }
    value.push(b'"');
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    // The provider's own, so that no other implementation of it is linked.
    let rustls::SupportedCipherSuite::Tls13(suite) = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
    else {
        return String::new();
    };
    let digest = suite.common.hash_provider.hash(bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_add_pairs() {
        let certificate = Certificate {
            dns_names: vec!["web.internal".to_owned()],
            uris: vec!["spiffe://mesh/a;By=\"x".to_owned()],
            not_before: 0,
            not_after: 0,
        };
        let value = client_cert(&CertificateDer::from_slice(b"abc"), &certificate, Some("spiffe://mesh/b")).unwrap();
        // `printf abc | sha256sum`
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let expected = format!(r#"By=spiffe://mesh/b;Hash={hash};URI="spiffe://mesh/a;By=\"x";DNS=web.internal"#);
        assert_eq!(value, expected);
    }
}
