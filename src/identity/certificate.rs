//! What stands in a certificate: names, and when it ends.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// DER's tags (X.690, section 8), as far as a certificate's validity needs them (RFC 5280, section 4.1).
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// The names in a certificate, and its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    /// Of hosts: lower case; `*.example.org` stands for one label.
    pub(super) dns_names: Vec<String>,
    /// SPIFFE IDs and other URIs.
    pub(super) uris: Vec<String>,
    /// The first second in which it is valid, since the Unix epoch; 0 where it was so before.
    pub(super) not_before: u64,
    /// The last second in which it is valid, since the Unix epoch.
    pub(super) not_after: u64,
}

impl Certificate {
    /// # Errors
    /// Where it is no certificate of a version and shape that TLS uses.
    pub(super) fn parse(der: &CertificateDer<'_>) -> Result<Self, webpki::Error> {
        let parsed = EndEntityCert::try_from(der)?;
        let (not_before, not_after) = validity(der).ok_or(webpki::Error::BadDerTime)?;
        Ok(Certificate {
            dns_names: parsed.valid_dns_names().map(str::to_ascii_lowercase).collect(),
            uris: parsed.valid_uri_names().map(str::to_owned).collect(),
            not_before,
            not_after,
        })
    }

    /// Whom it names: its SPIFFE ID, else its first host. A certificate with several URIs is no SPIFFE ID's (X.509-SVID,
    /// section 2), and names nobody.
    pub(super) fn identity(&self) -> Option<&str> {
        match self.uris.as_slice() {
            [] => self.dns_names.first().map(String::as_str),
            [only] if only.starts_with("spiffe://") => Some(only),
            _ => None,
        }
    }
}

/// The two times of `Validity`, which stands after the serial number, the algorithm and the issuer.
fn validity(der: &[u8]) -> Option<(u64, u64)> {
    let (_, certificate, _) = element(der).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if element(rest)?.0 == VERSION {
        rest = element(rest)?.2;
    }
    for _ in ["serial number", "algorithm", "issuer"] {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (tag, text, rest) = element(validity)?;
    let not_before = time(tag, text).unwrap_or_default();
    let (tag, text, _) = element(rest)?;
    Some((not_before, time(tag, text)?))
}

/// An element's tag and content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > size_of::<u32>() {
            return None;
        }
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, section 4.1.2.5).
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |number: u64, digit| number * 10 + u64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| number(&rest[at..at + 2]));
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since the epoch, by the civil calendar: a year that begins in March has its leap day at its end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn made(names: Vec<SanType>, year: i32) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = names;
        parameters.not_before = rcgen::date_time_ymd(2031, 2, 28);
        parameters.not_after = rcgen::date_time_ymd(year, 2, 28);
        parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn names_and_the_end_are_read() {
        let certificate =
            Certificate::parse(&made(vec![dns("A.example"), uri("spiffe://mesh/ns/a/sa/b")], 2031)).unwrap();
        assert_eq!(certificate.dns_names, ["a.example"]);
        assert_eq!(certificate.uris, ["spiffe://mesh/ns/a/sa/b"]);
        // `date -u -d 2031-02-28 +%s`
        assert_eq!((certificate.not_before, certificate.not_after), (1_930_003_200, 1_930_003_200));
        assert_eq!(Certificate::parse(&made(Vec::new(), 2060)).unwrap().not_after, 2_845_152_000);
    }

    #[test]
    fn an_identity_is_one_uri_or_a_host() {
        let identity = |names| Certificate::parse(&made(names, 2031)).unwrap().identity().map(str::to_owned);
        assert_eq!(identity(vec![dns("b.example"), dns("c.example")]).as_deref(), Some("b.example"));
        assert_eq!(identity(vec![uri("spiffe://mesh/web"), dns("b.example")]).as_deref(), Some("spiffe://mesh/web"));
        assert_eq!(identity(vec![uri("spiffe://mesh/web"), uri("spiffe://mesh/other")]), None);
        assert_eq!(identity(vec![uri("https://mesh/web"), dns("b.example")]), None);
        assert_eq!(identity(Vec::new()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at: usize, byte: u8) {
            let _ = validity(&bytes);
            let mut der = made(Vec::new(), 2031).to_vec();
            let at = at % der.len();
            der[at] = byte;
            let _ = validity(&der);
            let _ = time(UTC_TIME, &bytes);
        }
    }
}
