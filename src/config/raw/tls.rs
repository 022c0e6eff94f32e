//! `tls:` of listeners and upstreams.

use schemars::JsonSchema;
use serde::Deserialize;

use super::route::OneOrMany;
use crate::config::given::Given;
use crate::config::model::{IdentityPattern, TlsName};
use crate::config::units::{Flag, Text};

/// TLS from clients. Every file is read again when it changes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("anyOf" = [{ "required": ["cert_file", "key_file"] }, { "required": ["certificates"] }]))]
pub(crate) struct ListenerTls {
    /// The certificate chain, PEM, the listener's own certificate first.
    pub(crate) cert_file: Given<Text>,
    /// Its key, PEM.
    pub(crate) key_file: Given<Text>,
    /// More of them, or all: the client's SNI picks the one that names its host. The first one is for all others.
    pub(crate) certificates: Given<Vec<Given<Certificate>>>,
    /// The authorities, PEM, whose certificates clients may show.
    pub(crate) client_ca_file: Given<Text>,
    /// Whether clients have to show a certificate. Default `require` where there is a `client_ca_file`.
    pub(crate) client: Given<ClientCertificate>,
    /// Whether clients may also speak without TLS on this port. Default `refuse`.
    pub(crate) plaintext: Given<Plaintext>,
    /// True where the app is told of the client's certificate, in `X-Forwarded-Client-Cert`. Default false.
    pub(crate) forward_client_cert: Given<Flag>,
    /// The oldest version that is spoken: 1.2 (the default) or 1.3.
    pub(crate) min_version: Given<TlsVersion>,
}

/// A certificate chain and its key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert_file", "key_file"]))]
pub(crate) struct Certificate {
    /// The certificate chain, PEM, its owner's certificate first.
    pub(crate) cert_file: Given<Text>,
    /// The owner's key, PEM.
    pub(crate) key_file: Given<Text>,
}

/// TLS to endpoints; `{}` is all that a public service needs. Every file is read again when it changes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpstreamTls {
    /// The authorities, PEM, that endpoints' certificates have to come from. Default: the platform's, or where there are
    /// none, those that are built in.
    pub(crate) ca_file: Given<Text>,
    /// Whom endpoints have to be, a host or an IP address; it is also asked for (SNI). Default: with DNS the domain that
    /// is asked for, else the endpoint's address.
    pub(crate) server_name: Given<TlsName>,
    /// The certificate chain, PEM, that endpoints are shown where they ask.
    pub(crate) cert_file: Given<Text>,
    /// Its key, PEM.
    pub(crate) key_file: Given<Text>,
    /// SPIFFE IDs or hosts: an endpoint has to be one of them, in place of `server_name`.
    pub(crate) allow: Given<OneOrMany<IdentityPattern>>,
}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientCertificate {
    Require,
    Optional,
}

/// What becomes of clients that speak without TLS.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Plaintext {
    Refuse,
    Allow,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum TlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

mod words {
    //! Scalars of this file.

    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{TlsName, TlsVersion};
    use crate::config::scalar::{Invalid, Scalar, scalar};
    use crate::config::text::quote;

    impl Scalar for TlsName {
        const EXPECTED: &'static str = "a host or an IP address";
        const SCHEMA_NAME: &'static str = "ServerName";

        fn parse(text: &str) -> Result<Self, Invalid> {
            TlsName::parse(text).ok_or_else(|| {
                Invalid::new(format!("{} is neither a host nor an IP address", quote(text)))
                    .hint("write it without a port, as in `payments.internal`")
            })
        }

        fn schema() -> Schema {
            json_schema!({ "type": "string" })
        }
    }
    scalar!(TlsName);

    impl JsonSchema for TlsVersion {
        fn schema_name() -> Cow<'static, str> {
            "TlsVersion".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "enum": [1.2, "1.2", 1.3, "1.3"] })
        }
    }
}
