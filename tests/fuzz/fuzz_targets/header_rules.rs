//! A request's headers on their way through the proxy: hop-by-hop fields, forwarded fields, Via, header rules.
//! Whatever comes in, what goes out is one well-formed head that says no more than it may.
#![no_main]

use std::net::IpAddr;

use http::header::{CONNECTION, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use outrigger::config::model::{self, Network, Trust};
use outrigger::config::template::{Segment, Template, Variable};
use outrigger::proxy::forwarded::{self, Client, Peer};
use outrigger::proxy::header_rules::{Rules, Variables};
use outrigger::proxy::hop_by_hop;
use outrigger::proxy::via::Pseudonym;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    fields: Vec<(Name<'a>, &'a [u8])>,
    edge: bool,
    trust: Result<u8, Vec<(IpAddr, u8)>>,
    peer: Option<IpAddr>,
    host: &'a [u8],
    remove: Vec<Name<'a>>,
    set: Vec<(Name<'a>, Vec<Part<'a>>)>,
    add: Vec<(Name<'a>, Vec<Part<'a>>)>,
    variable: &'a [u8],
}

/// Names that matter come up often, all others sometimes.
#[derive(Debug, Arbitrary)]
enum Name<'a> {
    Connection,
    Te,
    TransferEncoding,
    Upgrade,
    Forwarded,
    XForwardedFor,
    XForwardedProto,
    Via,
    Host,
    A,
    B,
    Other(&'a [u8]),
}

#[derive(Debug, Arbitrary)]
enum Part<'a> {
    Literal(&'a str),
    Variable,
    Header(Name<'a>),
}

struct Fixed<'a>(&'a [u8]);

impl Variables for Fixed<'_> {
    fn write(&self, _: &Variable, value: &mut Vec<u8>) {
        value.extend_from_slice(self.0);
    }
}

impl Name<'_> {
    fn parse(&self) -> Option<HeaderName> {
        Some(match self {
            Name::Connection => CONNECTION,
            Name::Te => TE,
            Name::TransferEncoding => TRANSFER_ENCODING,
            Name::Upgrade => UPGRADE,
            Name::Forwarded => FORWARDED,
            Name::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            Name::XForwardedProto => HeaderName::from_static("x-forwarded-proto"),
            Name::Via => VIA,
            Name::Host => HOST,
            Name::A => HeaderName::from_static("x-a"),
            Name::B => HeaderName::from_static("x-b"),
            Name::Other(bytes) => HeaderName::from_bytes(bytes).ok()?,
        })
    }
}

fn rules(written: &[(Name<'_>, Vec<Part<'_>>)]) -> Vec<(HeaderName, Template)> {
    let rule = |(name, parts): &(Name<'_>, Vec<Part<'_>>)| {
        let segments = parts.iter().filter_map(|part| {
            Some(match part {
                Part::Literal(text) => Segment::Literal((*text).to_owned()),
                Part::Variable => Segment::Variable(Variable::RequestPath),
                Part::Header(name) => Segment::Variable(Variable::RequestHeader(name.parse()?)),
            })
        });
        Some((name.parse()?, Template { segments: segments.collect() }))
    };
    written.iter().filter_map(rule).collect()
}

fuzz_target!(|input: Input<'_>| {
    let mut headers = HeaderMap::new();
    for (name, value) in &input.fields {
        if let (Some(name), Ok(value)) = (name.parse(), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let hosts = headers.get_all(HOST).iter().count();

    hop_by_hop::strip(&mut headers);
    for name in ["connection", "proxy-connection", "keep-alive", "te", "transfer-encoding", "upgrade"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(headers.get_all(HOST).iter().count(), hosts);
    let stripped = headers.clone();
    assert_eq!(hop_by_hop::strip(&mut headers), hop_by_hop::HopByHop::default());
    assert_eq!(headers, stripped);

    let trust = match &input.trust {
        Ok(hops) => Trust::Hops(*hops),
        Err(networks) => Trust::Networks(
            networks.iter().map(|(address, prefix)| Network { address: *address, prefix: *prefix }).collect(),
        ),
    };
    let peer = Peer::new(input.peer);
    let client = Client::find(&trust, peer.address(), &headers);
    if trust == Trust::Hops(0) {
        assert_eq!(client.address, peer.address());
    }
    let host = HeaderValue::from_bytes(input.host).ok();
    forwarded::write(&mut headers, input.edge, &client, &peer, &HeaderValue::from_static("http"), host.as_ref());
    Pseudonym::new("outrigger").unwrap().append(&mut headers, Version::HTTP_11);
    for (name, last) in [("x-forwarded-for", peer_text(input.peer).as_bytes()), ("via", b"1.1 outrigger")] {
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        assert!(lines.len() == 1 && lines[0].as_bytes().ends_with(last), "{lines:?}");
    }
    if input.edge && trust == Trust::Hops(0) {
        assert_eq!(headers["x-forwarded-for"], peer_text(input.peer));
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert!(!headers.contains_key(FORWARDED));
    }
    // What was said before us is believed no further by the next proxy, which trusts one hop more at most.
    assert_eq!(Client::find(&Trust::Hops(1), None, &headers).address, peer.address());

    let written = model::HeaderRules {
        remove: input.remove.iter().filter_map(Name::parse).collect(),
        set: rules(&input.set),
        add: rules(&input.add),
    };
    let rules = Rules::compile(&written);
    let captured = rules.capture(&headers);
    let mut response = headers.clone();
    rules.apply_to_response(&mut response, &Fixed(input.variable), &captured);
    rules.apply_to_request(&mut headers, &Fixed(input.variable));
    assert_eq!(headers, response);
    for name in &written.remove {
        let again = written.set.iter().chain(&written.add).any(|(other, _)| other == name);
        assert!(again || !headers.contains_key(name), "{name}");
    }
    for (name, _) in &written.set {
        let added = written.add.iter().filter(|(other, _)| other == name).count();
        assert!(headers.get_all(name).iter().count() <= 1 + added, "{name}");
    }
    assert_one_head(&headers);
});

fn peer_text(peer: Option<IpAddr>) -> String {
    match peer {
        None => "unknown".into(),
        Some(IpAddr::V6(address)) => address.to_ipv4_mapped().map_or(address.to_string(), |address| address.to_string()),
        Some(address) => address.to_string(),
    }
}

/// Written out, the headers are read again as what they were: no value became two fields, or the end of the head.
fn assert_one_head(headers: &HeaderMap) {
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let mut fields = vec![httparse::EMPTY_HEADER; headers.len() + 1];
    let mut request = httparse::Request::new(&mut fields);
    assert_eq!(request.parse(&head), Ok(httparse::Status::Complete(head.len())));
    assert_eq!(request.headers.len(), headers.len());
    for (read, (name, value)) in request.headers.iter().zip(headers) {
        assert_eq!(read.name, name.as_str());
        assert_eq!(read.value.trim_ascii(), value.as_bytes().trim_ascii());
    }
}
