//! Who is who: certificates and keys, and what TLS makes of them.
//!
//! [`files`] reads PEM, [`certificate`] says what stands in a certificate, [`server`] is a listener's side of TLS,
//! [`client`] an upstream's, and [`peer`] whom a connection turned out to be with. [`store`] keeps all of it across configurations and reads files
//! again when they change.
//!
//! Everything is made for one cryptographic provider, which is named each time: rustls panics when two are compiled in
//! and it has to choose.

mod certificate;
mod client;
mod files;
mod forwarded;
mod once;
mod peer;
mod roots;
mod server;
mod store;
mod verifier;

pub(crate) use client::{ClientTls, Offer};
pub(crate) use files::FileError;
pub(crate) use once::secure;
pub(crate) use peer::Peer;
pub(crate) use server::ServerTls;
pub(crate) use store::Store;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// The cryptography that everything here is made for.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    &PROVIDER
}
