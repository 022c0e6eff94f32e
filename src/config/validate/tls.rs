//! `tls:` of listeners and upstreams.

use std::path::PathBuf;

use super::Validator;
use crate::config::given::{Given, Spanned};
use crate::config::model::{
    CertificateFiles, ClientCertificates, IdentityPattern, ListenerTls, Mode, TlsVersion, UpstreamTls,
};
use crate::config::raw::listener::Listener;
use crate::config::raw::route::OneOrMany;
use crate::config::raw::tls as raw;
use crate::config::tree::NodeId;
use crate::config::units::Text;

impl Validator<'_> {
    pub(super) fn listener_tls(&mut self, given: &Given<raw::ListenerTls>, mode: Mode) -> Option<ListenerTls> {
        let Spanned { node, value: tls } = given.spanned()?;
        let mut certificates = Vec::new();
        certificates.extend(self.pair(*node, &tls.cert_file, &tls.key_file));
        for more in tls.certificates.get().into_iter().flatten().filter_map(Given::spanned) {
            let (cert, key) = (&more.value.cert_file, &more.value.key_file);
            if cert.is_absent() && key.is_absent() {
                self.missing(more.node, "this certificate names no files", "write its `cert_file` and `key_file`");
            }
            certificates.extend(self.pair(more.node, cert, key));
        }
        let named = !(tls.cert_file.is_absent() && tls.key_file.is_absent());
        if certificates.is_empty() && !named && tls.certificates.get().is_none_or(Vec::is_empty) {
            let reason = "`tls` has no certificate to show to clients";
            self.missing(*node, reason, "write `cert_file` and `key_file`");
        }
        Some(ListenerTls {
            http: mode == Mode::Http,
            certificates,
            client: self.client_certificates(tls),
            forward_client_cert: self.forwards_client_cert(tls),
            plaintext: matches!(tls.plaintext.get(), Some(raw::Plaintext::Allow)),
            min_version: match tls.min_version.get() {
                None | Some(raw::TlsVersion::V1_2) => TlsVersion::V1_2,
                Some(raw::TlsVersion::V1_3) => TlsVersion::V1_3,
            },
        })
    }

    pub(super) fn upstream_tls(&mut self, given: &Given<raw::UpstreamTls>) -> Option<UpstreamTls> {
        let Spanned { node, value: tls } = given.spanned()?;
        let allow = tls.allow.spanned().map(|list| self.identities(list)).unwrap_or_default();
        Some(UpstreamTls {
            authorities: tls.ca_file.spanned().map(|file| self.file(file)),
            server_name: tls.server_name.get().cloned(),
            certificate: self.pair(*node, &tls.cert_file, &tls.key_file),
            allow,
        })
    }

    /// Who may call a listener, or come by a route of it.
    pub(super) fn callers(
        &mut self,
        given: &Given<OneOrMany<IdentityPattern>>,
        listener: &Listener,
    ) -> Vec<IdentityPattern> {
        let Some(list) = given.spanned() else { return Vec::new() };
        let asks = match &listener.tls {
            Given::Absent => false,
            Given::Invalid(_) => true,
            Given::Value(tls) => !tls.value.client_ca_file.is_absent(),
        };
        if !asks {
            let reason = "nobody is known here by name: this listener asks for no certificate of its clients";
            self.error("missing-key", list.node, reason, "write `tls` with a `client_ca_file`");
        }
        self.identities(list)
    }

    fn identities(&mut self, list: &Spanned<OneOrMany<IdentityPattern>>) -> Vec<IdentityPattern> {
        if matches!(&list.value, OneOrMany::Many(many) if many.is_empty()) {
            self.error("missing-value", list.node, "this list allows nobody", "write who it is for, or remove it");
        }
        list.value.iter().map(|identity| identity.value.clone()).collect()
    }

    fn forwards_client_cert(&mut self, tls: &raw::ListenerTls) -> bool {
        let Some(flag) = tls.forward_client_cert.spanned().filter(|flag| flag.value.0) else { return false };
        if tls.client_ca_file.is_absent() {
            let reason = "clients are asked for no certificate, so there is none to forward";
            self.error("missing-key", flag.node, reason, "write a `client_ca_file`");
        }
        true
    }

    /// Both files of a certificate, or none of them.
    fn pair(&mut self, mapping: NodeId, cert: &Given<Text>, key: &Given<Text>) -> Option<CertificateFiles> {
        match (cert, key) {
            (Given::Value(_), Given::Absent) => self.missing(mapping, "`cert_file` needs a `key_file`", "write both"),
            (Given::Absent, Given::Value(_)) => self.missing(mapping, "`key_file` needs a `cert_file`", "write both"),
            _ => {}
        }
        let cert = cert.spanned().map(|file| self.file(file));
        let key = key.spanned().map(|file| self.file(file));
        Some(CertificateFiles { cert: cert?, key: key? })
    }

    fn client_certificates(&mut self, tls: &raw::ListenerTls) -> ClientCertificates {
        let authorities: Option<PathBuf> = tls.client_ca_file.spanned().map(|file| self.file(file));
        match (authorities, tls.client.spanned()) {
            (None, Some(client)) if tls.client_ca_file.is_absent() => {
                let reason = "without a `client_ca_file` there is nothing to check a client's certificate against";
                self.error("missing-key", client.node, reason, "write `client_ca_file`, or remove `client`");
                ClientCertificates::Ignored
            }
            (None, _) => ClientCertificates::Ignored,
            (Some(file), Some(client)) if matches!(client.value, raw::ClientCertificate::Optional) => {
                ClientCertificates::Optional(file)
            }
            (Some(file), _) => ClientCertificates::Required(file),
        }
    }
}
