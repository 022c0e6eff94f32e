//! `tls:` of listeners.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::given::Given;
use crate::config::units::Text;

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

    use super::TlsVersion;

    impl JsonSchema for TlsVersion {
        fn schema_name() -> Cow<'static, str> {
            "TlsVersion".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "enum": [1.2, "1.2", 1.3, "1.3"] })
        }
    }
}
