//! `listeners:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::overload::{Concurrency, RateLimit};
use super::route::{OneOrMany, Route};
use super::tls::ListenerTls;
use crate::config::given::Given;
use crate::config::model::{self, IdentityPattern};
use crate::config::scalar::OrNone;
use crate::config::units::{Flag, Number, Period, Size, Text};

/// A bound address and its routes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(crate) struct Listener {
    /// Where: `":15006"` (IPv4 and IPv6), `127.0.0.1:15001`, `"[::1]:80"`, `unix:/run/outrigger.sock`.
    pub(crate) address: Given<model::BindAddress>,
    /// Which way its traffic goes: inbound is drained early, outbound works to the end. Default `outbound` where the
    /// listener's name is or begins with that word, else `inbound`.
    pub(crate) direction: Given<Direction>,
    /// What it speaks: `http` (the default), `tcp`, which passes bytes on as they are, or `transparent`, where the kernel
    /// redirects connections here.
    pub(crate) mode: Given<Mode>,
    /// Short for one route that matches all: the name of an upstream, or an address.
    pub(crate) upstream: Given<Text>,
    /// What to do with requests: the first match in written order.
    pub(crate) routes: Given<Vec<Given<Route>>>,
    /// What a request gets that no route matches: `404` (the default), or `passthrough` to where it was going.
    pub(crate) no_route: Given<NoRoute>,
    /// True where strangers call: their trace and request ids, forwarded headers and `x-outrigger-*` are dropped, and
    /// reasons are not shown. Default false.
    pub(crate) edge: Given<Flag>,
    /// Which proxies before this one are believed about the client's address. Default `{ hops: 0 }`.
    pub(crate) trust: Given<Trust>,
    /// TLS from clients.
    pub(crate) tls: Given<ListenerTls>,
    /// SPIFFE IDs or hosts of the clients that may call here; others get 403 `denied`. Needs `tls.client_ca_file`.
    pub(crate) allow: Given<OneOrMany<IdentityPattern>>,
    /// What a client may ask for.
    pub(crate) limits: Given<ListenerLimits>,
    /// How often clients may come.
    pub(crate) rate_limit: Given<RateLimit>,
    /// How many requests may be in flight.
    pub(crate) concurrency: Given<Concurrency>,
}

/// Which way traffic goes.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// HTTP, in all its versions.
    Http,
    /// Anything: bytes are passed on as they are.
    Tcp,
    /// The kernel has redirected connections here that were going elsewhere.
    Transparent,
}

/// What a request gets that no route matches.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum NoRoute {
    #[serde(rename = "404")]
    NotFound,
    /// Goes where it was going to.
    #[serde(rename = "passthrough")]
    Passthrough,
}

/// Who is believed about the client's address: one of both.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct Trust {
    /// This many proxies before us.
    pub(crate) hops: Given<Number<0, 255>>,
    /// Proxies in these networks.
    pub(crate) cidr: Given<OneOrMany<Cidr>>,
}

/// A network such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cidr(pub(crate) model::Network);

/// What a client may ask for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListenerLimits {
    /// Open connections. Default 10000.
    pub(crate) connections: Given<Number<1, 1_000_000>>,
    /// Bytes of a request's head: 1KiB to 1MiB. Default 64KiB.
    pub(crate) header_bytes: Given<Size>,
    /// From a request's first byte (or the connection's start) to the end of its headers. Default 10s.
    pub(crate) header_timeout: Given<Period>,
    /// A connection between two requests. Default 75s.
    pub(crate) idle: Given<Period>,
    /// Concurrent streams of an HTTP/2 connection. Default 256.
    pub(crate) streams: Given<Number<1, 100_000>>,
    /// Bytes of a request's body, or `none`, the default.
    pub(crate) body_bytes: Given<OrNone<Size>>,
    /// With `no_route: passthrough`, how long a captured connection may take to show that it speaks HTTP; then its bytes
    /// are passed on as they are. Default 200ms.
    pub(crate) detect: Given<Period>,
}

mod words {
    //! Scalars of this file.

    use std::borrow::Cow;
    use std::net::IpAddr;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{Cidr, NoRoute};
    use crate::config::model::Network;
    use crate::config::scalar::{Invalid, Scalar, scalar};
    use crate::config::text::quote;

    impl JsonSchema for NoRoute {
        fn schema_name() -> Cow<'static, str> {
            "NoRoute".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "enum": [404, "404", "passthrough"] })
        }
    }

    impl Scalar for Cidr {
        const EXPECTED: &'static str = "a network such as `10.0.0.0/8`";
        const SCHEMA_NAME: &'static str = "Network";

        fn parse(text: &str) -> Result<Self, Invalid> {
            let wrong = || {
                Invalid::new(format!("{} is not a network", quote(text)))
                    .hint("write it as in `10.0.0.0/8` or `fd00::/8`")
            };
            let (address, prefix) = match text.split_once('/') {
                Some((address, prefix)) => (address, Some(prefix)),
                None => (text, None),
            };
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let prefix = match prefix {
                Some(prefix) if !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                    prefix.parse::<u8>().ok().filter(|prefix| *prefix <= bits).ok_or_else(wrong)?
                }
                Some(_) => return Err(wrong()),
                None => bits,
            };
            let network = masked(address, prefix);
            if network != address {
                let hint = format!("did you mean {}?", quote(&format!("{network}/{prefix}")));
                return Err(Invalid::new(format!("{} has bits after its prefix", quote(text))).hint(hint));
            }
            Ok(Cidr(Network { address: network, prefix }))
        }

        fn schema() -> Schema {
            json_schema!({ "description": "A network such as `10.0.0.0/8`.", "type": "string" })
        }
    }
    scalar!(Cidr);

    fn masked(address: IpAddr, prefix: u8) -> IpAddr {
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((address.to_bits() & mask).into())
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn networks_are_read() {
            for (text, address, prefix) in
                [("10.0.0.0/8", "10.0.0.0", 8), ("::/0", "::", 0), ("10.1.2.3", "10.1.2.3", 32)]
            {
                let network = Cidr::parse(text).unwrap().0;
                assert_eq!((network.address.to_string().as_str(), network.prefix), (address, prefix), "{text}");
            }
            for text in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "10.0.0.0/+8", "::/129", "a/8"] {
                assert!(Cidr::parse(text).is_err(), "{text}");
            }
        }
    }
}
