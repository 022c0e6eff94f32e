//! Asks one of several agents.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::Full;

use super::connection::{Agent, Fault, Intake};
use super::error::Error;
use super::question::Question;
use super::token::Token;
use crate::config::model::{AgentAddress, CertificateFiles, Consul, TlsName, UpstreamTls};
use crate::config::parse_agent_address;

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const FILTERED: HeaderName = HeaderName::from_static("x-consul-results-filtered-by-acls");
const AGENT: &str = concat!("outrigger/", env!("CARGO_PKG_VERSION"));

/// Where an agent listens unless something else is said.
const DEFAULT: (&str, u16) = ("127.0.0.1", 8500);
/// An agent may ask for more, but whoever waits for endpoints cannot be patient for ever.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// How agents are reached, and what they are asked for where a question does not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    agents: Vec<AgentAddress>,
    token_file: Option<PathBuf>,
    token: Option<String>,
    datacenter: Option<String>,
    namespace: Option<String>,
    partition: Option<String>,
    tls: UpstreamTls,
}

impl Settings {
    /// What is written, and for the rest what the environment says in the variables that Consul's own tools know.
    ///
    /// # Errors
    /// A sentence, where the environment says something that cannot be used.
    pub(crate) fn new(consul: &Consul, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let agents = match variable("CONSUL_HTTP_ADDR") {
            _ if !consul.addresses.is_empty() => consul.addresses.clone(),
            address => {
                let address = match address {
                    Some(address) => parse_agent_address(&address).map_err(|why| format!("CONSUL_HTTP_ADDR: {why}"))?,
                    None => AgentAddress::Http { host: DEFAULT.0.to_owned(), port: DEFAULT.1 },
                };
                // Even where the address says http: the token is not for everybody on the way.
                vec![if is_true("CONSUL_HTTP_SSL", variable)? { secured(address) } else { address }]
            }
        };
        let token_file = consul.token_file.clone();
        let from_environment = |own: &Option<String>, name: &str| own.clone().or_else(|| variable(name));
        Ok(Settings {
            agents,
            token: variable("CONSUL_HTTP_TOKEN").filter(|_| token_file.is_none()),
            token_file: token_file.or_else(|| variable("CONSUL_HTTP_TOKEN_FILE").map(PathBuf::from)),
            datacenter: consul.datacenter.clone(),
            namespace: from_environment(&consul.namespace, "CONSUL_NAMESPACE"),
            partition: from_environment(&consul.partition, "CONSUL_PARTITION"),
            tls: match &consul.tls {
                Some(tls) => tls.clone(),
                None => tls_from(variable)?,
            },
        })
    }
}

/// A variable of Consul's own tools, as they read it.
fn is_true(name: &str, variable: impl Fn(&str) -> Option<String>) -> Result<bool, String> {
    match variable(name).as_deref() {
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
        None | Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
        Some(other) => Err(format!("{name}: `{other}` is neither `true` nor `false`")),
    }
}

fn secured(address: AgentAddress) -> AgentAddress {
    match address {
        AgentAddress::Http { host, port } => AgentAddress::Https { host, port },
        other => other,
    }
}

/// TLS as Consul's own tools are told of it.
fn tls_from(variable: impl Fn(&str) -> Option<String>) -> Result<UpstreamTls, String> {
    let file = |name: &str| variable(name).map(PathBuf::from);
    let server_name = variable("CONSUL_TLS_SERVER_NAME");
    let server_name = server_name.map(|name| {
        TlsName::parse(&name)
            .ok_or_else(|| format!("CONSUL_TLS_SERVER_NAME: `{name}` is neither a host nor an address"))
    });
    let certificate = match (file("CONSUL_CLIENT_CERT"), file("CONSUL_CLIENT_KEY")) {
        (Some(cert), Some(key)) => Some(CertificateFiles { cert, key }),
        (None, None) => None,
        _ => return Err("CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY need each other".to_owned()),
    };
    Ok(UpstreamTls {
        authorities: file("CONSUL_CACERT"),
        server_name: server_name.transpose()?,
        certificate,
        allow: Vec::new(),
    })
}

/// Asks agents.
pub(crate) struct Client {
    agents: Vec<Agent>,
    /// Position of the agent that answered last.
    preferred: Cell<usize>,
    token: Token,
    settings: Settings,
}

/// An answer: what was asked for, or that it is not there.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) index: Option<u64>,
    /// The token hides a part of it.
    pub(super) filtered: bool,
    pub(super) body: Bytes,
    /// Who gave it.
    pub(super) agent: String,
}

impl Answer {
    /// A failure where it is not there.
    pub(super) fn found(self) -> Result<Self, Error> {
        if self.status == StatusCode::NOT_FOUND {
            return Err(Error::refused(self.agent, self.status, &self.body, None));
        }
        Ok(self)
    }

    pub(super) fn unusable(&self, what: impl Into<String>) -> Error {
        Error::Unusable { agent: self.agent.clone(), what: what.into() }
    }
}

impl Client {
    pub(crate) fn new(settings: Settings) -> Rc<Self> {
        Rc::new(Client {
            agents: settings.agents.iter().map(|agent| Agent::new(agent.clone(), settings.tls.clone())).collect(),
            preferred: Cell::new(0),
            token: Token::new(settings.token_file.clone(), settings.token.as_deref()),
            settings,
        })
    }

    /// Where what is asked for lives, unless the question says it.
    pub(super) fn placed(&self, question: Question, place: Place<'_>) -> Question {
        let or = |own: Option<&str>, general: &Option<String>| own.or(general.as_deref()).map(str::to_owned);
        self.placed_within(question.maybe("dc", or(place.datacenter, &self.settings.datacenter).as_deref()), place)
    }

    /// The same for what one agent keeps, which is in one datacenter.
    pub(super) fn placed_within(&self, question: Question, place: Place<'_>) -> Question {
        let or = |own: Option<&str>, general: &Option<String>| own.or(general.as_deref()).map(str::to_owned);
        question
            .maybe("ns", or(place.namespace, &self.settings.namespace).as_deref())
            .maybe("partition", or(place.partition, &self.settings.partition).as_deref())
    }

    /// Asks the agent that answered last, then the others in written order, each without the index: it is the first
    /// one's.
    pub(super) async fn ask(&self, question: Question) -> Result<Answer, Error> {
        let mut whole = BytesMut::new();
        let answer = self.ask_into(question, &mut whole).await?;
        Ok(if answer.status.is_success() { Answer { body: whole.freeze(), ..answer } } else { answer })
    }

    /// The same; what is asked for goes to `intake`, and the answer has no body then.
    pub(super) async fn ask_into(&self, question: Question, intake: &mut dyn Intake) -> Result<Answer, Error> {
        let first = self.preferred.get();
        let mut outcome = self.ask_agent(&self.agents[first], &question, intake).await;
        for step in 1..self.agents.len() {
            match &outcome {
                Err(error) if error.is_the_agents_own() => {}
                _ => break,
            }
            let next = (first + step) % self.agents.len();
            let other = self.ask_agent(&self.agents[next], &question.clone().at_once(), intake).await;
            if other.is_ok() {
                self.preferred.set(next);
                outcome = other;
            }
        }
        outcome
    }

    async fn ask_agent(&self, agent: &Agent, question: &Question, intake: &mut dyn Intake) -> Result<Answer, Error> {
        let name = || agent.address.to_string();
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(question.target())
            .header(USER_AGENT, AGENT)
            .body(Full::new(question.body.clone()))
            .map_err(|error| Error::Unusable { agent: name(), what: error.to_string() })?;
        if let Some(token) = self.token.current().await {
            request.headers_mut().insert(TOKEN, token);
        }
        let within = question.answer_within();
        let exchanged = tokio::time::timeout(within, agent.exchange(&request, question.most_bytes, intake)).await;
        let response = match exchanged {
            Ok(Ok(response)) => response,
            Ok(Err(Fault::Broken(cause))) => return Err(Error::Unreachable { agent: name(), cause }),
            Ok(Err(Fault::TooLarge)) => {
                let what = format!("more than {} bytes", question.most_bytes);
                return Err(Error::Unusable { agent: name(), what });
            }
            Err(_) => return Err(Error::Silent { agent: name(), after: within }),
        };
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() && parts.status != StatusCode::NOT_FOUND {
            let retry_after = number(&parts.headers, &RETRY_AFTER).map(Duration::from_secs);
            let retry_after = retry_after.map(|wish| wish.min(LONGEST_RETRY_AFTER));
            return Err(Error::refused(name(), parts.status, &body, retry_after));
        }
        Ok(Answer {
            status: parts.status,
            index: number(&parts.headers, &INDEX),
            filtered: parts.headers.get(&FILTERED).is_some_and(|value| value == "true"),
            body,
            agent: name(),
        })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("agents", &self.settings.agents).finish_non_exhaustive()
    }
}

/// Where something lives in Consul; what is `None` is the client's own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place<'a> {
    pub(super) datacenter: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) partition: Option<&'a str>,
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::task::LocalSet;

    use super::*;

    const VALUE: &str = "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 2\r\n\r\nok";

    /// An agent that answers its requests with these, one after the other, and closes where it reads "close". What
    /// it was asked comes out of the channel.
    async fn agent(answers: Vec<&'static str>) -> (AgentAddress, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, questions) = mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            let mut answers = answers.into_iter();
            let mut next = answers.next();
            while next.is_some() {
                let (mut stream, _) = listener.accept().await.unwrap();
                while let Some(answer) = next {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => break,
                        }
                    }
                    if head.is_empty() {
                        break;
                    }
                    let _ = asked.send(String::from_utf8(head).unwrap());
                    next = answers.next();
                    if answer == "close" {
                        break;
                    }
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        (AgentAddress::Http { host: "127.0.0.1".to_owned(), port }, questions)
    }

    fn client(addresses: Vec<AgentAddress>) -> Rc<Client> {
        let consul = Consul { addresses, datacenter: Some("dc 2".to_owned()), ..Consul::default() };
        let token = |name: &str| (name == "CONSUL_HTTP_TOKEN").then(|| "secret".to_owned());
        Client::new(Settings::new(&consul, token).unwrap())
    }

    #[tokio::test]
    async fn a_key_is_asked_for_and_may_not_exist() {
        let missing = "HTTP/1.1 404 Not Found\r\nX-Consul-Index: 5\r\nContent-Length: 0\r\n\r\n";
        let stranger = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        LocalSet::new()
            .run_until(async {
                let (address, mut questions) = agent(vec![VALUE, missing, stranger]).await;
                let client = client(vec![address]);
                let first = client.key("a/b c", None).await.unwrap();
                assert_eq!((first.index, first.value.as_deref()), (Some(7), Some(&b"ok"[..])));
                let question = questions.recv().await.unwrap();
                assert!(question.starts_with("GET /v1/kv/a/b%20c?dc=dc%202&raw HTTP/1.1\r\n"), "{question}");
                assert!(question.contains("x-consul-token: secret\r\n"), "{question}");
                let second = client.key("a", NonZeroU64::new(7)).await.unwrap();
                assert_eq!((second.index, second.value), (Some(5), None));
                assert!(questions.recv().await.unwrap().contains("&index=7&wait=60s "));
                assert!(matches!(client.key("a", None).await, Err(Error::Unusable { .. })));
            })
            .await;
    }

    #[tokio::test]
    async fn a_kept_connection_that_has_died_costs_nothing() {
        LocalSet::new()
            .run_until(async {
                let (address, _questions) = agent(vec![VALUE, "close", VALUE]).await;
                let client = client(vec![address]);
                for _ in 0..2 {
                    assert_eq!(client.key("a", None).await.unwrap().index, Some(7));
                }
            })
            .await;
    }

    #[tokio::test]
    async fn the_next_agent_is_asked_without_the_first_ones_index_and_stays() {
        let ill = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 17\r\n\r\nNo cluster leader";
        let denied = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
        LocalSet::new()
            .run_until(async {
                let (first, mut at_first) = agent(vec![ill]).await;
                let (second, mut at_second) = agent(vec![VALUE, VALUE, denied]).await;
                let client = client(vec![first, second]);
                let index = NonZeroU64::new(9);
                assert_eq!(client.key("a", index).await.unwrap().index, Some(7));
                assert!(at_first.recv().await.unwrap().contains("index=9"));
                assert!(!at_second.recv().await.unwrap().contains("index="));
                client.key("a", index).await.unwrap();
                assert!(at_second.recv().await.unwrap().contains("index=9"));
                // What the token may not see, no other agent shows either.
                let refused = client.key("a", index).await.unwrap_err();
                assert!(matches!(refused, Error::Refused { status: StatusCode::FORBIDDEN, .. }), "{refused}");
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_agent_is_noticed() {
        LocalSet::new()
            .run_until(async {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let port = listener.local_addr().unwrap().port();
                let client = client(vec![AgentAddress::Http { host: "localhost".to_owned(), port }]);
                for (index, bounds) in [(None, 10..=10), (NonZeroU64::new(1), 64..=70)] {
                    let began = tokio::time::Instant::now();
                    assert!(matches!(client.key("a", index).await, Err(Error::Silent { .. })));
                    assert!(bounds.contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
                }
            })
            .await;
    }

    #[test]
    fn what_is_written_goes_before_the_environment() {
        let environment = |name: &str| match name {
            "CONSUL_HTTP_ADDR" => Some("127.0.0.1:9".to_owned()),
            "CONSUL_HTTP_TOKEN" => Some("t".to_owned()),
            "CONSUL_NAMESPACE" => Some("n".to_owned()),
            "CONSUL_PARTITION" => Some(String::new()),
            _ => None,
        };
        let from_environment = Settings::new(&Consul::default(), environment).unwrap();
        assert_eq!(from_environment.agents[0].to_string(), "http://127.0.0.1:9");
        assert_eq!((from_environment.namespace.as_deref(), &from_environment.partition), (Some("n"), &None));
        let written = Consul {
            addresses: vec![AgentAddress::Unix("/a".into())],
            token_file: Some("/t".into()),
            ..Consul::default()
        };
        let written = Settings::new(&written, environment).unwrap();
        assert_eq!((written.agents[0].to_string().as_str(), written.token), ("unix:///a", None));
        assert_eq!(Settings::new(&Consul::default(), |_| None).unwrap().agents[0].to_string(), "http://127.0.0.1:8500");
        for (address, expected) in [
            (None, "https://127.0.0.1:8500"),
            (Some("10.0.0.1:8501"), "https://10.0.0.1:8501"),
            (Some("http://10.0.0.1:8501"), "https://10.0.0.1:8501"),
            (Some("unix:///a"), "unix:///a"),
        ] {
            let secure = |name: &str| match name {
                "CONSUL_HTTP_SSL" => Some("true".to_owned()),
                "CONSUL_HTTP_ADDR" => address.map(str::to_owned),
                _ => None,
            };
            assert_eq!(Settings::new(&Consul::default(), secure).unwrap().agents[0].to_string(), expected);
        }
        let unclear = |name: &str| (name == "CONSUL_HTTP_SSL").then(|| "yes".to_owned());
        assert!(Settings::new(&Consul::default(), unclear).unwrap_err().starts_with("CONSUL_HTTP_SSL: `yes`"));
        let refused = Settings::new(&Consul::default(), |_| Some("ftp://a:8501".to_owned())).unwrap_err();
        assert!(refused.starts_with("CONSUL_HTTP_ADDR: "), "{refused}");
    }
}
