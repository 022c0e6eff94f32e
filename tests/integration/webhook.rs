//! `outrigger webhook`: AdmissionReview v1 over TLS, as the API server of a cluster sends it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::files::Directory;
use crate::support::pki::{Authority, Issued};
use crate::support::process::Process;
use crate::support::proxy::binary;
use crate::support::tls::{TlsClient, client_config};
use crate::support::wait::within;

const NAME: &str = "outrigger-webhook.outrigger.svc";

struct Webhook {
    process: Process,
    address: SocketAddr,
    directory: Directory,
}

impl Webhook {
    fn start(issued: &Issued, arguments: &[&str]) -> Self {
        let directory = Directory::new();
        write(&directory, issued);
        let mut command = Command::new(binary());
        command.arg("webhook").args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--admin", "none"]);
        command.arg("--cert-file").arg(directory.join("tls.crt")).arg("--key-file").arg(directory.join("tls.key"));
        let mut process = Process::start("webhook", command.args(arguments), &directory);
        let address = within(Duration::from_secs(20), || {
            let lines = process.stderr();
            let listening = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let address = listening.filter_map(|line| line["address"].as_str().map(str::to_owned)).next();
            address.map(Some).or_else(|| process.ended().map(|_| None))
        });
        let address = address.flatten().unwrap_or_else(|| panic!("it does not listen: {}", process.stderr()));
        Webhook { address: address.parse().unwrap(), process, directory }
    }

    /// The status and the body of an answer.
    fn post(&self, authority: &Authority, body: &str) -> (u16, String) {
        let mut client = TlsClient::connect(self.address, NAME, &client_config(authority, None)).unwrap();
        let request = format!(
            "POST /inject?timeout=10s HTTP/1.1\r\nHost: {NAME}:443\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        client.send(request).unwrap();
        let answer = String::from_utf8(client.read_to_end().unwrap()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

fn write(directory: &Directory, issued: &Issued) {
    directory.write("tls.key", &issued.key);
    directory.write("tls.crt", &issued.certificate);
}

fn review(object: &Value) -> String {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller" },
            "object": object,
            "oldObject": null,
            "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
        },
    })
    .to_string()
}

#[test]
fn reviews_are_answered_over_tls() {
    let authority = Authority::new("cluster");
    let mut webhook = Webhook::start(&authority.issue(&[NAME]), &["--image", "outrigger:test", "--on-error", "deny"]);
    let pod = json!({ "kind": "Pod", "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "app" }] } });
    let (status, body) = webhook.post(&authority, &review(&pod));
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &answer["kind"]), (200, &json!("AdmissionReview")));
    let response = &answer["response"];
    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")), "{response}");
    assert_eq!(response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");

    // A pod that has no room is refused, as told.
    let full = json!({ "metadata": { "name": "b" }, "spec": { "containers": [{ "name": "outrigger" }] } });
    let answer: Value = serde_json::from_str(&webhook.post(&authority, &review(&full)).1).unwrap();
    assert_eq!((&answer["response"]["allowed"], &answer["response"]["status"]["code"]), (&json!(false), &json!(422)));

    // What is no review is told so, and costs nothing else.
    for body in ["", "{", "{}", "[1]", "{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1beta1\"}"] {
        let (status, said) = webhook.post(&authority, body);
        assert!(status == 400 && said.starts_with("the body is no "), "{body}: {status} {said}");
    }
    assert_eq!(webhook.post(&authority, &review(&pod)).0, 200);
    webhook.process.signal(Signal::INT);
    assert_eq!(webhook.process.exit_code(), Some(0));
}

#[test]
fn certificates_may_change() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let webhook = Webhook::start(&old.issue(&[NAME]), &[]);
    let pod = review(&json!({ "spec": { "containers": [{ "name": "app" }] } }));
    assert_eq!(webhook.post(&old, &pod).0, 200);
    write(&webhook.directory, &new.issue(&[NAME]));
    eventually("the new certificate", || TlsClient::connect(webhook.address, NAME, &client_config(&new, None)).is_ok());
    assert_eq!(webhook.post(&new, &pod).0, 200);
}
