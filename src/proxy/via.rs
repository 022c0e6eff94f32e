//! `Via`: which proxies a message came through (RFC 9110 §7.6.3).

use http::header::{InvalidHeaderValue, VIA};
use http::{HeaderMap, HeaderValue, Version};

use super::list_field;

/// What this proxy calls itself in `Via`, with each version that it may have received a message in. Made once.
#[derive(Debug, Clone)]
pub struct Pseudonym {
    http_1_0: HeaderValue,
    http_1_1: HeaderValue,
    http_2: HeaderValue,
}

impl Pseudonym {
    /// # Errors
    /// Where the name cannot stand in a header.
    pub fn new(name: &str) -> Result<Self, InvalidHeaderValue> {
        let value = |version: &str| HeaderValue::try_from([version, " ", name].concat());
        Ok(Pseudonym { http_1_0: value("1.0")?, http_1_1: value("1.1")?, http_2: value("2.0")? })
    }

    /// Adds this proxy to the message's way. `received` is the version that the message came in.
    pub fn append(&self, headers: &mut HeaderMap, received: Version) {
        let member = match received {
            Version::HTTP_2 => &self.http_2,
            Version::HTTP_11 => &self.http_1_1,
            _ => &self.http_1_0,
        };
        list_field::append(headers, &VIA, member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_collects_its_proxies_in_order() {
        let pseudonym = Pseudonym::new("outrigger").unwrap();
        let mut headers = HeaderMap::new();
        pseudonym.append(&mut headers, Version::HTTP_2);
        assert_eq!(headers[VIA], "2.0 outrigger");
        headers.append(VIA, HeaderValue::from_static("1.1 other"));
        pseudonym.append(&mut headers, Version::HTTP_11);
        pseudonym.append(&mut headers, Version::HTTP_10);
        assert_eq!(headers[VIA], "2.0 outrigger, 1.1 other, 1.1 outrigger, 1.0 outrigger");
        assert_eq!(headers.get_all(VIA).iter().count(), 1);
        assert!(Pseudonym::new("a\r\nb").is_err());
    }
}
