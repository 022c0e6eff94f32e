//! How commands find a running proxy's admin, and ask it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::exit;
use crate::config::model::BindAddress;
use crate::config::{self, Document};
use crate::dns;
use crate::runtime::token_file;

/// Where the proxy's admin is, where nobody says anything.
const DEFAULT: &str = "127.0.0.1:9901";
/// Names the address for containers, whose commands are written once.
const ADDRESS_VARIABLE: &str = "OUTRIGGER_ADMIN";
/// Holds the token, where it is in no file.
const TOKEN_VARIABLE: &str = "OUTRIGGER_ADMIN_TOKEN";
/// Most of an answer that is read.
const ANSWER_BYTES: usize = 16 << 20;

/// Which proxy is meant.
#[derive(Debug, Clone, Default, Args)]
pub struct AdminArgs {
    /// The proxy's admin address: HOST:PORT or unix:PATH [default: $OUTRIGGER_ADMIN, then 127.0.0.1:9901]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    pub admin: Option<String>,

    /// Take the address (and the token's file) from this configuration of the proxy
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl AdminArgs {
    /// Fails where something was said of a running proxy and `live` is false, so that none is asked.
    pub(super) fn only_if(&self, live: bool, token_file: Option<&Path>) -> Result<(), &'static str> {
        if live || (self.admin.is_none() && self.config.is_none() && token_file.is_none()) {
            return Ok(());
        }
        Err("`--admin`, `--config` and `--token-file` are about a running proxy, and files ask none: add `--live`")
    }
}

/// A proxy's admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admin {
    address: Address,
    /// `admin.token_file`, where the address asks for it.
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    /// Host and port.
    Tcp(String),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => f.write_str(address),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// What to ask.
#[derive(Debug)]
pub(super) struct Question<'q> {
    pub(super) method: Method,
    pub(super) target: &'q str,
    pub(super) token: Option<&'q str>,
    /// For the whole answer; `None`: as long as the proxy takes.
    pub(super) within: Option<Duration>,
}

impl Admin {
    /// Finds the proxy. `private` is true where the question is about more than readiness.
    pub(super) fn find(args: &AdminArgs, private: bool) -> Result<Self, String> {
        if let Some(file) = &args.config {
            return Self::of_config(file, private);
        }
        let variable = std::env::var(ADDRESS_VARIABLE).ok().filter(|address| !address.is_empty());
        let address = args.admin.as_deref().or(variable.as_deref()).unwrap_or(DEFAULT);
        Ok(Admin { address: Address::parse(address)?, token_file: None })
    }

    /// An address that is known.
    pub(super) fn at(address: &str) -> Self {
        Admin { address: Address::Tcp(address.to_owned()), token_file: None }
    }

    fn of_config(file: &Path, private: bool) -> Result<Self, String> {
        let name = file.display().to_string();
        let bytes =
            super::check::read(file, &mut std::io::stdin()).map_err(|error| format!("cannot read {name}: {error}"))?;
        let environment = |variable: &str| std::env::var(variable).ok();
        // A running proxy has kept its configuration where a file has mistakes by now.
        let (admin, metrics) = config::doors(Document { name: &name, bytes: &bytes }, &environment)
            .ok_or_else(|| format!("{name} has mistakes; `outrigger check {name}` says which"))?;
        let tcp = |address: SocketAddr| Address::Tcp(reachable(address).to_string());
        let metrics = metrics.filter(|_| !private).map(|address| match address {
            BindAddress::AllInterfaces(port) => tcp((Ipv6Addr::UNSPECIFIED, port).into()),
            BindAddress::Tcp(address) => tcp(address),
            BindAddress::Unix(path) => Address::Unix(path),
        });
        // The socket asks for no token; but only the proxy's own user may use it, and probes may be others.
        let (address, socket) = (admin.address.map(tcp), admin.socket.map(Address::Unix));
        let address = if private { socket.or(address) } else { address.or(metrics).or(socket) };
        let address = address.ok_or_else(|| {
            format!("{name} has no `admin` address to ask; write `admin: {{ address: 127.0.0.1:9901 }}` into it")
        })?;
        let token_file = admin.token_file.filter(|_| matches!(address, Address::Tcp(_)));
        Ok(Admin { address, token_file })
    }

    /// Listens to a stream of server-sent events, each of which is one line of JSON, until there are no more or
    /// `event` has had enough. Comments are said on standard error.
    pub(super) async fn listen(
        &self,
        question: &Question<'_>,
        event: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), String> {
        match &self.address {
            Address::Tcp(address) => {
                let stream = self.connect(address).await?;
                self.stream(stream, address, question, event).await
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| self.nobody(&error))?;
                self.stream(stream, "localhost", question, event).await
            }
        }
    }

    /// `address` is HOST:PORT.
    async fn connect(&self, address: &str) -> Result<TcpStream, String> {
        let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = parts.ok_or_else(|| format!("`{address}` is not HOST:PORT"))?;
        dns::connect(host, port).await.map_err(|error| self.nobody(&error))
    }

    async fn stream(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        host: &str,
        question: &Question<'_>,
        event: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let request = self.request(host, question)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(&error))?;
        let listening = async {
            let mut response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
            if !response.status().is_success() {
                let status = response.status();
                let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
                let body = body.map_err(|error| self.broken(&error))?.to_bytes();
                let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                let why = answer["error"].as_str().unwrap_or("it says nothing more").to_owned();
                return Err(format!("the proxy refused ({status}): {why}"));
            }
            let mut text = Vec::new();
            while let Some(frame) = response.frame().await {
                let frame = frame.map_err(|error| self.broken(&error))?;
                text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = memchr::memchr(b'\n', &text) {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let text = |prefix: &[u8]| std::str::from_utf8(line.strip_prefix(prefix)?).ok().map(str::trim_end);
                    // A comment is for people; nothing in it may steer their terminal.
                    if let Some(said) = text(b": ").filter(|said| !said.contains(char::is_control)) {
                        exit::warning(said);
                    }
                    let json = text(b"data: ");
                    if json.is_some_and(|json| event(json).is_break()) {
                        return Ok(());
                    }
                }
                if text.len() > ANSWER_BYTES {
                    return Err(self.broken(&"an event that does not end"));
                }
            }
            Ok(())
        };
        let (mut connection, mut listening) = (std::pin::pin!(connection), std::pin::pin!(listening));
        tokio::select! {
            outcome = listening.as_mut() => outcome,
            // The connection's end is the stream's, which says it better.
            _ = connection.as_mut() => listening.await,
        }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<(StatusCode, Bytes), String> {
        match question.within {
            None => self.converse(question).await,
            Some(bound) => tokio::time::timeout(bound, self.converse(question))
                .await
                .unwrap_or_else(|_| Err(format!("{} gave no answer within {bound:?}", self.address))),
        }
    }

    async fn converse(&self, question: &Question<'_>) -> Result<(StatusCode, Bytes), String> {
        match &self.address {
            Address::Tcp(address) => {
                let stream = self.connect(address).await?;
                self.exchange(stream, address, question).await
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| self.nobody(&error))?;
                self.exchange(stream, "localhost", question).await
            }
        }
    }

    fn nobody(&self, error: &std::io::Error) -> String {
        format!(
            "nobody answers at {} ({error}); is the proxy running, and is this its admin address? \
             `--admin ADDRESS` or `--config FILE` names another",
            self.address
        )
    }

    fn broken(&self, error: &dyn fmt::Display) -> String {
        format!("{} does not answer as an admin does: {error}", self.address)
    }

    fn request(&self, host: &str, question: &Question<'_>) -> Result<Request<Empty<Bytes>>, String> {
        let mut request = Request::builder().method(question.method.clone()).uri(question.target).header(HOST, host);
        if let Some(token) = question.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Empty::new()).map_err(|error| self.broken(&error))
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        host: &str,
        question: &Question<'_>,
    ) -> Result<(StatusCode, Bytes), String> {
        let broken = |error: &dyn fmt::Display| self.broken(error);
        let request = self.request(host, question)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| broken(&error))?;
            Ok((status, body.to_bytes()))
        };
        let (mut connection, mut exchange) = (std::pin::pin!(connection), std::pin::pin!(exchange));
        tokio::select! {
            answer = exchange.as_mut() => answer,
            // The connection's end is the exchange's, which says it better.
            _ = connection.as_mut() => exchange.await,
        }
    }
}

/// The token to show: that of `file`, of the configuration that names the admin, or of the environment.
pub(super) fn token(file: Option<&Path>, admin: &Admin) -> Result<Option<String>, String> {
    let Some(file) = file.or(admin.token_file.as_deref()) else {
        return Ok(std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty()));
    };
    let bytes = token_file::read_once(file)
        .map_err(|error| format!("cannot read the admin token {}: {error}", file.display()))?;
    Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an admin address; write HOST:PORT, or unix:PATH");
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if let Ok(address) = address.parse::<SocketAddr>() {
            return Ok(Address::Tcp(reachable(address).to_string()));
        }
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        if http::uri::Authority::try_from(host).is_err() {
            return Err(wrong());
        }
        Ok(Address::Tcp(format!("{host}:{port}")))
    }
}

/// Where somebody on this machine finds what listens there.
fn reachable(address: SocketAddr) -> SocketAddr {
    // A socket on [::] takes IPv4 too, and machines without IPv6 have only that.
    if address.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, address.port()).into() } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let tcp = |address: &str| Ok(Address::Tcp(address.to_owned()));
        assert_eq!(Address::parse("127.0.0.1:9901"), tcp("127.0.0.1:9901"));
        assert_eq!(Address::parse("localhost:9901"), tcp("localhost:9901"));
        assert_eq!(Address::parse("http://localhost:9901/"), tcp("localhost:9901"));
        assert_eq!(Address::parse("[::1]:9901"), tcp("[::1]:9901"));
        assert_eq!(Address::parse(":9901"), tcp("127.0.0.1:9901"));
        assert_eq!(Address::parse("0.0.0.0:9901"), tcp("127.0.0.1:9901"));
        assert_eq!(Address::parse("unix:/run/a.sock"), Ok(Address::Unix("/run/a.sock".into())));
        assert_eq!(Address::parse("/run/a.sock"), Ok(Address::Unix("/run/a.sock".into())));
        for wrong in ["", "localhost", "localhost:", "localhost:99999", "a b:80", "https://localhost:1"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
