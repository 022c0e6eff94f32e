//! Certificates that change while the proxy runs.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::files::Directory;
use crate::support::pki::{Authority, Issued};
use crate::support::proxy::binary;
use crate::support::tls::{TlsClient, client_config};
use crate::support::{Proxy, Upstream, eventually};

const CONFIG: &str = "listeners:
  inbound:
    address: 127.0.0.1:0
    upstream: \"@app\"
    tls: { cert_file: @secret/tls.crt, key_file: @secret/tls.key }
";

/// Files as kubelet mounts a Secret: links through a link that is swapped.
struct Secret {
    directory: Directory,
    version: usize,
}

impl Secret {
    fn new(first: &Issued) -> Self {
        let mut secret = Secret { directory: Directory::new(), version: 0 };
        secret.put(&first.certificate, &first.key);
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), secret.directory.join(name)).unwrap();
        }
        secret
    }

    fn put(&mut self, certificate: &str, key: &str) {
        let old = format!("..{}", self.version);
        self.version += 1;
        let new = format!("..{}", self.version);
        std::fs::create_dir(self.directory.join(&new)).unwrap();
        self.directory.write(&format!("{new}/tls.crt"), certificate);
        self.directory.write(&format!("{new}/tls.key"), key);
        symlink(&new, self.directory.join("..data_tmp")).unwrap();
        std::fs::rename(self.directory.join("..data_tmp"), self.directory.join("..data")).unwrap();
        let _ = std::fs::remove_dir_all(self.directory.join(&old));
    }
}

/// The certificate that the listener shows now.
fn shown(proxy: &Proxy, authority: &Authority) -> Vec<u8> {
    let client = TlsClient::connect(proxy.address("inbound"), "app.test", &client_config(authority, None)).unwrap();
    client.session().peer_certificates().unwrap()[0].to_vec()
}

fn der(issued: &Issued) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap().to_vec()
}

#[test]
fn rotation_under_load_costs_no_handshake() {
    // Each takes a second or so; `OUTRIGGER_ROTATIONS=100` makes it the long form.
    let rotations = std::env::var("OUTRIGGER_ROTATIONS").map_or(8, |count| count.parse().unwrap());
    let authority = Authority::new("servers");
    let upstream = Upstream::ok();
    let mut secret = Secret::new(&authority.issue(&["app.test"]));
    let proxy = Proxy::start(CONFIG, &[("@app", &upstream.address()), ("@secret", &secret.directory.path().display())]);
    let (over, handshakes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let address = proxy.address("inbound");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let mut client =
                        TlsClient::connect(address, "app.test", &client_config(&authority, None)).expect("a handshake");
                    assert!(client.get("/").expect("an answer").starts_with("HTTP/1.1 200"));
                    handshakes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..rotations {
            let next = authority.issue(&["app.test"]);
            secret.put(&next.certificate, &next.key);
            eventually("the new certificate to be shown", || shown(&proxy, &authority) == der(&next));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(handshakes.load(Ordering::Relaxed) > rotations);
}

#[test]
fn a_pair_that_does_not_fit_is_refused_and_the_old_one_kept() {
    let authority = Authority::new("servers");
    let upstream = Upstream::ok();
    let (first, second) = (authority.issue(&["app.test"]), authority.issue(&["app.test"]));
    let mut secret = Secret::new(&first);
    let mut proxy =
        Proxy::start(CONFIG, &[("@app", &upstream.address()), ("@secret", &secret.directory.path().display())]);
    secret.put(&second.certificate, &first.key);
    let ready = || proxy.admin_get("/readyz");
    eventually("a warning", || ready().text().contains("does not belong to the certificate"));
    assert_eq!(ready().status, 200);
    assert_eq!(shown(&proxy, &authority), der(&first));
    secret.put(&second.certificate, &second.key);
    eventually("the new certificate to be shown", || shown(&proxy, &authority) == der(&second));
    assert!(!ready().text().contains("does not belong"));
    assert!(proxy.process().stderr().contains("what was read before stays"));
}

/// The first sign would be callers that refuse it, each in words of its own.
#[test]
fn a_certificate_that_has_expired_is_said() {
    let authority = Authority::new("servers");
    let upstream = Upstream::ok();
    let mut secret = Secret::new(&authority.issue_expired(&["app.test"]));
    let fill: [(&str, &dyn std::fmt::Display); 2] =
        [("@app", &upstream.address()), ("@secret", &secret.directory.path().display())];
    let proxy = Proxy::start(CONFIG, &fill);
    let said = |path: &str| proxy.admin_get(path).text().contains("tls.crt has expired, ");
    assert!(said("/readyz"), "{}", proxy.admin_get("/readyz").text());

    let text =
        fill.iter().fold(CONFIG.replace(":0", ":8443"), |text, (key, value)| text.replace(key, &value.to_string()));
    let file = secret.directory.write("outrigger.yaml", &text);
    let check = |strict: bool| {
        let mut command = Command::new(binary());
        command.arg("check").args(strict.then_some("--strict")).arg(&file).output().unwrap()
    };
    let output = check(false);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    for said in ["warning[expiring-certificate]: the certificate", "has expired, ", "listeners.inbound.tls.cert_file"] {
        assert!(errors.contains(said), "{errors}");
    }
    assert_eq!(check(true).status.code(), Some(1));

    let next = authority.issue(&["app.test"]);
    secret.put(&next.certificate, &next.key);
    eventually("the warning to go", || !said("/readyz"));
    assert_eq!((check(true).status.code(), check(true).stderr.len()), (Some(0), 0));
}
